"""Reads CTranslate2's model file of a Whisper and writes it as an ordinary Hugging Face folder.

The file is a flat list of named arrays: nothing in it is ever executed. Covers unquantised Whisper files (float32 or
float16) of version 6. Does not cover quantised arrays or other architectures, which are refused by name.
Nothing here imports torch: arrays go from file to safetensors through NumPy, so the folder is the same under every
version of every library.
"""

from __future__ import annotations

import json
import shutil
import struct
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from tutelage.errors import InputError
from tutelage.models.layout import (
    END,
    POSITIONS_PER_SECOND,
    START,
    complete_timestamps,
    feature_settings,
    token_ids,
    write_processor_files,
    write_tokenizer_files,
)
from tutelage.records.files import write_json

Arrays = Mapping[str, npt.NDArray[Any]]
_DTYPES: dict[int, type[np.generic]] = {0: np.float32, 1: np.int8, 2: np.int16, 3: np.int32, 4: np.float16}
_SPEC = "WhisperSpec"
_VERSION = 6


@dataclass(frozen=True)
class FlatModel:
    """What a model file holds.

    Args:
        spec: The architecture's name.
        arrays: The arrays by name.
        aliases: Names that stand for another array.
    """

    spec: str
    arrays: Arrays
    aliases: Mapping[str, str]


class _Cursor:
    """Reads little-endian values from a buffer and refuses to read past its end."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.buffer = path.read_bytes()
        self.position = 0

    def take(self, length: int) -> int:
        """Move on by `length` bytes; returns where they begin."""
        begin = self.position
        if length < 0 or begin + length > len(self.buffer):
            raise InputError(
                f"{self.path} is cut off or damaged: {length} bytes are expected at {begin}, "
                f"the file has {len(self.buffer)}."
            )
        self.position += length
        return begin

    def number(self, code: str) -> int:
        begin = self.take(struct.calcsize("<" + code))
        return int(struct.unpack_from("<" + code, self.buffer, begin)[0])

    def text(self) -> str:
        length = self.number("H")
        begin = self.take(length)
        try:
            return self.buffer[begin : begin + max(length - 1, 0)].decode("utf-8")
        except UnicodeDecodeError as error:
            raise InputError(f"{self.path} is damaged: the name at byte {begin} is not text.") from error

    def array(self) -> npt.NDArray[Any]:
        shape = [self.number("I") for _ in range(self.number("B"))]
        code, size = self.number("B"), self.number("I")
        dtype = _DTYPES.get(code)
        if dtype is None:
            raise InputError(f"{self.path} is damaged: array type {code} at byte {self.position} is not known.")
        items = int(np.prod(shape, dtype=np.int64))
        if items * np.dtype(dtype).itemsize != size:
            raise InputError(f"{self.path} is damaged: an array of shape {shape} claims {size} bytes.")
        begin = self.take(size)
        return np.frombuffer(self.buffer, dtype=dtype, count=items, offset=begin).reshape(shape)


def read_flat_model(path: Path) -> FlatModel:
    """The arrays of a CTranslate2 model file; they share the file's memory.

    Raises:
        InputError: The file is cut off, damaged, of another version or architecture.
    """
    cursor = _Cursor(path)
    version = cursor.number("I")
    if version != _VERSION:
        raise InputError(f"{path} is no CTranslate2 model of version {_VERSION} (it begins with {version}).")
    spec = cursor.text()
    if spec != _SPEC:
        raise InputError(f"{path} holds a {spec!r}, not a Whisper model.")
    cursor.number("I")
    arrays = {}
    for _ in range(cursor.number("I")):
        name = cursor.text()
        arrays[name] = cursor.array()
    aliases = {}
    for _ in range(cursor.number("I")):
        name = cursor.text()
        aliases[name] = cursor.text()
    if cursor.position != len(cursor.buffer):
        raise InputError(f"{path} is damaged: {len(cursor.buffer) - cursor.position} bytes follow its last array.")
    return FlatModel(spec, arrays, aliases)


def convert_whisper(model: Path, settings: Path, tokenizer: Path, out: Path) -> Path:
    """Write a Hugging Face Whisper folder from CTranslate2's files.

    Args:
        model: The model file of named arrays.
        settings: CTranslate2's config.json (suppressed tokens, language ids, alignment heads).
        tokenizer: A tokenizer.json.
        out: The folder, which is made.

    Raises:
        InputError: A file is damaged or the arrays are not those of a Whisper.
    """
    from safetensors.numpy import save_file

    flat = read_flat_model(model)
    try:
        weights = dict(_weights(flat.arrays))
        config = _config(flat.arrays)
    except (KeyError, ValueError) as error:
        raise InputError(f"{model} lacks an array of a Whisper model, or one has another shape: {error}.") from error
    choices = json.loads(settings.read_bytes())
    document = complete_timestamps(json.loads(tokenizer.read_bytes()))
    ids = token_ids(document)
    if len(ids) != config["vocab_size"]:
        raise InputError(f"{tokenizer} has {len(ids)} tokens; the model has {config['vocab_size']}.")
    out.mkdir(parents=True, exist_ok=True)
    config.update(_token_roles(ids))
    write_json(out / "config.json", config)
    write_json(out / "generation_config.json", _generation(choices, ids, config))
    window = config["max_source_positions"] // POSITIONS_PER_SECOND
    write_processor_files(out, feature_settings(config["num_mel_bins"], window))
    write_tokenizer_files(out, document)
    save_file(weights, out / "model.safetensors", metadata={"format": "pt"})
    # The library makes the file readable by its owner alone, whatever the user's umask.
    shutil.copymode(out / "config.json", out / "model.safetensors")
    return out


def _depth(arrays: Arrays, half: str) -> int:
    prefix = f"{half}/layer_"
    numbers = {name.removeprefix(prefix).split("/")[0] for name in arrays if name.startswith(prefix)}
    return sum(number.isdigit() for number in numbers)


def _config(arrays: Arrays) -> dict[str, Any]:
    vocab, width = arrays["decoder/embeddings/weight"].shape
    heads = int(arrays["encoder/num_heads"])
    feed_forward = arrays["encoder/layer_0/ffn/linear_0/weight"].shape[0]
    return {
        "activation_function": "gelu",
        "architectures": ["WhisperForConditionalGeneration"],
        "d_model": width,
        "decoder_attention_heads": heads,
        "decoder_ffn_dim": feed_forward,
        "decoder_layers": _depth(arrays, "decoder"),
        "encoder_attention_heads": heads,
        "encoder_ffn_dim": feed_forward,
        "encoder_layers": _depth(arrays, "encoder"),
        "is_encoder_decoder": True,
        "max_source_positions": arrays["encoder/position_encodings/encodings"].shape[0],
        "max_target_positions": arrays["decoder/position_encodings/encodings"].shape[0],
        "model_type": "whisper",
        "num_mel_bins": arrays["encoder/conv1/weight"].shape[1],
        "scale_embedding": False,
        "torch_dtype": "float32",
        "use_cache": True,
        "vocab_size": vocab,
    }


def _token_roles(ids: Mapping[str, int]) -> dict[str, Any]:
    return {
        "begin_suppress_tokens": None,
        "bos_token_id": ids[END],
        "decoder_start_token_id": ids[START],
        "eos_token_id": ids[END],
        "pad_token_id": ids[END],
        "suppress_tokens": None,
    }


def _generation(choices: Mapping[str, Any], ids: Mapping[str, int], config: Mapping[str, Any]) -> dict[str, Any]:
    names = {number: token for token, number in ids.items()}
    languages = {names[number]: number for number in choices.get("lang_ids", [])}
    generation = {
        "alignment_heads": choices["alignment_heads"],
        "begin_suppress_tokens": choices["suppress_ids_begin"],
        "bos_token_id": ids[END],
        "decoder_start_token_id": config["decoder_start_token_id"],
        "eos_token_id": ids[END],
        "is_multilingual": bool(languages),
        "max_initial_timestamp_index": 50,
        "max_length": config["max_target_positions"],
        "no_timestamps_token_id": ids["<|notimestamps|>"],
        "pad_token_id": ids[END],
        "prev_sot_token_id": ids["<|startofprev|>"],
        "return_timestamps": False,
        "suppress_tokens": choices["suppress_ids"],
    }
    if languages:
        tasks = {task: ids[f"<|{task}|>"] for task in ("transcribe", "translate")}
        return {**generation, "lang_to_id": languages, "task_to_id": tasks}
    return {**generation, "forced_decoder_ids": [[1, ids["<|notimestamps|>"]]]}


def _weights(arrays: Arrays) -> Iterator[tuple[str, npt.NDArray[np.float32]]]:
    """The arrays under Hugging Face's names; the output head is tied to the embedding and therefore not listed."""
    for number in (1, 2):
        yield from _linear(arrays, f"encoder/conv{number}", f"model.encoder.conv{number}")
    for half in ("encoder", "decoder"):
        yield (f"model.{half}.embed_positions.weight", _float(arrays, f"{half}/position_encodings/encodings"))
        yield from _norm(arrays, f"{half}/layer_norm", f"model.{half}.layer_norm")
        for layer in range(_depth(arrays, half)):
            source, target = f"{half}/layer_{layer}", f"model.{half}.layers.{layer}"
            yield from _norm(arrays, f"{source}/self_attention/layer_norm", f"{target}.self_attn_layer_norm")
            yield from _self_attention(arrays, f"{source}/self_attention", f"{target}.self_attn")
            if half == "decoder":
                yield from _norm(arrays, f"{source}/attention/layer_norm", f"{target}.encoder_attn_layer_norm")
                yield from _cross_attention(arrays, f"{source}/attention", f"{target}.encoder_attn")
            yield from _norm(arrays, f"{source}/ffn/layer_norm", f"{target}.final_layer_norm")
            yield from _linear(arrays, f"{source}/ffn/linear_0", f"{target}.fc1")
            yield from _linear(arrays, f"{source}/ffn/linear_1", f"{target}.fc2")
    yield ("model.decoder.embed_tokens.weight", _float(arrays, "decoder/embeddings/weight"))


def _float(arrays: Arrays, name: str) -> npt.NDArray[np.float32]:
    value = arrays[name]
    if value.dtype not in (np.float32, np.float16):
        raise ValueError(f"{name} is {value.dtype}, and quantised models are not read")
    return np.ascontiguousarray(value, dtype=np.float32)


def _norm(arrays: Arrays, source: str, target: str) -> Iterator[tuple[str, npt.NDArray[np.float32]]]:
    yield f"{target}.weight", _float(arrays, f"{source}/gamma")
    yield f"{target}.bias", _float(arrays, f"{source}/beta")


def _linear(arrays: Arrays, source: str, target: str) -> Iterator[tuple[str, npt.NDArray[np.float32]]]:
    yield f"{target}.weight", _float(arrays, f"{source}/weight")
    yield f"{target}.bias", _float(arrays, f"{source}/bias")


def _projections(
    arrays: Arrays, source: str, target: str, names: tuple[str, ...]
) -> Iterator[tuple[str, npt.NDArray[np.float32]]]:
    """Split a fused linear layer; Whisper's keys have no bias, so theirs must be zero."""
    weights = np.split(_float(arrays, f"{source}/weight"), len(names))
    biases = np.split(_float(arrays, f"{source}/bias"), len(names))
    for name, weight, bias in zip(names, weights, biases, strict=True):
        yield f"{target}.{name}.weight", np.ascontiguousarray(weight)
        if name != "k_proj":
            yield f"{target}.{name}.bias", np.ascontiguousarray(bias)
        elif np.any(bias):
            raise ValueError(f"{source} has a bias on its keys")


def _self_attention(arrays: Arrays, source: str, target: str) -> Iterator[tuple[str, npt.NDArray[np.float32]]]:
    yield from _projections(arrays, f"{source}/linear_0", target, ("q_proj", "k_proj", "v_proj"))
    yield from _linear(arrays, f"{source}/linear_1", f"{target}.out_proj")


def _cross_attention(arrays: Arrays, source: str, target: str) -> Iterator[tuple[str, npt.NDArray[np.float32]]]:
    yield from _linear(arrays, f"{source}/linear_0", f"{target}.q_proj")
    yield from _projections(arrays, f"{source}/linear_1", target, ("k_proj", "v_proj"))
    yield from _linear(arrays, f"{source}/linear_2", f"{target}.out_proj")
