"""A contrast: the teacher's state of a position must be told from those of the other positions of its set.

Covers InfoNCE with negatives from the same utterance or document. Does not cover negatives from the rest of a batch,
which would depend on how it is cut into micro-batches. Not a distance: it is not zero at equality.

Shape letters: H hidden, N positions.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from tutelage.objectives.alignments.pointwise import unit
from tutelage.objectives.members import Alignment

if TYPE_CHECKING:
    from torch import Tensor


def infonce(z_NH: Tensor, h_NH: Tensor, temperature: float) -> Tensor:
    """Negative log-likelihood, in nats a position, of the position's own teacher state among those of its set.

    Equation: -log softmax over j of cos(z_i, h_j) / temperature, at j = i. Log N where nothing is told apart; a
    temperature of about 0.1 is usual, and there is no factor T^2.

    Source:
        oord2018, Eq. 4.

    Example:
        >>> import torch
        >>> round(float(infonce(torch.eye(2), torch.eye(2), 1.0)[0]), 4)  # log(1 + 1/e)
        0.3133
    """
    similarity_NN = unit(z_NH) @ unit(h_NH).T / temperature
    return similarity_NN.logsumexp(-1) - similarity_NN.diagonal()


MEMBERS = (Alignment("infonce", infonce, "set", smallest=2, takes_temperature=True, zero=None),)
