"""Writes a finished student: merged, as an ordinary Hugging Face folder, and its adapter by itself.

Covers Whisper and language model students with or without adapters, for every supported transformers and for converters
that read the same files. Does not cover projectors, which never leave training, or a model card (`runs` writes it).
Folders appear complete or not at all, and none is overwritten.
"""

from __future__ import annotations

import copy
import json
import os
import re
import shutil
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from safetensors import SafetensorError
from safetensors.torch import load_file, save_file

from tutelage.errors import InputError, TutelageError
from tutelage.models.architectures import Task
from tutelage.models.causal_layout import write_for_older_readers, write_tokenizer_settings
from tutelage.models.layout import write_processor_files, write_tokenizer_files
from tutelage.models.load import count_params, quiet_transformers
from tutelage.models.verify import read_header, verify_model_folder
from tutelage.records.files import explain_write_failure, write_json
from tutelage.students.feedback import NAME as FEEDBACK
from tutelage.students.feedback import fold_feedback
from tutelage.students.lora import ADAPTER
from tutelage.students.pissa import as_ordinary_lora, started_from_principal

_DERIVED_FEATURES = ("mel_filters", "processor_class", "_processor_class")
_TRAINING_ONLY = ("lora_", "projector", FEEDBACK, "base_layer", "base_model")
_README = """---
library_name: peft
---
A PEFT LoRA adapter. It fits the model that `base.json` describes: that checkpoint, cut to those layers (counted from 0)
and, for speech, to that audio window. The merged student beside it needs neither.
"""


@dataclass(frozen=True)
class ExportedStudent:
    """A folder that was written.

    Args:
        path: The folder.
        params: Parameters of the model in it.
        bytes: Size of all its files.
    """

    path: Path
    params: int
    bytes: int


@dataclass(frozen=True)
class AdapterBase:
    """What an adapter is an adapter of.

    Args:
        reference: The checkpoint that the student was cut out of, as the user named it.
        revision: Its commit, if it has one.
        decoder_layers: Indices from 0 of the layers that were kept.
        window_seconds: The student's audio window.
        adapter: Folder of an adapter that was merged into the checkpoint before; None for the checkpoint as it is.
    """

    reference: str
    revision: str | None
    decoder_layers: tuple[int, ...]
    window_seconds: float
    adapter: str | None = None


def merged_model(model: Any) -> Any:
    """A plain copy of a student with its adapters and feedback added into its weights; `model` is not changed.

    Raises:
        TutelageError: The merged weights are not finite.
    """
    plain = copy.deepcopy(model)
    if not hasattr(plain, "merge_and_unload"):
        return plain.eval()
    try:
        merged = plain.merge_and_unload(safe_merge=True).eval()
    except ValueError as error:
        raise TutelageError(f"The adapters cannot be merged: {error}") from error
    fold_feedback(merged)
    return merged


def export_student(
    model: Any, processor: Any, out: Path, language: str | None = None, task: str = "transcribe"
) -> ExportedStudent:
    """Write the merged student as a folder that `from_pretrained` opens strictly, without this package.

    Args:
        model: The student, plain or with adapters; it is not changed.
        processor: Its processor, with its own window.
        out: The folder, which must not exist.
        language: Code of the language that it transcribes by default, for example "es"; None leaves it to be detected.
        task: "transcribe" or "translate", its default.

    Raises:
        InputError: `out` exists or cannot be written, the disk is full, or the model does not know the language.
        TutelageError: The merged weights are not finite.
    """
    plain = merged_model(model)
    plain.config._name_or_path = ""  # transformers 4 would write the path of the folder that was loaded
    plain.generation_config = _generation(plain.generation_config, language, task)
    with new_folder(out) as folder, quiet_transformers():
        plain.save_pretrained(folder, safe_serialization=True)
        write_processor_files(folder, _features(processor.feature_extractor))
        _write_tokenizer(folder, processor.tokenizer, language, task)
        _refuse_training_weights(folder)
    size = sum(file.stat().st_size for file in out.iterdir())
    return ExportedStudent(out, count_params(plain), size)


@dataclass(frozen=True)
class TextAdapterBase:
    """What an adapter of a language model is an adapter of.

    Args:
        reference: The checkpoint that the student was cut out of, as the user named it.
        revision: Its commit, if it has one.
        layers: Indices from 0 of the blocks that were kept.
        adapter: Folder of an adapter that was merged into the checkpoint before; None for the checkpoint as it is.
    """

    reference: str
    revision: str | None
    layers: tuple[int, ...]
    adapter: str | None = None


def export_text_student(model: Any, tokenizer: Any, out: Path, template: str | None = None) -> ExportedStudent:
    """Write a language model, merged, with its tokenizer, as a folder that `from_pretrained` opens strictly.

    Args:
        model: The student, plain or with adapters; it is not changed.
        tokenizer: The tokenizer of its training data.
        out: The folder, which must not exist.
        template: The chat template that it was trained with, where it is not the tokenizer's own.

    Raises:
        InputError: `out` exists or cannot be written, or the disk is full.
        TutelageError: The merged weights are not finite.
    """
    plain = merged_model(model)
    plain.config._name_or_path = ""
    with new_folder(out) as folder, quiet_transformers():
        plain.save_pretrained(folder, safe_serialization=True)
        write_for_older_readers(folder)
        tokenizer.save_pretrained(folder)
        write_tokenizer_settings(folder, template or tokenizer.chat_template)
        _refuse_training_weights(folder, "text")
    size = sum(file.stat().st_size for file in out.iterdir())
    return ExportedStudent(out, count_params(plain), size)


def save_adapter(model: Any, out: Path, base: AdapterBase | TextAdapterBase) -> Path:
    """Write the adapters alone as a PEFT folder (safetensors), with `base.json` saying what they fit.

    Adapters that began as parts of the weights (PiSSA) are written as ordinary ones of the weights as they were, at
    twice the rank.

    Raises:
        InputError: The model has no adapters, `out` exists or cannot be written, or the disk is full.
    """
    if not hasattr(model, "peft_config"):
        raise InputError("This student has no adapters to save.")
    with new_folder(out) as folder:
        # "auto" would ask the hub whether the vocabulary has grown.
        model.save_pretrained(folder, safe_serialization=True, save_embedding_layers=False)
        settings = json.loads((folder / "adapter_config.json").read_bytes())
        if started_from_principal(model):
            weights = folder / "adapter_model.safetensors"
            tensors, changed = as_ordinary_lora(model, load_file(weights), ADAPTER)
            save_file(tensors, weights, metadata={"format": "pt"})
            settings |= changed
        settings["base_model_name_or_path"] = base.reference
        settings["revision"] = base.revision
        write_json(folder / "adapter_config.json", settings)
        describe_adapter(folder, asdict(base))
    return out


def describe_adapter(folder: Path, base: Mapping[str, Any]) -> None:
    """Add what people need to a PEFT folder: `base.json`, which says what it fits, and a few words."""
    write_json(folder / "base.json", dict(base))
    (folder / "README.md").write_text(_README, encoding="utf-8")
    _open_to_readers(folder)


def adapter_config(model: Any) -> Any:
    """PEFT's settings of a student's adapters."""
    return model.peft_config[ADAPTER]


@contextmanager
def new_folder(out: Path) -> Iterator[Path]:
    """A folder beside `out` that is renamed to it when all went well and removed otherwise."""
    if out.exists():
        raise InputError(f"{out} exists already.")
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=out.parent, prefix=f".{out.name}-") as temporary:
            folder = Path(temporary) / out.name
            folder.mkdir()
            yield folder
            folder.rename(out)
    except OSError as error:
        raise explain_write_failure(error, out) from error
    except SafetensorError as error:  # its writer wraps the system's error in text
        number = re.search(r"os error (\d+)", str(error))
        if number is None:
            raise
        raise explain_write_failure(OSError(int(number[1]), os.strerror(int(number[1]))), out) from error


def _generation(settings: Any, language: str | None, task: str) -> Any:
    settings = copy.deepcopy(settings)
    if not getattr(settings, "is_multilingual", False):
        if language not in (None, "en") or task != "transcribe":
            raise InputError(f"The student knows English transcription only, not {task} of {language}.")
        return settings
    languages = settings.lang_to_id
    if language is not None and f"<|{language}|>" not in languages:
        known = ", ".join(sorted(token.strip("<|>") for token in languages))
        raise InputError(f"The student knows no language {language!r}. It knows: {known}.")
    if task not in settings.task_to_id:
        raise InputError(f"The student knows no task {task!r}. It knows: {', '.join(settings.task_to_id)}.")
    settings.language, settings.task = language, task
    settings.forced_decoder_ids = None
    return settings


def _features(extractor: Any) -> dict[str, Any]:
    return {name: value for name, value in extractor.to_dict().items() if name not in _DERIVED_FEATURES}


def _write_tokenizer(folder: Path, tokenizer: Any, language: str | None, task: str) -> None:
    tokenizer = copy.deepcopy(tokenizer)
    tokenizer.set_prefix_tokens(language=language, task=task, predict_timestamps=False)
    defaults = {"language": language, "task": task} if language else {}
    write_tokenizer_files(folder, _fast_document(tokenizer, folder), defaults)
    spelling = getattr(tokenizer, "english_spelling_normalizer", None)
    if spelling:
        write_json(folder / "normalizer.json", spelling)


def _fast_document(tokenizer: Any, folder: Path) -> dict[str, Any]:
    """The content of tokenizer.json, also for the slow tokenizer that transformers 4 hands to a processor."""
    if not hasattr(tokenizer, "backend_tokenizer"):
        from transformers import WhisperTokenizerFast

        with tempfile.TemporaryDirectory(dir=folder.parent) as scratch:
            tokenizer.save_pretrained(scratch)
            tokenizer = WhisperTokenizerFast.from_pretrained(scratch)
    document: dict[str, Any] = json.loads(tokenizer.backend_tokenizer.to_str())
    return document


def _refuse_training_weights(folder: Path, task: Task = "speech") -> None:
    """The folder must pass as a model of its own, and hold nothing that only training needs."""
    _open_to_readers(folder)
    for file in verify_model_folder(folder, task=task).weights:
        foreign = [name for name in read_header(file) if any(part in name for part in _TRAINING_ONLY)]
        if foreign:
            raise TutelageError(f"The export would hold weights of training alone: {', '.join(sorted(foreign)[:3])}.")


def _open_to_readers(folder: Path) -> None:
    """Give every file the mode of one that we wrote: safetensors makes files readable by their owner alone."""
    reference = folder / "config.json" if (folder / "config.json").exists() else folder / "adapter_config.json"
    for file in folder.glob("*.safetensors"):
        shutil.copymode(reference, file)
