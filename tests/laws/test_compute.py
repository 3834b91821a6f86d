"""F(N), the cost of a scenario, and counts from a configuration."""

from __future__ import annotations

import numpy as np
import pytest

from tutelage.laws.compute import ForwardCost, distillation_cost


@pytest.mark.parametrize(
    ("params", "flops", "half_unit"),
    [(0.1028e9, 0.34124e9, 0.5e4), (0.546e9, 1.4171e9, 0.5e5), (7.747e9, 16.994e9, 0.5e6)],
)
def test_forward_flops_per_token(params: float, flops: float, half_unit: float) -> None:
    assert ForwardCost().per_token(params) == pytest.approx(flops, abs=half_unit)


def test_without_context_and_vocabulary_it_is_the_rule_of_thumb() -> None:
    assert ForwardCost(context=0, vocabulary=0).training_per_token(1e9) == pytest.approx(6e9)


def test_the_cost_of_each_scenario() -> None:
    forward = ForwardCost()
    student, teacher = (1e9, 2e10), (7e9, 1.4e11)
    own = 3 * float(forward.per_token(1e9)) * 2e10
    logits = float(forward.per_token(7e9)) * 2e10
    training = 3 * float(forward.per_token(7e9)) * 1.4e11
    for d_logits, d_pretrain in ((0.0, 0.0), (1.0, 0.0), (0.0, 1.0), (1.0, 1.0), (0.25, 0.25)):
        costs = distillation_cost(forward, student, teacher, d_logits, d_pretrain)
        assert costs.student == pytest.approx(own)
        assert costs.logits == pytest.approx(d_logits * logits)
        assert costs.teacher == pytest.approx(d_pretrain * training)
        assert costs.total == pytest.approx(own + d_logits * logits + d_pretrain * training)


def test_a_free_teacher_costs_nothing_whatever_it_is() -> None:
    costs = distillation_cost(ForwardCost(), (np.array([1e9, 2e9]), 2e10), (np.nan, np.nan), 0.0, 0.0)
    assert np.all(costs.logits == 0)
    assert np.all(costs.teacher == 0)
