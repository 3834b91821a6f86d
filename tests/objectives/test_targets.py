"""Samplers: unbiased or honestly biased, exact in format, and how their variances compare."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from tutelage.errors import InputError
from tutelage.objectives.position_terms import divergence
from tutelage.objectives.sparse import sparse_cross_entropy
from tutelage.objectives.targets import (
    SparseTargets,
    _sample,
    label_targets,
    mix_with_labels,
    multinomial,
    systematic,
    top_k,
)
from tutelage.objectives.terms import Term

V, DRAWS = 19, 8
REPEATS = 4000
# A mean of 4000 shares of 8 draws: standard deviation at most sqrt(1/4 / 8 / 4000) = 0.0028; five of them.
UNBIASED = 0.014
SAMPLERS = {"multinomial": multinomial, "systematic": systematic}


def zipf(n: int) -> Tensor:
    """A teacher like a language model's: rank^-1, in an order of its own at every position."""
    generator = torch.Generator().manual_seed(1)
    ranked = -torch.arange(1.0, V + 1).log()
    return torch.stack([ranked[torch.randperm(V, generator=generator)] for _ in range(n)])


def scattered(targets: SparseTargets) -> Tensor:
    return torch.zeros(len(targets.ids_NK), targets.vocabulary).scatter_add_(1, targets.ids_NK, targets.weights_NK)


def repeated(name: str, logits: Tensor, temperature: float = 1.0) -> SparseTargets:
    many = logits.expand(REPEATS, V)
    return SAMPLERS[name](
        many, torch.zeros(REPEATS, dtype=torch.long), DRAWS, torch.Generator().manual_seed(0), temperature
    )


@pytest.mark.parametrize("name", SAMPLERS)
@pytest.mark.parametrize("temperature", [1.0, 2.0])
def test_sampled_weights_are_unbiased(name: str, temperature: float) -> None:
    logits = zipf(1)
    mean = scattered(repeated(name, logits, temperature)).mean(0)
    torch.testing.assert_close(mean, torch.softmax(logits[0] / temperature, -1), rtol=0, atol=UNBIASED)


@pytest.mark.parametrize("name", SAMPLERS)
def test_sampled_losses_and_gradients_are_unbiased_estimates_of_the_divergence(name: str) -> None:
    logits = zipf(1)
    student = torch.randn(1, V, generator=torch.Generator().manual_seed(2))
    targets = repeated(name, logits)
    leaf = student.expand(REPEATS, V).clone().requires_grad_()
    losses = sparse_cross_entropy(leaf, targets) - targets.floor_N
    (gradient,) = torch.autograd.grad(losses.sum(), leaf)
    losses = losses.detach()
    one = student.clone().requires_grad_()
    expected = divergence(Term("kl"), one, logits, torch.ones(1, dtype=torch.bool)).total
    (wanted,) = torch.autograd.grad(expected, one)
    spread = float(losses.std()) / math.sqrt(REPEATS)
    assert float(losses.mean()) == pytest.approx(expected.item(), abs=5 * spread)
    torch.testing.assert_close(gradient.mean(0), wanted[0], rtol=0, atol=UNBIASED)


def test_systematic_has_the_lower_variance() -> None:
    logits, student = zipf(1), torch.randn(V, generator=torch.Generator().manual_seed(2))
    log_q = torch.log_softmax(student, -1)
    of_weights, of_losses = {}, {}
    for name in SAMPLERS:
        weights = scattered(repeated(name, logits))
        of_weights[name], of_losses[name] = weights.var(0), float((weights @ log_q).var())
    assert bool((of_weights["systematic"] <= of_weights["multinomial"] + 1e-4).all())  # class by class
    assert float(of_weights["systematic"].sum()) < 0.6 * float(of_weights["multinomial"].sum())
    assert of_losses["systematic"] < of_losses["multinomial"]


def test_a_systematic_count_is_the_expected_one_rounded_down_or_up() -> None:
    logits = zipf(200)
    targets = systematic(logits, torch.zeros(200, dtype=torch.long), DRAWS, torch.Generator().manual_seed(0))
    counts, expected = DRAWS * scattered(targets), DRAWS * torch.softmax(logits, -1)
    assert bool(((counts - expected).abs() < 1.0).all())


def test_every_position_has_a_shift_of_its_own() -> None:
    weights = scattered(repeated("systematic", zipf(1)))
    assert len(weights.unique(dim=0)) > 4
    one, other = weights[0::2], weights[1::2]
    correlation = torch.corrcoef(torch.stack([one[:, 0], other[:, 0]]))[0, 1]
    assert abs(float(correlation)) < 5 / math.sqrt(REPEATS / 2)


@pytest.mark.parametrize("name", SAMPLERS)
def test_the_format_is_distinct_classes_with_counts_over_draws(name: str) -> None:
    logits = zipf(50)
    logits[:, 4] = -torch.inf
    labels = torch.arange(50) % 4
    targets = SAMPLERS[name](logits, labels, DRAWS, torch.Generator().manual_seed(0))
    counts = DRAWS * targets.weights_NK
    assert torch.equal(counts, counts.round())
    assert counts.sum(-1).tolist() == [DRAWS] * 50
    for ids, weights in zip(targets.ids_NK, targets.weights_NK, strict=True):
        chosen = ids[weights > 0].tolist()
        assert len(set(chosen)) == len(chosen)
        assert 4 not in chosen
    assert targets.ids_NK.shape[1] == int((counts > 0).sum(-1).max()) <= DRAWS
    assert targets.rest_N is None


def test_the_same_seed_draws_the_same_and_no_split_of_the_work_changes_it(monkeypatch) -> None:
    logits, labels = zipf(30), torch.zeros(30, dtype=torch.long)
    found = []
    for chunk_bytes in (10**9, 8 * V * 7, 1):
        monkeypatch.setattr("tutelage.objectives.targets.CHUNK_BYTES", chunk_bytes)
        found.append(systematic(logits, labels, DRAWS, torch.Generator().manual_seed(5)))
    for other in found[1:]:
        assert torch.equal(scattered(other), scattered(found[0]))
    assert not torch.equal(
        scattered(systematic(logits, labels, DRAWS, torch.Generator().manual_seed(6))), scattered(found[0])
    )


@pytest.mark.parametrize("make", ["top_k", "multinomial", "systematic"])
def test_entropy_and_gold_log_probability_are_the_teachers(make: str) -> None:
    logits, labels = zipf(12), torch.arange(12)
    generator = torch.Generator().manual_seed(0)
    targets = (
        top_k(logits, labels, 3, 2.0) if make == "top_k" else SAMPLERS[make](logits, labels, DRAWS, generator, 2.0)
    )
    log_p = torch.log_softmax(logits.double() / 2.0, -1)
    torch.testing.assert_close(targets.entropy_N.double(), -(log_p.exp() * log_p).sum(-1), rtol=1e-6, atol=0)
    gold = torch.log_softmax(logits.double(), -1).gather(1, labels[:, None])[
        :, 0
    ]  # at temperature 1, whatever the rest
    torch.testing.assert_close(targets.gold_N.double(), gold, rtol=1e-6, atol=0)
    assert (targets.temperature, targets.vocabulary) == (2.0, V)


def classes_at(p: list[float] | Tensor, points: list[float]) -> list[int]:
    """The classes that these points of the cumulative distribution fall on, one point a row."""
    logits = torch.as_tensor(p, dtype=torch.float64).log().expand(len(points), -1)
    column = torch.tensor(points, dtype=torch.float64)[:, None]
    targets = _sample(logits, torch.zeros(len(points), dtype=torch.long), 1.0, lambda n: column)
    return targets.ids_NK[:, 0].tolist()


def test_a_point_on_an_edge_never_falls_on_a_class_without_mass() -> None:
    assert classes_at([0.0, 0.5, 0.0, 0.5, 0.0], [0.0, 0.25, 0.5, 0.75, 1.0]) == [1, 1, 3, 3, 3]


def test_cumulative_sums_keep_the_rare_classes_behind_a_likely_one() -> None:
    """A thousand classes of 1e-9 each: near 1 a float32 sum moves in steps of sixty of them."""
    p = torch.full((1001,), 1e-9, dtype=torch.float64)
    p[0] = 1 - 1e-6
    points = [1 - 1e-9 * (place + 0.5) for place in range(0, 1000, 111)]
    assert classes_at(p, points) == [1000 - place for place in range(0, 1000, 111)]


def test_top_k_keeps_the_largest_and_counts_the_rest() -> None:
    logits = zipf(6)
    p = torch.softmax(logits, -1)
    targets = top_k(logits, torch.zeros(6, dtype=torch.long), 4)
    expected = p.topk(4).values
    torch.testing.assert_close(targets.weights_NK, expected)
    torch.testing.assert_close(targets.rest_N, 1 - expected.sum(-1))
    assert bool((targets.floor_N < targets.entropy_N).all())
    scaled = top_k(logits, torch.zeros(6, dtype=torch.long), 4, rest=False)
    assert scaled.rest_N is None
    torch.testing.assert_close(scaled.weights_NK.sum(-1), torch.ones(6))
    for kept in (0, V + 1):
        with pytest.raises(InputError, match=f"k from 1 to the vocabulary's {V}, not {kept}"):
            top_k(logits, torch.zeros(6, dtype=torch.long), kept)


def test_a_mixture_with_labels_is_the_mixture_of_the_losses() -> None:
    logits, labels = zipf(6), torch.arange(6)
    student = torch.randn(6, V, generator=torch.Generator().manual_seed(2))
    targets = systematic(logits, labels, DRAWS, torch.Generator().manual_seed(0))
    mixed = mix_with_labels(targets, labels, 0.25)
    hard = sparse_cross_entropy(student, label_targets(labels, V))
    soft = sparse_cross_entropy(student, targets) - targets.floor_N
    torch.testing.assert_close(sparse_cross_entropy(student, mixed) - mixed.floor_N, 0.75 * soft + 0.25 * hard)
    with pytest.raises(ValueError, match="without a rest bucket"):
        mix_with_labels(top_k(logits, labels, 3), labels, 0.25)
