"""Divergences over the kept positions of a batch: from two models' scores to a sum and a count.

Covers temperature, standardised logits, the teacher's logits, deferred logits or sparse targets, and the refusal of
vocabularies that differ. Does not cover the equations (`divergences`), T^2 (`Objective.combine` owns it) or
cross-entropy with labels (`likelihood`).

Shape letters: B batch, T positions, V vocabulary, N positions of a chunk.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from tutelage.errors import InputError
from tutelage.objectives.chunks import Chunk, Losses, sum_over_positions
from tutelage.objectives.divergences import divergences
from tutelage.objectives.likelihood import clip, log_probabilities
from tutelage.objectives.logits import DeferredLogits
from tutelage.objectives.members import Divergence
from tutelage.objectives.reduction import Reduced, require_mask
from tutelage.objectives.sparse import LOG_PROBABILITY_FLOOR, sparse_cross_entropy
from tutelage.objectives.targets import SparseTargets
from tutelage.objectives.terms import Term

# Added to the variance of a position's logits; constant logits then stay at 0, with a finite gradient.
VARIANCE_EPSILON = 1e-12


def divergence(
    term: Term,
    student: Tensor | DeferredLogits,
    teacher: Tensor | DeferredLogits | SparseTargets,
    keep_BT: Tensor,
    chunk_bytes: int | None = None,
    classes: Tensor | None = None,
) -> Reduced:
    """A divergence between next-token distributions, in nats, summed over kept positions.

    Both distributions are softmax(logits / T), or of standardised logits / T. The gradient shrinks as 1 / T^2; the
    compensating factor is not here but in `Objective.combine`. Float32 whatever the dtypes.

    Args:
        term: Its kind, temperature, mixing weight and whether logits are standardised.
        student: Gradients flow into these (and into a trained head).
        teacher: Detached. Sparse targets serve kinds that are linear in the teacher's distribution: the cross-entropy
            with them less what it is where the student equals the teacher (`SparseTargets.floor_N`). That is the
            divergence itself for top-k, never negative, and an unbiased estimate of it for sampled targets.
        keep_BT: True where a position counts.
        chunk_bytes: See `chunks.sum_over_positions`.
        classes: The student's classes that the teacher's are (`Signal.classes`): the student is cut to them, chunk by
            chunk, and renormalised over them. None compares all.

    Returns:
        Sum in nats and the number of kept positions. Where one model gives mass to a class that the other masks with
        -inf, `LOG_PROBABILITY_FLOOR` stands for the infinite log-ratio.

    Raises:
        InputError: The vocabularies differ in size (padding one with zeros would invent probability mass), or the
            sparse targets do not serve this term.

    Example:
        >>> import torch
        >>> student, teacher = torch.zeros(1, 1, 2), torch.tensor([[[1.0986123, 0.0]]])  # 1/2, 1/2 against 3/4, 1/4
        >>> round(float(divergence(Term("kl"), student, teacher, torch.tensor([[True]])).total), 4)
        0.1308
    """
    losses = divergence_losses(term, vocabulary_of(student), teacher, keep_BT, classes)
    return sum_over_positions([losses], student, keep_BT, chunk_bytes=chunk_bytes)[0]


def divergence_losses(
    term: Term,
    vocabulary: int,
    teacher: Tensor | DeferredLogits | SparseTargets,
    keep_BT: Tensor,
    classes: Tensor | None = None,
) -> Losses:
    """`divergence` of a chunk, for a walk that has other losses too; arguments, and what it raises, as there.

    Args:
        term: See there, as for what follows.
        vocabulary: The student's.
        teacher: Detached.
        keep_BT: True where a position counts.
        classes: Which of the student's classes the teacher's are.
    """
    _refuse_vocabularies(term.kind, vocabulary if classes is None else len(classes), vocabulary_of(teacher))
    if isinstance(teacher, SparseTargets):
        if classes is not None:
            raise InputError(f"{term.kind}: sparse targets are of all the student's classes; use a live teacher")
        return _sparse_losses(term, teacher, keep_BT)
    require_mask(teacher if isinstance(teacher, Tensor) else teacher.states_BTH, keep_BT)
    member, mix = divergences()[term.kind], term.mixing_weight

    def losses(chunk: Chunk) -> Tensor:
        whole, index = chunk.logits_NV, chunk.index
        logits_NV = whole if classes is None else whole.index_select(-1, classes)
        with torch.no_grad():
            answer = teacher[index] if isinstance(teacher, Tensor) else teacher.head.logits(teacher.states_BTH[index])
            log_p_NV = _softened(answer, term)
        if member.linear and not term.standardise:
            log_q_NV = chunk.softmax(term.temperature).log_q_NV if classes is None else None
            losses_N: Tensor = _LinearLosses.apply(  # type: ignore[no-untyped-call]
                logits_NV, log_p_NV, log_q_NV, term.temperature, member
            )
            return losses_N
        return _losses(member, log_p_NV, _softened(logits_NV, term), mix)

    return losses


def vocabulary_of(scores: Tensor | DeferredLogits | SparseTargets) -> int:
    """V."""
    if isinstance(scores, Tensor):
        return scores.shape[-1]
    return scores.vocabulary if isinstance(scores, SparseTargets) else scores.head.vocabulary


def standardise(logits_NV: Tensor) -> Tensor:
    """Each position's logits at mean 0 and standard deviation 1 over its classes, float32; masked classes stay masked.

    The standard deviation is the population's, so that splitting every class in two changes nothing.

    Source:
        sun2024, Algorithm 1, up to the population's standard deviation.
    """
    logits_NV = logits_NV.float()
    open_NV = logits_NV.detach() > -torch.inf
    classes_N1 = open_NV.sum(-1, keepdim=True).clamp_min(1)
    # Masked classes are taken out first: infinity times a gradient of 0 is not a number.
    logits_NV = logits_NV.where(open_NV, 0.0)
    centred_NV = (logits_NV - logits_NV.sum(-1, keepdim=True) / classes_N1).where(open_NV, 0.0)
    variance_N1 = centred_NV.square().sum(-1, keepdim=True) / classes_N1
    return (centred_NV * (variance_N1 + VARIANCE_EPSILON).rsqrt()).where(open_NV, -torch.inf)


def _softened(logits_NV: Tensor, term: Term) -> Tensor:
    return log_probabilities(standardise(logits_NV) if term.standardise else logits_NV, term.temperature)


def _losses(member: Divergence, log_p_NV: Tensor, log_q_NV: Tensor, mix: float | None) -> Tensor:
    return member.losses(log_p_NV, log_q_NV) if mix is None else member.losses(log_p_NV, log_q_NV, mix)


class _LinearLosses(torch.autograd.Function):
    """A divergence linear in p, whose gradient is (q - p) / temperature in closed form: half the memory of autograd."""

    @staticmethod
    def forward(
        ctx: Any, logits_NV: Tensor, log_p_NV: Tensor, log_q_NV: Tensor | None, temperature: float, member: Divergence
    ) -> Tensor:
        log_q_NV = log_probabilities(logits_NV, temperature) if log_q_NV is None else clip(log_q_NV)
        ctx.temperature, ctx.dtype = temperature, logits_NV.dtype
        ctx.save_for_backward(log_p_NV, log_q_NV)
        losses_N: Tensor = member.losses(log_p_NV, log_q_NV)
        return losses_N

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, slope_N: Tensor) -> tuple[Tensor | None, ...]:
        log_p_NV, log_q_NV = ctx.saved_tensors
        p_NV, q_NV = log_p_NV.exp(), log_q_NV.exp()
        if log_q_NV.numel() > 0 and float(log_q_NV.amin()) <= LOG_PROBABILITY_FLOOR:  # clipped entries have gradient 0
            p_NV = p_NV.where(log_q_NV > LOG_PROBABILITY_FLOOR, 0.0)
            q_NV = q_NV.mul_(p_NV.sum(-1, keepdim=True))
        gradient_NV = q_NV.sub_(p_NV).mul_((slope_N / ctx.temperature)[:, None])
        return gradient_NV.to(ctx.dtype), None, None, None, None


def _sparse_losses(term: Term, targets: SparseTargets, keep_BT: Tensor) -> Losses:
    if not divergences()[term.kind].linear or term.standardise:
        serves = ", ".join(kind for kind, member in divergences().items() if member.linear)
        raise InputError(
            f"{term.kind}{' of standardised logits' if term.standardise else ''} needs the teacher's whole "
            f"distribution, and this teacher is cached as sparse targets; use {serves}, or a live teacher"
        )
    if term.temperature != targets.temperature:
        raise InputError(
            f"{term.kind} has temperature {term.temperature:g}, and the teacher's targets were made at "
            f"{targets.temperature:g}; sparse targets hold one temperature only"
        )
    require_mask(targets.floor_N, keep_BT)

    def losses(chunk: Chunk) -> Tensor:
        chosen, softmax = targets[chunk.index], chunk.softmax(term.temperature)
        return sparse_cross_entropy(chunk.logits_NV, chosen, term.temperature, softmax) - chosen.floor_N

    return losses


def _refuse_vocabularies(kind: str, student: int, teacher: int) -> None:
    if student != teacher:
        raise InputError(
            f"{kind}: the student's vocabulary has {student} entries and the teacher's {teacher}; "
            "a divergence needs one shared vocabulary. "
            f"Use a teacher and a student of one tokenizer, or drop the {kind} term."
        )
