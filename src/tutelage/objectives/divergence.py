"""Divergences between the teacher's and the student's next-token distributions: zero exactly when they agree.

Covers the forward Kullback-Leibler divergence on one shared vocabulary. Does not cover T**2 (`Objective.combine` owns
it), different vocabularies (refused) or sparse targets.

Shape letters: B batch, T positions, V vocabulary, N kept positions.
"""

from __future__ import annotations

from torch import Tensor

from tutelage.errors import InputError
from tutelage.objectives.likelihood import log_probabilities
from tutelage.objectives.reduction import Reduced, gather_kept, sum_rows


def forward_kl(
    student_logits_BTV: Tensor, teacher_logits_BTV: Tensor, keep_BT: Tensor, temperature: float = 1.0
) -> Reduced:
    """KL(teacher || student) in nats, summed over the vocabulary and over kept positions.

    Equation: sum over kept positions and v of p_T(v) * (log p_T(v) - log p_S(v)), p = softmax(logits / temperature).
    Its gradient shrinks as 1 / temperature**2; the compensating factor is not here but in `Objective.combine`.

    Args:
        student_logits_BTV: Gradients flow into these.
        teacher_logits_BTV: Detached.
        keep_BT: True where a position counts.
        temperature: Above 0; softens both distributions.

    Returns:
        Sum in nats and the number of kept positions. Where the teacher gives mass to a class that the student masks
        with -inf, `LOG_PROBABILITY_FLOOR` stands for the infinite log-ratio.

    Raises:
        InputError: The vocabularies differ in size. Padding one with zeros would invent probability mass.

    Source:
        hinton2015, Eq. 1 (temperature); the soft cross-entropy of section 2 less the teacher's entropy.

    Example:
        >>> import torch
        >>> student, teacher = torch.zeros(1, 1, 2), torch.tensor([[[1.0986123, 0.0]]])  # 1/2, 1/2 against 3/4, 1/4
        >>> round(float(forward_kl(student, teacher, torch.tensor([[True]])).total), 4)
        0.1308
    """
    if student_logits_BTV.shape[-1] != teacher_logits_BTV.shape[-1]:
        raise InputError(
            f"kl: the student's vocabulary has {student_logits_BTV.shape[-1]} entries and the teacher's "
            f"{teacher_logits_BTV.shape[-1]}; a divergence needs one shared vocabulary. "
            "Use a teacher and a student of one tokenizer, or drop the kl term."
        )
    log_p_NV = log_probabilities(gather_kept(teacher_logits_BTV.detach(), keep_BT), temperature)
    log_q_NV = log_probabilities(gather_kept(student_logits_BTV, keep_BT), temperature)
    return sum_rows((log_p_NV.exp() * (log_p_NV - log_q_NV)).sum(-1))
