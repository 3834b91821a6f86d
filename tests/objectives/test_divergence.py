"""Divergences against their definitions, their limits and bounds; standardised logits."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor
from torch.nn.functional import kl_div

from tutelage.objectives.mixture import log_mixture_ratio
from tutelage.objectives.position_terms import divergence, standardise
from tutelage.objectives.sparse import LOG_PROBABILITY_FLOOR
from tutelage.objectives.terms import Term

FLOAT32 = 2e-6


def drawn(*shape: int, seed: int = 0, scale: float = 2.0) -> Tensor:
    return scale * torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def kept(*shape: int) -> Tensor:
    return torch.ones(*shape, dtype=torch.bool)


def kl(p: Tensor, q: Tensor) -> float:
    """KL(p || q) by torch, float64."""
    return float(kl_div(q.log(), p.log(), reduction="sum", log_target=True))


@pytest.mark.parametrize("temperature", [1.0, 3.0])
@pytest.mark.parametrize("mix", [0.1, 0.5, 0.8])
def test_definitions(temperature: float, mix: float) -> None:
    teacher, student = drawn(2, 3, 19), drawn(2, 3, 19, seed=1)
    p, q = (torch.softmax(x.double() / temperature, -1) for x in (teacher, student))
    m = mix * p + (1 - mix) * q
    expected = {
        "kl": kl(p, q),
        "reverse_kl": kl(q, p),
        "jsd": mix * kl(p, m) + (1 - mix) * kl(q, m),
        "skew_kl": kl(p, m),
        "skew_reverse_kl": kl(q, mix * q + (1 - mix) * p),
    }
    for kind, value in expected.items():
        term = Term(kind, temperature=temperature, mix=None if kind in ("kl", "reverse_kl") else mix)
        assert float(divergence(term, student, teacher, kept(2, 3)).total) == pytest.approx(value, rel=FLOAT32)


def test_the_teacher_is_the_first_argument_of_the_divergence() -> None:
    teacher, student = torch.tensor([[[0.0, 0.0]]]), torch.tensor([[[math.log(3.0), 0.0]]])
    expected = 0.5 * math.log(0.5 / 0.75) + 0.5 * math.log(0.5 / 0.25)
    assert float(divergence(Term("kl"), student, teacher, kept(1, 1)).total) == pytest.approx(expected, rel=FLOAT32)


def test_limits_of_the_mixtures_are_the_two_directions() -> None:
    teacher, student = drawn(2, 3, 19), drawn(2, 3, 19, seed=1)

    def value(kind: str, mix: float | None = None) -> float:
        return float(divergence(Term(kind, mix=mix), student, teacher, kept(2, 3)).total)

    assert value("skew_kl", 0.0) == value("kl")
    assert value("skew_reverse_kl", 0.0) == value("reverse_kl")
    # jsd is beta KL(p || q) to first order at 0, and (1 - beta) KL(q || p) at 1
    assert value("jsd", 1e-4) / 1e-4 == pytest.approx(value("kl"), rel=0.02)
    assert value("jsd", 1 - 1e-4) / 1e-4 == pytest.approx(value("reverse_kl"), rel=0.02)


def test_mixtures_are_bounded_where_supports_do_not_meet() -> None:
    teacher, student = torch.tensor([[[0.0, -torch.inf]]]), torch.tensor([[[-torch.inf, 0.0]]])
    bounded = {"jsd": math.log(2), "skew_kl": math.log(2), "skew_reverse_kl": math.log(2)}
    for kind, bound in bounded.items():
        found = float(divergence(Term(kind, mix=0.5), student, teacher, kept(1, 1)).total)
        assert found == pytest.approx(bound, rel=FLOAT32)
    for kind in ("kl", "reverse_kl"):
        assert float(divergence(Term(kind), student, teacher, kept(1, 1)).total) == pytest.approx(1e6)


def test_a_class_that_the_student_masks_has_no_gradient_and_pulls_at_no_other() -> None:
    """As autograd has it where log q is clipped: in closed form p of that class must not stay in q - p."""
    teacher = torch.tensor([[[0.0, 1.0, 2.0], [0.0, 1.0, 2.0]]])
    student = torch.tensor([[[1.0, 0.0, -torch.inf], [1.0, 0.0, 0.5]]], requires_grad=True)
    (found,) = torch.autograd.grad(divergence(Term("kl", temperature=2.0), student, teacher, kept(1, 2)).total, student)
    p, log_q = torch.softmax(teacher / 2, -1), torch.log_softmax(student / 2, -1).clamp_min(LOG_PROBABILITY_FLOOR)
    (wanted,) = torch.autograd.grad(-(p * log_q).sum(), student)
    torch.testing.assert_close(found, wanted)
    assert found[0, 0, 2] == 0.0


def test_the_log_of_a_mixture_has_a_gradient_at_equality() -> None:
    log_p, log_q = torch.tensor([-1.0, -2.0]), torch.tensor([-1.0, -1.5], requires_grad=True)
    (gradient,) = torch.autograd.grad(log_mixture_ratio(log_p, log_q, 0.25).sum(), log_q)
    ratio = 0.75 * math.exp(0.5) / (0.25 + 0.75 * math.exp(0.5))
    torch.testing.assert_close(gradient, torch.tensor([0.75, ratio]))


def test_standardised_logits_forget_their_offset_and_scale() -> None:
    logits = drawn(4, 33)
    found = standardise(logits)
    torch.testing.assert_close(found.mean(-1), torch.zeros(4), rtol=0, atol=1e-6)
    torch.testing.assert_close(found.std(-1, correction=0), torch.ones(4))
    torch.testing.assert_close(standardise(7.0 * logits - 100.0), found, rtol=0, atol=2e-5)
    term = Term("kl", temperature=2.0, standardise=True)
    student, teacher = logits[None].requires_grad_(), 0.2 * logits[None].detach() + 3.0
    loss = divergence(term, student, teacher, kept(1, 4)).total
    assert abs(loss.item()) < 1e-6  # a student need not copy the scale of its teacher's logits
    assert divergence(Term("kl", temperature=2.0), student, teacher, kept(1, 4)).total.item() > 0.1


def test_masked_classes_are_left_out_of_mean_and_deviation() -> None:
    logits = drawn(2, 9)
    masked = torch.cat([logits, torch.full((2, 3), -torch.inf)], -1)
    torch.testing.assert_close(standardise(masked)[:, :9], standardise(logits))
    assert bool((standardise(masked)[:, 9:] == -torch.inf).all())
