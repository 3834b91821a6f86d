"""An open cache of a teacher's targets: batches in any order, aligned to their positions.

Covers opening with verification, finding samples by id and tokens, and reading targets, final states and the states of
blocks. Does not cover making one (`build`) or standing in for a live teacher (`cached`).

Shape letters: B batch, T positions, V vocabulary, H hidden, N kept positions, K kept classes.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from tutelage.errors import InputError
from tutelage.objectives.targets import SparseTargets
from tutelage.progress import Progress, no_progress
from tutelage.teachers.target_cache.contents import (
    CacheIdentity,
    CacheSettings,
    SampleKey,
    describe_contents,
    name_differences,
)
from tutelage.teachers.target_cache.manifest import DamagedCacheError, Manifest, read_manifest
from tutelage.teachers.target_cache.rows import FINAL, Values, block_column, decode_targets, spread, target_columns
from tutelage.teachers.target_cache.shards import Chunk, Shard, check_bytes, open_shard, record_of

_NAMED = 3  # samples that an error names; it counts the others
_SHOWN_CHARACTERS = 12  # of a hash


class TargetCache:
    """A verified cache, read through memory maps. Made by `open`.

    Args:
        folder: Where it is.
        manifest: What it holds.
        chunks: All samples.
    """

    def __init__(self, folder: Path, manifest: Manifest, chunks: Sequence[Chunk]) -> None:
        self.folder = folder
        self.manifest = manifest
        self._places = {key.id: (chunk, row) for chunk in chunks for row, key in enumerate(chunk.keys)}

    @classmethod
    def open(
        cls,
        folder: Path,
        identity: CacheIdentity,
        settings: CacheSettings | None = None,
        progress: Progress = no_progress,
    ) -> TargetCache:
        """Open a finished cache; every byte is checked.

        Args:
            folder: Of a build.
            identity: Whom the targets must come from.
            settings: What must be kept; None takes whatever is. How it is spread over files is not compared.
            progress: Told of each shard.

        Raises:
            InputError: There is no finished cache, or it is of something else (every field that differs is named).
            DamagedCacheError: Shards are missing, cut off or changed; each is named. The others stay for a rebuild.
            MissingExtraError: pyarrow is not installed.
        """
        manifest = read_manifest(folder)
        differences = name_differences(manifest.contents, describe_contents(identity, settings))
        if differences:
            raise InputError(
                [f"the cache {folder} is of something else:", *differences, "Build a cache of this in another folder."]
            )
        chunks: list[Chunk] = []
        faults, files = [], []
        with progress("verify the cache", total=len(manifest.shards), unit="shard") as advance:
            for number, record in enumerate(manifest.shards):
                shard, fault = _open_listed(folder, number, manifest)
                if shard is None:
                    faults.append(f"{folder / record.file} {fault}; it holds {record.samples} samples.")
                    files.append(record.file)
                else:
                    chunks += shard.chunks
                advance(1)
        if faults:
            whole = len(manifest.shards) - len(files)
            faults.append(f"Build the cache again: it computes these shards and keeps the {whole} others.")
            raise DamagedCacheError(faults, files)
        return cls(folder, manifest, chunks)

    def __len__(self) -> int:
        return len(self._places)

    @property
    def kind(self) -> str:
        """What is kept of the distribution."""
        kind: str = self.manifest.contents["kind"]
        return kind

    @property
    def layers(self) -> tuple[int, ...]:
        """Blocks whose states are kept, ascending."""
        return tuple(self.manifest.contents["layers"])

    @property
    def positions(self) -> int:
        """Kept positions."""
        return sum(record.positions for record in self.manifest.shards)

    def bytes_per_position(self) -> float:
        """Bytes that the numbers of a kept position take, without ids, hashes and the file format."""
        chunks = {id(chunk): chunk for chunk, _ in self._places.values()}.values()
        return sum(values.nbytes for chunk in chunks for values, _ in chunk.columns.values()) / max(1, self.positions)

    def require(self, keys: Sequence[SampleKey]) -> None:
        """Refuse samples that are not here as they are now; call it with all samples of a run before it begins.

        Raises:
            InputError: Samples are missing, or have other tokens than when they were cached.
        """
        missing = [key.id for key in keys if key.id not in self._places]
        changed = [key for key in keys if key.id in self._places and self._hash(key.id) != key.token_hash]
        faults = []
        if missing:
            faults.append(f"{_counted(missing)} not in the cache {self.folder}; build it for this data.")
        if changed:
            names = _counted([key.id for key in changed])
            was, now = (text[:_SHOWN_CHARACTERS] for text in (self._hash(changed[0].id), changed[0].token_hash))
            faults.append(
                f"{names} not as cached in {self.folder}: the tokens of {changed[0].id!r} had the hash {was} and "
                f"have {now}. "
                "The text, its tokenizer, packing, mask or augmentation changed; build the cache for this data."
            )
        if faults:
            raise InputError(faults)

    def targets(self, keys: Sequence[SampleKey], keep_BT: Tensor, rest: bool = True) -> SparseTargets:
        """Sparse targets (B, T, K) of a batch, on the mask's device.

        Args:
            keys: The batch's samples, in its order.
            keep_BT: Its mask; dropped positions hold zeros.
            rest: For top-k: what the k classes leave is one bucket, or they are scaled up to sum to 1.

        Raises:
            InputError: The cache keeps final states; or see `require`.
            ValueError: The mask keeps other positions than were cached, under the same token hash.
        """
        if self.kind == "hidden":
            raise InputError(f"the cache {self.folder} keeps final states, not sparse targets; read them with a head.")
        found = self._read(keys, keep_BT, target_columns(self.kind))
        size = self.manifest.contents["size"]
        flat = decode_targets(found, self.kind, size, self.manifest.vocabulary, rest)
        return flat.map(lambda values_N: spread(values_N, keep_BT))

    def states(self, keys: Sequence[SampleKey], keep_BT: Tensor, layer: int | None = None) -> Tensor:
        """States (B, T, H) of a batch, float16, on the mask's device.

        Args:
            keys: The batch's samples, in its order.
            keep_BT: Its mask; dropped positions hold zeros.
            layer: The block; None for the final states, which a frozen head turns into logits.

        Raises:
            InputError: The cache does not keep these states; or see `require`.
            ValueError: The mask keeps other positions than were cached, under the same token hash.
        """
        column = FINAL if layer is None else block_column(layer)
        if column not in self.manifest.widths:
            wanted = "final states" if layer is None else f"states of block {layer}"
            held = ", ".join(sorted(self.manifest.widths)) or "no states"
            raise InputError(f"the cache {self.folder} keeps no {wanted} (it keeps {held}); build one with them.")
        values = self._read(keys, keep_BT, (column,))[column]
        return spread(torch.from_numpy(values).view(-1, self.manifest.widths[column]), keep_BT)

    def _read(self, keys: Sequence[SampleKey], keep_BT: Tensor, columns: Sequence[str]) -> dict[str, Values]:
        """Columns of a batch's samples, one sample after the other."""
        self.require(keys)
        places = [self._places[key.id] for key in keys]
        stored = [chunk.positions[row] for chunk, row in places]
        kept = keep_BT.sum(1).tolist()
        if kept != stored:
            at = next(number for number, pair in enumerate(zip(kept, stored, strict=True)) if pair[0] != pair[1])
            raise ValueError(f"sample {keys[at].id!r} has {kept[at]} kept positions and {stored[at]} in the cache")
        return {name: np.concatenate([chunk.values(name, row) for chunk, row in places]) for name in columns}

    def _hash(self, name: str) -> str:
        chunk, row = self._places[name]
        return chunk.keys[row].token_hash


def _open_listed(folder: Path, number: int, manifest: Manifest) -> tuple[Shard | None, str]:
    """A shard that is byte for byte what the build wrote and says of itself what the manifest says; or the fault."""
    record = manifest.shards[number]
    path = folder / record.file
    fault = check_bytes(path, record.sha256)
    if fault:
        return None, fault
    shard = open_shard(path)
    header = {name: value for name, value in asdict(manifest).items() if name != "shards"}
    if shard.header != {**header, "shard": number} or record_of(path, shard) != record:
        return None, "is not the shard that the manifest lists"
    return shard, ""


def _counted(names: Sequence[str]) -> str:
    shown = ", ".join(repr(name) for name in names[:_NAMED])
    more = f" and {len(names) - _NAMED} more" if len(names) > _NAMED else ""
    return f"{len(names)} samples ({shown}{more}) are" if len(names) > 1 else f"sample {shown} is"
