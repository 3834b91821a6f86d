"""Causal language models with their tokenizers: from a verified folder, from a configuration and a seed, or as shapes.

Covers loading (strict, safetensors only, no code of the folder), tokenizers by themselves, and random initialisation
that leaves the global random state alone. Does not cover finding the folder (`resolve`) or cutting (`students.depth`).
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer

from tutelage.errors import InputError
from tutelage.models.load import DTYPES, Dtype, first_line, load_strictly, quiet_transformers
from tutelage.models.verify import read_config, verify_model_folder

PROBE = "a b"


@dataclass(frozen=True)
class TextModel:
    """A causal language model with its tokenizer.

    Args:
        model: One of the architectures of task "text", in eval mode when it was loaded.
        tokenizer: A fast tokenizer; None for a shape that is only counted.
    """

    model: Any
    tokenizer: Any

    @property
    def blocks(self) -> int:
        """How many blocks it has."""
        return int(self.model.config.num_hidden_layers)

    @property
    def width(self) -> int:
        """Its hidden width."""
        return int(self.model.config.hidden_size)

    @property
    def positions(self) -> int:
        """The longest sequence that its positions were made for."""
        return int(self.model.config.max_position_embeddings)


def load_text_model(
    path: Path, device: str | torch.device = "cpu", dtype: Dtype = "float32", tokenizer: Any | None = None
) -> TextModel:
    """Load a folder, in eval mode.

    Args:
        path: A folder in Hugging Face's layout; the network is not asked.
        device: Where the weights go.
        dtype: Type of the weights, whatever the file's.
        tokenizer: Used instead of the folder's own.

    Raises:
        InputError: The folder fails `verify_model_folder`, its weights do not fit its configuration, or it has no
            usable tokenizer.
    """
    verify_model_folder(path, task="text")
    with quiet_transformers():
        model = load_strictly(AutoModelForCausalLM, path)
    return TextModel(model.to(device=device, dtype=DTYPES[dtype]).eval(), tokenizer or load_tokenizer(path))


def load_tokenizer(path: Path) -> Any:
    """The fast tokenizer of a folder.

    Raises:
        InputError: There is none, it is a slow one, or it cannot write what it read.
    """
    try:
        tokenizer = AutoTokenizer.from_pretrained(path, local_files_only=True, trust_remote_code=False)
    except (OSError, ValueError, TypeError, KeyError) as error:
        raise InputError(f"The folder {path} has no usable tokenizer: {first_line(error)}") from error
    if not tokenizer.is_fast:
        raise InputError(f"The tokenizer in {path} is a slow one; save it with a tokenizer.json.")
    written = tokenizer.decode(tokenizer(PROBE, add_special_tokens=False)["input_ids"])
    if PROBE not in written:  # transformers 5 makes an empty tokenizer, without a word, of a folder that has none
        raise InputError(f"The folder {path} has no usable tokenizer: it writes {written!r} for {PROBE!r}.")
    return tokenizer


def load_meta_causal(path: Path) -> TextModel:
    """The model of a folder's configuration on the meta device: every shape and no memory, for counting.

    Raises:
        InputError: The folder or its config.json fails `verify_model_folder`; weights are not needed.
    """
    verify_model_folder(path, task="text", require_weights=False)
    with torch.device("meta"):
        return TextModel(build_causal(_config(path)), None)


def initialise_text_model(path: Path, tokenizer: Any, seed: int, device: str | torch.device = "cpu") -> TextModel:
    """A model of a folder's configuration with random weights, a function of the seed.

    Raises:
        InputError: The folder or its config.json fails `read_config`, or its vocabulary is too small for the tokenizer.
    """
    config = _config(path)
    if config.vocab_size < len(tokenizer):
        raise InputError(
            f"The configuration in {path} has a vocabulary of {config.vocab_size}; the tokenizer has {len(tokenizer)}."
        )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = build_causal(config)
    return TextModel(model.to(device=device, dtype=torch.float32), tokenizer)


def build_causal(config: Any) -> Any:
    """A causal model of a configuration, in eval mode, its head tied where the configuration says so."""
    model = AutoModelForCausalLM.from_config(config, trust_remote_code=False)
    model.tie_weights()
    return model.eval()


def _config(path: Path) -> Any:
    read_config(path, "text")
    return AutoConfig.from_pretrained(path, local_files_only=True, trust_remote_code=False)
