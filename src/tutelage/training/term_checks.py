"""Checks that run the objective: every term is zero where it must be, reaches the student, and ignores what is dropped.

Covers checks over signals that are already there. Does not cover running the models (`training.preflight`) or checks
on names and counts (`training.checks`).

Shape letters: B batch, T positions, V vocabulary, H hidden.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor, nn

from tutelage.objectives.alignments import alignments
from tutelage.objectives.alignments.pointwise import ZERO_OF_ANGLE
from tutelage.objectives.logits import DeferredLogits
from tutelage.objectives.members import ZERO
from tutelage.objectives.objective import Objective, Projectors
from tutelage.objectives.signal import Signal
from tutelage.objectives.targets import SparseTargets
from tutelage.objectives.terms import LayerPair, Term
from tutelage.training.checks import NAMED_AT_MOST, Check

# Below this norm a gradient is rounding: what is left of it where the student equals its teacher, as in the blocks that
# both share below the first one cut away (measured 5e-15 there, 0.5 at the next block).
NEGLIGIBLE = 1e-9


@dataclass(frozen=True)
class Answers:
    """One batch as both models answered it.

    Args:
        student: The student's signal.
        teacher: The teacher's, or None for an objective without one.
        labels_BT: The right classes.
        keep_BT: True where a position is supervised.
    """

    student: Signal
    teacher: Signal | None
    labels_BT: Tensor
    keep_BT: Tensor


def term_losses(objective: Objective, answers: Answers, projectors: Projectors) -> dict[str, Tensor]:
    """The mean of every term over what it counts in the batch, unscaled, each a scalar with its graph."""
    plain = Objective([replace(term, weight=1.0, schedule=None) for term in objective.terms.values()], objective.pairs)
    reduced = plain.evaluate(answers.student, answers.teacher, answers.labels_BT, answers.keep_BT, projectors)
    return {name: part.total / max(1.0, float(part.count)) for name, part in reduced.items()}


def alignment_tolerance(kind: str, dtype: torch.dtype, mean_square: float) -> float:
    """What an alignment may be when the teacher's state is the student's projection rounded to `dtype`.

    Rounding moves every unit by at most eps/2 of itself, hence the vector by an angle of at most eps/2: 4.9e-4 in
    float16 (measured 2.1e-4), 3.9e-3 in bfloat16 (measured 1.7e-3), nothing beside the floor in float32.

    Args:
        kind: Of the term.
        dtype: Of the teacher's states.
        mean_square: Mean square of a teacher unit, the scale of `mse`.
    """
    rounding = torch.finfo(dtype).eps / 2
    bounds = {
        "angle": ZERO_OF_ANGLE + rounding,
        "angle2": (ZERO_OF_ANGLE + rounding) ** 2,
        "cosine": ZERO + rounding**2 / 2,
        "mse": ZERO + rounding**2 * mean_square,
    }
    return bounds.get(kind, (alignments()[kind].zero or ZERO) + rounding)


@torch.no_grad()
def check_zero_at_equality(objective: Objective, answers: Answers) -> list[Check]:
    """Every divergence, and every alignment at every mapped pair, is zero on (teacher, teacher).

    Projectors are replaced by the identity; the student's state of a pair is the teacher's mapped state. Divergences
    from sparse targets are left out: what is left of that teacher is not a student's answer.
    """
    checks = []
    for term, pair in _parts(objective, ("divergence", "alignment")):
        teacher = _teacher_of(answers)
        if pair is None and isinstance(teacher.scores, SparseTargets):
            continue
        states = {pair.student: teacher.states[pair.teacher]} if pair and pair.side == "decoder" else {}
        student = replace(teacher, scores=_some_scores(teacher), states=states)
        equal = Answers(student, teacher, answers.labels_BT, answers.keep_BT)
        projectors = {pair.name: nn.Identity()} if pair else {}
        value = _value(term, pair, equal, projectors)
        tolerance = (alignments()[term.kind].zero or ZERO) if pair else ZERO
        detail = "is not zero when the student equals the teacher; is the teacher's signal finite?"
        checks.append(_bounded(f"{_label(term, pair)} on (teacher, teacher)", value, tolerance, detail))
    return checks


@torch.no_grad()
def check_zero_at_projection(objective: Objective, answers: Answers, projectors: Projectors) -> list[Check]:
    """Every alignment is zero, within the teacher's dtype, when the teacher's state is the student's projection.

    This is the check for real projectors, where student and teacher widths differ: h_T := P(h_S). A kind that projects
    nothing gets h_T := h_S. Rounding to the teacher's dtype is part of the check for point-wise kinds; differences and
    centred states, which may be small beside the states that are rounded, are checked without it.
    """
    checks = []
    for term, pair in _parts(objective, ("alignment",)):
        if pair is None:
            continue
        teacher = _teacher_of(answers)
        exact = term.centre or alignments()[term.kind].group != "position"
        mine, theirs, mask = _compared(pair, answers)
        dtype = torch.float32 if exact else theirs.dtype
        state = mine.float()
        target = (projectors[pair.name](state) if term.projected else state).to(dtype)
        of_encoder = pair.side == "encoder"
        moved = replace(teacher, heard_BSH=target) if of_encoder else replace(teacher, states={pair.teacher: target})
        value = _value(term, pair, Answers(answers.student, moved, answers.labels_BT, answers.keep_BT), projectors)
        mean_square = float(target[mask].float().square().mean())
        tolerance = alignment_tolerance(term.kind, dtype, mean_square)
        detail = "is not zero when the teacher's state is the student's own projection; is its state finite?"
        checks.append(_bounded(f"{_label(term, pair)} on (P(student), student)", value, tolerance, detail))
    return checks


def check_reach(
    objective: Objective,
    answers: Answers,
    projectors: Projectors,
    trainable: Mapping[str, nn.Parameter],
    seed: int = 0,
) -> list[Check]:
    """Every term of weight above 0, at every pair, moves at least one trainable parameter of the student.

    Without this a term over frozen states trains its projector alone, and the student never learns from it. Where the
    gradient is negligible because the student already equals its teacher (a block whose whole prefix was copied, before
    the first step), the path is proven against a random target from `seed` instead, and the check says so.

    Args:
        objective: Terms and pairs.
        answers: With the graph of the student's pass.
        projectors: By pair name; their own gradients do not count.
        trainable: The student's trainable parameters, by name.
        seed: Of the random target.
    """
    checks = []
    for term, pair in _parts(objective, ("likelihood", "divergence", "alignment", "contrast")):
        if term.weight == 0:
            continue
        norm, touched = _reach(term, pair, answers, projectors, list(trainable.values()))
        remark = ""
        if norm < NEGLIGIBLE and touched and answers.teacher is not None and term.family != "likelihood":
            other = Answers(answers.student, _random_like(answers.teacher, seed), answers.labels_BT, answers.keep_BT)
            norm, touched = _reach(term, pair, other, projectors, list(trainable.values()))
            remark = "against a random target, since the student already equals its teacher here"
        passed = math.isfinite(norm) and norm >= NEGLIGIBLE
        detail = remark if passed else _why_dead(pair, norm, touched, list(trainable))
        checks.append(Check(f"gradient of {_label(term, pair)} on the student", norm, None, passed, detail))
    return checks


def check_dropped(objective: Objective, answers: Answers, projectors: Projectors) -> Check:
    """NaN at dropped positions of both signals and -100 in the labels change neither a loss nor a gradient.

    Gradients on the student's signal (exactly 0 where dropped) and on the projectors, compared to the bit.
    """
    dropped_BT = ~answers.keep_BT
    clean, spoiled = _leaf_answers(answers), _leaf_answers(answers, dropped_BT)
    measured = 0.0
    before, after = term_losses(objective, clean, projectors), term_losses(objective, spoiled, projectors)
    for name in before:
        measured = max(measured, _distance(before[name], after[name]))
    weights = [weight for projector in projectors.values() for weight in projector.parameters()]
    vectors = [gradient_vector(_sum(losses), weights) for losses in (before, after)]
    measured = max(measured, _distance(*vectors))
    gradients = [_leaf_gradients(_sum(losses), part) for losses, part in ((before, clean), (after, spoiled))]
    for one, other in zip(*gradients, strict=True):
        measured = max(measured, _distance(one, other), _distance(other[dropped_BT], torch.zeros(())))
    detail = "" if bool(dropped_BT.any()) else "the batch has no dropped position"
    passed = measured == 0
    if not passed:
        detail = "a loss or a gradient reads positions that keep_BT drops; select before computing, do not multiply"
    return Check("effect of garbage at dropped positions", measured, 0, passed, detail)


def gradient_vector(loss: Tensor, parameters: Sequence[Tensor]) -> Tensor:
    """The gradient of a scalar as one detached float64 vector on the CPU, 0 where there is no path."""
    found = _gradients(loss, parameters)
    parts = [
        (torch.zeros_like(parameter) if gradient is None else gradient).double().flatten().cpu()
        for parameter, gradient in zip(parameters, found, strict=True)
    ]
    return torch.cat(parts) if parts else torch.zeros(0, dtype=torch.float64)


def _parts(objective: Objective, families: Sequence[str]) -> Iterator[tuple[Term, LayerPair | None]]:
    """Every term of the families; an alignment once per pair, so that no pair hides behind another."""
    for term in objective.terms.values():
        if term.family in families:
            yield from ((term, pair) for pair in objective.pairs) if term.compares_states else [(term, None)]


def _value(term: Term, pair: LayerPair | None, answers: Answers, projectors: Projectors) -> float:
    return float(_loss(term, pair, answers, projectors).detach())


def _loss(term: Term, pair: LayerPair | None, answers: Answers, projectors: Projectors) -> Tensor:
    return term_losses(Objective([term], [pair] if pair else []), answers, projectors)[term.kind]


def _reach(
    term: Term,
    pair: LayerPair | None,
    answers: Answers,
    projectors: Projectors,
    parameters: Sequence[nn.Parameter],
) -> tuple[float, int]:
    """Norm of the term's gradient on the parameters, and how many of them its graph contains."""
    found = [g for g in _gradients(_loss(term, pair, answers, projectors), parameters) if g is not None]
    return math.sqrt(sum(float(gradient.double().square().sum()) for gradient in found)), len(found)


def _gradients(loss: Tensor, parameters: Sequence[Tensor]) -> Sequence[Tensor | None]:
    able = [parameter for parameter in parameters if parameter.requires_grad]
    if not loss.requires_grad or not able:
        return [None] * len(parameters)
    found = iter(torch.autograd.grad(loss, able, retain_graph=True, allow_unused=True))
    return [next(found) if parameter.requires_grad else None for parameter in parameters]


def _why_dead(pair: LayerPair | None, norm: float, touched: int, names: Sequence[str]) -> str:
    place = "the student's logits"
    if pair is not None:
        place = (
            f"the state after student {_half(pair)}block {pair.student} (compared with teacher block {pair.teacher})"
        )
    some = ", ".join(names[:NAMED_AT_MOST]) + (", ..." if len(names) > NAMED_AT_MOST else "")
    if not math.isfinite(norm):
        return f"the gradient through {place} is not finite"
    if touched:
        return (
            f"{place} depends on {touched} trainable tensors, yet their gradients are 0; "
            "check gradient checkpointing and the adapters' scale"
        )
    only = " Only the projector would learn." if pair is not None else ""
    return (
        f"{place} depends on no trainable parameter of the student: everything below it is frozen.{only} "
        f"Trainable are: {some or 'none'}. Compare a block at or above an adapter, or add adapters below this one."
    )


def _leaf_answers(answers: Answers, dropped_BT: Tensor | None = None) -> Answers:
    """A copy whose student tensors are leaves of their own, with NaN and -100 at the dropped positions."""

    def copy(values: Tensor) -> Tensor:
        fresh = values.detach().clone()
        if dropped_BT is not None:
            fresh[dropped_BT] = math.nan
        return fresh

    student = answers.student.map(copy)
    for tensor in student.tensors():
        tensor.requires_grad_()
    labels_BT = answers.labels_BT if dropped_BT is None else answers.labels_BT.masked_fill(dropped_BT, -100)
    teacher = None if answers.teacher is None else answers.teacher.map(copy)
    return Answers(student, teacher, labels_BT, answers.keep_BT)


def _leaf_gradients(loss: Tensor, answers: Answers) -> list[Tensor]:
    leaves = answers.student.tensors()
    found = _gradients(loss, leaves)
    return [torch.zeros_like(leaf) if g is None else g for leaf, g in zip(leaves, found, strict=True)]


def _sum(losses: Mapping[str, Tensor]) -> Tensor:
    return torch.stack(list(losses.values())).sum()


def _random_like(signal: Signal, seed: int) -> Signal:
    generator = torch.Generator().manual_seed(seed)

    def draw(values: Tensor) -> Tensor:
        return torch.randn(values.shape, generator=generator).to(values)

    heard = None if signal.heard_BSH is None else draw(signal.heard_BSH)
    return replace(signal.map(draw), heard_BSH=heard)


def _compared(pair: LayerPair, answers: Answers) -> tuple[Tensor, Tensor, Tensor]:
    """The whole states of a pair, student's and teacher's, and the mask of what is compared."""
    student, teacher = answers.student, _teacher_of(answers)
    if pair.side == "decoder":
        return student.states[pair.student], teacher.states[pair.teacher], answers.keep_BT
    if student.heard_BSH is None or teacher.heard_BSH is None or teacher.heard_BS is None:
        raise ValueError("a pair of encoder blocks is compared, and the signals do not say what the encoders put out")
    return student.heard_BSH, teacher.heard_BSH, teacher.heard_BS


def _distance(one: Tensor, other: Tensor) -> float:
    """Largest difference; infinite where a NaN is involved, 0 for nothing to compare."""
    if one.numel() == 0 or torch.equal(one, other):
        return 0.0
    largest = float((one.detach().double() - other.detach().double()).abs().max())
    return math.inf if math.isnan(largest) else largest


def _bounded(name: str, measured: float, tolerance: float, detail: str) -> Check:
    passed = abs(measured) < tolerance  # false for NaN
    return Check(name, measured, tolerance, passed, "" if passed else detail)


def _label(term: Term, pair: LayerPair | None) -> str:
    if pair is None:
        return term.kind
    return f"{term.kind} at {_half(pair)}student {pair.student} -> teacher {pair.teacher}"


def _half(pair: LayerPair) -> str:
    return "encoder " if pair.side == "encoder" else ""


def _some_scores(teacher: Signal) -> Tensor | DeferredLogits:
    """The teacher's logits as a student's; alignments, which read none, may have a teacher without."""
    return teacher.states[min(teacher.states)] if isinstance(teacher.scores, SparseTargets) else teacher.scores


def _teacher_of(answers: Answers) -> Signal:
    if answers.teacher is None:
        raise ValueError("the objective compares with a teacher, and there is no teacher's signal")
    return answers.teacher
