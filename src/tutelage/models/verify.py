"""Is this folder a model of a known type in Hugging Face's layout whose weights can be read safely?

Covers: the folder, its config.json, and the headers of its safetensors files, checked byte for byte against the files'
lengths. Does not cover: whether the tensors fit the configuration (`load` does, when it builds the model) or the hashes
of what was downloaded (`resolve`). Nothing here imports torch, so bad folders fail before it loads.
"""

from __future__ import annotations

import json
import struct
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tutelage.errors import InputError
from tutelage.models.architectures import ARCHITECTURES, Architecture, Task, architectures_of

PICKLES = ("*.bin", "*.pt", "*.pth", "*.ckpt", "*.h5", "*.msgpack")
MAX_HEADER_BYTES = 100_000_000
"""The limit that the safetensors format itself sets to a header."""


@dataclass(frozen=True)
class TensorEntry:
    """One tensor of a safetensors file.

    Args:
        dtype: The format's name of the type, for example "F32".
        shape: Its sizes.
        begin: First byte, counted from the end of the header.
        end: One past its last byte.
    """

    dtype: str
    shape: tuple[int, ...]
    begin: int
    end: int


@dataclass(frozen=True)
class ModelFolder:
    """A folder that passed.

    Args:
        path: The folder.
        config: Its config.json.
        weights: The safetensors files, empty where none were asked for and none are there.
    """

    path: Path
    config: Mapping[str, Any]
    weights: tuple[Path, ...]


def verify_model_folder(path: Path, *, task: Task = "speech", require_weights: bool = True) -> ModelFolder:
    """Check a model folder without loading it.

    Args:
        path: The folder.
        task: What the model must be for.
        require_weights: False lets a folder of configuration alone through, for counting.

    Raises:
        InputError: The folder, its config.json or its weights are missing, damaged, of another kind of model, or
            there only as pickles.
    """
    if not path.is_dir():
        reason = "is a file, not a folder" if path.exists() else "does not exist"
        raise InputError(f"The model folder {path} {reason}.")
    config = read_config(path, task)
    weights = tuple(_weight_files(path))
    if not weights and require_weights:
        raise InputError(_no_weights(path))
    for file in weights:
        read_header(file)
    return ModelFolder(path, config, weights)


def read_config(path: Path, task: Task = "speech") -> Mapping[str, Any]:
    """The config.json of a folder with a model of one task.

    Raises:
        InputError: It is missing, not JSON, or of another kind of model.
    """
    file = path / "config.json"
    config = _read_json(file, f"The model folder {path} has no config.json.")
    kind = config.get("model_type")
    row = ARCHITECTURES.get(str(kind))
    if row is None or row.task != task:
        other = "" if row is None else f" It is a {row.task} model."
        raise InputError(
            f"The model in {path} is of type {kind!r}; for {task} this version reads "
            f"{', '.join(architectures_of(task))} only.{other}"
        )
    return config


def architecture_of(config: Mapping[str, Any]) -> Architecture:
    """The row of a configuration that passed `read_config`."""
    return ARCHITECTURES[str(config["model_type"])]


def read_header(file: Path) -> dict[str, TensorEntry]:
    """The tensors of a safetensors file, checked against the file's length.

    Raises:
        InputError: The file is cut off, longer than its header says, or its header cannot be read.
    """
    size = file.stat().st_size
    with file.open("rb") as stream:
        first = stream.read(8)
        if len(first) < 8:
            raise InputError(f"The weights {file} are cut off: {size} bytes, shorter than a header.")
        (length,) = struct.unpack("<Q", first)
        if length > MAX_HEADER_BYTES or 8 + length > size:
            raise InputError(
                f"The weights {file} are cut off or damaged: the header claims {length} bytes, the file has {size}."
            )
        text = stream.read(length)
    try:
        fields = json.loads(text)
        entries = {
            name: TensorEntry(str(item["dtype"]), tuple(item["shape"]), *map(int, item["data_offsets"]))
            for name, item in fields.items()
            if name != "__metadata__"
        }
    except (ValueError, TypeError, KeyError, AttributeError) as error:
        raise InputError(f"The weights {file} are damaged: the header is not what safetensors writes.") from error
    data = max((entry.end for entry in entries.values()), default=0)
    if 8 + length + data != size:
        raise InputError(
            f"The weights {file} are cut off or damaged: the header describes {8 + length + data} bytes, "
            f"the file has {size}."
        )
    return entries


def _weight_files(path: Path) -> Iterator[Path]:
    single, index = path / "model.safetensors", path / "model.safetensors.index.json"
    if single.is_file():
        yield single
        return
    if not index.is_file():
        return
    shards = _read_json(index, "").get("weight_map")
    if not isinstance(shards, dict) or not shards:
        raise InputError(f"{index} names no weight files.")
    names = sorted({str(name) for name in shards.values()})
    outside = [name for name in names if Path(name).name != name]
    if outside:
        raise InputError(f"{index} names files outside its folder: {', '.join(outside)}.")
    missing = [name for name in names if not (path / name).is_file()]
    if missing:
        raise InputError(f"The model folder {path} lacks {', '.join(missing)}, which {index.name} names.")
    yield from (path / name for name in names)


def _no_weights(path: Path) -> str:
    pickles = sorted({file.name for pattern in PICKLES for file in path.glob(pattern)})
    if pickles:
        return (
            f"The model folder {path} has its weights only as {', '.join(pickles)}, which could run code when read. "
            "Save it as safetensors first (save_pretrained does)."
        )
    return f"The model folder {path} has no weights (model.safetensors)."


def _read_json(file: Path, if_missing: str) -> Mapping[str, Any]:
    try:
        value = json.loads(file.read_bytes())
    except FileNotFoundError as error:
        raise InputError(if_missing or f"{file} does not exist.") from error
    except ValueError as error:
        raise InputError(f"{file} is not valid JSON.") from error
    if not isinstance(value, dict):
        raise InputError(f"{file} holds no JSON object.")
    return value
