"""Projectors: counts, initialisation, seeds."""

from __future__ import annotations

import pytest
import torch

from tutelage.errors import InputError
from tutelage.objectives.terms import LayerPair
from tutelage.students.design import Projector
from tutelage.students.projection import count_projector_params, make_projector, make_projectors

TRAINED_KINDS = ("linear", "bottleneck", "ensemble", "mlp")
WIDTHS = ((8, 8), (8, 12), (12, 8))
ISOMETRY = 1e-5  # float32 QR


@pytest.mark.parametrize(
    ("kind", "expected"),
    [
        ("linear", 1024 * 1280 + 1280),
        ("mlp", 1024 * 1280 + 1280 + 1280 * 1280 + 1280),
        ("bottleneck", 1024 * 64 + 64 + 64 * 1280 + 1280),
        ("ensemble", 3 * (1024 * 64 + 64 + 64 * 1280 + 1280)),
    ],
)
def test_counts_of_the_authors_setting(kind: str, expected: int) -> None:
    assert count_projector_params(Projector(kind), 1024, 1280) == expected
    assert expected == {"linear": 1_312_000, "mlp": 2_951_680, "bottleneck": 148_800, "ensemble": 446_400}[kind]


@pytest.mark.parametrize("kind", TRAINED_KINDS)
@pytest.mark.parametrize(("student", "teacher"), WIDTHS)
def test_count_equals_what_is_built(kind: str, student: int, teacher: int) -> None:
    projector = Projector(kind, width=3)
    built = make_projector(projector, student, teacher, seed=0)
    assert count_projector_params(projector, student, teacher) == sum(p.numel() for p in built.parameters())
    assert all(p.dtype == torch.float32 and p.requires_grad for p in built.parameters())
    assert built(torch.zeros(2, 5, student)).shape == (2, 5, teacher)


@pytest.mark.parametrize("kind", ["none", *TRAINED_KINDS])
def test_equal_widths_start_at_the_identity(kind: str) -> None:
    h_NS = torch.randn(6, 8, generator=torch.Generator().manual_seed(0))
    assert torch.equal(make_projector(Projector(kind, width=3), 8, 8, seed=1)(h_NS), h_NS)


def test_linear_projector_to_a_larger_width_keeps_angles_and_lengths() -> None:
    h_NS = torch.randn(6, 8, generator=torch.Generator().manual_seed(0))
    z_NH = make_projector(Projector("linear"), 8, 12, seed=1)(h_NS)
    torch.testing.assert_close(z_NH @ z_NH.T, h_NS @ h_NS.T, rtol=ISOMETRY, atol=ISOMETRY)


@pytest.mark.parametrize("kind", TRAINED_KINDS)
@pytest.mark.parametrize(("student", "teacher"), WIDTHS)
def test_every_parameter_moves_within_two_steps(kind: str, student: int, teacher: int) -> None:
    built = make_projector(Projector(kind, width=3), student, teacher, seed=0)
    before = [p.detach().clone() for p in built.parameters()]
    optimiser = torch.optim.SGD(built.parameters(), lr=0.1)
    generator = torch.Generator().manual_seed(0)
    h_NS, h_NH = torch.randn(6, student, generator=generator), torch.randn(6, teacher, generator=generator)
    for _ in range(2):
        optimiser.zero_grad()
        (built(h_NS) - h_NH).square().sum().backward()
        optimiser.step()
    assert not any(torch.equal(old, new) for old, new in zip(before, built.parameters(), strict=True))


@pytest.mark.parametrize("kind", TRAINED_KINDS)
def test_the_seed_decides_and_the_global_random_state_is_left_alone(kind: str) -> None:
    def weights(seed: int) -> torch.Tensor:
        built = make_projector(Projector(kind, width=3), 8, 12, seed)
        return torch.cat([p.detach().flatten() for p in built.parameters()])

    state = torch.random.get_rng_state()
    first = weights(5)
    torch.randn(3)
    torch.random.set_rng_state(state)
    assert torch.equal(first, weights(5))
    assert not torch.equal(first, weights(6))
    assert torch.equal(torch.random.get_rng_state(), state)


@pytest.mark.parametrize(("student", "teacher"), WIDTHS)
def test_an_ensemble_is_the_mean_of_its_members_which_differ(student: int, teacher: int) -> None:
    built = make_projector(Projector("ensemble", width=3, members=4), student, teacher, seed=0)
    h_NS = torch.randn(6, student, generator=torch.Generator().manual_seed(0))
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for member in built.members:
            member.up.weight.normal_(generator=generator)
        each = torch.stack([member(h_NS) for member in built.members])
    assert len(each) == 4
    torch.testing.assert_close(built(h_NS), each.mean(0), rtol=ISOMETRY, atol=ISOMETRY)
    first, second = (built.members[index].down.weight for index in (0, 1))
    assert not torch.equal(first, second)


def test_projectors_of_a_map_are_named_by_pair_and_drawn_apart() -> None:
    pairs = (LayerPair(1, 2), LayerPair(2, 4))
    made = make_projectors(Projector("linear"), pairs, 8, 12, seed=3)
    assert list(made) == ["1-2", "2-4"]
    assert not torch.equal(made["1-2"].weight, made["2-4"].weight)


def test_none_between_different_widths_is_refused() -> None:
    for build in (
        lambda: make_projector(Projector("none"), 8, 12, 0),
        lambda: count_projector_params(Projector("none"), 8, 12),
    ):
        with pytest.raises(InputError, match="student is 8 wide and the teacher 12"):
            build()
    assert count_projector_params(Projector("none"), 8, 8) == 0
