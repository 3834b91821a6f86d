"""What a training batch of text is.

Covers collation with masks from lengths, and the rows of a corpus as batches by position. Does not cover the rows
(`packing`), their order (`tasks.sampler`) or any forward pass (`forward`).

Shape letters: B batch, T positions.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor

from tutelage.errors import InputError
from tutelage.tasks.text.codec import Encoded
from tutelage.tasks.text.packing import Packed, Row


@dataclass(frozen=True)
class TextBatch:
    """Rows of text, ready for a pass; labels are shifted already.

    Args:
        ids: The rows; with `token_hashes` the key of a cache.
        token_hashes: `Row.token_hash` of each.
        input_ids_BT: Padded on the right with end-of-text.
        labels_BT: The token that follows each position; its value where `keep_BT` is False means nothing.
        keep_BT: True where a position is supervised.
        pieces_BT: The number of each position's piece in its row, from 1; 0 is padding.
        isolated: Whether positions attend within their piece only.
    """

    ids: tuple[str, ...]
    token_hashes: tuple[str, ...]
    input_ids_BT: Tensor
    labels_BT: Tensor
    keep_BT: Tensor
    pieces_BT: Tensor
    isolated: bool

    @property
    def supervised_tokens(self) -> int:
        """How many positions are supervised."""
        return int(self.keep_BT.sum())

    def to(self, device: torch.device | str) -> TextBatch:
        """The same batch on another device."""
        return replace(
            self,
            input_ids_BT=self.input_ids_BT.to(device),
            labels_BT=self.labels_BT.to(device),
            keep_BT=self.keep_BT.to(device),
            pieces_BT=self.pieces_BT.to(device),
        )


def collate(rows: Sequence[Row], isolated: bool, end: int) -> TextBatch:
    """One batch: right padding with end-of-text, masks from lengths and never from ids (end-of-text is a label too).

    Raises:
        ValueError: There is no row.
    """
    if not rows:
        raise ValueError("a batch needs at least one row.")
    shape = (len(rows), max(len(row) for row in rows))
    inputs_BT, labels_BT = np.full(shape, end, dtype=np.int64), np.full(shape, end, dtype=np.int64)
    keep_BT, pieces_BT = np.zeros(shape, dtype=np.bool_), np.zeros(shape, dtype=np.int64)
    for number, row in enumerate(rows):
        used = len(row)
        inputs_BT[number, :used], labels_BT[number, :used] = row.inputs, row.labels
        keep_BT[number, :used], pieces_BT[number, :used] = row.keep, row.pieces
    return TextBatch(
        tuple(row.id for row in rows),
        tuple(row.token_hash for row in rows),
        torch.from_numpy(inputs_BT),
        torch.from_numpy(labels_BT),
        torch.from_numpy(keep_BT),
        torch.from_numpy(pieces_BT),
        isolated,
    )


class TextExamples:
    """Everything that a run draws its batches from.

    Args:
        packed: The rows, which the sampler's indices refer to.
        documents: What they were made of, in the corpus's order.
        end: End-of-text, which pads.
        positions: The longest sequence that every model takes.

    Raises:
        InputError: Rows are longer than that.
    """

    def __init__(self, packed: Packed, documents: Sequence[Encoded], end: int, positions: int) -> None:
        if packed.length > positions:
            raise InputError(f"data.length is {packed.length}; the model's positions end at {positions}.")
        self.packed = packed
        self.documents = tuple(documents)
        self._end = end

    def __len__(self) -> int:
        return len(self.packed.rows)

    def batch(self, indices: Sequence[int]) -> TextBatch:
        """The rows at these positions, as one batch on the CPU."""
        return collate([self.packed.rows[index] for index in indices], self.packed.isolated, self._end)
