"""The angle against a float64 arccos, its ends, its floor, and its baselines."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from tutelage.errors import InputError
from tutelage.objectives.alignment import ANGLE_EPSILON, alignment_baselines, angle, angle2, cosine, mse
from tutelage.objectives.objective import Objective
from tutelage.objectives.signal import Signal
from tutelage.objectives.terms import LayerPair, Term

# eps = 1e-12 inside the square roots: 1e-6 rad at the ends (1.0000002e-6 in float32), and float32 units in between.
FLOOR = 2e-6


def drawn(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def kept(*shape: int) -> Tensor:
    return torch.ones(*shape, dtype=torch.bool)


@pytest.mark.parametrize("width", [2, 16, 512, 1280])
def test_angle_equals_a_float64_arccos(width: int) -> None:
    z, h = drawn(1, 500, width), drawn(1, 500, width, seed=1)
    mix = torch.linspace(-1.0, 1.0, 500)[None, :, None]
    z = mix * h + (1.0 - mix.abs()) * z  # from opposite to equal
    expected = torch.arccos(torch.nn.functional.cosine_similarity(z.double(), h.double(), dim=-1).clamp(-1, 1))[0]
    found = torch.stack([angle(z[:, [i]], h[:, [i]], kept(1, 1)).total for i in range(500)])
    assert float((found - expected).abs().max()) < FLOOR


@pytest.mark.parametrize("true_angle", [1e-5, 1e-4, 1e-3, 0.5, math.pi / 2, math.pi - 1e-3])
def test_small_angles_keep_their_digits(true_angle: float) -> None:
    z = torch.tensor([[[math.cos(true_angle), math.sin(true_angle)]]])
    h = torch.tensor([[[2.0, 0.0]]])
    assert float(angle(z, h, kept(1, 1)).total) == pytest.approx(true_angle, abs=5e-7)
    # sqrt(x^2 + 1e-12) exceeds x by 5e-13/x, 5e-8 at 1e-5; float32 cosines near 1 would be off by 3e-4 there.


@pytest.mark.parametrize("width", [8, 64, 384, 512, 1024, 1280])
def test_floor_at_equality_is_the_square_root_of_epsilon(width: int) -> None:
    h = 3.0 * drawn(1, 64, width)
    floor = float(angle(h, h, kept(1, 64)).total) / 64
    assert floor == pytest.approx(math.sqrt(ANGLE_EPSILON), rel=1e-6)
    assert float(angle(1.7 * h, h, kept(1, 64)).total) / 64 < FLOOR  # a scaled copy differs by rounding only


@pytest.mark.parametrize("end", [1.0, -1.0])
@pytest.mark.parametrize("kind", [angle, angle2, cosine])
def test_gradient_is_finite_at_0_and_pi(kind: object, end: float) -> None:
    h = drawn(1, 5, 16)
    z = (end * h).requires_grad_()
    reduced = kind(z, h, kept(1, 5))
    (gradient,) = torch.autograd.grad(reduced.total, z)
    assert torch.isfinite(gradient).all()
    top = {angle: math.pi, angle2: math.pi**2, cosine: 2.0}[kind]
    assert reduced.total.item() / 5 == pytest.approx(0.0 if end > 0 else top, abs=1e-5)


def test_gradient_of_the_angle_has_length_one_over_the_vectors() -> None:
    z, h = drawn(1, 20, 64).requires_grad_(), drawn(1, 20, 64, seed=1)
    (gradient,) = torch.autograd.grad(angle(z, h, kept(1, 20)).total, z)
    torch.testing.assert_close(gradient.norm(dim=-1), 1.0 / z.detach().norm(dim=-1), rtol=1e-4, atol=0)


def test_alternatives_have_their_definitions() -> None:
    z, h = drawn(1, 9, 8), drawn(1, 9, 8, seed=1)
    similarity = torch.nn.functional.cosine_similarity(z.double(), h.double(), dim=-1)
    assert float(cosine(z, h, kept(1, 9)).total) == pytest.approx(float((1 - similarity).sum()), rel=1e-5)
    assert float(angle2(z, h, kept(1, 9)).total) == pytest.approx(float(similarity.arccos().square().sum()), rel=1e-5)
    assert float(mse(z, h, kept(1, 9)).total) == pytest.approx(9 * float((z - h).square().mean()), rel=1e-5)


def test_the_angle_ignores_lengths_and_mse_does_not() -> None:
    z, h = drawn(1, 9, 8), drawn(1, 9, 8, seed=1)
    for ignoring in (angle, angle2, cosine):
        assert float(ignoring(5 * z, h, kept(1, 9)).total) == pytest.approx(float(ignoring(z, h, kept(1, 9)).total))
    assert float(mse(5 * z, h, kept(1, 9)).total) > 2 * float(mse(z, h, kept(1, 9)).total)


def test_different_widths_are_refused_by_name() -> None:
    with pytest.raises(InputError, match="1024 wide and the teacher's 1280"):
        angle(torch.zeros(1, 1, 1024), torch.zeros(1, 1, 1280), kept(1, 1))


def test_baselines_expose_an_angle_that_a_constant_reaches() -> None:
    common = 10.0 * drawn(1, 1, 32, seed=2)
    h = common + drawn(1, 200, 32)  # states share a large direction, as a model's do
    constant = common.expand(1, 200, 32)
    nothing_learned = alignment_baselines(constant, h, kept(1, 200))
    assert nothing_learned.angle == pytest.approx(nothing_learned.mean_vector, rel=0.02)
    assert nothing_learned.shuffled == pytest.approx(nothing_learned.angle, rel=1e-3)
    learned = alignment_baselines(h + 0.1 * drawn(1, 200, 32, seed=3), h, kept(1, 200))
    assert learned.angle < 0.2 * learned.mean_vector
    assert learned.shuffled > learned.mean_vector


def test_shuffling_never_pairs_a_position_with_itself() -> None:
    h = torch.eye(7)[None]
    for seed in range(20):
        found = alignment_baselines(h, h, kept(1, 7), seed)
        assert found.shuffled == pytest.approx(
            math.pi / 2, rel=1e-5
        )  # a single fixed point would lower it by a seventh


def test_the_mean_vector_baseline_does_not_depend_on_the_student() -> None:
    h = drawn(1, 1, 16, seed=2) + drawn(1, 50, 16)
    exact = torch.nn.functional.cosine_similarity(h[0].double().mean(0, keepdim=True), h[0].double(), dim=-1).arccos()
    for seed in (3, 4):
        found = alignment_baselines(drawn(1, 50, 16, seed=seed), h, kept(1, 50))
        assert found.mean_vector == pytest.approx(float(exact.mean()), rel=1e-5)


def test_baselines_of_one_and_of_no_position() -> None:
    h = drawn(1, 2, 4)
    assert math.isnan(alignment_baselines(h, h, torch.tensor([[True, False]])).shuffled)
    with pytest.raises(ValueError, match="no position is kept"):
        alignment_baselines(h, h, torch.tensor([[False, False]]))


def test_an_objective_reports_baselines_by_pair_on_kept_positions_only() -> None:
    pairs = (LayerPair(1, 2), LayerPair(2, 4))
    student = Signal(torch.zeros(1, 4, 3), {1: drawn(1, 4, 8), 2: drawn(1, 4, 8, seed=1)})
    teacher = Signal(torch.zeros(1, 4, 3), {2: student.states[1].clone(), 4: drawn(1, 4, 8, seed=2)})
    keep_BT = torch.tensor([[True, True, True, False]])
    teacher.states[2][0, 3] = math.nan
    projectors = {pair.name: torch.nn.Identity() for pair in pairs}
    found = Objective([Term("angle")], pairs).baselines(student, teacher, keep_BT, projectors)
    assert list(found) == ["1-2", "2-4"]
    assert found["1-2"].angle < FLOOR
    assert found["2-4"].angle > 0.5
