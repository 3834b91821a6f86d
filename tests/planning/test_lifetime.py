"""Lifetime cost: the anchors of Sardana 2024, a dense grid, prices of serving."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from tutelage.laws.compute import ForwardCost
from tutelage.laws.law import Law, with_coefficients
from tutelage.laws.published import PUBLISHED
from tutelage.planning.hardware import Hardware
from tutelage.planning.lifetime import Goal, Lifetime, Lived, Service, assess_lifetime, lifetime_flops, price_of_sizes
from tutelage.planning.parts import known
from tutelage.planning.spread import Spread
from tutelage.planning.target import cheapest_training

# 13B at its compute-optimal tokens, and what it then serves.
PARAMS, TOKENS, SERVED = 13e9, 5.765e11, 2e12
# Anchors are printed to three digits.
PRINTED = 1.5e-3
# The optimum is flat: a grid of 4,001 sizes cannot be below it by more than float64 shows.
FLAT = 1e-9
# Neighbouring sizes of that grid are 0.5 % apart.
GRID = 0.01


@pytest.fixture(scope="module")
def sardana() -> Law:
    """The Hoffmann law with the exponents that reproduce the paper's example."""
    return with_coefficients(PUBLISHED["hoffmann2022"], {"alpha": 0.336, "beta": 0.283})


def assess(law: Law, service: Service) -> Lifetime:
    goal = Goal(lambda equation: equation.supervised.predict(PARAMS, TOKENS))
    lifetime = assess_lifetime(Spread.of(law), service, {}, goal)
    assert lifetime is not None
    return lifetime


def test_training_costs_six_and_serving_two_flops_a_parameter_and_token() -> None:
    bare = ForwardCost(context=0, vocabulary=0)
    assert lifetime_flops(bare, 1e9, 2e10, 1e12) == pytest.approx(6e9 * 2e10 + 2e9 * 1e12)


def test_seven_billion_parameters_save_seventeen_per_cent(sardana: Law) -> None:
    loss = float(sardana.supervised.predict(PARAMS, TOKENS))
    tokens = float(sardana.supervised.tokens_for(7e9, loss))
    forward = sardana.forward
    saved = 1 - lifetime_flops(forward, 7e9, tokens, SERVED) / lifetime_flops(forward, PARAMS, TOKENS, SERVED)
    assert saved == pytest.approx(0.174, abs=5e-4)


def test_the_cheapest_model_of_that_quality_has_7b_parameters(sardana: Law) -> None:
    lifetime = assess(sardana, Service(SERVED))
    assert lifetime.optimal.params.value == pytest.approx(6.97e9, rel=PRINTED)
    assert lifetime.compute_optimal.params.value == pytest.approx(PARAMS, rel=PRINTED)
    assert lifetime.compute_optimal.tokens.value == pytest.approx(TOKENS, rel=PRINTED)
    assert lifetime.saving.value == pytest.approx(0.174, abs=1e-3)
    assert lifetime.saving.low < lifetime.saving.value < lifetime.saving.high
    assert "6.97B parameters" in lifetime.text
    assert "17.4% fewer FLOPs" in lifetime.text


def test_a_smaller_model_than_the_compute_optimal_one_costs_more_to_train(sardana: Law) -> None:
    prices = price_of_sizes(sardana.supervised, sardana.forward, 2.0453)
    assert prices == pytest.approx({0.75: 1.03, 0.5: 1.21, 0.3: 2.06}, abs=5e-3)
    # A size that cannot reach the loss is never cheap.
    assert price_of_sizes(sardana.supervised, sardana.forward, 2.0453, (0.01,)) == {0.01: np.inf}


@pytest.mark.parametrize("served", [0.0, 1e11, 1e13])
def test_the_optimum_is_that_of_a_dense_grid(law: Law, served: float) -> None:
    size, tokens = (float(part[0]) for part in cheapest_training(law.supervised, law.forward, 2.3, served=served))
    sizes = np.geomspace(1e8, 1e10, 4001)
    costs = lifetime_flops(law.forward, sizes, law.supervised.tokens_for(sizes, 2.3), served)
    assert float(lifetime_flops(law.forward, size, tokens, served)) <= np.nanmin(costs) * (1 + FLAT)
    assert size == pytest.approx(sizes[np.nanargmin(costs)], rel=GRID)


def test_more_service_asks_for_a_smaller_model(law: Law) -> None:
    sizes = [float(cheapest_training(law.supervised, law.forward, 2.3, served=D)[0][0]) for D in (0, 1e11, 1e12, 1e13)]
    assert sizes == sorted(sizes, reverse=True)


def test_every_way_is_charged_for_its_service(law: Law) -> None:
    device = Hardware("train", peak=1e15, mfu=0.5, watts=700, price=3.6)
    slow = replace(device, name="serve", mfu=0.1)
    made = {"train": Lived(known(1e9), known(2e10), known(2.4), known(1e20))}
    service = Service(1e12, device, slow)
    assert service.weight == pytest.approx(5.0)
    goal = Goal(lambda equation: equation.supervised.predict(1e9, 2e10))
    lifetime = assess_lifetime(Spread.of(law), service, made, goal)
    assert lifetime is not None
    way, serving = lifetime.ways["train"], float(law.forward.per_token(1e9)) * 1e12
    assert way.serving is not None
    assert way.total is not None
    assert way.money is not None
    assert way.serving.value == pytest.approx(serving)
    assert way.total.value == pytest.approx(1e20 + serving)
    # 3.6 an hour of 5e14 FLOPs per second is 2e-18 a FLOP in training, five times that in serving.
    assert way.money.value == pytest.approx(2e-18 * 1e20 + 1e-17 * serving)
    # Dearer service asks for a smaller model.
    cheap = assess_lifetime(Spread.of(law), Service(1e12, device), made, goal)
    assert cheap is not None
    assert lifetime.optimal.params.value < cheap.optimal.params.value
    assert "less money" in lifetime.text


def test_draws_give_the_choice_and_the_saving_intervals(fitted: Law) -> None:
    goal = Goal(lambda equation: equation.supervised.predict(1e9, 2e10))
    lifetime = assess_lifetime(Spread.of(fitted), Service(1e12), {}, goal)
    assert lifetime is not None
    for part in (lifetime.optimal.params, lifetime.optimal.total, lifetime.saving):
        assert part is not None
        assert part.low is not None
        assert part.high is not None
        assert part.low < part.value < part.high
        assert (part.level, part.method) == (0.9, "bootstrap, 1000 draws")


def test_a_quality_that_no_size_reaches_has_no_lifetime(law: Law) -> None:
    assert assess_lifetime(Spread.of(law), Service(1e12), {}, Goal(lambda _: np.float64(1.0))) is None
