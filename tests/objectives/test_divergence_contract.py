"""What every divergence keeps, beyond what every term keeps; a new file in `objectives/divergences` inherits it."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from term_cases import TERMS, name_of
from tutelage.errors import InputError
from tutelage.objectives.divergences import divergences
from tutelage.objectives.objective import Objective
from tutelage.objectives.position_terms import divergence
from tutelage.objectives.signal import Signal
from tutelage.objectives.terms import Term

# The gradient is a difference of probabilities: float32 rounds each, and a student at distance d has a difference of
# about d times them. A bfloat16 log-softmax leaves an error of 0.9 at d = 0.03 (KL 4e-4 nats); measured here 1e-5.
GRADIENT_ROUNDINGS = 64 * torch.finfo(torch.float32).eps
FLOAT32 = 2e-6
V = 257

every_divergence = pytest.mark.parametrize("term", [t for t in TERMS if t.family == "divergence"], ids=name_of)
every_kind = pytest.mark.parametrize("kind", divergences())
MIXED = [kind for kind, member in divergences().items() if member.mix is not None]


def drawn(*shape: int, seed: int = 0, scale: float = 2.0) -> Tensor:
    return scale * torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def kept(*shape: int) -> Tensor:
    return torch.ones(*shape, dtype=torch.bool)


def exactly(term: Term, student: Tensor, teacher: Tensor) -> Tensor:
    """The member's own formula on float64 log-probabilities."""
    logs = []
    for logits in (teacher.double(), student.double()):
        if term.standardise:
            logits = (logits - logits.mean(-1, keepdim=True)) / logits.std(-1, keepdim=True, correction=0)
        logs.append(torch.log_softmax(logits / term.temperature, -1).flatten(0, -2))
    mix = () if term.mixing_weight is None else (term.mixing_weight,)
    return divergences()[term.kind].losses(*logs, *mix).sum()


def relative(found: Tensor, wanted: Tensor) -> float:
    return float((found.double() - wanted).norm() / wanted.norm())


@every_divergence
@pytest.mark.parametrize("distance", [1.0, 0.03, 1e-3])
def test_value_and_gradient_match_float64_for_a_student_close_to_its_teacher(term: Term, distance: float) -> None:
    teacher = drawn(3, 4, V)
    student = (teacher + distance * drawn(3, 4, V, seed=1, scale=1.0)).requires_grad_()
    loss = divergence(term, student, teacher, kept(3, 4)).total
    (gradient,) = torch.autograd.grad(loss, student)
    exact = student.detach().double().requires_grad_()
    expected = exactly(term, exact, teacher)
    (wanted,) = torch.autograd.grad(expected, exact)
    # A mixture with a share of beta (or 1 - alpha) of the student has a gradient that is so much smaller.
    share = 1.0 if term.mix is None else min(1.0, max(1e-3, 1.0 - term.mix if term.mix > 0.5 else term.mix or 1.0))
    assert relative(gradient, wanted) < GRADIENT_ROUNDINGS / distance / share
    assert loss.item() == pytest.approx(expected.item(), rel=1e-3, abs=12 * 1e-7)


@every_divergence
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_gradient_of_low_precision_logits_is_limited_by_their_own_rounding_only(term: Term, dtype: torch.dtype) -> None:
    teacher = drawn(3, 4, V).to(dtype)
    student = (teacher.float() + 0.3 * drawn(3, 4, V, seed=1, scale=1.0)).to(dtype)
    leaf = student.float().requires_grad_()
    # Scaled up, as loss scaling does, so that float16's smallest numbers play no part.
    (gradient,) = torch.autograd.grad(1024 * divergence(term, leaf.to(dtype), teacher, kept(3, 4)).total, leaf)
    exact = student.double().requires_grad_()
    (wanted,) = torch.autograd.grad(1024 * exactly(term, exact, teacher), exact)
    # The gradient itself passes through `dtype` once: half a unit in the last place.
    assert relative(gradient, wanted) < torch.finfo(dtype).eps


@every_divergence
def test_doubling_the_vocabulary_by_splitting_classes_changes_nothing(term: Term) -> None:
    student, teacher = drawn(2, 3, 9, seed=1), drawn(2, 3, 9)
    once = divergence(term, student, teacher, kept(2, 3)).total
    twice = divergence(term, torch.cat([student] * 2, -1), torch.cat([teacher] * 2, -1), kept(2, 3)).total
    assert float(twice) == pytest.approx(float(once), rel=FLOAT32, abs=1e-6)


@every_divergence
def test_classes_that_both_mask_do_not_count(term: Term) -> None:
    student, teacher = drawn(1, 3, 7, seed=1), drawn(1, 3, 7)
    masked = torch.full((1, 3, 4), -torch.inf)
    plain = divergence(term, student, teacher, kept(1, 3)).total
    wider = divergence(term, torch.cat([student, masked], -1), torch.cat([teacher, masked], -1), kept(1, 3)).total
    assert float(wider) == pytest.approx(float(plain), rel=FLOAT32)


@every_divergence
@pytest.mark.parametrize("scale", [1e-3, 1.0, 30.0])
def test_never_negative(term: Term, scale: float) -> None:
    student, teacher = drawn(50, 2, 33, seed=1, scale=scale), drawn(50, 2, 33, scale=scale)
    for row in range(50):
        total = divergence(term, student[row : row + 1], teacher[row : row + 1], kept(1, 2)).total
        assert float(total) >= -1e-6  # float32 rounding at equality


@every_divergence
def test_extreme_logits_and_masks_stay_finite(term: Term) -> None:
    teacher = torch.tensor([[[1e4, -1e4, 0.0, -torch.inf], [0.0, 1.0, -torch.inf, -torch.inf]]])
    student = torch.tensor([[[-1e4, 1e4, 3.0, -torch.inf], [1e4, -torch.inf, 2.0, 0.0]]], requires_grad=True)
    loss = divergence(term, student, teacher, kept(1, 2)).total
    (gradient,) = torch.autograd.grad(loss, student)
    assert math.isfinite(loss.item())
    assert loss.item() > (0.0 if term.mix == 0.001 else 0.01)
    assert torch.isfinite(gradient).all()


@every_kind
def test_gradient_norm_is_about_constant_in_temperature_once_t_squared_is_applied(kind: str) -> None:
    # Large T linearises the softmax.
    teacher, student = drawn(2, 3, 33), drawn(2, 3, 33, seed=1)
    norms = []
    for temperature in (20.0, 40.0, 80.0):
        leaf = student.clone().requires_grad_()
        objective = Objective([Term(kind, 1.0, temperature)])
        labels_BT = torch.zeros(2, 3, dtype=torch.long)
        reduced = objective.evaluate(Signal(leaf, {}), Signal(teacher, {}), labels_BT, kept(2, 3), {})
        (gradient,) = torch.autograd.grad(objective.combine(reduced, {kind: 6}), leaf)
        norms.append(float(gradient.norm()))
    assert norms[1] == pytest.approx(norms[0], rel=0.05)
    assert norms[2] == pytest.approx(norms[1], rel=0.03)


@pytest.mark.parametrize("kind", MIXED)
@pytest.mark.parametrize("end", [0.0, 1.0])
def test_the_mixing_weight_does_not_jump_at_its_ends(kind: str, end: float) -> None:
    logs = [torch.log_softmax(drawn(20, 33, seed=seed, scale=1.0), -1) for seed in (0, 1)]
    at = [float(divergences()[kind].losses(*logs, abs(end - step)).sum()) for step in (0.0, 1e-5, 1e-3)]
    assert at[1] == pytest.approx(at[0], abs=2e-3)  # 20 positions of about 1 nat, and slopes of about 6 nats each
    assert at[2] == pytest.approx(at[0], abs=2e-1)
    if end in divergences()[kind].vanishes_at:
        assert at[0] == pytest.approx(0.0, abs=1e-5)
        with pytest.raises(ValueError, match="nothing would be learned"):
            Term(kind, mix=end)


@every_kind
def test_different_vocabularies_are_refused_by_name(kind: str) -> None:
    with pytest.raises(InputError, match=f"{kind}: the student's vocabulary has 51865 entries and the teacher's 51866"):
        divergence(Term(kind), torch.zeros(1, 1, 51865), torch.zeros(1, 1, 51866), kept(1, 1))
