"""The sparse kernel against the dense loss, honest top-k, and what is refused."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
import torch
from torch import Tensor

from tutelage.errors import InputError
from tutelage.objectives.divergences import divergences
from tutelage.objectives.position_terms import divergence
from tutelage.objectives.signal import Signal
from tutelage.objectives.sparse import LOG_PROBABILITY_FLOOR, Softmax, sparse_cross_entropy
from tutelage.objectives.targets import SparseTargets, label_targets, mix_with_labels, multinomial, systematic, top_k
from tutelage.objectives.terms import Term

FLOAT32 = 2e-6
N, V = 9, 23


def drawn(seed: int = 0, scale: float = 2.0) -> Tensor:
    return scale * torch.randn(N, V, generator=torch.Generator().manual_seed(seed))


LABELS = torch.arange(N) % V
KEEP = torch.ones(N, dtype=torch.bool)


def value_and_gradient(student: Tensor, teacher: Tensor | SparseTargets, term: Term) -> tuple[float, Tensor]:
    leaf = student.clone().requires_grad_()
    loss = divergence(term, leaf, teacher, KEEP).total
    return loss.item(), torch.autograd.grad(loss, leaf)[0]


@pytest.mark.parametrize("temperature", [1.0, 2.0])
@pytest.mark.parametrize("rest", [True, False])
def test_all_classes_equal_the_dense_loss(temperature: float, rest: bool) -> None:
    term = Term("kl", temperature=temperature)
    student, teacher = drawn(1), drawn()
    dense, wanted = value_and_gradient(student, teacher, term)
    sparse, found = value_and_gradient(student, top_k(teacher, LABELS, V, temperature, rest), term)
    assert sparse == pytest.approx(dense, rel=FLOAT32)
    torch.testing.assert_close(found, wanted, rtol=1e-5, atol=FLOAT32)


def dense_reference(logits: Tensor, targets: SparseTargets) -> Tensor:
    """The equation, by autograd on float64 log-softmax."""
    log_q = torch.log_softmax(logits, -1)
    loss = -(targets.weights_NK.double() * log_q.gather(1, targets.ids_NK)).sum(-1)
    if targets.rest_N is not None:
        inside = log_q.exp().scatter(1, targets.ids_NK, 0.0).sum(-1)
        loss = loss - targets.rest_N.double() * inside.log()
    return loss


def every_target() -> dict[str, SparseTargets]:
    generator = torch.Generator().manual_seed(0)
    sampled = multinomial(drawn(), LABELS, 7, generator)
    return {
        "labels": label_targets(LABELS, V),
        "top-k": top_k(drawn(), LABELS, 4),
        "top-k scaled": top_k(drawn(), LABELS, 4, rest=False),
        "multinomial": sampled,
        "systematic": systematic(drawn(), LABELS, 7, generator),
        "mixture": mix_with_labels(sampled, LABELS, 0.4),
        "any sum": replace(sampled, weights_NK=sampled.weights_NK * torch.linspace(0.3, 2.0, N)[:, None]),
    }


@pytest.mark.parametrize("name", every_target())
def test_one_kernel_serves_every_target(name: str) -> None:
    targets = every_target()[name]
    student = drawn(1).requires_grad_()
    exact = student.detach().double().requires_grad_()
    losses, wanted = sparse_cross_entropy(student, targets), dense_reference(exact, targets)
    torch.testing.assert_close(losses.double(), wanted, rtol=FLOAT32, atol=0)
    slopes = torch.linspace(-1, 2, N)
    (found,) = torch.autograd.grad((slopes * losses).sum(), student)
    (want,) = torch.autograd.grad((slopes.double() * wanted).sum(), exact)
    torch.testing.assert_close(found.double(), want, rtol=1e-5, atol=FLOAT32)


@pytest.mark.parametrize("name", ["labels", "top-k scaled", "multinomial", "systematic", "mixture", "any sum"])
def test_the_gradient_is_softmax_times_the_weights_less_the_weights(name: str) -> None:
    targets = every_target()[name]
    student = drawn(1).requires_grad_()
    (found,) = torch.autograd.grad(sparse_cross_entropy(student, targets).sum(), student)
    scattered = torch.zeros(N, V).scatter_add_(1, targets.ids_NK, targets.weights_NK)
    expected = torch.softmax(student.detach(), -1) * targets.weights_NK.sum(-1, keepdim=True) - scattered
    torch.testing.assert_close(found, expected, rtol=1e-5, atol=FLOAT32)


@pytest.mark.parametrize("kept", [1, 3, 10, V])
@pytest.mark.parametrize("rest", [True, False])
def test_top_k_is_never_negative_and_zero_at_its_own_distribution(kept: int, rest: bool) -> None:
    targets = top_k(drawn(), LABELS, kept, rest=rest)
    for seed in range(20):
        for scale in (0.1, 2.0, 20.0):
            loss = divergence(Term("kl"), drawn(seed, scale), targets, KEEP).total
            assert float(loss) >= -1e-5  # float32 rounding over nine positions
    spread = (
        torch.zeros(N, V) if targets.rest_N is None else targets.rest_N[:, None] / max(1, V - kept) + torch.zeros(N, V)
    )
    best = spread.scatter(1, targets.ids_NK, targets.weights_NK).log()
    assert abs(float(divergence(Term("kl"), best, targets, KEEP).total)) < 1e-5


@pytest.mark.parametrize("kept", [1, 3, 10])
def test_a_rest_bucket_never_exceeds_the_full_divergence_and_equals_it_at_equality(kept: int) -> None:
    student, teacher = drawn(1), drawn()
    full = float(divergence(Term("kl"), student, teacher, KEEP).total)
    assert 0.0 < float(divergence(Term("kl"), student, top_k(teacher, LABELS, kept), KEEP).total) < full
    same = value_and_gradient(teacher, top_k(teacher, LABELS, kept), Term("kl"))
    assert abs(same[0]) < 1e-5
    assert float(same[1].abs().max()) < FLOAT32
    # without the bucket, a student that equals its teacher is pulled away from it
    pulled = value_and_gradient(teacher, top_k(teacher, LABELS, kept, rest=False), Term("kl"))
    assert pulled[0] > 0.05
    assert float(pulled[1].abs().max()) > 0.01


@pytest.mark.parametrize("rest", [True, False])
def test_mass_moved_outside_the_support_raises_the_loss(rest: bool) -> None:
    teacher = drawn()
    targets = top_k(teacher, LABELS, 4, rest=rest)
    outside = torch.ones(N, V, dtype=torch.bool).scatter(1, targets.ids_NK, False)
    losses = [
        float(divergence(Term("kl"), teacher + shift * outside, targets, KEEP).total) for shift in (0.0, 1.0, 4.0)
    ]
    assert losses[0] < losses[1] < losses[2]


def test_masked_classes_cost_the_floor_and_have_no_gradient() -> None:
    logits = torch.tensor([[0.0, -torch.inf, 1.0], [0.0, 0.0, -torch.inf]], requires_grad=True)
    weights = torch.tensor([[0.5, 0.5], [1.0, 0.0]])
    zero = torch.zeros(2)
    targets = SparseTargets(torch.tensor([[0, 1], [1, 2]]), weights, zero, zero, zero, 3)
    losses = sparse_cross_entropy(logits, targets)
    assert losses.tolist() == pytest.approx([-0.5 * LOG_PROBABILITY_FLOOR + 0.5 * math.log(1 + math.e), math.log(2)])
    (gradient,) = torch.autograd.grad(losses.sum(), logits)
    log_q = torch.log_softmax(logits, -1).clamp_min(LOG_PROBABILITY_FLOOR)
    (wanted,) = torch.autograd.grad(-(weights * log_q.gather(1, targets.ids_NK)).sum(), logits)
    torch.testing.assert_close(gradient, wanted)  # a clipped entry pulls at no other class either
    bucket = SparseTargets(
        torch.tensor([[0, 2]]), torch.tensor([[0.5, 0.3]]), zero, zero, zero, 3, 1.0, torch.tensor([0.2])
    )
    nothing_left = sparse_cross_entropy(logits[:1], bucket)
    assert nothing_left.item() > -0.19 * LOG_PROBABILITY_FLOOR
    assert torch.isfinite(torch.autograd.grad(nothing_left.sum(), logits)[0]).all()


def test_extreme_logits_stay_finite_and_infinite_ones_are_seen() -> None:
    for name, targets in every_target().items():
        student = (1e4 * drawn(1).sign()).requires_grad_()
        loss = sparse_cross_entropy(student, targets).sum()
        assert math.isfinite(loss.item()), name
        assert torch.isfinite(torch.autograd.grad(loss, student)[0]).all(), name
    assert math.isnan(float(sparse_cross_entropy(drawn() * torch.inf, label_targets(LABELS, V)).sum()))


@pytest.mark.parametrize("gap", [0.0, 30.0, 60.0, 90.0, 120.0])  # exp(-88) is the smallest normal float32
def test_a_rest_bucket_that_the_student_hardly_believes_in_keeps_its_digits(gap: float) -> None:
    targets = top_k(drawn(), LABELS, 4)
    student = drawn(1)
    student = (student - gap).scatter(1, targets.ids_NK, student.gather(1, targets.ids_NK)).requires_grad_()
    losses = sparse_cross_entropy(student, targets)
    wanted = dense_reference(student.double(), targets)
    torch.testing.assert_close(losses.double(), wanted, rtol=FLOAT32, atol=FLOAT32)
    found, expected = (torch.autograd.grad(one.sum(), student)[0] for one in (losses, wanted))
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=FLOAT32)


@pytest.mark.parametrize("gap", [0.0, 60.0, 120.0])
def test_losses_that_share_a_softmax_have_the_sum_of_their_gradients_each_time(gap: float) -> None:
    """Beside top-k, the label is a class of the rest in some rows, whatever the student believes of the rest."""
    targets = top_k(drawn(), LABELS, 4)
    student = drawn(1)
    student = (student - gap).scatter(1, targets.ids_NK, student.gather(1, targets.ids_NK)).requires_grad_()
    both = [label_targets(LABELS, V), replace(targets, rest_N=1e-30 * targets.rest_N)]  # so that q shows beside it
    softmax = Softmax(student)
    losses = sum(sparse_cross_entropy(student, one, softmax=softmax) for one in both)
    wanted = torch.autograd.grad(sum(sparse_cross_entropy(student, one).sum() for one in both), student)[0]
    for _ in range(2):
        (found,) = torch.autograd.grad(losses.sum(), student, retain_graph=True)
        torch.testing.assert_close(found, wanted, rtol=1e-5, atol=FLOAT32)


def test_splitting_a_class_that_was_not_kept_changes_nothing() -> None:
    """The target leaves class 5 out of every row: two halves of it are the same rest."""
    student, teacher = drawn(1), drawn()
    teacher[:, 5] = -10.0
    halves = [torch.cat([x, x[:, 5:6]], -1) for x in (student, teacher)]
    for split in halves:
        split[:, [5, V]] -= math.log(2)
    once = divergence(Term("kl"), student, top_k(teacher, LABELS, 4), KEEP).total
    twice = divergence(Term("kl"), halves[0], top_k(halves[1], LABELS, 4), KEEP).total
    assert float(twice) == pytest.approx(float(once), rel=1e-5)


def test_what_sparse_targets_cannot_serve_is_refused_by_name() -> None:
    targets = top_k(drawn(), LABELS, 4, temperature=2.0)
    for kind, member in divergences().items():
        if not member.linear:
            with pytest.raises(InputError, match=f"{kind} needs the teacher's whole distribution.*use kl"):
                divergence(Term(kind, temperature=2.0), drawn(), targets, KEEP)
    with pytest.raises(InputError, match="kl of standardised logits needs"):
        divergence(Term("kl", temperature=2.0, standardise=True), drawn(), targets, KEEP)
    with pytest.raises(InputError, match="kl has temperature 1, and the teacher's targets were made at 2"):
        divergence(Term("kl"), drawn(), targets, KEEP)
    with pytest.raises(InputError, match="vocabulary has 24 entries and the teacher's 23"):
        divergence(Term("kl", temperature=2.0), torch.zeros(N, V + 1), targets, KEEP)
    with pytest.raises(InputError, match="use kl, or a live teacher"):
        _ = Signal(targets, {}).logits_BTV
