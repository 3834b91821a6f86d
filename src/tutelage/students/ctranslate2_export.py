"""Converts a finished student into CTranslate2's format, complete for those who open it.

Covers Whisper and language model students, through CTranslate2's own converter, and the files that faster-whisper looks
for. Does not cover comparing the result with the student (`runs.speech.converted`, `runs.text.converted`) or reading
such files (`models.ctranslate2`). torch is imported by the conversion alone.
"""

from __future__ import annotations

import importlib.util
import json
from collections.abc import Mapping
from importlib.metadata import version
from pathlib import Path
from typing import Any

from tutelage.errors import InputError, MissingExtraError, TutelageError
from tutelage.models.layout import HOP_LENGTH, SAMPLING_RATE, window_seconds
from tutelage.records.files import write_json

QUANTIZATIONS = (
    "float32",
    "float16",
    "bfloat16",
    "int16",
    "int8",
    "int8_float32",
    "int8_float16",
    "int8_bfloat16",
)
"""How the weights may be stored, by CTranslate2's names."""
WHISPER_SECONDS = 30
"""The window that programs for Whisper take for granted."""
_COPIED = {
    "speech": ("tokenizer.json", "preprocessor_config.json"),
    "text": ("tokenizer.json", "tokenizer_config.json"),
}
_FALLBACK = {"int8_float16": "int8_float32", "int8_bfloat16": "int8_float32"}
_IF_THERE = ("chat_template.jinja",)
_SPEECH_CARD = """# {name}, converted for CTranslate2

Window: {window:g} s. CTranslate2 takes features of {frames} frames, no other number.

```python
import ctranslate2, soundfile
from tokenizers import Tokenizer
from transformers import WhisperFeatureExtractor

folder = "."
samples, rate = soundfile.read("clip.wav", dtype="float32")  # mono, 16 kHz, at most {window:g} s
extract = WhisperFeatureExtractor.from_pretrained(folder)
features = extract(samples, sampling_rate=rate, return_tensors="np").input_features
model = ctranslate2.models.Whisper(folder)
prompt = {prompt}
(answer,) = model.generate(ctranslate2.StorageView.from_array(features), [prompt], beam_size=1, max_length={positions})
print(Tokenizer.from_file(folder + "/tokenizer.json").decode(answer.sequences_ids[0]))
```
{short}"""
_SHORT = """
faster-whisper (1.2.1 tried) pads every clip to 3000 frames, which this model refuses. Before the first clip, once:

```python
import functools, faster_whisper.transcribe as transcribe
transcribe.pad_or_trim = functools.partial(transcribe.pad_or_trim, length={frames})
```
"""


def require_ctranslate2() -> None:
    """Refuse at once where the package is not installed; it is not imported.

    Raises:
        MissingExtraError: It is not.
    """
    if importlib.util.find_spec("ctranslate2") is None:
        raise MissingExtraError("ctranslate2", "ctranslate2")


def frames_of(config: Mapping[str, Any]) -> int:
    """Mel frames that a Whisper of this configuration takes at once (Whisper's own: 3000)."""
    return round(window_seconds(config) * SAMPLING_RATE / HOP_LENGTH)


def convert_student(folder: Path, out: Path, quantization: str, task: str) -> None:
    """Write the student in `folder` as a new folder `out` that CTranslate2 opens.

    Args:
        folder: A student as `students.export` writes it.
        out: A place where nothing is.
        quantization: How the weights are stored, one of `QUANTIZATIONS`.
        task: "speech" or "text".

    Raises:
        InputError: CTranslate2 knows no such model.
        TutelageError: The converted folder lacks a file that readers need.
    """
    require_ctranslate2()
    from ctranslate2.converters import TransformersConverter

    from tutelage.models.load import quiet_transformers

    try:
        with quiet_transformers():
            more = [name for name in _IF_THERE if (folder / name).is_file()]
            converter = TransformersConverter(str(folder), copy_files=[*_COPIED[task], *more])
            converter.convert(str(out), quantization=quantization)
    except (ValueError, NotImplementedError, AttributeError, KeyError) as error:
        # AttributeError: CTranslate2 4.8.5 asks a GPT-NeoX configuration for a name that transformers 5 has moved.
        raise InputError(
            f"CTranslate2 {version('ctranslate2')} with transformers {version('transformers')} cannot convert the "
            f"student in {folder}: {error}. Use --to hf, or other versions of the two."
        ) from error
    _name_unknown_token(out / "config.json")
    needed = ("model.bin", "config.json", *_COPIED[task], "vocabulary.json")
    missing = [name for name in needed if not (out / name).is_file()]
    if missing:
        raise TutelageError(f"the converted folder lacks {', '.join(missing)}, so other programs could not open it.")


def _name_unknown_token(settings: Path) -> None:
    """Let the unknown token be end-of-text where the tokenizer has none: the engine does not open a null."""
    content = json.loads(settings.read_bytes())
    if "unk_token" in content and content["unk_token"] is None:
        write_json(settings, {**content, "unk_token": content["eos_token"]})


def write_speech_card(out: Path, name: str, config: Mapping[str, Any], prompt: list[str]) -> None:
    """Write a README.md that says what window the model takes, and shows how to open it.

    Args:
        out: The converted folder.
        name: The student's name.
        config: The student's config.json.
        prompt: The tokens that open a transcript.
    """
    window, frames = window_seconds(config), frames_of(config)
    short = _SHORT.format(frames=frames) if window < WHISPER_SECONDS else ""
    card = _SPEECH_CARD.format(
        name=name,
        window=window,
        frames=frames,
        short=short,
        prompt=json.dumps(prompt),
        positions=config["max_target_positions"],
    )
    (out / "README.md").write_text(card, encoding="utf-8")


def open_converted(folder: Path, quantization: str, task: str) -> Any:
    """A converted model on the CPU, for a comparison.

    Weights that this CPU does not compute in are computed in the next wider type, as the library itself would do.

    Raises:
        TutelageError: The library does not open what it wrote.
    """
    import ctranslate2

    able = ctranslate2.get_supported_compute_types("cpu")
    compute = quantization if quantization in able else _FALLBACK.get(quantization, "float32")
    kind = ctranslate2.models.Whisper if task == "speech" else ctranslate2.Generator
    try:
        return kind(str(folder), device="cpu", compute_type=compute, inter_threads=1)
    except (RuntimeError, ValueError) as error:
        raise TutelageError(f"CTranslate2 cannot open the converted model, so nothing was kept: {error}") from error
