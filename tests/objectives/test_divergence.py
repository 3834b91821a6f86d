"""Forward KL against float64, under vocabulary splitting, masks, extreme logits and temperature."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from tutelage.errors import InputError
from tutelage.objectives.divergence import forward_kl
from tutelage.objectives.objective import Objective
from tutelage.objectives.signal import Signal
from tutelage.objectives.terms import Term

# The gradient is p_S - p_T: float32 rounds each p, and a student at distance d has |p_S - p_T| of about d * p. At
# d = 0.03 (KL 4e-4 nats) the bound is 3e-5; a bfloat16 log-softmax leaves 0.9 there.
GRADIENT_ROUNDINGS = 8 * torch.finfo(torch.float32).eps
FLOAT32 = 2e-6
V = 257


def drawn(*shape: int, seed: int = 0, scale: float = 2.0) -> Tensor:
    return scale * torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def kept(*shape: int) -> Tensor:
    return torch.ones(*shape, dtype=torch.bool)


def reference_kl(student: Tensor, teacher: Tensor, temperature: float) -> Tensor:
    """The definition, in float64."""
    log_p = torch.log_softmax(teacher.double() / temperature, -1)
    log_q = torch.log_softmax(student.double() / temperature, -1)
    return torch.nn.functional.kl_div(log_q, log_p, reduction="sum", log_target=True)


@pytest.mark.parametrize("distance", [1.0, 0.03, 1e-3])
@pytest.mark.parametrize("temperature", [1.0, 2.0])
def test_value_and_gradient_match_float64_for_a_student_close_to_its_teacher(
    distance: float, temperature: float
) -> None:
    teacher = drawn(3, 4, V)
    student = (teacher + distance * drawn(3, 4, V, seed=1, scale=1.0)).requires_grad_()
    loss = forward_kl(student, teacher, kept(3, 4), temperature).total
    (gradient,) = torch.autograd.grad(loss, student)
    exact = student.detach().double().requires_grad_()
    expected = reference_kl(exact, teacher, temperature)
    (wanted,) = torch.autograd.grad(expected, exact)
    error = float((gradient.double() - wanted).norm() / wanted.norm())
    assert error < GRADIENT_ROUNDINGS / distance
    assert loss.item() == pytest.approx(expected.item(), rel=1e-3, abs=12 * 1e-7)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_gradient_of_low_precision_logits_is_limited_by_their_own_rounding_only(dtype: torch.dtype) -> None:
    teacher = drawn(3, 4, V).to(dtype)
    student = (teacher.float() + 0.03 * drawn(3, 4, V, seed=1, scale=1.0)).to(dtype)
    leaf = student.float().requires_grad_()
    (gradient,) = torch.autograd.grad(forward_kl(leaf.to(dtype), teacher, kept(3, 4), 1.0).total, leaf)
    exact = student.double().requires_grad_()
    (wanted,) = torch.autograd.grad(reference_kl(exact, teacher, 1.0), exact)
    # The gradient itself passes through `dtype` once: half a unit in the last place.
    assert float((gradient.double() - wanted).norm() / wanted.norm()) < torch.finfo(dtype).eps


@pytest.mark.parametrize("temperature", [1.0, 2.0, 5.0])
def test_doubling_the_vocabulary_by_splitting_classes_changes_nothing(temperature: float) -> None:
    student, teacher = drawn(2, 3, 9, seed=1), drawn(2, 3, 9)
    once = forward_kl(student, teacher, kept(2, 3), temperature).total
    twice = forward_kl(torch.cat([student] * 2, -1), torch.cat([teacher] * 2, -1), kept(2, 3), temperature).total
    assert float(twice) == pytest.approx(float(once), rel=FLOAT32)


@settings(max_examples=50, deadline=None)
@given(st.integers(0, 10_000), st.floats(1e-3, 30.0), st.floats(0.2, 20.0))
def test_never_negative(seed: int, scale: float, temperature: float) -> None:
    student, teacher = drawn(1, 2, 33, seed=seed, scale=scale), drawn(1, 2, 33, seed=seed + 1, scale=scale)
    assert float(forward_kl(student, teacher, kept(1, 2), temperature).total) >= -1e-6  # float32 rounding at equality


def test_gradient_norm_is_about_constant_in_temperature_once_t_squared_is_applied() -> None:
    # Large T linearises the softmax; the logits are centred, as the limit of hinton2015 assumes.
    teacher, student = drawn(2, 3, 33), drawn(2, 3, 33, seed=1)
    norms = []
    for temperature in (20.0, 40.0, 80.0):
        leaf = student.clone().requires_grad_()
        objective = Objective([Term("kl", 1.0, temperature)])
        reduced = objective.evaluate(
            Signal(leaf, {}), Signal(teacher, {}), torch.zeros(2, 3, dtype=torch.long), kept(2, 3), {}
        )
        (gradient,) = torch.autograd.grad(objective.combine(reduced, {"kl": 6}), leaf)
        norms.append(float(gradient.norm()))
    assert norms[1] == pytest.approx(norms[0], rel=0.05)
    assert norms[2] == pytest.approx(norms[1], rel=0.03)


@pytest.mark.parametrize("temperature", [1.0, 2.0])
def test_extreme_logits_and_masks_stay_finite(temperature: float) -> None:
    teacher = torch.tensor([[[1e4, -1e4, 0.0, -torch.inf], [0.0, 1.0, -torch.inf, -torch.inf]]])
    student = torch.tensor([[[-1e4, 1e4, 3.0, -torch.inf], [1e4, -torch.inf, 2.0, 0.0]]], requires_grad=True)
    loss = forward_kl(student, teacher, kept(1, 2), temperature).total
    (gradient,) = torch.autograd.grad(loss, student)
    assert math.isfinite(loss.item())
    assert loss.item() > 1e4 / temperature
    assert torch.isfinite(gradient).all()


def test_classes_that_both_mask_do_not_count() -> None:
    student, teacher = drawn(1, 3, 7, seed=1), drawn(1, 3, 7)
    masked = torch.full((1, 3, 4), -torch.inf)
    plain = forward_kl(student, teacher, kept(1, 3), 2.0).total
    wider = forward_kl(torch.cat([student, masked], -1), torch.cat([teacher, masked], -1), kept(1, 3), 2.0).total
    assert float(wider) == pytest.approx(float(plain), rel=FLOAT32)


def test_the_teacher_is_the_first_argument_of_the_divergence() -> None:
    teacher, student = torch.tensor([[[0.0, 0.0]]]), torch.tensor([[[math.log(3.0), 0.0]]])
    expected = 0.5 * math.log(0.5 / 0.75) + 0.5 * math.log(0.5 / 0.25)
    assert float(forward_kl(student, teacher, kept(1, 1)).total) == pytest.approx(expected, rel=FLOAT32)


def test_different_vocabularies_are_refused_by_name() -> None:
    with pytest.raises(InputError, match="student's vocabulary has 51865 entries and the teacher's 51866"):
        forward_kl(torch.zeros(1, 1, 51865), torch.zeros(1, 1, 51866), kept(1, 1))
