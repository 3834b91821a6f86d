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

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import torch
from torch import Tensor, nn

from tutelage.errors import InputError, PreflightError
from tutelage.objectives.signal import Signal
from tutelage.objectives.targets import SparseTargets
from tutelage.training.checks import Check, check_teacher_frozen, check_trainable
from tutelage.training.step import BatchT, Lesson
from tutelage.training.term_checks import (
    Answers,
    check_dropped,
    check_reach,
    check_zero_at_equality,
    check_zero_at_projection,
    gradient_vector,
    term_losses,
)

# Other ids at padding may change the order of a kernel's sums, never more than that.
PADDING_TOLERANCE = 1e-5


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
    lesson: Lesson[BatchT],
    batch: BatchT,
    declared: Sequence[Check] = (),
    *,
    teacher: nn.Module | None = None,
    garbled: BatchT | None = None,
    seed: int = 0,
) -> PreflightReport:
    """Run every check on one real batch.

    Args:
        lesson: Who is about to learn what from whom; the student in the mode (dropout) that training uses.
        batch: A batch as training will see it.
        declared: Checks that the caller could make already: `check_targets`, `check_budget`, `check_tokens`,
            `check_settings`.
        teacher: The teacher's modules, to see that they are frozen.
        garbled: The batch with other decoder inputs at padding (`garble_padding`): the models must not notice.
        seed: Of dropout in the student's passes, and of random targets.

    Raises:
        PreflightError: One line for each check that failed.
    """
    checks = list(declared)
    if teacher is not None:
        checks += check_teacher_frozen(teacher)
    checks += check_trainable(_trainable_of(lesson), teacher)
    devices = list(range(torch.cuda.device_count()))
    try:
        with torch.random.fork_rng(devices=devices), torch.enable_grad():
            checks += _checks_on(lesson, batch, garbled, seed)
    except (InputError, PreflightError) as error:  # widths that cannot be compared; a teacher that refuses to answer
        checks += [Check("terms that cannot be evaluated", 1, 0, False, line) for line in str(error).splitlines()]
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


def _checks_on(lesson: Lesson[BatchT], batch: BatchT, garbled: BatchT | None, seed: int) -> list[Check]:
    kept = int(batch.keep_BT.sum())
    if kept == 0:
        return [Check("supervised positions", 0, None, False, "the batch supervises nothing; see keep_BT")]
    checks = [Check("supervised positions", kept, None, True)]
    objective, projectors = lesson.objective, lesson.projectors
    answers = _ask(lesson, batch, seed)
    if answers.teacher is not None:
        checks.append(_check_repeatable(answers.teacher, _ask_teacher(lesson, batch)))
        checks += check_zero_at_equality(objective, answers)
        checks += check_zero_at_projection(objective, answers, projectors)
    checks.append(check_dropped(objective, answers, projectors))
    checks += check_reach(objective, answers, projectors, _trainable_of(lesson), seed)
    if garbled is not None:
        checks.append(_check_padding(lesson, answers, _ask(lesson, garbled, seed)))
    return checks


def _trainable_of(lesson: Lesson[BatchT]) -> dict[str, nn.Parameter]:
    """The student's own; projectors do not count as learning."""
    return {name: parameter for name, parameter in lesson.student.named_parameters() if parameter.requires_grad}


def _ask(lesson: Lesson[BatchT], batch: BatchT, seed: int) -> Answers:
    torch.manual_seed(seed)  # the same dropout in every pass; the caller's random state is put back
    return Answers(lesson.student_forward(batch), _ask_teacher(lesson, batch), batch.labels_BT, batch.keep_BT)


def _ask_teacher(lesson: Lesson[BatchT], batch: BatchT) -> Signal | None:
    if lesson.teacher_forward is None or not lesson.objective.needs_teacher:
        return None
    with torch.no_grad():
        return lesson.teacher_forward(batch)


def _check_repeatable(first: Signal, second: Signal | None) -> Check:
    """Two passes of the teacher agree to the bit, wherever they are finite or not."""
    if second is None:
        raise ValueError("a second pass is needed to compare with the first")
    pairs = list(zip(first.tensors(), second.tensors(), strict=True))
    if isinstance(first.scores, SparseTargets) and isinstance(second.scores, SparseTargets):
        pairs += [(first.scores.ids_NK, second.scores.ids_NK), (first.scores.weights_NK, second.scores.weights_NK)]
    differing = sum(int((~torch.isclose(a, b, rtol=0, atol=0, equal_nan=True)).sum()) for a, b in pairs)
    detail = "two passes over one batch differ, so the targets are random; call eval() on the teacher"
    return Check(
        "entries that differ between two teacher passes", differing, 0, not differing, detail if differing else ""
    )


def _check_padding(lesson: Lesson[BatchT], answers: Answers, garbled: Answers) -> Check:
    """Other ids at padding move no term and no gradient, relative to their size."""
    parameters = list(_trainable_of(lesson).values())
    values, gradients = [], []
    for part in (answers, garbled):
        losses = list(term_losses(lesson.objective, part, lesson.projectors).values())
        values.append(torch.stack(losses).detach().double().cpu())
        gradients.append(gradient_vector(torch.stack(losses).sum(), parameters))
    measured = max(_relative(*values), _relative(*gradients))
    passed = measured < PADDING_TOLERANCE
    detail = "" if passed else "the models look at padding; supervised positions must depend on earlier ones only"
    return Check("effect of other ids at padding", measured, PADDING_TOLERANCE, passed, detail)


def _relative(one: Tensor, other: Tensor) -> float:
    size = float(one.norm())
    return float((one - other).norm()) / size if size > 0 else float((one - other).norm())
