"""Building a cache of a teacher's targets: shard by shard, so that a kill costs one shard at most.

Covers the order of the work, what an earlier build left that can be kept, progress and Ctrl-C. Does not cover the
numbers (`rows`) or the files (`shards`).

Samples are taken in the order of their ids, and a pass of the teacher always holds the same ones: a build that was
killed and resumed gives the bytes of one that was not (with the same machine, versions and threads).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import Any

from tutelage.errors import InputError, InterruptedRunError, TutelageError
from tutelage.objectives.logits import DeferredLogits
from tutelage.objectives.position_terms import vocabulary_of
from tutelage.objectives.signal import Signal
from tutelage.progress import Advance, Progress, no_progress
from tutelage.teachers.target_cache.contents import (
    CacheIdentity,
    CacheSettings,
    SampleKey,
    describe_contents,
    name_differences,
)
from tutelage.teachers.target_cache.manifest import Manifest, read_manifest, write_manifest
from tutelage.teachers.target_cache.rows import FINAL, Answer, block_column, encode
from tutelage.teachers.target_cache.shards import (
    PARTIAL,
    ShardRecord,
    ShardWriter,
    check_bytes,
    find_shards,
    named_digest,
    open_shard,
    record_of,
    shard_name,
)

Forward = Callable[[Sequence[int]], Answer]
"""The teacher's answer to the samples at these places of the list of keys."""


@dataclass(frozen=True)
class CacheBuild:
    """What a build found and made.

    Args:
        folder: The cache.
        samples: Of the cache.
        positions: Kept positions.
        bytes: Of all shards.
        kept: Shards of an earlier build that were intact.
        computed: Shards that were made now.
        damaged: Files that an earlier build left and that could not be used; they were replaced.
    """

    folder: Path
    samples: int
    positions: int
    bytes: int
    kept: int
    computed: int
    damaged: tuple[str, ...]


def build_targets(
    keys: Sequence[SampleKey],
    forward: Forward,
    identity: CacheIdentity,
    settings: CacheSettings,
    folder: Path,
    progress: Progress = no_progress,
) -> CacheBuild:
    """Fill `folder` with a teacher's targets, or with what is missing of them.

    Args:
        keys: Every sample; their order plays no part.
        forward: The teacher (`LiveTeacher.signal` on a batch), with labels and mask.
        identity: Of the teacher and the data.
        settings: What to keep.
        folder: Made if needed. What an earlier build of the same cache finished there is verified and kept.
        progress: Told of each sample.

    Raises:
        InputError: The folder holds a cache of something else (every field is named), samples share an id, the teacher
            does not give what the settings ask for, or the folder cannot be written.
        InterruptedRunError: Ctrl-C; finished shards stay.
        MissingExtraError: pyarrow is not installed.
    """
    _require_distinct(keys)
    order = sorted(range(len(keys)), key=lambda place: keys[place].id)
    size = settings.shard_samples
    parts = [order[begin : begin + size] for begin in range(0, len(order), size)]
    work = _Work(keys, forward, settings, folder, describe_contents(identity, settings))
    kept, damaged = work.survey(parts)
    finished = dict(kept)
    try:
        done = sum(kept[number].samples for number in kept)
        with progress("cache the teacher", total=len(keys), unit="sample", done=done) as advance:
            for number in (number for number in range(len(parts)) if number not in kept):
                finished[number] = work.compute(number, parts[number], advance)
    except KeyboardInterrupt as error:
        raise InterruptedRunError(
            f"stopped: {len(finished)} of {len(parts)} shards of the cache {folder} are finished and stay; "
            "run the same command again to go on."
        ) from error
    records = tuple(finished[number] for number in range(len(parts)))
    work.close(records)
    return CacheBuild(
        folder,
        len(keys),
        sum(record.positions for record in records),
        sum(record.bytes for record in records),
        len(kept),
        len(parts) - len(kept),
        tuple(damaged),
    )


class _Work:
    """One build."""

    def __init__(
        self,
        keys: Sequence[SampleKey],
        forward: Forward,
        settings: CacheSettings,
        folder: Path,
        contents: Mapping[str, Any],
    ) -> None:
        self._keys, self._forward, self._settings, self._folder = keys, forward, settings, folder
        self._contents, self._layout = contents, settings.layout()
        self._shape: dict[str, Any] = {}  # vocabulary and widths, from the first answer or an earlier shard

    def survey(self, parts: Sequence[Sequence[int]]) -> tuple[dict[int, ShardRecord], list[str]]:
        """What an earlier build finished, and files of it that cannot be used; nothing is written or removed yet."""
        try:
            manifest = read_manifest(self._folder)
        except InputError:
            pass  # none yet, or damaged: the shards say what they are
        else:
            self._require_same({**manifest.contents, **manifest.layout})
        kept, damaged = {}, []
        for path in find_shards(self._folder):
            if check_bytes(path, named_digest(path)):
                damaged.append(path.name)
                continue
            shard = open_shard(path)
            header = shard.header
            self._require_same({**header["contents"], **header["layout"]})
            number = header["shard"]
            wanted = [self._keys[place] for place in parts[number]] if number < len(parts) else []
            if path.name != shard_name(number, named_digest(path)) or shard.keys != wanted:
                damaged.append(path.name)
                continue
            self._note_shape(header["vocabulary"], header["widths"])
            kept[number] = record_of(path, shard)
        return kept, damaged

    def compute(self, number: int, places: Sequence[int], advance: Advance) -> ShardRecord:
        """Make one shard."""
        answers = self._answers(places)
        first = next(answers)
        self._note_shape(*_shape_of(first[1].signal, self._settings))
        header = {"contents": self._contents, "layout": self._layout, **self._shape}
        with ShardWriter(self._folder, number, header) as writer:
            for batch, answer in chain([first], answers):
                writer.write(
                    [encode(answer, row, self._keys[place], self._settings) for row, place in enumerate(batch)]
                )
                advance(len(batch))
            record = writer.finish()
        for path in find_shards(self._folder, number):
            if path.name != record.file:
                path.unlink()
        return record

    def close(self, records: tuple[ShardRecord, ...]) -> None:
        """Write the manifest, then remove what no manifest lists."""
        write_manifest(self._folder, Manifest(self._contents, self._layout, **self._shape, shards=records))
        listed = {record.file for record in records}
        for path in [*find_shards(self._folder), *self._folder.glob(f".*{PARTIAL}")]:
            if path.name not in listed:
                path.unlink(missing_ok=True)

    def _answers(self, places: Sequence[int]) -> Iterator[tuple[Sequence[int], Answer]]:
        size = self._settings.batch_size
        for begin in range(0, len(places), size):
            batch = places[begin : begin + size]
            answer = self._forward(batch)
            if answer.keep_BT.shape[0] != len(batch):
                raise ValueError(f"the teacher answered {answer.keep_BT.shape[0]} samples of {len(batch)}")
            yield batch, answer

    def _require_same(self, found: Mapping[str, Any]) -> None:
        differences = name_differences(found, {**self._contents, **self._layout})
        if differences:
            raise InputError(
                [
                    f"{self._folder} holds a cache of something else:",
                    *differences,
                    "Choose another folder, or remove it.",
                ]
            )

    def _note_shape(self, vocabulary: int, widths: Mapping[str, int]) -> None:
        shape = {"vocabulary": vocabulary, "widths": dict(widths)}
        if self._shape and self._shape != shape:
            raise TutelageError(f"the teacher's sizes changed during the build: {self._shape} before, {shape} now.")
        self._shape = shape


def _shape_of(signal: Signal, settings: CacheSettings) -> tuple[int, dict[str, int]]:
    """Vocabulary, and the widths of the states that are kept."""
    widths = {
        block_column(layer): signal.states[layer].shape[-1] for layer in settings.layers if layer in signal.states
    }
    if settings.kind == "hidden" and isinstance(signal.scores, DeferredLogits):
        widths[FINAL] = signal.scores.states_BTH.shape[-1]
    return vocabulary_of(signal.scores), widths


def _require_distinct(keys: Sequence[SampleKey]) -> None:
    if not keys:
        raise InputError("there is no sample, so there is nothing to cache.")
    twice = sorted(name for name, count in Counter(key.id for key in keys).items() if count > 1)
    if twice:
        raise InputError(
            f"{len(twice)} sample ids come more than once, {twice[0]!r} first; a cache finds samples by id."
        )
