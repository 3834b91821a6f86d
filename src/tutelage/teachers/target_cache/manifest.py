"""The list of a cache's shards, written last: a folder that has one holds a finished cache.

Covers `manifest.json`, its own hash and reading it back. Does not cover checking the shards that it lists (`cache`).
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from tutelage.errors import InputError
from tutelage.records.files import write_atomically
from tutelage.records.hashing import sha256_json
from tutelage.teachers.target_cache.shards import ShardRecord, find_shards

MANIFEST = "manifest.json"
SCHEMA = "tutelage.target_cache"


class DamagedCacheError(InputError):
    """Files of a cache are missing, cut off or changed; a build of the same cache computes those anew.

    Args:
        faults: One line each.
        files: Names of the files concerned.
    """

    def __init__(self, faults: list[str], files: list[str]) -> None:
        super().__init__(faults)
        self.files = tuple(files)


@dataclass(frozen=True)
class Manifest:
    """A finished cache.

    Args:
        contents: What its numbers follow from (`contents.describe_contents`).
        layout: How they are spread over files.
        vocabulary: V.
        widths: Values a position of each column of states.
        shards: In order.
    """

    contents: Mapping[str, Any]
    layout: Mapping[str, Any]
    vocabulary: int
    widths: Mapping[str, int]
    shards: tuple[ShardRecord, ...]


def write_manifest(folder: Path, manifest: Manifest) -> None:
    """Write it in one step that survives a crash.

    Raises:
        InputError: The disk is full, or the place cannot be written.
    """
    write_atomically(folder / MANIFEST, _render({"schema": SCHEMA, **asdict(manifest)}))


def read_manifest(folder: Path) -> Manifest:
    """Read it, byte for byte as it was written.

    Raises:
        InputError: There is none.
        DamagedCacheError: It was cut off or changed, by as little as a space.
    """
    path = folder / MANIFEST
    try:
        content = path.read_bytes()
        record = json.loads(content)
        record.pop("sha256")
        if _render(dict(record)).encode() != content or record.pop("schema") != SCHEMA:
            raise ValueError("its hash is another one")
        shards = tuple(ShardRecord(**shard) for shard in record.pop("shards"))
        return Manifest(**record, shards=shards)
    except (FileNotFoundError, NotADirectoryError):
        finished = len(find_shards(folder))
        state = f"is not finished ({finished} shards and no {MANIFEST})" if finished else f"holds no {MANIFEST}"
        raise InputError(f"the cache {folder} {state}; build it, which keeps every finished shard.") from None
    except OSError as error:
        raise InputError(f"{path} cannot be read: {error.strerror or error}.") from error
    except (ValueError, KeyError, TypeError, AttributeError):
        fault = f"{path} was cut off or changed since it was written; build the cache again: intact shards are kept."
        raise DamagedCacheError([fault], [MANIFEST]) from None


def _render(record: dict[str, Any]) -> str:
    return json.dumps({**record, "sha256": sha256_json(record)}, indent=1, sort_keys=True, ensure_ascii=True) + "\n"
