"""Cross-entropy with labels, and the log-probabilities that likelihoods and divergences share.

Covers hard labels. Does not cover soft labels (`sparse`, `divergences`), temperature on cross-entropy (it has none), or
shifting (labels are already aligned with the logits).

Shape letters: B batch, T positions, V vocabulary, N kept positions.
"""

from __future__ import annotations

import torch
from torch import Tensor

from tutelage.objectives.chunks import Chunk, Losses, sum_over_positions
from tutelage.objectives.logits import DeferredLogits
from tutelage.objectives.reduction import Reduced
from tutelage.objectives.sparse import LOG_PROBABILITY_FLOOR, sparse_cross_entropy
from tutelage.objectives.targets import label_targets


def log_probabilities(logits_NV: Tensor, temperature: float = 1.0) -> Tensor:
    """Log-softmax of logits / temperature, in nats, in float32 whatever the input dtype.

    bfloat16 log-softmax is not enough: the gradient of a student close to its teacher is then mostly rounding.

    Args:
        logits_NV: Any float dtype; -inf masks a class.
        temperature: Above 0.

    Returns:
        (N, V) float32, not below `LOG_PROBABILITY_FLOOR`; clipped entries have gradient 0.
    """
    logits_NV = logits_NV.float()
    if temperature != 1.0:
        logits_NV = logits_NV / temperature
    return clip(torch.log_softmax(logits_NV, dim=-1))


def clip(log_p_NV: Tensor) -> Tensor:
    """Log-probabilities, not below `LOG_PROBABILITY_FLOOR`; clipped entries have gradient 0."""
    # Clipping costs as much as the softmax (forward and backward), looking for something to clip a tenth of that.
    if log_p_NV.numel() > 0 and float(log_p_NV.detach().amin()) < LOG_PROBABILITY_FLOOR:
        log_p_NV = log_p_NV.clamp(min=LOG_PROBABILITY_FLOOR)
    return log_p_NV


def cross_entropy(scores_BTV: Tensor | DeferredLogits, labels_BT: Tensor, keep_BT: Tensor) -> Reduced:
    """Negative log-likelihood of the labels, in nats, summed over kept positions.

    Equation: sum over kept (b, t) of -log softmax(logits[b, t])[labels[b, t]].

    Args:
        scores_BTV: Student logits, or what they are made of.
        labels_BT: The right class at each position, int64; what stands at dropped positions is never read.
        keep_BT: True where a position is supervised. There is no ignore index: -100 at a kept position is an error.

    Returns:
        Sum in nats and the number of kept positions.

    Example:
        >>> import torch
        >>> loss = cross_entropy(torch.zeros(1, 2, 4), torch.tensor([[3, -100]]), torch.tensor([[True, False]]))
        >>> round(float(loss.total), 4), loss.count
        (1.3863, 1)
    """
    return sum_over_positions([label_losses(labels_BT)], scores_BTV, keep_BT)[0]


def label_losses(labels_BT: Tensor) -> Losses:
    """`cross_entropy` of a chunk, for a walk that has other losses too."""

    def losses(chunk: Chunk) -> Tensor:
        targets = label_targets(labels_BT[chunk.index], chunk.logits_NV.shape[-1])
        return sparse_cross_entropy(chunk.logits_NV, targets, softmax=chunk.softmax())

    return losses
