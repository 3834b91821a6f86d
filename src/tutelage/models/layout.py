"""The files of a Whisper folder other than its weights, as every supported library looks for them.

Transformers 4 and faster-whisper read preprocessor_config.json and the slow tokenizer's vocab.json and merges.txt;
transformers 5 by itself writes processor_config.json and tokenizer.json only. Folders that we write have all of them,
and every library reads the same values. Covers plain JSON in, plain JSON out. Does not cover weights or config.json.
Nothing here imports torch or transformers.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from tutelage.records.files import write_json

END = "<|endoftext|>"
START = "<|startoftranscript|>"
SAMPLING_RATE = 16_000
"""Samples in a second of audio (Whisper's only rate)."""
HOP_LENGTH = 160
"""Samples from one mel frame to the next: 10 ms."""
POSITIONS_PER_SECOND = 50
"""Encoder positions in a second of audio: two mel frames each."""
TIMESTAMP_STEP_SECONDS = 0.02
MAX_TIMESTAMP_SECONDS = 30.0
"""Whisper's vocabulary has timestamps from <|0.00|> to <|30.00|> whatever the model's window."""
_FLAGS = {"lstrip": False, "rstrip": False, "single_word": False, "normalized": False}


def window_seconds(config: Mapping[str, Any]) -> float:
    """Seconds of audio that a model of this configuration takes at once (Whisper's own: 30)."""
    return float(config.get("max_source_positions", 30 * POSITIONS_PER_SECOND)) / POSITIONS_PER_SECOND


def feature_settings(mel_bins: int, window_seconds: int) -> dict[str, Any]:
    """The feature extractor's settings for a window of whole seconds."""
    return {
        "chunk_length": window_seconds,
        "dither": 0.0,
        "feature_extractor_type": "WhisperFeatureExtractor",
        "feature_size": mel_bins,
        "hop_length": HOP_LENGTH,
        "n_fft": 400,
        "n_samples": window_seconds * SAMPLING_RATE,
        "nb_max_frames": window_seconds * SAMPLING_RATE // HOP_LENGTH,
        "padding_side": "right",
        "padding_value": 0.0,
        "return_attention_mask": False,
        "sampling_rate": SAMPLING_RATE,
    }


def write_processor_files(folder: Path, features: Mapping[str, Any]) -> None:
    """Write preprocessor_config.json with the features and processor_config.json with the class name alone.

    Transformers 5 nests the features in processor_config.json, and transformers 4.48 then fails to open the folder
    ("got multiple values for argument 'feature_extractor'"); with the class name alone both read the first file.
    """
    processor = {"processor_class": "WhisperProcessor"}
    write_json(folder / "preprocessor_config.json", {**features, **processor})
    write_json(folder / "processor_config.json", processor)


def complete_timestamps(document: Mapping[str, Any]) -> dict[str, Any]:
    """`document` (a tokenizer.json) with the timestamp tokens behind its last token, where it has none."""
    added = list(document["added_tokens"])
    if any(token["content"] == "<|0.00|>" for token in added):
        return dict(document)
    first = 1 + max([token["id"] for token in added], default=len(document["model"]["vocab"]) - 1)
    steps = round(MAX_TIMESTAMP_SECONDS / TIMESTAMP_STEP_SECONDS)
    added += [
        {"id": first + step, "content": f"<|{step * TIMESTAMP_STEP_SECONDS:.2f}|>", **_FLAGS, "special": False}
        for step in range(steps + 1)
    ]
    return {**document, "added_tokens": added}


def token_ids(document: Mapping[str, Any]) -> dict[str, int]:
    """Every token of a tokenizer.json with its id."""
    return {**document["model"]["vocab"], **{token["content"]: token["id"] for token in document["added_tokens"]}}


def write_tokenizer_files(folder: Path, document: Mapping[str, Any], extra: Mapping[str, Any] | None = None) -> None:
    """Write a tokenizer.json and everything that older libraries want beside it.

    Args:
        folder: Where.
        document: The content of a tokenizer.json with a BPE model; the special tokens end where timestamps begin.
        extra: Further settings of tokenizer_config.json, for example {"language": "es", "task": "transcribe"}.
    """
    added = sorted(document["added_tokens"], key=lambda token: int(token["id"]))
    special = [token["content"] for token in added if token["special"]]
    roles = {f"{role}_token": END for role in ("bos", "eos", "pad", "unk")}
    decoder = {
        str(token["id"]): {"content": token["content"], **_FLAGS, "special": bool(token["special"])} for token in added
    }
    settings = {
        "add_prefix_space": False,
        "added_tokens_decoder": decoder,
        # The library finds where timestamps begin by the last of these, so they must be all and in order.
        "additional_special_tokens": special,
        # Spaces before punctuation would otherwise be removed by transformers 4 and not by 5.
        "clean_up_tokenization_spaces": False,
        "errors": "replace",
        "model_max_length": 448,
        "processor_class": "WhisperProcessor",
        "return_attention_mask": False,
        "tokenizer_class": "WhisperTokenizer",
        **roles,
        **(extra or {}),
    }
    write_json(folder / "tokenizer.json", document)
    write_json(folder / "tokenizer_config.json", settings)
    write_json(folder / "special_tokens_map.json", {**roles, "additional_special_tokens": special})
    write_json(folder / "added_tokens.json", {token["content"]: token["id"] for token in added})
    write_json(folder / "vocab.json", document["model"]["vocab"])
    lines = ["#version: 0.2", *(_merge_line(pair) for pair in document["model"]["merges"])]
    (folder / "merges.txt").write_text("\n".join(lines) + "\n", encoding="utf-8")


def _merge_line(pair: str | Sequence[str]) -> str:
    return pair if isinstance(pair, str) else " ".join(pair)
