"""Builds Whisper models: with weights from a verified folder, or as a shape without memory from a configuration alone.

Covers loading that is strict (no weight missing, left over or of another shape) and safe (safetensors only, no code of
the folder), and parameter counts of any model. Does not cover language models (`causal`), finding the folder
(`resolve`) or cutting the model (`students.shrink`).
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import torch
from transformers import WhisperConfig, WhisperForConditionalGeneration, WhisperProcessor
from transformers.utils import logging as transformers_logging

from tutelage.errors import InputError
from tutelage.models.layout import POSITIONS_PER_SECOND, START
from tutelage.models.verify import verify_model_folder

Dtype = Literal["float32", "float16", "bfloat16"]
DTYPES: dict[str, torch.dtype] = {"float32": torch.float32, "float16": torch.float16, "bfloat16": torch.bfloat16}
_NAMED = 3
"""How many names of weights an error shows."""


@dataclass(frozen=True)
class SpeechModel:
    """A speech model with what feeds and reads it.

    Args:
        model: A WhisperForConditionalGeneration, in eval mode when it was loaded.
        processor: Its WhisperProcessor: feature extractor and tokenizer.
    """

    model: Any
    processor: Any

    @property
    def window_seconds(self) -> float:
        """Seconds of audio that the encoder takes at once."""
        return float(self.model.config.max_source_positions) / POSITIONS_PER_SECOND


def load_speech_model(path: Path, device: str | torch.device = "cpu", dtype: Dtype = "float32") -> SpeechModel:
    """Load a Whisper folder, in eval mode.

    Args:
        path: A folder in Hugging Face's layout; the network is not asked.
        device: Where the weights go.
        dtype: Type of the weights, whatever the file's.

    Raises:
        InputError: The folder fails `verify_model_folder`, its weights do not fit its configuration, or it has no
            tokenizer or feature extractor.
    """
    verify_model_folder(path)
    with quiet_transformers():
        model = load_strictly(WhisperForConditionalGeneration, path)
        processor = load_processor(path)
    _check_tokenizer(path, processor.tokenizer, int(model.config.decoder_start_token_id))
    return SpeechModel(model.to(device=device, dtype=DTYPES[dtype]).eval(), processor)


def load_meta(path: Path) -> Any:
    """The model of a folder's configuration on the meta device: every shape and no memory, for counting.

    Raises:
        InputError: The folder or its config.json fails `verify_model_folder`; weights are not needed.
    """
    folder = verify_model_folder(path, require_weights=False)
    return build_meta(WhisperConfig.from_dict(dict(folder.config)))


def build_meta(config: Any) -> Any:
    """A WhisperForConditionalGeneration of `config` on the meta device, its head tied to the embedding."""
    with torch.device("meta"):
        model = WhisperForConditionalGeneration(config)
    model.tie_weights()
    return model.eval()


def count_params(model: torch.nn.Module) -> int:
    """Parameters of a model, each tensor once however many modules share it (Whisper's head is its embedding)."""
    return sum(parameter.numel() for parameter in model.parameters())


def count_non_embedding_params(model: torch.nn.Module) -> int:
    """Parameters without token and position embeddings and without the head: the N of published scaling laws.

    The head is left out whether it is tied to the embedding or not, so that both layouts count alike.
    """
    found = getattr(model, "get_output_embeddings", lambda: None)()
    outside = [module for module in model.modules() if isinstance(module, torch.nn.Embedding)]
    outside += [] if found is None else [found]
    embeddings = {id(parameter) for module in outside for parameter in module.parameters()}
    return sum(parameter.numel() for parameter in model.parameters() if id(parameter) not in embeddings)


@contextmanager
def quiet_transformers() -> Iterator[None]:
    """Keep transformers' own progress bars off, then as they were: progress is for the caller to show."""
    shown = transformers_logging.is_progress_bar_enabled()
    transformers_logging.disable_progress_bar()
    try:
        yield
    finally:
        if shown:
            transformers_logging.enable_progress_bar()


def load_strictly(kind: Any, path: Path) -> Any:
    """The model of a folder by `kind.from_pretrained`, safetensors and no code of the folder.

    Raises:
        InputError: A weight is missing, left over or of another shape, or the folder cannot be read.
    """
    try:
        model, told = kind.from_pretrained(
            path, local_files_only=True, use_safetensors=True, trust_remote_code=False, output_loading_info=True
        )
    except (RuntimeError, ValueError, OSError) as error:
        raise InputError(f"The model in {path} cannot be loaded: {first_line(error)}") from error
    faults = {
        "lacks": sorted(map(str, told["missing_keys"])),
        "has no place for": sorted(map(str, told["unexpected_keys"])),
        "has in another shape": sorted(str(item[0]) for item in told["mismatched_keys"]),
    }
    if any(faults.values()):
        raise InputError(
            f"The weights in {path} do not fit its config.json: it "
            + "; it ".join(f"{what} {_some(names)}" for what, names in faults.items() if names)
            + "."
        )
    return model


def load_processor(path: Path) -> Any:
    """The tokenizer and the feature extractor of a folder.

    Raises:
        InputError: There is none that can be used.
    """
    try:
        return WhisperProcessor.from_pretrained(path, local_files_only=True, trust_remote_code=False)
    except (OSError, ValueError, TypeError, KeyError) as error:
        raise InputError(
            f"The model folder {path} has no usable tokenizer or feature extractor: {first_line(error)}"
        ) from error


def _check_tokenizer(path: Path, tokenizer: Any, start: int) -> None:
    """Transformers 5 makes an empty tokenizer, without a word, of a folder that has none."""
    probe = "a"
    if tokenizer.decode(tokenizer(probe, add_special_tokens=False).input_ids) != probe:
        raise InputError(f"The model folder {path} has no usable tokenizer: it cannot write {probe!r}.")
    found = tokenizer.convert_tokens_to_ids(START)
    if found != start:
        raise InputError(
            f"The tokenizer in {path} is not the model's: its {START} is token {found}, the model begins with {start}."
        )


def _some(names: list[str]) -> str:
    shown = ", ".join(names[:_NAMED])
    return shown if len(names) <= _NAMED else f"{shown} and {len(names) - _NAMED} more"


def first_line(error: Exception) -> str:
    """The first line of an error's text, cut to what fits a line."""
    return (str(error).strip().splitlines() or [type(error).__name__])[0][:200]
