"""One file of a cache: an Arrow IPC file whose name holds the hash of its bytes.

    shard-00003-<sha256>.arrow     one row a sample; flat columns as lists; uncompressed, read through a memory map

Covers writing so that no partial file is ever taken for a shard, checking a file against its name, and reading it. Does
not cover which shards belong together (`manifest`) or what the columns mean (`rows`).

The name makes a finished shard verifiable before there is a manifest: a build that was killed knows what it can keep.
"""

from __future__ import annotations

import json
import os
import secrets
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from tutelage.errors import MissingExtraError, TutelageError
from tutelage.records.files import explain_write_failure
from tutelage.records.hashing import sha256_file
from tutelage.teachers.target_cache.contents import SampleKey

if TYPE_CHECKING:  # a manifest is read before torch is loaded
    from tutelage.teachers.target_cache.rows import Row, Values

PARTIAL = ".part"
_HEADER = b"tutelage.target_cache"
_FIXED = ("id", "token_hash", "positions")


@dataclass(frozen=True)
class ShardRecord:
    """A finished shard, as the manifest lists it.

    Args:
        file: Its name.
        sha256: Of its bytes.
        bytes: Its size.
        samples: Rows.
        positions: Kept positions of all rows.
        first: The lowest sample id.
        last: The highest.
    """

    file: str
    sha256: str
    bytes: int
    samples: int
    positions: int
    first: str
    last: str


@dataclass(frozen=True)
class Chunk:
    """Samples that were written together.

    Args:
        keys: The samples.
        positions: Kept positions of each.
        columns: For each column all values, and where each sample's begin (one more entry than there are samples).
    """

    keys: tuple[SampleKey, ...]
    positions: tuple[int, ...]
    columns: Mapping[str, tuple[Values, Values]]

    def values(self, column: str, row: int) -> Values:
        """One sample's values; a view of the file."""
        values, begins = self.columns[column]
        found: Values = values[int(begins[row]) : int(begins[row + 1])]
        return found


@dataclass(frozen=True)
class Shard:
    """An open shard.

    Args:
        header: What the build wrote of itself.
        chunks: Its samples.
    """

    header: Mapping[str, Any]
    chunks: tuple[Chunk, ...]

    @property
    def keys(self) -> list[SampleKey]:
        """Every sample."""
        return [key for chunk in self.chunks for key in chunk.keys]


class ShardWriter:
    """Writes one shard, a few samples at a time, so that memory stays flat; used as a context.

    Args:
        folder: The cache's.
        number: Of the shard.
        header: JSON values kept inside the file.

    Raises:
        InputError: The disk is full, or the place cannot be written.
    """

    def __init__(self, folder: Path, number: int, header: Mapping[str, Any]) -> None:
        self._folder, self._number = folder, number
        self._header = {_HEADER: json.dumps({**header, "shard": number}, sort_keys=True).encode()}
        self._scratch = folder / f".shard-{number:05d}.{os.getpid()}-{secrets.token_hex(4)}{PARTIAL}"
        self._keys: list[str] = []
        self._positions = 0
        self._writer: Any = None
        self._pyarrow = _arrow()
        try:
            folder.mkdir(parents=True, exist_ok=True)
            self._stream = self._scratch.open("xb")
        except OSError as error:
            raise explain_write_failure(error, self._target("")) from error

    def __enter__(self) -> ShardWriter:
        return self

    def __exit__(self, *_: object) -> None:
        with suppress(OSError):
            self._stream.close()
        with suppress(OSError):
            self._scratch.unlink(missing_ok=True)

    def write(self, rows: Sequence[Row]) -> None:
        """Add samples; all rows of a shard have the same columns.

        Raises:
            InputError: The disk is full.
        """
        batch = self._batch(rows)
        try:
            if self._writer is None:
                self._writer = self._pyarrow.ipc.new_file(self._stream, batch.schema)
            self._writer.write_batch(batch)
        except OSError as error:
            raise explain_write_failure(error, self._target("")) from error
        self._keys += [row.key.id for row in rows]
        self._positions += sum(row.positions for row in rows)

    def finish(self) -> ShardRecord:
        """Flush the file to the disk and rename it into place.

        Raises:
            InputError: The disk is full.
        """
        try:
            self._writer.close()
            self._stream.flush()
            os.fsync(self._stream.fileno())
            size = self._stream.tell()
            digest = sha256_file(self._scratch)
            target = self._target(digest)
            self._scratch.replace(target)
        except OSError as error:
            raise explain_write_failure(error, self._target("")) from error
        names = sorted(self._keys)
        return ShardRecord(target.name, digest, size, len(names), self._positions, names[0], names[-1])

    def _target(self, digest: str) -> Path:
        return self._folder / shard_name(self._number, digest)

    def _batch(self, rows: Sequence[Row]) -> Any:
        arrow = self._pyarrow
        arrays = [
            arrow.array([row.key.id for row in rows], arrow.string()),
            arrow.array([row.key.token_hash for row in rows], arrow.string()),
            arrow.array([row.positions for row in rows], arrow.int32()),
        ]
        columns = list(rows[0].columns)
        for column in columns:
            parts = [row.columns[column] for row in rows]
            begins = np.cumsum([0, *(part.size for part in parts)], dtype=np.int64)
            arrays.append(arrow.LargeListArray.from_arrays(begins, arrow.array(np.concatenate(parts))))
        batch = arrow.RecordBatch.from_arrays(arrays, [*_FIXED, *columns])
        return batch.replace_schema_metadata(self._header)


def shard_name(number: int, digest: str) -> str:
    """The file name of a shard."""
    return f"shard-{number:05d}{f'-{digest}' if digest else ''}.arrow"


def find_shards(folder: Path, number: int | None = None) -> list[Path]:
    """Files that claim to be shards (of one number), in order of their names."""
    return sorted(folder.glob(f"shard-{'*' if number is None else f'{number:05d}'}-*.arrow"))


def check_bytes(path: Path, digest: str) -> str:
    """What is wrong with a file whose bytes should have this hash ("" if nothing)."""
    try:
        if path.stat().st_size == 0:
            return "is empty"
        return "" if sha256_file(path) == digest else "does not have the bytes that were written (cut off or changed)"
    except FileNotFoundError:
        return "is missing"
    except OSError as error:
        return f"cannot be read ({error.strerror or error})"


def named_digest(path: Path) -> str:
    """The hash that a shard's name holds."""
    return path.stem.rpartition("-")[2]


def open_shard(path: Path) -> Shard:
    """Open a shard whose bytes were checked; numbers are views of a memory map.

    Raises:
        MissingExtraError: pyarrow is not installed.
        TutelageError: It is an Arrow file of another kind.
    """
    arrow = _arrow()
    try:
        reader = arrow.ipc.open_file(arrow.memory_map(str(path)))
        header = json.loads((reader.schema.metadata or {})[_HEADER])
        chunks = tuple(_chunk(reader.get_batch(number)) for number in range(reader.num_record_batches))
    except (arrow.ArrowException, OSError, KeyError, ValueError) as error:
        raise TutelageError(f"{path} is not a shard of a target cache ({error}).") from error
    return Shard(header, chunks)


def record_of(path: Path, shard: Shard) -> ShardRecord:
    """The record of a shard that an earlier build finished."""
    names = sorted(key.id for key in shard.keys)
    positions = sum(sum(chunk.positions) for chunk in shard.chunks)
    return ShardRecord(path.name, named_digest(path), path.stat().st_size, len(names), positions, names[0], names[-1])


def _chunk(batch: Any) -> Chunk:
    keys = zip(batch.column("id").to_pylist(), batch.column("token_hash").to_pylist(), strict=True)
    columns = {
        name: (batch.column(name).values.to_numpy(), batch.column(name).offsets.to_numpy())
        for name in batch.schema.names
        if name not in _FIXED
    }
    return Chunk(tuple(SampleKey(*key) for key in keys), tuple(batch.column("positions").to_pylist()), columns)


def _arrow() -> Any:
    try:
        import pyarrow
        import pyarrow.ipc
    except ImportError as error:
        raise MissingExtraError("pyarrow", "cache") from error
    return pyarrow
