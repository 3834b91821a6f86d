"""Sums over the supervised positions of a batch, with their count.

Covers gathering kept positions and the (sum, count) pair that every loss returns. Does not cover division: the one
place that divides is `Objective`, by counts of the whole optimiser step, so that no split into micro-batches or ranks
changes a loss.

Shape letters: B batch, T positions, N kept positions.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor


class Reduced(NamedTuple):
    """A loss before division.

    Attributes:
        total: Sum over kept positions; float32 scalar.
        count: Number of kept positions.
    """

    total: Tensor
    count: int | Tensor  # type: ignore[assignment]  # hides tuple.count, which nobody calls on a loss


def gather_kept(values: Tensor, keep_BT: Tensor) -> Tensor:
    """The rows of `values` at kept positions.

    Selecting before computing (not multiplying by a mask after) is what keeps infinities and NaN at dropped positions
    out of the loss, and the gradient there at exactly 0.

    Args:
        values: (B, T, ...) or, for positions already flat, (N, ...).
        keep_BT: Boolean, True where the position counts; its shape is the leading shape of `values`.

    Returns:
        (N, ...), in the dtype of `values`.

    Raises:
        ValueError: The mask is not boolean (a 0/1 integer mask would be read as indices), or shapes disagree.
    """
    require_mask(values, keep_BT)
    return values[keep_BT]


def require_mask(values: Tensor, keep_BT: Tensor) -> None:
    """Refuse a mask that is not one.

    Raises:
        ValueError: It is not boolean (a 0/1 integer mask would be read as indices), or shapes disagree.
    """
    if keep_BT.dtype != torch.bool:
        raise ValueError(f"keep_BT has dtype {keep_BT.dtype}; a mask is boolean, True where a position counts")
    if values.shape[: keep_BT.ndim] != keep_BT.shape:
        raise ValueError(f"values of shape {tuple(values.shape)} do not match a mask of shape {tuple(keep_BT.shape)}")


def sum_rows(losses_N: Tensor) -> Reduced:
    """Sum and count of one loss per kept position. No positions give (0, 0), with a gradient of 0."""
    return Reduced(losses_N.sum(), losses_N.shape[0])
