"""Rows of one length out of documents of any length, every label in exactly one row.

- "documents": documents longer than a row are cut into pieces of its length; pieces share rows (best fit), and no
  position attends to another piece or is supervised across one. A later piece begins without the text before it.
- "stream": documents one after the other, cut into rows wherever they fall; positions attend to whatever came before in
  their row, other documents among it. Nothing is padded but the last row.

Covers the rows and what was done, as counts. Does not cover tensors (`batch`) or the attention mask (`forward`).
Torch-free.
"""

from __future__ import annotations

import bisect
import hashlib
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from typing import Literal

import numpy as np

from tutelage.errors import InputError
from tutelage.tasks.text.codec import Encoded, Flags, Ids

Packing = Literal["documents", "stream"]


@dataclass(frozen=True)
class Row:
    """One row.

    Args:
        id: Its name in the corpus.
        inputs: What the model reads.
        labels: The token that follows each input.
        keep: True where the label is supervised.
        pieces: For each position the number of its piece in the row, from 1.
        owners: The document (its place in the corpus) of each piece.
    """

    id: str
    inputs: Ids
    labels: Ids
    keep: Flags
    pieces: Ids
    owners: tuple[int, ...]

    def __len__(self) -> int:
        return int(self.inputs.size)

    @property
    def token_hash(self) -> str:
        """SHA-256 (hex) of everything that a model is shown of the row; with the id the key of a cache."""
        digest = hashlib.sha256()
        for part in (self.inputs, self.labels, self.keep, self.pieces):
            digest.update(np.ascontiguousarray(part, dtype="<i4").tobytes())
        return digest.hexdigest()


@dataclass(frozen=True)
class Packed:
    """The rows of a corpus.

    Args:
        rows: At least one.
        isolated: Whether positions attend within their piece only.
        length: Positions of a full row.
        documents: How many documents there were.
        cut: How many of them are in more than one piece.
        tokens: Positions that hold something.
        supervised: Of those, how many are supervised.
    """

    rows: tuple[Row, ...]
    isolated: bool
    length: int
    documents: int
    cut: int
    tokens: int
    supervised: int

    def describe(self) -> str:
        """One line for people."""
        context = "no position attends across documents" if self.isolated else "positions attend across documents"
        padding = 1 - self.tokens / (len(self.rows) * self.length)
        return (
            f"{self.documents} documents ({self.cut} cut) in {len(self.rows)} rows of {self.length}, "
            f"{self.supervised:,} of {self.tokens:,} tokens supervised, {padding:.1%} padding; {context}"
        )

    def to_dict(self) -> dict[str, int | bool]:
        """The counts, for `result.json`."""
        counts = {name: value for name, value in asdict(self).items() if name != "rows"}
        return {**counts, "rows": len(self.rows)}


@dataclass(frozen=True)
class _Piece:
    owner: int
    begin: int
    end: int

    def __len__(self) -> int:
        return self.end - self.begin


def pack(documents: Sequence[Encoded], length: int, packing: Packing) -> Packed:
    """Fill rows of `length` positions.

    Raises:
        InputError: Nothing is supervised.
        ValueError: `length` is below 2, or there is no document.
    """
    if length < 2 or not documents:
        raise ValueError(f"packing needs a length from 2 and a document, not {length} and {len(documents)}.")
    isolated = packing == "documents"
    filled = _best_fit(documents, length) if isolated else _stream(documents, length)
    rows = tuple(_row(f"row-{number:06d}", pieces, documents) for number, pieces in enumerate(filled))
    in_pieces = np.bincount([owner for row in rows for owner in row.owners], minlength=len(documents))
    supervised = sum(int(document.keep.sum()) for document in documents)
    if supervised == 0:
        raise InputError("No position of the data is supervised.")
    tokens = sum(len(row) for row in rows)
    return Packed(rows, isolated, length, len(documents), int((in_pieces > 1).sum()), tokens, supervised)


def _best_fit(documents: Sequence[Encoded], length: int) -> list[list[_Piece]]:
    """Whole pieces, the longest first, each into the fullest row that has room for it."""
    pieces = [
        _Piece(owner, begin, min(begin + length, len(document)))
        for owner, document in enumerate(documents)
        for begin in range(0, len(document), length)
    ]
    rows: list[list[_Piece]] = []
    room: dict[int, list[int]] = {}  # rows by free positions
    sizes: list[int] = []  # keys of `room`, rising
    for piece in sorted(pieces, key=lambda piece: -len(piece)):
        place = bisect.bisect_left(sizes, len(piece))
        if place == len(sizes):
            rows.append([])
            number, free = len(rows) - 1, length
        else:
            free = sizes[place]
            number = room[free].pop(0)
            if not room[free]:
                del room[free], sizes[place]
        rows[number].append(piece)
        left = free - len(piece)
        if left not in room:
            room[left] = []
            bisect.insort(sizes, left)
        room[left].append(number)
    return rows


def _stream(documents: Sequence[Encoded], length: int) -> list[list[_Piece]]:
    """Documents in order, cut where a row ends."""
    rows: list[list[_Piece]] = [[]]
    free = length
    for owner, document in enumerate(documents):
        begin = 0
        while begin < len(document):
            if free == 0:
                rows.append([])
                free = length
            end = min(begin + free, len(document))
            rows[-1].append(_Piece(owner, begin, end))
            free -= end - begin
            begin = end
    return rows


def _row(name: str, pieces: Sequence[_Piece], documents: Sequence[Encoded]) -> Row:
    parts = [(documents[piece.owner], slice(piece.begin, piece.end)) for piece in pieces]
    return Row(
        name,
        _joined(document.inputs[part] for document, part in parts),
        _joined(document.labels[part] for document, part in parts),
        np.concatenate([document.keep[part] for document, part in parts]),
        _joined(np.full(len(piece), number, dtype=np.int32) for number, piece in enumerate(pieces, start=1)),
        tuple(piece.owner for piece in pieces),
    )


def _joined(parts: Iterable[Ids]) -> Ids:
    return np.concatenate(list(parts)).astype(np.int32)
