"""Alignments of whole sets of states: how positions stand to each other, not where each one is.

Covers linear CKA, Gram matrices of cosines, and the orthogonal Procrustes distance; the set is one utterance or
document. None needs a projector, since none asks for equal widths, so no projector can absorb the loss. Does not cover
sets over several utterances: they would depend on how a batch is cut into micro-batches.

Shape letters: N positions, S student width, H teacher width.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from tutelage.objectives.alignments.pointwise import unit
from tutelage.objectives.members import Alignment

if TYPE_CHECKING:
    from torch import Tensor

_SMALLEST_NORM = 1e-12  # of a whole set; one that is all zero is left so


def linear_cka(x_NS: Tensor, y_NH: Tensor) -> Tensor:
    """1 - CKA of one set of centred states, from 0 to 1: blind to rotation and scale of either side.

    Equation: half the squared Frobenius distance of the two Gram matrices, each of norm 1; that is
    1 - |Y'X|^2 / (|X'X| |Y'Y|), without its rounding below 0. Costs N^2 memory.

    Source:
        kornblith2019, section 3 (linear kernel).

    Example:
        >>> import torch
        >>> x = torch.tensor([[0.0, 1.0], [2.0, 0.0], [1.0, 3.0]])
        >>> float(linear_cka(x, 5 * x.flip(1))) < 1e-6
        True
    """
    grams = [_whole(x @ x.T) for x in (_whole(x_NS), _whole(y_NH))]
    return 0.5 * (grams[0] - grams[1]).square().sum()[None]


def gram(x_NS: Tensor, y_NH: Tensor) -> Tensor:
    """Mean squared difference of the cosines between all pairs of positions of one set, from 0 to 4.

    Blind to rotation, and to the length of each state. Costs N^2 memory.

    Source:
        bhattarai2025 (Gram matrices of features); the unit rows and the mean are ours.
    """
    cosines = [u @ u.T for u in (unit(x_NS), unit(y_NH))]
    return (cosines[0] - cosines[1]).square().mean()[None]


def procrustes(x_NS: Tensor, y_NH: Tensor) -> Tensor:
    """Squared distance of two sets of norm 1 after the best rotation, from 0 to 2.

    Equation: min over rotations R of |X R - Y|^2 = 2 - 2 (sum of the singular values of X'Y), the narrower side with
    zeros for the width that it lacks.
    The best R is held fixed in the backward pass: its own change contributes nothing at the minimum, and the gradient
    of a singular value decomposition is not finite where values repeat.

    Source:
        bhattarai2025 (Procrustes distance); the norm of 1 and the width of R are ours.
    """
    x_NS, y_NH = _whole(x_NS), _whole(y_NH)
    rotation_SH = _best_rotation(x_NS.detach(), y_NH.detach())
    # The narrower side is turned, in whose space nothing is lost: zeros would be added to its width.
    narrow = x_NS.shape[1] <= y_NH.shape[1]
    apart = x_NS @ rotation_SH - y_NH if narrow else x_NS - y_NH @ rotation_SH.T
    return apart.square().sum()[None]


def _best_rotation(x_NS: Tensor, y_NH: Tensor) -> Tensor:
    """R = U V' of the decomposition of X'Y = U s V', found among N x N matrices where sets are smaller than widths."""
    import torch

    bases, triangles = zip(*(torch.linalg.qr(x.T) for x in (x_NS, y_NH)), strict=True)
    inner = triangles[0] @ triangles[1].T
    if not bool(inner.isfinite().all()):  # the decomposition would raise; the step names the loss that is not finite
        return x_NS.T @ y_NH
    left, _, right = torch.linalg.svd(inner, full_matrices=False)
    rotation: Tensor = bases[0] @ left @ right @ bases[1].T
    return rotation


def _whole(x: Tensor) -> Tensor:
    """The matrix at Frobenius norm 1."""
    norm: Tensor = x.norm()
    return x / norm.clamp_min(_SMALLEST_NORM)


def _one(positions: int) -> int:  # noqa: ARG001  (a set has one loss, however large)
    return 1


MEMBERS = (
    Alignment("linear_cka", linear_cka, "set", _one, smallest=2, projected=False, centring="always"),
    Alignment("gram", gram, "set", _one, smallest=2, projected=False),
    Alignment("procrustes", procrustes, "set", _one, smallest=2, projected=False),
)
