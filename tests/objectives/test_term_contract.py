"""The contract that every term keeps, with each of its options. A file of a new kind is all that it needs to be tested.

Every test goes through `Objective`, so it holds for the path that training takes, not only for the bare functions.
"""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
import torch
from torch import nn

from term_cases import (
    COMPARISONS,
    PAIRS,
    TERMS,
    B,
    T,
    evaluate,
    gradients,
    loss_of,
    make_case,
    name_of,
    objective_of,
    with_student,
)
from tutelage.objectives.alignments import alignments
from tutelage.objectives.divergences import divergences
from tutelage.objectives.members import ZERO
from tutelage.objectives.signal import Signal
from tutelage.objectives.state_terms import Groups
from tutelage.objectives.terms import TERM_FAMILIES, Term

ROUNDING = 2e-6  # float32 sums in another order, relative
# A gradient of sets goes through norms and products of whole sets, in another order when sets are fewer.
GRADIENT_ROUNDING = 1e-5

A_FACTOR = 1e-3  # far below a factor of T or of a count, far above rounding

every_term = pytest.mark.parametrize("term", TERMS, ids=name_of)
every_comparison = pytest.mark.parametrize("term", COMPARISONS, ids=name_of)


def positions_compared(term: Term, keep_BT: torch.Tensor) -> torch.Tensor:
    """The kept positions that are in a group large enough to say anything."""
    if not term.compares_states:
        return keep_BT
    member = alignments()[term.kind]
    smallest = member.smallest + (term.centre or member.centring == "always")
    compared = torch.zeros_like(keep_BT)
    for b in range(B):
        kept = keep_BT[b].nonzero()[:, 0].tolist()
        groups = (
            [kept]
            if member.group != "run"
            else [[t for t in kept if t <= 3 or b != 2], [t for t in kept if t > 3 and b == 2]]
        )
        for group in groups:
            compared[b, group] = len(group) >= smallest
    return compared


def test_every_kind_has_one_family_and_one_member() -> None:
    members = {**divergences(), **alignments(), "cross_entropy": None}
    assert len(members) == len(divergences()) + len(alignments()) + 1
    assert set(members) == set(TERM_FAMILIES)


@every_comparison
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
@pytest.mark.parametrize("weight", [1.0, 0.3])
def test_zero_at_equality(term: Term, dtype: torch.dtype, weight: float) -> None:
    case = make_case(dtype=dtype)
    student = Signal(case.teacher.scores, {p.student: case.teacher.states[p.teacher].clone() for p in PAIRS})
    same = replace(case, student=student, projectors=nn.ModuleDict({p.name: nn.Identity() for p in PAIRS}))
    objective = objective_of(replace(term, weight=weight))
    bound = ZERO if term.family == "divergence" else alignments()[term.kind].zero
    assert abs(loss_of(objective, same).item()) < bound * term.temperature**2
    assert loss_of(objective, case).item() > 1e-4  # and not zero elsewhere


@every_term
@pytest.mark.parametrize("parts", [[5], [1, 4], [3, 2], [2, 2, 1], [1, 1, 1, 1, 1]], ids=str)
def test_any_split_into_micro_batches_gives_the_same_loss_and_gradient(term: Term, parts: list[int]) -> None:
    case, objective = make_case(), objective_of(term)
    whole = loss_of(objective, case)
    expected = gradients(whole, case)
    starts = [sum(parts[:index]) for index in range(len(parts))]
    pieces = [case.rows(slice(start, start + size)) for start, size in zip(starts, parts, strict=True)]
    counts = {term.kind: sum(objective.counts(piece.keep_BT)[term.kind] for piece in pieces)}
    losses = [objective.combine(evaluate(objective, piece), counts) for piece in pieces]
    assert sum(losses).item() == pytest.approx(whole.item(), rel=ROUNDING)
    found = gradients(sum(losses), case)
    largest = max(float(want.abs().max()) for want in expected)  # a projector's offset cancels in a difference: 0
    for got, want in zip(found, expected, strict=True):
        torch.testing.assert_close(got, want, rtol=GRADIENT_ROUNDING, atol=ROUNDING * largest)


@every_term
def test_what_is_counted_is_known_from_the_mask(term: Term) -> None:
    case, objective = make_case(), objective_of(term)
    announced = objective.counts(case.keep_BT)[term.kind]
    assert announced == evaluate(objective, case)[term.kind].count > 0
    # 15 positions in sets of 5, 2, 4, 3 and 1; the set of 4 is in runs of 3 and 1
    expected = {"linear_cka": 3, "gram": 3 if term.centre else 4, "procrustes": 3 if term.centre else 4}
    expected |= {"curve": 7 + 1 + 3 + 3, "infonce": 12 if term.centre else 14}
    assert announced == expected.get(term.kind, 14 if term.centre else 15)


@every_term
@pytest.mark.parametrize("garbage", [math.nan, math.inf, -math.inf, 1e30])
def test_garbage_at_dropped_positions_changes_neither_loss_nor_gradient(term: Term, garbage: float) -> None:
    case, objective = make_case(), objective_of(term)
    clean = loss_of(objective, case)
    expected = gradients(clean, case)
    spoil = lambda values: values.detach().masked_fill(~case.keep_BT[..., None], garbage)  # noqa: E731
    spoiled = with_student(case, case.student.map(spoil))
    spoiled.teacher = case.teacher.map(spoil)
    spoiled.labels_BT = case.labels_BT.masked_fill(~case.keep_BT, -100)
    loss = loss_of(objective, spoiled)
    assert torch.equal(loss, clean)
    got = gradients(loss, spoiled)
    assert all(torch.equal(found, want) for found, want in zip(got, expected, strict=True))
    for found in got[: len(case.student.tensors())]:
        assert torch.count_nonzero(found[~case.keep_BT]) == 0


@every_term
def test_exactly_the_supervised_positions_move_the_loss(term: Term) -> None:
    case, objective = make_case(), objective_of(term)
    before = loss_of(objective, case)
    moved = torch.zeros(B, T, dtype=torch.bool)
    for b in range(B):
        for t in range(T):
            changed = with_student(case, case.student)
            with torch.no_grad():
                for leaf in changed.student.tensors():
                    leaf[b, t, 3] += 1.0
            moved[b, t] = bool(loss_of(objective, changed) != before)
    assert torch.equal(moved, positions_compared(term, case.keep_BT))


@every_term
@pytest.mark.parametrize("size", [0.0, 1e-6, 1e4])
def test_extreme_inputs_give_finite_loss_and_gradient(term: Term, size: float) -> None:
    case = make_case()
    extreme = with_student(case, case.student.map(lambda values: size * values.detach().sign()))
    extreme.teacher = Signal(1e4 * case.teacher.logits_BTV.sign(), case.teacher.states)
    loss = loss_of(objective_of(term), extreme)
    assert torch.isfinite(loss)
    assert all(torch.isfinite(gradient).all() for gradient in gradients(loss, extreme))


@every_term
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_losses_are_float32_inside_and_outside_autocast(term: Term, dtype: torch.dtype) -> None:
    case, objective = make_case(dtype=dtype), objective_of(term)
    plain = evaluate(objective, case)[term.kind]
    with torch.autocast("cpu", dtype=torch.bfloat16):
        inside = evaluate(objective, case)[term.kind]
    assert plain.total.dtype == torch.float32
    assert torch.equal(plain.total, inside.total)
    exact = replace(case, student=case.student.map(torch.Tensor.float), teacher=case.teacher.map(torch.Tensor.float))
    assert torch.equal(evaluate(objective, exact)[term.kind].total, plain.total)


@every_term
def test_t_squared_is_applied_once_and_to_divergences_only(term: Term) -> None:
    case, objective = make_case(), objective_of(term)
    reduced = evaluate(objective, case)[term.kind]
    squared = term.temperature**2 if term.family == "divergence" else 1.0
    expected = squared * reduced.total / reduced.count
    torch.testing.assert_close(loss_of(objective, case), expected)
    bare = [gradient * squared / reduced.count for gradient in gradients(reduced.total, case)]
    largest = max(float(gradient.abs().max()) for gradient in bare)
    for found, want in zip(gradients(loss_of(objective, case), case), bare, strict=True):
        torch.testing.assert_close(found, want, rtol=A_FACTOR, atol=A_FACTOR * largest)


@every_comparison
def test_no_gradient_reaches_the_teacher(term: Term) -> None:
    case = make_case()
    leaves = case.teacher.tensors()
    for leaf in leaves:
        leaf.requires_grad_()
    found = torch.autograd.grad(loss_of(objective_of(term), case), leaves, allow_unused=True)
    assert all(gradient is None for gradient in found)


@every_term
def test_no_kept_position_sums_to_zero_and_refuses_a_mean(term: Term) -> None:
    case, objective = make_case(), objective_of(term)
    case.keep_BT = torch.zeros_like(case.keep_BT)
    reduced = evaluate(objective, case)
    assert reduced[term.kind].total.item() == 0.0
    assert reduced[term.kind].count == objective.counts(case.keep_BT)[term.kind] == 0
    # A micro-batch may be empty as long as the step is not.
    assert objective.combine(reduced, {term.kind: 3}).item() == 0.0
    assert not any(gradient.any() for gradient in gradients(objective.combine(reduced, {term.kind: 3}), case))
    with pytest.raises(Exception, match="supervises no position"):
        objective.combine(reduced, {term.kind: 0})


@every_term
def test_a_mask_that_is_not_boolean_is_refused(term: Term) -> None:
    case = make_case()
    case.keep_BT = case.keep_BT.long()
    with pytest.raises(ValueError, match="boolean"):
        evaluate(objective_of(term), case)


def test_groups_are_read_off_the_mask() -> None:
    groups = Groups.of(torch.tensor([[1, 1, 0, 1], [0, 0, 0, 0], [1, 1, 1, 1]]).bool())
    assert groups == Groups(sets=(3, 0, 4), runs=(2, 1, 4))
    assert groups.positions == 7
