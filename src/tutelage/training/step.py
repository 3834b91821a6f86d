"""One optimiser step over micro-batches and ranks.

Covers counting before the first backward, the backward passes, the sum over ranks, clipping, the optimiser's update
and the report. Does not cover where batches come from, the schedule or checkpoints (`loop`, `checkpoint`).

The scaling, once and for all. The documented scalar of a step is

    L = sum over terms k of  s_k * (sum over ranks r and micro-batches m of total_krm) / (sum over r and m of count_krm)

with s_k = the weight at this step, and T^2 for divergences. What a term counts (kept positions, or sets of them) is
known from the mask alone. Counts are summed over micro-batches and ranks first; then every micro-batch contributes
`Objective.combine(its totals, the step's counts)`, and plain sums of these parts, and of their gradients, over
micro-batches and ranks are L and its gradient. So gradients are *added* over ranks: there is no wrapper that
averages them, hence no factor of the world size, and a rank without any sample simply adds zero.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import asdict, dataclass, field
from typing import Any, Generic, Protocol, TypeVar

import torch
from torch import Tensor, nn

from tutelage.errors import DivergedError
from tutelage.objectives.objective import Objective
from tutelage.objectives.reduction import Reduced
from tutelage.objectives.signal import Signal


class Batch(Protocol):
    """What a step reads of a batch; the forward functions read the rest."""

    @property
    def labels_BT(self) -> Tensor:  # noqa: N802  (shape letters)
        """The right class at each position."""

    @property
    def keep_BT(self) -> Tensor:  # noqa: N802  (shape letters)
        """True where a position is supervised."""


BatchT = TypeVar("BatchT", bound=Batch)


class Process(Protocol):
    """What a step needs of `accelerate.Accelerator`."""

    @property
    def device(self) -> torch.device:
        """Where tensors are."""

    @property
    def num_processes(self) -> int:
        """Ranks that train together."""

    def autocast(self) -> AbstractContextManager[Any]:
        """The context of a forward pass in mixed precision."""

    def backward(self, loss: Tensor) -> None:
        """Add the gradient of `loss` to the parameters."""

    def reduce(self, tensor: Tensor, reduction: str) -> Tensor:
        """The sum of `tensor` over ranks, on every rank."""


@dataclass(frozen=True)
class Lesson(Generic[BatchT]):
    """Who learns what from whom.

    Args:
        student: Its parameters that require a gradient are trained; the rest are frozen.
        projectors: Trained with the student and dropped at export, by `LayerPair.name`.
        objective: The terms.
        student_forward: The student's pass over a batch, with the states of `objective.student_layers`.
        teacher_forward: The teacher's (`LiveTeacher.signal`), or None where the objective does not need one.
    """

    student: nn.Module
    projectors: Mapping[str, nn.Module] | nn.ModuleDict
    objective: Objective
    student_forward: Callable[[BatchT], Signal]
    teacher_forward: Callable[[BatchT], Signal] | None = None

    def trainable(self) -> dict[str, nn.Parameter]:
        """What is trained, by the name it has in a checkpoint: `student.NAME` and `projector.PAIR.NAME`."""
        named = {f"student.{name}": parameter for name, parameter in self.student.named_parameters()}
        students = {id(parameter) for parameter in named.values()}  # a projector that is fed back is its own
        for pair, projector in self.projectors.items():
            mine = {name: one for name, one in projector.named_parameters() if id(one) not in students}
            named |= {f"projector.{pair}.{name}": parameter for name, parameter in mine.items()}
        return {name: parameter for name, parameter in named.items() if parameter.requires_grad}

    def set_training(self, mode: bool) -> None:
        """Put student and projectors in training or evaluation mode."""
        self.student.train(mode)
        for projector in self.projectors.values():
            projector.train(mode)


@dataclass(frozen=True)
class StepReport:
    """What one optimiser step did.

    Args:
        step: Steps taken so far, this one included (the first is 1).
        total: The documented scalar, before the update: weighted, T^2 included, over all micro-batches and ranks.
        terms: Every unweighted term's mean over what it counts (nats, radians, ...), T^2 not included.
        positions: Kept positions, over all micro-batches and ranks.
        learning_rate: That of this step.
        gradient_norm: Global norm over everything trained, before clipping.
        term_gradient_norms: Norm of the gradient of each unweighted term's mean on the student's trainable
            parameters (projectors not included); empty at steps that did not measure it.
        weights: Every term's weight at this step.
    """

    step: int
    total: float
    terms: Mapping[str, float]
    positions: int
    learning_rate: float
    gradient_norm: float
    term_gradient_norms: Mapping[str, float] = field(default_factory=dict)
    weights: Mapping[str, float] = field(default_factory=dict)

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON values."""
        return asdict(self)


@dataclass
class Begun:
    """A step between its counts and its update.

    Args:
        step: Its number.
        announced: What every micro-batch will count.
        positions: Kept positions, over all micro-batches and ranks.
        counts: The divisors.
        gradients: Of each term, where they are measured.
        parts: Every term's total, of the micro-batches so far.
    """

    step: int
    announced: Sequence[Mapping[str, int]]
    positions: int
    counts: Mapping[str, int]
    gradients: _TermGradients | None
    parts: list[Mapping[str, Reduced]] = field(default_factory=list)


class Stepper(Generic[BatchT]):
    """Takes optimiser steps.

    Args:
        lesson: Who learns what from whom.
        optimizer: Over exactly `lesson.trainable()`.
        clip_norm: Largest global norm of the gradient; infinity does not clip.
        process: An `accelerate.Accelerator`, or anything that answers like one.
    """

    def __init__(
        self, lesson: Lesson[BatchT], optimizer: torch.optim.Optimizer, clip_norm: float, process: Process
    ) -> None:
        self._lesson, self._optimizer, self._clip_norm, self._process = lesson, optimizer, clip_norm, process
        self._trainable = list(lesson.trainable().values())
        self._of_student = [parameter for parameter in lesson.student.parameters() if parameter.requires_grad]

    def take(
        self, step: int, batches: Sequence[BatchT], learning_rate: float, measure_terms: bool = False
    ) -> StepReport:
        """Take one step.

        Args:
            step: Its number, the first is 1.
            batches: This rank's micro-batches; may be empty on a rank that has no sample left.
            learning_rate: For this step.
            measure_terms: Whether to measure each term's own gradient norm, at the price of one more backward pass a
                term. It changes no bit of the update.

        Raises:
            DivergedError: If the loss or its gradient is not finite. The student is then as it was before the step.
            TutelageError: If no position is supervised; likewise.
        """
        begun = self.begin(step, batches, measure_terms)
        for batch in batches:
            self._process.backward(self.loss(begun, batch))
        return self.finish(begun, learning_rate)

    def begin(self, step: int, batches: Sequence[BatchT], measure_terms: bool = False) -> Begun:
        """Count what the step divides by, and forget the gradients of the one before; arguments as of `take`."""
        announced = [self._lesson.objective.counts(batch.keep_BT) for batch in batches]
        positions, counts = self._count(announced, batches)
        self._optimizer.zero_grad(set_to_none=True)
        return Begun(step, announced, positions, counts, _TermGradients(self._of_student) if measure_terms else None)

    def loss(self, begun: Begun, batch: BatchT) -> Tensor:
        """A micro-batch's part of the step's scalar; its gradient is for the caller to add."""
        reduced = self._evaluate(batch, self._lesson.objective.slopes(begun.counts, begun.step))
        if begun.gradients is not None:
            begun.gradients.add(reduced)
        begun.parts.append({name: Reduced(one.total.detach(), one.count) for name, one in reduced.items()})
        return self._lesson.objective.combine(reduced, begun.counts, begun.step)

    def finish(self, begun: Begun, learning_rate: float) -> StepReport:
        """Clip and update, once every micro-batch's gradient is there; what it raises is what `take` does."""
        _require_counted(begun.parts, begun.announced)
        step, counts = begun.step, begun.counts
        reduced = self._sum_over_parts(begun.parts, counts)
        total, terms = self._means(step, reduced, counts)
        self._add_gradients_over_ranks()
        norm = float(torch.nn.utils.clip_grad_norm_(self._trainable, self._clip_norm))
        if not math.isfinite(norm):
            raise DivergedError(f"Step {step}: the gradient is not finite ({norm}) though the loss is ({total:.6g}).")
        for group in self._optimizer.param_groups:
            group["lr"] = learning_rate
        self._optimizer.step()
        return StepReport(
            step=step,
            total=total,
            terms=terms,
            positions=begun.positions,
            learning_rate=learning_rate,
            gradient_norm=norm,
            term_gradient_norms={} if begun.gradients is None else self._norms(begun.gradients, counts),
            weights=self._lesson.objective.weights_at(step),
        )

    def _count(self, announced: Sequence[Mapping[str, int]], batches: Sequence[BatchT]) -> tuple[int, dict[str, int]]:
        """Kept positions, and what each term counts, over micro-batches and ranks."""
        names = list(self._lesson.objective.terms)
        mine = [sum(int(batch.keep_BT.sum()) for batch in batches)]
        mine += [sum(counts[name] for counts in announced) for name in names]
        summed = self._process.reduce(torch.tensor(mine, dtype=torch.int64, device=self._process.device), "sum")
        positions, *counts = (int(count) for count in summed)
        return positions, dict(zip(names, counts, strict=True))

    def _evaluate(self, batch: BatchT, slopes: Mapping[str, float]) -> dict[str, Reduced]:
        lesson = self._lesson
        teacher = None
        if lesson.teacher_forward is not None and lesson.objective.needs_teacher:
            teacher = lesson.teacher_forward(batch)
        with self._process.autocast():
            student = lesson.student_forward(batch)
        return lesson.objective.evaluate(student, teacher, batch.labels_BT, batch.keep_BT, lesson.projectors, slopes)

    def _sum_over_parts(self, parts: Sequence[Mapping[str, Reduced]], counts: Mapping[str, int]) -> dict[str, Reduced]:
        """Each term's total over micro-batches and ranks, for the report."""
        totals = [math.fsum(float(part[name].total) for part in parts) for name in counts]
        summed = self._process.reduce(torch.tensor(totals, dtype=torch.float32, device=self._process.device), "sum")
        return {name: Reduced(total, counts[name]) for name, total in zip(counts, summed, strict=True)}

    def _means(
        self, step: int, reduced: Mapping[str, Reduced], counts: Mapping[str, int]
    ) -> tuple[float, dict[str, float]]:
        total = float(self._lesson.objective.combine(reduced, counts, step))
        terms = self._lesson.objective.means(reduced, counts)
        if not math.isfinite(total):
            values = ", ".join(f"{name} {value:.6g}" for name, value in terms.items())
            raise DivergedError(
                f"Step {step}: the loss is not finite ({values}). Lower optimisation.learning_rate, or look at the "
                "last batch; the checkpoint before this step is intact."
            )
        return total, terms

    def _add_gradients_over_ranks(self) -> None:
        if self._process.num_processes == 1:
            return
        for parameter in self._trainable:
            if parameter.grad is None:  # this rank had no sample, or the parameter no part in it
                parameter.grad = torch.zeros_like(parameter)
        flat = torch.cat([gradient.reshape(-1) for gradient in _gradients(self._trainable)])
        summed = self._process.reduce(flat, "sum")
        start = 0
        for gradient in _gradients(self._trainable):
            gradient.copy_(summed[start : start + gradient.numel()].view_as(gradient))
            start += gradient.numel()

    def _norms(self, gradients: _TermGradients, counts: Mapping[str, int]) -> dict[str, float]:
        flat = {name: self._process.reduce(gradients.flat(name), "sum") for name in counts}
        return {name: float(torch.linalg.vector_norm(one)) / max(1, counts[name]) for name, one in flat.items()}


class _TermGradients:
    """Adds up, over micro-batches, the gradient of each term's total on the student's trainable parameters."""

    def __init__(self, parameters: Sequence[nn.Parameter]) -> None:
        self._parameters = list(parameters)
        self._flat: dict[str, Tensor] = {}

    def add(self, reduced: Mapping[str, Reduced]) -> None:
        for name, one in reduced.items():
            if not (one.total.requires_grad and self._parameters):
                continue
            found = torch.autograd.grad(one.total, self._parameters, retain_graph=True, allow_unused=True)
            pairs = zip(found, self._parameters, strict=True)
            flat = torch.cat([(torch.zeros_like(p) if g is None else g).reshape(-1) for g, p in pairs])
            self._flat[name] = flat if name not in self._flat else self._flat[name] + flat

    def flat(self, name: str) -> Tensor:
        if name in self._flat:
            return self._flat[name]
        size = sum(parameter.numel() for parameter in self._parameters)
        return torch.zeros(size, device=self._parameters[0].device if self._parameters else None)


def _require_counted(parts: Sequence[Mapping[str, Reduced]], announced: Sequence[Mapping[str, int]]) -> None:
    """The divisor was counted before the terms ran; a term that counts something else would be scaled wrongly."""
    for name in parts[0] if parts else ():
        found, expected = sum(int(part[name].count) for part in parts), sum(counts[name] for counts in announced)
        if found != expected:
            raise RuntimeError(f"term {name} counted {found} units where {expected} positions (or sets) were announced")


def _gradients(parameters: Sequence[nn.Parameter]) -> list[Tensor]:
    return [parameter.grad for parameter in parameters if parameter.grad is not None]
