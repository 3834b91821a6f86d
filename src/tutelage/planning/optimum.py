"""The best division of a budget between a student, its teacher's logits and its teacher's training.

Covers: the optimum of the distillation law in each scenario, at many budgets at once; a given teacher; ordinary
training of the same size and of the compute-optimal size. Does not cover: what the budget is called (`budgets`), nor
advice.

The budget constraint is eliminated rather than handed to a constrained optimiser: the share of the budget that goes to
the teacher's training and the teacher's size fix everything else. In logarithms what is left is smooth, in two bounded
variables at most, and the grid of `tutelage.laws.minimum` makes the result independent of starting points.

A law may be an ensemble (`Law.ensemble`): each draw is then a row with a budget of its own, or with the one that is
given for all, and the optimum of the point law is near enough to start from.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from tutelage.laws.compute import Costs, ForwardCost, distillation_cost
from tutelage.laws.families.distillation import DistillationLaw, as_distillation
from tutelage.laws.families.supervised import SupervisedLaw
from tutelage.laws.family import Equation
from tutelage.laws.minimum import minimise
from tutelage.laws.numbers import FloatArray, Numbers
from tutelage.planning.scenarios import BEST, HIGHEST, INFERENCE, LOWEST, Scenario, Teacher

_LOG_LOW, _LOG_HIGH = float(np.log(LOWEST)), float(np.log(HIGHEST))
_LARGEST_LOGIT = 14.0
"""The teacher's share of the budget is searched within 1e-6 .. 1 - 1e-6."""
_NEAR_STEP = 1e-2
"""Cells of the grid, 0.2 to 0.7 of a natural logarithm: draws need their optimum to a hundredth of their own spread."""


@dataclass(frozen=True)
class Allocations:
    """The best allocation at each budget; one row a budget, infinite loss where nothing can be afforded.

    Args:
        student_params: N_S, the same for all or one a budget.
        student_tokens: D_S.
        teacher_params: N_T; NaN where the teacher is free.
        teacher_tokens: D_T; NaN where the teacher is free or given.
        teacher_loss: L_T, nats per token.
        student_loss: L_S, nats per token.
        costs: FLOPs by part.
    """

    student_params: Numbers
    student_tokens: FloatArray
    teacher_params: FloatArray
    teacher_tokens: FloatArray
    teacher_loss: FloatArray
    student_loss: FloatArray
    costs: Costs

    def student_loss_under(self, equation: Equation) -> FloatArray:
        """The student's loss at these allocations under another law, nats per token.

        A teacher that is trained here has its loss predicted by that law; a free or given one keeps the loss it has.

        Raises:
            TypeError: The equation is not a distillation law.
        """
        trained = np.isfinite(self.teacher_tokens)
        teacher_loss = np.where(
            trained,
            equation.supervised.predict(
                np.where(trained, self.teacher_params, 1.0), np.where(trained, self.teacher_tokens, 1.0)
            ),
            self.teacher_loss,
        )
        return as_distillation(equation).predict(self.student_params, self.student_tokens, teacher_loss)


def allocate(
    law: DistillationLaw,
    forward: ForwardCost,
    scenario: Scenario,
    student_params: Numbers,
    compute: FloatArray,
    near: Allocations | None = None,
) -> Allocations:
    """The allocation of least student loss that costs at most `compute`.

    Args:
        law: The distillation law, or an ensemble of them.
        forward: The forward cost of student and teacher.
        scenario: What the student pays for.
        student_params: N_S, one number or one a budget.
        compute: Budgets in FLOPs, shape (n,); for an ensemble one, or one a draw.
        near: Optima of problems that differ little, one for all or one a row; the search starts there.

    Returns:
        One allocation a budget. Sizes and token counts lie within `LOWEST` .. `HIGHEST`, and a budget that is too
        large for these bounds is not spent.
    """
    own_params = np.asarray(student_params, dtype=np.float64).reshape(-1, 1)
    rows = max(np.size(compute), np.size(law.c0), len(own_params))
    compute = np.broadcast_to(np.asarray(compute, dtype=np.float64).reshape(-1, 1), (rows, 1))
    low, high = search_box(law.supervised, scenario, rows)

    def at(points: FloatArray) -> tuple[FloatArray, FloatArray, FloatArray, FloatArray]:
        return divide(law.supervised, forward, scenario, own_params, compute, points)

    def log_student_loss(points: FloatArray) -> FloatArray:
        student_tokens, _, _, teacher_loss = at(points)
        affordable = student_tokens >= LOWEST
        loss = law.log_predict(own_params, np.where(affordable, student_tokens, LOWEST), teacher_loss)
        return np.where(affordable, loss, np.inf)

    best, log_loss = minimise(log_student_loss, low, high, *_start(scenario, near, low.shape))
    student_tokens, teacher_params, teacher_tokens, teacher_loss = (part[:, 0] for part in at(best[:, None, :]))
    costs = distillation_cost(
        forward,
        (own_params[:, 0], student_tokens),
        (teacher_params, teacher_tokens),
        scenario.d_logits,
        scenario.d_pretrain,
    )
    return Allocations(
        student_params, student_tokens, teacher_params, teacher_tokens, teacher_loss, np.exp(log_loss), costs
    )


def search_box(law: SupervisedLaw, scenario: Scenario, rows: int) -> tuple[FloatArray, FloatArray]:
    """Bounds of the search variables (see `divide`), each of shape (rows, variables)."""
    variables = 1 if scenario.d_pretrain == 0.0 else 2
    low = np.tile([_LOG_LOW, -_LARGEST_LOGIT][:variables], (rows, 1))
    high = np.tile([_LOG_HIGH, _LARGEST_LOGIT][:variables], (rows, 1))
    if scenario.free_teacher:
        low[:] = law.log_predict(HIGHEST, HIGHEST)
        high[:] = law.log_predict(LOWEST, LOWEST)
    return low, high


def _start(
    scenario: Scenario, near: Allocations | None, shape: tuple[int, ...]
) -> tuple[FloatArray, float] | tuple[()]:
    """The search variables of an allocation, and how closely a search from there has to look."""
    if near is None:
        return ()
    if scenario.free_teacher:
        variables = [np.log(near.teacher_loss)]
    elif scenario.d_pretrain == 0.0:
        variables = [np.log(near.teacher_params)]
    else:
        rest = near.costs.student + near.costs.logits
        variables = [np.log(near.teacher_params), np.log(near.costs.teacher) - np.log(rest)]
    return np.broadcast_to(np.stack(variables, axis=-1), shape), _NEAR_STEP


def divide(
    law: SupervisedLaw,
    forward: ForwardCost,
    scenario: Scenario,
    student_params: FloatArray,
    compute: FloatArray,
    points: FloatArray,
) -> tuple[FloatArray, FloatArray, FloatArray, FloatArray]:
    """D_S, N_T, D_T and L_T that the search variables stand for, the whole budget spent.

    Args:
        law: The supervised law.
        forward: The forward cost.
        scenario: What the student pays for.
        student_params: N_S, shape (n, 1) or (1, 1).
        compute: Budgets in FLOPs, likewise.
        points: Shape (n, points, variables): ln L_T where the teacher is free, else ln N_T, and where its training is
            paid for the logit of the budget's share that goes there.

    Returns:
        Each of shape (n, points), NaN where the teacher is free.
    """
    own = forward.training_per_token(student_params)
    first = np.exp(points[..., 0])
    unknown = np.full_like(first, np.nan)
    if scenario.free_teacher:
        student_tokens = np.minimum(compute / own, HIGHEST) + np.zeros_like(first)
        return student_tokens, unknown, unknown, first
    per_logit = scenario.d_logits * forward.per_token(first)
    if scenario.d_pretrain == 0.0:
        # Training is free of charge, so nothing holds the teacher's tokens below the bound.
        teacher_tokens, left = np.full_like(first, HIGHEST), compute
    else:
        per_token = scenario.d_pretrain * forward.training_per_token(first)
        share = 1.0 / (1.0 + np.exp(-points[..., 1]))
        teacher_tokens = np.clip(share * compute / per_token, LOWEST, HIGHEST)
        left = compute - per_token * teacher_tokens
    student_tokens = np.minimum(left / (own + per_logit), HIGHEST)
    return student_tokens, first, teacher_tokens, law.predict(first, teacher_tokens)


def allocate_given(
    law: DistillationLaw,
    forward: ForwardCost,
    teacher: Teacher,
    student_params: Numbers,
    compute: FloatArray,
    students: int = 1,
) -> Allocations:
    """The allocation with a teacher that exists: pay for its logits, once for all `students`, and for the student.

    Args:
        law: The distillation law.
        forward: The forward cost of student and teacher.
        teacher: The teacher's size and measured loss.
        student_params: N_S.
        compute: Budgets of each student in FLOPs, shape (n,).
        students: How many students of this kind share the logits.
    """
    compute = np.asarray(compute, dtype=np.float64)
    per_token = forward.training_per_token(student_params) + forward.per_token(teacher.params) / students
    return _given(law, forward, teacher, student_params, np.minimum(compute / per_token, HIGHEST), students)


def _given(
    law: DistillationLaw,
    forward: ForwardCost,
    teacher: Teacher,
    student_params: Numbers,
    student_tokens: FloatArray,
    students: int,
) -> Allocations:
    student_tokens = np.broadcast_to(student_tokens, max(np.size(student_tokens), np.size(law.c0)))
    size, loss = np.full_like(student_tokens, teacher.params), np.full_like(student_tokens, teacher.loss)
    unknown = np.full_like(student_tokens, np.nan)
    costs = distillation_cost(forward, (student_params, student_tokens), (size, unknown), 1.0 / students, 0.0)
    # Columns, so that each draw of an ensemble meets its own tokens.
    own_params = np.asarray(student_params, dtype=np.float64).reshape(-1, 1)
    reached = law.predict(own_params, np.maximum(student_tokens, LOWEST)[:, None], teacher.loss)[:, 0]
    student_loss = np.where(student_tokens >= LOWEST, reached, np.inf)
    return Allocations(student_params, student_tokens, size, unknown, loss, student_loss, costs)


def allocate_tokens(
    law: DistillationLaw,
    forward: ForwardCost,
    scenario: Scenario,
    student_params: float,
    student_tokens: float,
    near: Allocations | None = None,
) -> Allocations:
    """The cheapest way to the best student where the student's tokens are given instead of a budget.

    Every scenario then reaches the same loss, that of the best teacher; the scenarios differ in what this teacher
    costs, and the teacher is the cheapest one that has this loss.

    Returns:
        One allocation, or one a draw of an ensemble.
    """
    own = forward.training_per_token(student_params)
    best = allocate(law, forward, BEST, student_params, np.array([own * student_tokens]), near)
    if scenario.free_teacher:
        return best
    wanted = best.teacher_loss[:, None]

    def log_cost(points: FloatArray) -> FloatArray:
        size = np.exp(points[..., 0])
        tokens = np.maximum(law.supervised.tokens_for(size, wanted), LOWEST)
        trained = np.where(tokens <= HIGHEST, tokens, 1.0)
        costs = distillation_cost(
            forward, (student_params, student_tokens), (size, trained), scenario.d_logits, scenario.d_pretrain
        )
        return np.where(tokens <= HIGHEST, np.log(costs.total), np.inf)

    low, high = np.full_like(wanted, _LOG_LOW), np.full_like(wanted, _LOG_HIGH)
    where, _ = minimise(log_cost, low, high, *_start(INFERENCE, near, low.shape))
    size = np.exp(where[:, 0])
    tokens = np.clip(law.supervised.tokens_for(size[:, None], wanted)[:, 0], LOWEST, HIGHEST)
    costs = distillation_cost(
        forward, (student_params, best.student_tokens), (size, tokens), scenario.d_logits, scenario.d_pretrain
    )
    return Allocations(student_params, best.student_tokens, size, tokens, best.teacher_loss, best.student_loss, costs)


def given_tokens(
    law: DistillationLaw,
    forward: ForwardCost,
    teacher: Teacher,
    student_params: float,
    student_tokens: float,
    students: int = 1,
) -> Allocations:
    """`allocate_given` where the student's tokens are given instead of a budget."""
    return _given(law, forward, teacher, student_params, np.array([student_tokens]), students)


def compute_optimal(
    law: SupervisedLaw, forward: ForwardCost, compute: FloatArray, near: float | None = None
) -> tuple[FloatArray, FloatArray]:
    """Size and tokens of ordinary training that reach the least loss with `compute` FLOPs.

    Args:
        law: The supervised law, or an ensemble of them.
        forward: The forward cost.
        compute: Budgets in FLOPs, shape (n,); one for an ensemble.
        near: The optimal size of a law that differs little; the search starts there.

    Returns:
        Parameters and tokens, each of the shape (n,) of `compute` (of the draws of an ensemble), within `LOWEST` ..
        `HIGHEST`.
    """
    rows = max(np.size(compute), np.size(law.alpha))
    budgets = np.broadcast_to(np.asarray(compute, dtype=np.float64).reshape(-1, 1), (rows, 1))

    def tokens(points: FloatArray) -> FloatArray:
        return np.minimum(budgets / forward.training_per_token(np.exp(points)), HIGHEST)

    def log_loss(points: FloatArray) -> FloatArray:
        size = points[..., 0]
        afforded = tokens(size)
        loss = law.log_predict(np.exp(size), np.maximum(afforded, LOWEST))
        return np.where(afforded >= LOWEST, loss, np.inf)

    start = () if near is None else (np.full((rows, 1), np.log(near)), _NEAR_STEP)
    best, _ = minimise(log_loss, np.full((rows, 1), _LOG_LOW), np.full((rows, 1), _LOG_HIGH), *start)
    return np.exp(best[:, 0]), tokens(best)[:, 0]
