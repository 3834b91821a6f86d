"""The contract that every member of the term family keeps. A row in TERM_FAMILIES is all that a new member needs.

Every test goes through `Objective`, so it holds for the path that training takes, not only for the bare functions.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import pytest
import torch
from torch import Tensor, nn

from tutelage.objectives.objective import ALIGNMENTS, DIVERGENCES, LIKELIHOODS, Objective
from tutelage.objectives.signal import Signal
from tutelage.objectives.terms import TERM_FAMILIES, LayerPair, Term

KINDS = sorted(TERM_FAMILIES)
COMPARISONS = [kind for kind in KINDS if TERM_FAMILIES[kind] != "likelihood"]
TEMPERATURES = {kind: (1.0, 2.0, 7.0) if TERM_FAMILIES[kind] == "divergence" else (1.0,) for kind in KINDS}
PAIRS = (LayerPair(1, 2), LayerPair(2, 4))

ZERO = 1e-6  # the promise of the family
# The angle's own formula puts a floor of 2*atan(sqrt(1e-12)/2) = 1e-6 at equality (1.0000002e-6 in float32), so its
# promise is twice that.
ZERO_OF_ANGLE = 2e-6
ROUNDING = 2e-6  # float32 sums in another order, relative

B, T, V, H_S, H_T = 5, 7, 11, 6, 8


@dataclass
class Case:
    student: Signal
    teacher: Signal
    labels_BT: Tensor
    keep_BT: Tensor
    projectors: nn.ModuleDict

    def leaves(self) -> list[Tensor]:
        return [self.student.logits_BTV, *self.student.states.values()]


def make_case(seed: int = 0, dtype: torch.dtype = torch.float32) -> Case:
    generator = torch.Generator().manual_seed(seed)

    def draw(*shape: int) -> Tensor:
        return (2.0 * torch.randn(*shape, generator=generator)).to(dtype)

    lengths = torch.tensor([7, 2, 5, 3, 1])  # unequal on purpose
    positions = torch.arange(T)
    keep_BT = (positions >= torch.tensor([2, 0, 1, 0, 0])[:, None]) & (positions < lengths[:, None])
    student = Signal(draw(B, T, V).requires_grad_(), {p.student: draw(B, T, H_S).requires_grad_() for p in PAIRS})
    teacher = Signal(draw(B, T, V), {p.teacher: draw(B, T, H_T) for p in PAIRS})
    projectors = nn.ModuleDict()
    for pair in PAIRS:
        projectors[pair.name] = nn.Linear(H_S, H_T)
        for parameter in projectors[pair.name].parameters():
            parameter.data = torch.randn(parameter.shape, generator=generator)
    return Case(student, teacher, torch.randint(0, V, (B, T), generator=generator), keep_BT, projectors)


def make_objective(kind: str, temperature: float = 1.0, weight: float = 1.0) -> Objective:
    return Objective([Term(kind, weight, temperature)], PAIRS)


def loss_of(objective: Objective, case: Case) -> Tensor:
    reduced = objective.evaluate(case.student, case.teacher, case.labels_BT, case.keep_BT, case.projectors)
    return objective.combine(reduced, {name: part.count for name, part in reduced.items()})


def gradients(loss: Tensor, case: Case) -> list[Tensor]:
    wanted = [*case.leaves(), *case.projectors.parameters()]
    found = torch.autograd.grad(loss, wanted, allow_unused=True, retain_graph=True)
    return [torch.zeros_like(x) if g is None else g for x, g in zip(wanted, found, strict=True)]


def with_leaves(case: Case, logits_BTV: Tensor, states: dict[int, Tensor]) -> Case:
    signal = Signal(
        logits_BTV.detach().clone().requires_grad_(),
        {layer: state.detach().clone().requires_grad_() for layer, state in states.items()},
    )
    return Case(signal, case.teacher, case.labels_BT, case.keep_BT, case.projectors)


def test_every_family_member_has_a_function_and_no_function_is_homeless() -> None:
    homes = {"likelihood": LIKELIHOODS, "divergence": DIVERGENCES, "alignment": ALIGNMENTS}
    assert {kind: family for family, home in homes.items() for kind in home} == dict(TERM_FAMILIES)


@pytest.mark.parametrize(("kind", "temperature"), [(k, t) for k in COMPARISONS for t in TEMPERATURES[k]])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
@pytest.mark.parametrize("weight", [1.0, 0.3])
def test_zero_at_equality(kind: str, temperature: float, dtype: torch.dtype, weight: float) -> None:
    case = make_case(dtype=dtype)
    teacher = case.teacher
    student = Signal(teacher.logits_BTV.clone(), {p.student: teacher.states[p.teacher].clone() for p in PAIRS})
    same = Case(student, teacher, case.labels_BT, case.keep_BT, nn.ModuleDict({p.name: nn.Identity() for p in PAIRS}))
    loss = loss_of(make_objective(kind, temperature, weight), same)
    assert abs(loss.item()) < (ZERO_OF_ANGLE if kind == "angle" else ZERO)
    assert loss_of(make_objective(kind, temperature, weight), case).item() > 1e-3  # and not zero elsewhere


@pytest.mark.parametrize(("kind", "temperature"), [(k, t) for k in KINDS for t in TEMPERATURES[k]])
@pytest.mark.parametrize("parts", [[5], [1, 4], [3, 2], [2, 2, 1], [1, 1, 1, 1, 1]])
def test_any_split_into_micro_batches_gives_the_same_loss_and_gradient(
    kind: str, temperature: float, parts: list[int]
) -> None:
    case = make_case()
    objective = make_objective(kind, temperature)
    whole = loss_of(objective, case)
    expected = gradients(whole, case)

    pieces, start = [], 0
    for size in parts:
        rows = slice(start, start + size)
        start += size
        student = Signal(case.student.logits_BTV[rows], {k: s[rows] for k, s in case.student.states.items()})
        teacher = Signal(case.teacher.logits_BTV[rows], {k: s[rows] for k, s in case.teacher.states.items()})
        pieces.append(objective.evaluate(student, teacher, case.labels_BT[rows], case.keep_BT[rows], case.projectors))
    counts = {name: sum(piece[name].count for piece in pieces) for name in objective.terms}
    losses = [objective.combine(piece, counts) for piece in pieces]
    assert sum(losses).item() == pytest.approx(whole.item(), rel=ROUNDING)
    for index, want in enumerate(expected):
        got = sum(gradients(loss, case)[index] for loss in losses)
        torch.testing.assert_close(got, want, rtol=1e-5, atol=ROUNDING * float(want.abs().max() + 1e-9))


@pytest.mark.parametrize(("kind", "temperature"), [(k, t) for k in KINDS for t in TEMPERATURES[k]])
@pytest.mark.parametrize("garbage", [math.nan, math.inf, -math.inf, 1e30])
def test_garbage_at_dropped_positions_changes_neither_loss_nor_gradient(
    kind: str, temperature: float, garbage: float
) -> None:
    case = make_case()
    objective = make_objective(kind, temperature)
    clean = loss_of(objective, case)
    expected = gradients(clean, case)

    dropped = ~case.keep_BT[..., None]
    spoil = lambda x: x.detach().masked_fill(dropped, garbage)  # noqa: E731
    spoiled = with_leaves(case, spoil(case.student.logits_BTV), {k: spoil(s) for k, s in case.student.states.items()})
    spoiled.teacher = Signal(spoil(case.teacher.logits_BTV), {k: spoil(s) for k, s in case.teacher.states.items()})
    spoiled.labels_BT = case.labels_BT.masked_fill(~case.keep_BT, -100)
    loss = loss_of(objective, spoiled)
    assert torch.equal(loss, clean)
    got = gradients(loss, spoiled)
    for found, want in zip(got, expected, strict=True):
        assert torch.equal(found, want)
    for found in got[: len(case.leaves())]:
        assert torch.count_nonzero(found[~case.keep_BT]) == 0


@pytest.mark.parametrize("kind", KINDS)
def test_exactly_the_supervised_positions_move_the_loss(kind: str) -> None:
    case = make_case()
    objective = make_objective(kind)
    before = loss_of(objective, case)
    moved = torch.zeros(B, T, dtype=torch.bool)
    for b in range(B):
        for t in range(T):
            changed = with_leaves(case, case.student.logits_BTV, dict(case.student.states))
            for leaf in changed.leaves():
                with torch.no_grad():
                    leaf[b, t, 3] += 1.0
            moved[b, t] = bool(loss_of(objective, changed) != before)
    assert torch.equal(moved, case.keep_BT)


@pytest.mark.parametrize(("kind", "temperature"), [(k, t) for k in KINDS for t in TEMPERATURES[k]])
@pytest.mark.parametrize("size", [0.0, 1e-6, 1e4])
def test_extreme_inputs_give_finite_loss_and_gradient(kind: str, temperature: float, size: float) -> None:
    case = make_case()
    extreme = with_leaves(
        case,
        size * case.student.logits_BTV.detach().sign(),
        {k: size * s.detach().sign() for k, s in case.student.states.items()},
    )
    extreme.teacher = Signal(1e4 * case.teacher.logits_BTV.sign(), case.teacher.states)
    loss = loss_of(make_objective(kind, temperature), extreme)
    assert torch.isfinite(loss)
    assert all(torch.isfinite(gradient).all() for gradient in gradients(loss, extreme))


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_losses_are_float32_inside_and_outside_autocast(kind: str, dtype: torch.dtype) -> None:
    case = make_case(dtype=dtype)
    objective = make_objective(kind)
    plain = objective.evaluate(case.student, case.teacher, case.labels_BT, case.keep_BT, case.projectors)[kind]
    with torch.autocast("cpu", dtype=torch.bfloat16):
        inside = objective.evaluate(case.student, case.teacher, case.labels_BT, case.keep_BT, case.projectors)[kind]
    assert plain.total.dtype == torch.float32
    assert torch.equal(plain.total, inside.total)


@pytest.mark.parametrize("kind", COMPARISONS)
def test_no_gradient_reaches_the_teacher(kind: str) -> None:
    case = make_case()
    teacher_leaves = [case.teacher.logits_BTV, *case.teacher.states.values()]
    for leaf in teacher_leaves:
        leaf.requires_grad_()
    found = torch.autograd.grad(loss_of(make_objective(kind), case), teacher_leaves, allow_unused=True)
    assert all(gradient is None for gradient in found)


@pytest.mark.parametrize("kind", KINDS)
def test_no_kept_position_sums_to_zero_and_refuses_a_mean(kind: str) -> None:
    case = make_case()
    case.keep_BT = torch.zeros_like(case.keep_BT)
    objective = make_objective(kind)
    reduced = objective.evaluate(case.student, case.teacher, case.labels_BT, case.keep_BT, case.projectors)
    assert float(reduced[kind].total.detach()) == 0.0
    assert int(reduced[kind].count) == 0
    # A micro-batch may be empty as long as the step is not.
    assert float(objective.combine(reduced, {kind: 3}).detach()) == 0.0
    with pytest.raises(Exception, match="supervises no position"):
        objective.combine(reduced, {kind: 0})


@pytest.mark.parametrize("kind", KINDS)
def test_a_mask_that_is_not_boolean_is_refused(kind: str) -> None:
    case = make_case()
    case.keep_BT = case.keep_BT.long()
    with pytest.raises(ValueError, match="boolean"):
        loss_of(make_objective(kind), case)
