"""Outputs of a language model's lower blocks, which its students leave frozen: computed once a row, found by content.

Covers an on-disk cache under `<cache>/frozen_blocks`, what a row's key is made of, and the blocks' answers on a batch,
which `students.cohort.SharedPrefix` replays. Does not cover files (`entries`) or encoders (`prefix_cache`).

A key is a SHA-256 over the row's tokens and pieces and everything else that the outputs depend on: the weights below
the lowest adapter, the configuration, the number of blocks, types and versions. Values keep the type they were
computed in, and are computed in rows of full length. Of the last frozen block alone the output is kept: those below are
read by nobody, since preflight refuses to compare a state that no trained weight moves.

A row that is in a batch with others gets the same bits as alone, but another length of the padded row gives other last
bits. So a batch in which no row is full is run as ever, and so is one with a row that is not here (held-out data): what
is replayed is what the blocks would have answered, to the bit with one machine's kernels.

Shape letters: B batch, T positions, H hidden.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import pad

from tutelage.errors import TutelageError
from tutelage.progress import Progress, Talk, no_progress, say_nothing
from tutelage.records.hashing import sha256_json
from tutelage.records.locations import cache_folder
from tutelage.students.cohort import SharedPrefix, blocks_of
from tutelage.tasks.text.batch import TextBatch, TextExamples
from tutelage.teachers.entries import EntryStore, MissingEntryError

LAYOUT = "1"
"""Part of every key; raised when the meaning of an entry changes."""

FOLDER = "frozen_blocks"
_VOLATILE = ("transformers_version", "dtype", "torch_dtype")  # of a configuration: they move no output


@dataclass(frozen=True)
class FrozenBlocks:
    """What is cached, and how it is computed.

    Args:
        prefix: The blocks that no student trains.
        forward: A pass of one of the students over a batch.
        length: Positions of a full row.
        identity: Everything that the outputs depend on beside the rows (`identify_blocks`).
    """

    prefix: SharedPrefix
    forward: Callable[[TextBatch], object]
    length: int
    identity: Mapping[str, str]


@dataclass(frozen=True)
class BlockUse:
    """What filling a cache found and made.

    Args:
        hits: Rows that were there.
        misses: Rows that were computed.
        damaged: Files that were there but cut off or changed; each was computed again.
        bytes_written: Of the files that were written.
    """

    hits: int
    misses: int
    damaged: tuple[Path, ...]
    bytes_written: int


class BlockCache:
    """Answers for the frozen blocks.

    Args:
        blocks: What is cached.
        folder: Where entries are; None for `$TUTELAGE_CACHE` or else the user's cache folder.
        talk: Told, once each, of damaged entries and of a disk that takes no more.
    """

    def __init__(self, blocks: FrozenBlocks, folder: Path | None = None, talk: Talk = say_nothing) -> None:
        self._blocks, self._talk = blocks, talk
        self._store = EntryStore((folder or cache_folder()) / FOLDER, "outputs of frozen blocks", talk)
        self._identity = sha256_json({"layout": LAYOUT, **blocks.identity})
        self._known: set[str] = set()
        self._wraps: tuple[Callable[[Tensor], Any], ...] = ()

    def fill(
        self, examples: TextExamples, batch_size: int, device: torch.device, progress: Progress = no_progress
    ) -> BlockUse:
        """Find or compute the outputs on every row.

        Args:
            examples: The rows.
            batch_size: Rows a pass.
            device: Of the student.
            progress: Told of each row.
        """
        damaged: list[Path] = []
        hits, before, missing = 0, self._store.bytes_written, []
        self._wraps = tuple(map(_wrap_like, self._record(examples.batch([0]).to(device))))
        with progress("frozen blocks", total=len(examples), unit="row") as advance:
            for index in range(len(examples)):
                (key,) = self._keys(examples.batch([index]))
                try:
                    self._store.read(key)
                except MissingEntryError as error:
                    missing.append(index)
                    if error.damaged:
                        damaged.append(error.path)
                        self._talk(f"{error}; it is computed again.")
                    continue
                self._known.add(key)
                hits += 1
                advance(1)
            for begin in range(0, len(missing), batch_size):
                indices = missing[begin : begin + batch_size]
                self._compute(examples.batch(indices), device)
                advance(len(indices))
        return BlockUse(hits, len(missing), tuple(damaged), self._store.bytes_written - before)

    @contextmanager
    def replay(self, student: nn.Module, batch: TextBatch) -> Iterator[None]:
        """Within this context the frozen blocks of `student` answer a pass over `batch`, where they are known."""
        with self._blocks.prefix.replay(student, self.outputs(batch)):
            yield

    def outputs(self, batch: TextBatch) -> tuple[Any, ...]:
        """What the blocks put out on a batch, as `SharedPrefix.record` has it; () where it is to be run.

        The blocks below the last answer with its output too: nobody reads it.

        Raises:
            TutelageError: An entry was damaged or deleted since it was made.
        """
        keys = self._keys(batch)
        if batch.input_ids_BT.shape[1] != self._blocks.length or not self._known.issuperset(keys):
            return ()
        try:
            found = [self._store.read(key)[0] for key in keys]
        except MissingEntryError as error:
            raise TutelageError(f"{error}. It was there when this run began; run again to compute it anew.") from error
        length, device = self._blocks.length, batch.input_ids_BT.device
        state_BTH = torch.stack([pad(one_TH, (0, 0, 0, length - len(one_TH))) for one_TH in found]).to(device)
        return tuple(wrap(state_BTH) for wrap in self._wraps)

    def _compute(self, batch: TextBatch, device: torch.device) -> None:
        more = (0, self._blocks.length - batch.input_ids_BT.shape[1])
        full = replace(
            batch,
            input_ids_BT=pad(batch.input_ids_BT, more),
            labels_BT=pad(batch.labels_BT, more),
            keep_BT=pad(batch.keep_BT, more),
            pieces_BT=pad(batch.pieces_BT, more),
        )
        *_, answer = self._record(full.to(device))
        state_BTH: Tensor = (answer[0] if isinstance(answer, tuple) else answer).cpu()
        for row, (key, used) in enumerate(zip(self._keys(batch), _lengths(batch), strict=True)):
            self._store.write(key, state_BTH[row, :used])
            self._known.add(key)

    def _record(self, batch: TextBatch) -> tuple[Any, ...]:
        return self._blocks.prefix.record(lambda: self._blocks.forward(batch))

    def _keys(self, batch: TextBatch) -> list[str]:
        """Of what is in the rows now, so that a row with other tokens under its name is never taken for the first."""
        keys = []
        ids_BT, pieces_BT = batch.input_ids_BT.cpu().numpy(), batch.pieces_BT.cpu().numpy()
        for ids_T, pieces_T, used in zip(ids_BT, pieces_BT, _lengths(batch), strict=True):
            digest = hashlib.sha256(f"{self._identity} {batch.isolated} ".encode())
            digest.update(ids_T[:used].astype("<i4").tobytes())
            digest.update(pieces_T[:used].astype("<i4").tobytes())
            keys.append(digest.hexdigest())
        return keys


def identify_blocks(student: Any, depth: int, precision: str) -> dict[str, str]:
    """Everything that the outputs of the lowest `depth` blocks depend on beside the rows.

    Args:
        student: With its adapters. All its weights but those of the blocks above count: embeddings are among them.
        depth: Blocks from the bottom.
        precision: Of the passes ("no" is that of the weights).
    """
    plain = student.get_base_model() if hasattr(student, "get_base_model") else student
    above = {id(one) for block in blocks_of(student)[depth:] for one in (*block.parameters(), *block.buffers())}
    digest, types = hashlib.sha256(), set()
    for name, value in (*plain.named_parameters(), *plain.named_buffers()):
        if id(value) in above:
            continue
        types.add(str(value.dtype))
        digest.update(f"{name} {value.dtype} {tuple(value.shape)} ".encode())
        digest.update(value.detach().cpu().contiguous().view(torch.uint8).numpy().tobytes())
    settings = {
        name: str(value)
        for name, value in plain.config.to_dict().items()
        if not (name in _VOLATILE or name.startswith("_"))
    }
    return {
        "weights": digest.hexdigest(),
        "config": sha256_json(settings),
        "blocks": str(depth),
        "types": " ".join(sorted(types)),
        "precision": precision,
        "device": plain.device.type,
        "torch": torch.__version__,
    }


def _lengths(batch: TextBatch) -> list[int]:
    lengths: list[int] = (batch.pieces_BT > 0).sum(1).tolist()
    return lengths


def _wrap_like(answer: Any) -> Callable[[Tensor], Any]:
    """A state in the form of a block's answer: itself, or in a tuple as in transformers 4."""
    if isinstance(answer, tuple):
        return lambda state: (state, *answer[1:])
    return lambda state: state
