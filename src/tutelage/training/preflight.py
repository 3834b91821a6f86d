"""Preflight: before the first step, one real batch shows that the run can mean something.

Covers running the checks in order and refusing a run that fails any, with all failures in one error. Does not cover
where the models come from; it knows them as functions from a batch to a signal. It leaves no trace: gradients are taken
without touching `.grad`, and the random state is put back.

The checks: divergences and alignments are zero on (teacher, teacher) with identity projectors, and on the student's own
projection with the real ones; every term's gradient reaches a trainable parameter of the student; garbage at dropped
positions changes nothing; the teacher is frozen and repeatable; and, as the caller hands them over (`training.checks`),
LoRA targets, budget, tokenizers and special ids.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any, Generic, Protocol, TypeVar

import torch
from torch import Tensor, nn

from tutelage.errors import InputError, PreflightError
from tutelage.objectives.objective import Objective
from tutelage.objectives.signal import Signal
from tutelage.training.checks import Check, check_teacher_frozen, check_trainable
from tutelage.training.term_checks import (
    Lesson,
    check_dropped,
    check_reach,
    check_zero_at_equality,
    check_zero_at_projection,
    gradient_vector,
    term_losses,
)

# Other ids at padding may change the order of a kernel's sums, never more than that.
PADDING_TOLERANCE = 1e-5


class SupervisedBatch(Protocol):
    """What preflight reads of a batch itself."""

    @property
    def labels_BT(self) -> Tensor: ...  # noqa: D102, N802

    @property
    def keep_BT(self) -> Tensor: ...  # noqa: D102, N802


BatchT = TypeVar("BatchT", bound=SupervisedBatch)


@dataclass(frozen=True)
class Rehearsal(Generic[BatchT]):
    """Everything that is about to be trained, and what it is compared with.

    Args:
        objective: The terms and their layer pairs.
        student_forward: A batch to the student's signal, with its graph; in the mode (dropout) that training uses.
        trainable: The student's trainable parameters by name, projectors excluded.
        projectors: One per layer pair, by `LayerPair.name`; empty without alignments.
        teacher_forward: A batch to the teacher's signal; None for an objective without a teacher.
        teacher: The teacher's modules, to see that they are frozen.
    """

    objective: Objective
    student_forward: Callable[[BatchT], Signal]
    trainable: Mapping[str, nn.Parameter]
    projectors: Mapping[str, nn.Module] = field(default_factory=dict)
    teacher_forward: Callable[[BatchT], Signal] | None = None
    teacher: nn.Module | None = None


@dataclass(frozen=True)
class PreflightReport:
    """What was measured; every check passed.

    Args:
        checks: In the order in which they ran.
    """

    checks: tuple[Check, ...]

    def to_dict(self) -> dict[str, Any]:
        """For `result.json`."""
        return {"checks": [asdict(check) for check in self.checks]}


def preflight(
    rehearsal: Rehearsal[BatchT],
    batch: BatchT,
    declared: Sequence[Check] = (),
    *,
    garbled: BatchT | None = None,
    seed: int = 0,
) -> PreflightReport:
    """Run every check on one real batch.

    Args:
        rehearsal: What is about to be trained.
        batch: A batch as training will see it.
        declared: Checks that the caller could make already: `check_targets`, `check_budget`, `check_tokens`,
            `check_settings`.
        garbled: The batch with other decoder inputs at padding (`garble_padding`): the models must not notice.
        seed: Of dropout in the student's passes, and of random targets.

    Raises:
        PreflightError: One line for each check that failed.
    """
    checks = list(declared)
    if rehearsal.teacher is not None:
        checks += check_teacher_frozen(rehearsal.teacher)
    checks += check_trainable(rehearsal.trainable, rehearsal.teacher)
    devices = list(range(torch.cuda.device_count()))
    try:
        with torch.random.fork_rng(devices=devices), torch.enable_grad():
            checks += _checks_on(rehearsal, batch, garbled, seed)
    except InputError as error:  # vocabularies or widths that cannot be compared
        checks += [Check("terms that cannot be evaluated", 1, 0, False, fault) for fault in error.faults]
    failed = [check for check in checks if not check.passed]
    if failed:
        raise PreflightError("\n".join(f"preflight: {check.line}" for check in failed))
    return PreflightReport(tuple(checks))


def garble_padding(ids_BT: Tensor, keep_BT: Tensor, vocabulary: int, seed: int = 0) -> Tensor:
    """Decoder inputs with random ids after the last supervised position of every row, where nothing may look.

    Args:
        ids_BT: Decoder inputs, int64.
        keep_BT: True where a position is supervised.
        vocabulary: Ids are drawn below this.
        seed: Of the draw.
    """
    positions_T = torch.arange(ids_BT.shape[1], device=ids_BT.device)
    last_B1 = torch.where(keep_BT, positions_T, -1).amax(dim=1, keepdim=True)
    drawn_BT = torch.randint(vocabulary, ids_BT.shape, generator=torch.Generator().manual_seed(seed))
    return torch.where(positions_T > last_B1, drawn_BT.to(ids_BT), ids_BT)


def _checks_on(rehearsal: Rehearsal[BatchT], batch: BatchT, garbled: BatchT | None, seed: int) -> list[Check]:
    checks = []
    teacher = None
    if rehearsal.teacher_forward is not None:
        teacher = _teach(rehearsal.teacher_forward, batch)
        checks.append(_check_repeatable(teacher, _teach(rehearsal.teacher_forward, batch)))
    lesson = Lesson(_learn(rehearsal, batch, seed), teacher, batch.labels_BT, batch.keep_BT)
    objective, projectors = rehearsal.objective, rehearsal.projectors
    kept = int(batch.keep_BT.sum())
    if kept == 0:
        return [*checks, Check("supervised positions", 0, None, False, "the batch supervises nothing; see keep_BT")]
    checks.append(Check("supervised positions", kept, None, True))
    if objective.needs_teacher:
        checks += check_zero_at_equality(objective, lesson)
        checks += check_zero_at_projection(objective, lesson, projectors)
    checks.append(check_dropped(objective, lesson, projectors))
    checks += check_reach(objective, lesson, projectors, rehearsal.trainable, seed)
    if garbled is not None:
        other_teacher = None
        if rehearsal.teacher_forward is not None:
            other_teacher = _teach(rehearsal.teacher_forward, garbled)
        other = Lesson(_learn(rehearsal, garbled, seed), other_teacher, garbled.labels_BT, garbled.keep_BT)
        checks.append(_check_padding(rehearsal, lesson, other))
    return checks


def _learn(rehearsal: Rehearsal[BatchT], batch: BatchT, seed: int) -> Signal:
    torch.manual_seed(seed)  # the same dropout in every pass; the caller's random state is put back
    return rehearsal.student_forward(batch)


def _teach(forward: Callable[[BatchT], Signal], batch: BatchT) -> Signal:
    with torch.no_grad():
        return forward(batch)


def _check_repeatable(first: Signal, second: Signal) -> Check:
    """Two passes of the teacher agree to the bit, wherever they are finite or not."""
    pairs = [(first.logits_BTV, second.logits_BTV)]
    pairs += [(state, second.states[layer]) for layer, state in first.states.items()]
    differing = sum(int((~torch.isclose(a, b, rtol=0, atol=0, equal_nan=True)).sum()) for a, b in pairs)
    detail = "two passes over one batch differ, so the targets are random; call eval() on the teacher"
    return Check(
        "entries that differ between two teacher passes", differing, 0, not differing, detail if differing else ""
    )


def _check_padding(rehearsal: Rehearsal[BatchT], lesson: Lesson, garbled: Lesson) -> Check:
    """Other ids at padding move no term and no gradient, relative to their size."""
    parameters = list(rehearsal.trainable.values())
    values, gradients = [], []
    for part in (lesson, garbled):
        losses = list(term_losses(rehearsal.objective, part, rehearsal.projectors).values())
        values.append(torch.stack(losses).detach().double().cpu())
        gradients.append(gradient_vector(torch.stack(losses).sum(), parameters))
    measured = max(_relative(*values), _relative(*gradients))
    passed = measured < PADDING_TOLERANCE
    detail = "" if passed else "the models look at padding; supervised positions must depend on earlier ones only"
    return Check("effect of other ids at padding", measured, PADDING_TOLERANCE, passed, detail)


def _relative(one: Tensor, other: Tensor) -> float:
    size = float(one.norm())
    return float((one - other).norm()) / size if size > 0 else float((one - other).norm())
