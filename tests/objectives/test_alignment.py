"""The angle against a float64 arccos, its ends, its floor and baselines; the others by their definitions."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from tutelage.errors import InputError
from tutelage.objectives.alignments.contrast import infonce
from tutelage.objectives.alignments.curve import curve
from tutelage.objectives.alignments.pointwise import ANGLE_EPSILON, angle, angle2, cosine, mse
from tutelage.objectives.alignments.sets import gram, linear_cka, procrustes
from tutelage.objectives.baselines import alignment_baselines
from tutelage.objectives.objective import Objective
from tutelage.objectives.signal import Signal
from tutelage.objectives.state_terms import Groups, compare_states
from tutelage.objectives.terms import LayerPair, Term

# eps = 1e-12 inside the square roots: 1e-6 rad at the ends (1.0000002e-6 in float32), and float32 units in between.
FLOOR = 2e-6


def drawn(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("width", [2, 16, 512, 1280])
def test_angle_equals_a_float64_arccos(width: int) -> None:
    z, h = drawn(1, 500, width), drawn(1, 500, width, seed=1)
    mix = torch.linspace(-1.0, 1.0, 500)[None, :, None]
    z = mix * h + (1.0 - mix.abs()) * z  # from opposite to equal
    expected = torch.arccos(torch.nn.functional.cosine_similarity(z.double(), h.double(), dim=-1).clamp(-1, 1))[0]
    found = angle(z[0], h[0])
    assert float((found - expected).abs().max()) < FLOOR


@pytest.mark.parametrize("true_angle", [1e-5, 1e-4, 1e-3, 0.5, math.pi / 2, math.pi - 1e-3])
def test_small_angles_keep_their_digits(true_angle: float) -> None:
    z = torch.tensor([[math.cos(true_angle), math.sin(true_angle)]])
    assert float(angle(z, torch.tensor([[2.0, 0.0]]))) == pytest.approx(true_angle, abs=5e-7)
    # sqrt(x^2 + 1e-12) exceeds x by 5e-13/x, 5e-8 at 1e-5; float32 cosines near 1 would be off by 3e-4 there.


@pytest.mark.parametrize("width", [8, 64, 384, 512, 1024, 1280])
def test_floor_at_equality_is_the_square_root_of_epsilon(width: int) -> None:
    h = 3.0 * drawn(64, width)
    floor = float(angle(h, h).mean())
    assert floor == pytest.approx(math.sqrt(ANGLE_EPSILON), rel=1e-6)
    assert float(angle(1.7 * h, h).mean()) < FLOOR  # a scaled copy differs by rounding only


@pytest.mark.parametrize("end", [1.0, -1.0])
@pytest.mark.parametrize("kind", [angle, angle2, cosine])
def test_gradient_is_finite_at_0_and_pi(kind: object, end: float) -> None:
    h = drawn(5, 16)
    z = (end * h).requires_grad_()
    losses = kind(z, h)
    (gradient,) = torch.autograd.grad(losses.sum(), z)
    assert torch.isfinite(gradient).all()
    top = {angle: math.pi, angle2: math.pi**2, cosine: 2.0}[kind]
    assert losses.mean().item() == pytest.approx(0.0 if end > 0 else top, abs=1e-5)


def test_gradient_of_the_angle_has_length_one_over_the_vectors() -> None:
    z, h = drawn(20, 64).requires_grad_(), drawn(20, 64, seed=1)
    (gradient,) = torch.autograd.grad(angle(z, h).sum(), z)
    torch.testing.assert_close(gradient.norm(dim=-1), 1.0 / z.detach().norm(dim=-1), rtol=1e-4, atol=0)


def test_alternatives_have_their_definitions() -> None:
    z, h = drawn(9, 8), drawn(9, 8, seed=1)
    similarity = torch.nn.functional.cosine_similarity(z.double(), h.double(), dim=-1)
    assert float(cosine(z, h).sum()) == pytest.approx(float((1 - similarity).sum()), rel=1e-5)
    assert float(angle2(z, h).sum()) == pytest.approx(float(similarity.arccos().square().sum()), rel=1e-5)
    assert float(mse(z, h).sum()) == pytest.approx(9 * float((z - h).square().mean()), rel=1e-5)


def test_the_angle_ignores_lengths_and_mse_does_not() -> None:
    z, h = drawn(9, 8), drawn(9, 8, seed=1)
    for ignoring in (angle, angle2, cosine):
        torch.testing.assert_close(ignoring(5 * z, h), ignoring(z, h))
    assert float(mse(5 * z, h).sum()) > 2 * float(mse(z, h).sum())


@pytest.mark.parametrize("kind", ["angle", "angle2", "cosine", "mse", "infonce", "curve"])
def test_different_widths_are_refused_by_name(kind: str) -> None:
    with pytest.raises(InputError, match="1024 wide and the teacher's 1280"):
        compare_states(Term(kind), torch.zeros(2, 1024), torch.zeros(2, 1280), Groups((2,), (2,)))


@pytest.mark.parametrize(("n", "student", "teacher"), [(3, 8, 8), (7, 6, 9), (40, 9, 6)])
def test_sets_have_their_definitions(n: int, student: int, teacher: int) -> None:
    x, y = drawn(n, student).double(), drawn(n, teacher, seed=1).double()
    x, y = x - x.mean(0), y - y.mean(0)
    cka = (y.T @ x).square().sum() / ((x.T @ x).norm() * (y.T @ y).norm())
    assert float(linear_cka(x, y)) == pytest.approx(float(1 - cka), rel=1e-9)
    nuclear = torch.linalg.svdvals(x.T @ y).sum() / (x.norm() * y.norm())
    assert float(procrustes(x, y)) == pytest.approx(float(2 - 2 * nuclear), rel=1e-9)
    cosines = [torch.nn.functional.cosine_similarity(v[:, None], v[None], dim=-1) for v in (x, y)]
    assert float(gram(x, y)) == pytest.approx(float((cosines[0] - cosines[1]).square().mean()), rel=1e-9)


@pytest.mark.parametrize("kind", [linear_cka, gram, procrustes])
def test_sets_forget_a_rotation_and_a_scale_and_nothing_of_who_is_near_whom(kind: object) -> None:
    x = drawn(12, 6)
    rotation, _ = torch.linalg.qr(drawn(9, 6, seed=2))  # into nine dimensions
    assert float(kind(x, 3.0 * x @ rotation.T)) < 1e-6
    assert float(kind(x, (x @ rotation.T).roll(1, 0))) > 0.1


@pytest.mark.parametrize(("n", "student", "teacher"), [(3, 8, 8), (7, 6, 9), (40, 9, 6)])
def test_the_gradient_of_procrustes_is_that_of_its_singular_values(n: int, student: int, teacher: int) -> None:
    x, y = drawn(n, student).double().requires_grad_(), drawn(n, teacher, seed=1).double()
    (found,) = torch.autograd.grad(procrustes(x, y)[0], x)
    nuclear = torch.linalg.svdvals(x.T @ y).sum() / (x.norm() * y.norm())
    (wanted,) = torch.autograd.grad(2 - 2 * nuclear, x)
    torch.testing.assert_close(found, wanted)


@pytest.mark.parametrize("kind", [linear_cka, gram, procrustes, lambda x, y: infonce(x, y, 0.5)])
def test_constant_and_repeated_states_have_finite_gradients(kind: object) -> None:
    for y in (torch.zeros(4, 6), torch.ones(4, 6), torch.eye(4, 6)):
        x = y.clone().requires_grad_()
        (gradient,) = torch.autograd.grad(kind(x, y).sum(), x)
        assert torch.isfinite(gradient).all()


def test_states_that_are_not_finite_give_a_loss_that_is_not() -> None:
    assert not math.isfinite(float(procrustes(torch.full((3, 4), torch.inf), drawn(3, 4))))


def test_the_contrast_has_its_definition() -> None:
    z, h = drawn(6, 8), drawn(6, 8, seed=1)
    similarity = torch.nn.functional.cosine_similarity(z.double()[:, None], h.double()[None], dim=-1)
    expected = torch.nn.functional.cross_entropy(similarity / 0.3, torch.arange(6), reduction="none")
    torch.testing.assert_close(infonce(z, h, 0.3).double(), expected, rtol=1e-5, atol=0)
    assert float(infonce(h, h, 0.1).mean()) < float(infonce(z, h, 0.1).mean())


def test_the_curve_is_the_angle_of_differences_and_forgets_an_offset() -> None:
    z, h = drawn(5, 8), drawn(5, 8, seed=1)
    expected = torch.cat([angle(z.diff(dim=0), h.diff(dim=0)), angle(z.diff(n=2, dim=0), h.diff(n=2, dim=0))])
    torch.testing.assert_close(curve(z, h), expected)
    assert curve(z, h).shape == (4 + 3,)
    assert curve(z[:2], h[:2]).shape == (1,)
    torch.testing.assert_close(curve(z + 3.0, h - 2.0), curve(z, h), rtol=1e-4, atol=0)


@pytest.mark.parametrize("kind", ["angle", "cosine", "mse", "gram", "procrustes", "infonce"])
def test_centring_takes_away_what_a_set_has_in_common(kind: str) -> None:
    z, h = drawn(6, 8), drawn(6, 8, seed=1)
    groups = Groups((6,), (6,))
    moved = [compare_states(Term(kind, centre=True), z + offset, h, groups).total for offset in (0.0, 5.0)]
    torch.testing.assert_close(moved[1], moved[0], rtol=1e-4, atol=0)
    left = [compare_states(Term(kind), z + offset, h, groups).total for offset in (0.0, 5.0)]
    assert abs(float(left[1] - left[0])) > 1e-3


def test_baselines_expose_an_angle_that_a_constant_reaches() -> None:
    common = 10.0 * drawn(1, 32, seed=2)
    h = common + drawn(200, 32)  # states share a large direction, as a model's do
    nothing_learned = alignment_baselines(common.expand(200, 32), h)
    assert nothing_learned.angle == pytest.approx(nothing_learned.mean_vector, rel=0.02)
    assert nothing_learned.shuffled == pytest.approx(nothing_learned.angle, rel=1e-3)
    learned = alignment_baselines(h + 0.1 * drawn(200, 32, seed=3), h)
    assert learned.angle < 0.2 * learned.mean_vector
    assert learned.shuffled > learned.mean_vector


def test_shuffling_never_pairs_a_position_with_itself() -> None:
    h = torch.eye(7)
    for seed in range(20):
        found = alignment_baselines(h, h, seed)
        assert found.shuffled == pytest.approx(
            math.pi / 2, rel=1e-5
        )  # a single fixed point would lower it by a seventh


def test_the_mean_vector_baseline_does_not_depend_on_the_student() -> None:
    h = drawn(1, 16, seed=2) + drawn(50, 16)
    exact = torch.nn.functional.cosine_similarity(h.double().mean(0, keepdim=True), h.double(), dim=-1).arccos()
    for seed in (3, 4):
        found = alignment_baselines(drawn(50, 16, seed=seed), h)
        assert found.mean_vector == pytest.approx(float(exact.mean()), rel=1e-5)


def test_baselines_of_one_and_of_no_position() -> None:
    h = drawn(2, 4)
    assert math.isnan(alignment_baselines(h[:1], h[:1]).shuffled)
    with pytest.raises(ValueError, match="no position is kept"):
        alignment_baselines(h[:0], h[:0])


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
    assert Objective([Term("gram")], pairs).baselines(student, teacher, keep_BT, {}) == {}  # nothing is projected
