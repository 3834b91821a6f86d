"""The arithmetic behind the caches' benchmark: sampled targets are unbiased, top-k is not, and sizes fit a budget."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path
from types import ModuleType

import pytest
import torch

from tutelage.objectives.sparse import sparse_cross_entropy

POSITIONS, CLASSES, SIZE, DRAWS = 16, 40, 5, 400
ERRORS = 4.0  # standard errors of eight blocks of draws; seeds are fixed
SINGLE = 1e-6  # gradients of the loss are float32, and below 1


@pytest.fixture
def bias(root: Path) -> ModuleType:
    """The script as a module."""
    name = "cache_bias"
    spec = importlib.util.spec_from_file_location(name, root / "benchmarks" / f"{name}.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module  # where dataclasses look their module up
    spec.loader.exec_module(module)
    return module


def logits(seed: int) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    return 1.5 * torch.randn(POSITIONS, CLASSES, generator=generator, dtype=torch.float64)


LABELS = torch.zeros(POSITIONS, dtype=torch.int64)


@pytest.mark.parametrize("with_states", [False, True])
@pytest.mark.parametrize("kind", ["systematic", "multinomial"])
def test_sampled_targets_have_no_bias_beyond_their_error(bias: ModuleType, kind: str, with_states: bool) -> None:
    p, q = logits(0).softmax(-1), logits(1).softmax(-1)
    states = logits(2)[:, :8] if with_states else None
    found = bias.moments(bias.errors_of(bias.make_draw(kind, logits(0), LABELS, SIZE), p, q, DRAWS, states))
    assert abs(found.bias) < ERRORS * found.bias_error
    assert found.bias_error < 0.01 * found.variance


def test_variance_of_independent_draws_is_the_known_one(bias: ModuleType) -> None:
    p = logits(0).softmax(-1)
    expected = float((p * (1 - p)).sum()) / SIZE
    found = {
        kind: bias.moments(bias.errors_of(bias.make_draw(kind, logits(0), LABELS, SIZE), p, p, DRAWS)).variance
        for kind in ("multinomial", "systematic")
    }
    assert found["multinomial"] == pytest.approx(expected, rel=0.03)  # 400 draws of 16 positions
    assert found["systematic"] < 0.8 * found["multinomial"]


@pytest.mark.parametrize("kind", ["topk", "topk, no rest"])
def test_top_k_is_biased_and_does_not_vary(bias: ModuleType, kind: str) -> None:
    p, q = logits(0).softmax(-1), logits(1).softmax(-1)
    draw = bias.make_draw(kind, logits(0), LABELS, SIZE)
    found = bias.moments(bias.errors_of(draw, p, q, 1))
    assert (found.variance, found.bias_error) == (0.0, 0.0)
    assert found.bias > 0.01 * float(p.square().sum())
    unlike = (bias.dense(draw(0), q) - p).square().sum()
    assert found.bias == pytest.approx(float(unlike))


@pytest.mark.parametrize("kind", ["topk", "topk, no rest", "systematic", "multinomial"])
def test_the_loss_has_the_gradient_that_the_dense_form_says(bias: ModuleType, kind: str) -> None:
    student = logits(1).requires_grad_()
    targets = bias.make_draw(kind, logits(0), LABELS, SIZE)(0)
    (gradient,) = torch.autograd.grad(sparse_cross_entropy(student, targets).sum(), student)
    q = student.detach().softmax(-1)
    assert torch.allclose(gradient, q - bias.dense(targets, q), rtol=0, atol=SINGLE)


@pytest.mark.parametrize("kind", ["topk", "systematic", "multinomial"])
def test_sizes_fill_a_budget_and_stay_within_it(bias: ModuleType, kind: str) -> None:
    budget = 30.0
    size = bias.size_for_bytes(kind, logits(0), LABELS, budget)
    assert bias.bytes_of(kind, bias.make_draw(kind, logits(0), LABELS, size)(0)) <= budget
    assert bias.bytes_of(kind, bias.make_draw(kind, logits(0), LABELS, size + 1)(0)) > budget


def test_squared_bias_and_variance_are_those_of_the_draws(bias: ModuleType) -> None:
    offset, noise, draws = torch.tensor([3.0, 4.0]), torch.tensor([1.0, -2.0]), 32
    found = bias.moments([offset + (-1) ** (number // 8) * noise for number in range(draws)])
    assert found.bias == pytest.approx(25 - 5 / (draws - 1))  # of pairs of opposite noise one more than of like
    assert found.variance == pytest.approx(5 * draws / (draws - 1))


def test_only_top_k_with_its_rest_has_a_bucket(bias: ModuleType) -> None:
    rests = {kind: bias.make_draw(kind, logits(0), LABELS, SIZE)(0).rest_N for kind in bias.SPARSE_BYTES}
    assert [kind for kind, rest in rests.items() if rest is not None] == ["topk"]
