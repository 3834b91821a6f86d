"""Cross-entropy against a trusted implementation, and what happens at masks and ignored labels."""

from __future__ import annotations

import pytest
import torch

from tutelage.objectives.likelihood import LOG_PROBABILITY_FLOOR, cross_entropy, log_probabilities

FLOAT32 = 1e-6  # relative, sums of a few dozen numbers


def drawn(*shape: int, seed: int = 0) -> torch.Tensor:
    return 3.0 * torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def test_equals_torch_on_kept_positions() -> None:
    logits_BTV = drawn(3, 4, 9)
    labels_BT = torch.arange(12).reshape(3, 4) % 9
    keep_BT = torch.tensor([[1, 1, 0, 0], [0, 1, 1, 1], [0, 0, 0, 1]]).bool()
    ignored_BT = labels_BT.masked_fill(~keep_BT, -100)
    expected = torch.nn.functional.cross_entropy(
        logits_BTV.flatten(0, 1).double(), ignored_BT.flatten(), reduction="sum"
    )
    reduced = cross_entropy(logits_BTV, ignored_BT, keep_BT)
    assert float(reduced.total) == pytest.approx(float(expected), rel=FLOAT32)
    assert reduced.count == 6


def test_a_label_outside_the_vocabulary_at_a_kept_position_is_an_error_not_a_smaller_count() -> None:
    with pytest.raises((RuntimeError, IndexError)):
        cross_entropy(drawn(1, 1, 4), torch.tensor([[-100]]), torch.tensor([[True]]))


def test_low_precision_logits_are_normalised_in_float32() -> None:
    logits_NV = drawn(4, 51).bfloat16()
    exact = torch.log_softmax(logits_NV.double(), -1)
    log_p = log_probabilities(logits_NV)
    assert log_p.dtype == torch.float32
    torch.testing.assert_close(log_p.double(), exact, rtol=0, atol=1e-5)  # bfloat16 log-softmax is off by 3e-2


def test_a_masked_label_costs_the_floor_and_stays_finite() -> None:
    logits_BTV = torch.tensor([[[0.0, -torch.inf, 1.0]]], requires_grad=True)
    loss = cross_entropy(logits_BTV, torch.tensor([[1]]), torch.tensor([[True]])).total
    (gradient,) = torch.autograd.grad(loss, logits_BTV)
    assert float(loss.detach()) == -LOG_PROBABILITY_FLOOR
    assert torch.isfinite(gradient).all()
