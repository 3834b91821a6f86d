"""Ordinary training on repeated tokens: the published discounts, continuity, the inverse, the best use of compute."""

from __future__ import annotations

import numpy as np
import pytest

from tutelage.laws.law import Law
from tutelage.laws.published import PUBLISHED
from tutelage.planning.optimum import compute_optimal
from tutelage.planning.repeated_training import RepeatedTraining, repeated_training, training_law
from tutelage.planning.repetition import Training, assess_repetition, best_use, repetition_cautions
from tutelage.planning.spread import Spread

UNIQUE = 1e10
# What epochs of one unit of tokens are worth: 1 + R (1 - exp(-(epochs - 1) / R)) at R = R_D* = 15.387756.
WORTH = {1.0: 1.0, 4.0: 3.725673, 16.0: 10.582457, 60.0: 16.055100}
# Worth is given to seven digits.
DIGITS = 1e-6
# What rounding makes of two equal losses.
SMOOTH = 1e-12
# Sizes of a thousand times what suits the tokens are solved for least closely, to 2e-5.
INVERSE, INVERSE_EXTREME = 1e-10, 1e-4
# Share of what four times the tokens gains that repeating loses.
SMALL = 0.1
# The optimum is flat, and the grid of 4,001 sizes fine.
FLAT = 1e-9
GRID = 0.01


@pytest.fixture(params=["busbridge2025", "hoffmann2022", "muennighoff2023"])
def repeated(request: pytest.FixtureRequest) -> RepeatedTraining:
    return repeated_training(PUBLISHED[request.param].equation, UNIQUE)


@pytest.mark.parametrize("epochs", WORTH)
def test_epochs_are_worth_what_the_published_constant_says(repeated: RepeatedTraining, epochs: float) -> None:
    assert repeated.effective_tokens(epochs * UNIQUE) / UNIQUE == pytest.approx(WORTH[epochs], rel=DIGITS)


def test_four_epochs_are_nearly_as_good_as_fresh_tokens_and_forty_are_not(law: Law) -> None:
    fresh, repeated = law.supervised, training_law(law.equation, UNIQUE)
    few, many = (float(repeated.predict(1e9, k * UNIQUE) - fresh.predict(1e9, k * UNIQUE)) for k in (4, 40))
    gained = float(fresh.predict(1e9, UNIQUE) - fresh.predict(1e9, 4 * UNIQUE))
    assert 0 < few < SMALL * gained
    assert many > 3 * few


def test_a_law_is_unchanged_where_nothing_repeats(law: Law) -> None:
    sizes, tokens = np.geomspace(1e8, 1e11, 7)[:, None], np.geomspace(1e8, UNIQUE, 5)
    own = law.supervised.predict(sizes, tokens)
    assert training_law(law.equation, UNIQUE).predict(sizes, tokens) == pytest.approx(own)
    assert training_law(law.equation, None) is law.supervised


def test_the_published_law_is_used_as_it_is() -> None:
    law = PUBLISHED["muennighoff2023"]
    sizes, tokens = np.geomspace(1e8, 1e11, 7)[:, None], np.geomspace(1e9, 1e12, 5)
    expected = law.family.predict(law.equation, {"N": sizes, "D": tokens, "U": np.float64(UNIQUE)})
    assert training_law(law.equation, UNIQUE).predict(sizes, tokens) == pytest.approx(expected)
    # On top of the same law of fresh tokens, without its own discounts, the result is the same for sizes that suit the
    # tokens that are read: no excess parameters are counted twice.
    borrowed = training_law(law.supervised, UNIQUE)
    assert borrowed.predict(1e8, 4e10) == pytest.approx(training_law(law.equation, UNIQUE).predict(1e8, 4e10))


def test_loss_never_rises_with_tokens_and_meets_the_floor_of_the_unique_ones(repeated: RepeatedTraining) -> None:
    losses = repeated.predict(np.geomspace(1e6, 1e13, 50)[:, None], np.geomspace(1e6, 1e17, 400))
    assert np.all(np.diff(losses) <= SMOOTH)
    assert losses[:, -1] == pytest.approx(repeated.floor(np.geomspace(1e6, 1e13, 50)))


def test_the_inverse_gives_the_tokens_back(repeated: RepeatedTraining) -> None:
    tokens = np.array([1e9, 2e10, 1e11])
    again = repeated.tokens_for(1e9, repeated.predict(1e9, tokens))
    assert repeated.predict(1e9, again) == pytest.approx(repeated.predict(1e9, tokens), rel=INVERSE)
    assert again == pytest.approx(tokens, rel=1e-6)
    losses = repeated.predict(1e13, tokens)
    assert repeated.predict(1e13, repeated.tokens_for(1e13, losses)) == pytest.approx(losses, rel=INVERSE_EXTREME)
    below = float(repeated.floor(1e9)) - 1e-3
    assert repeated.tokens_for(1e9, below) == np.inf
    # A loss that fresh tokens reach.
    assert np.isfinite(PUBLISHED["busbridge2025"].supervised.tokens_for(1e9, 2.1))


@pytest.mark.parametrize("compute", [1e19, 1e20, 1e22])
@pytest.mark.parametrize("name", ["busbridge2025", "muennighoff2023"])
def test_the_best_use_of_compute_is_that_of_a_dense_grid(name: str, compute: float) -> None:
    law = PUBLISHED[name]
    best = best_use(Spread.of(law), law.forward, compute, UNIQUE)
    sizes = np.geomspace(1e8, 1e11, 4001)
    tokens = compute / law.forward.training_per_token(sizes)
    losses = training_law(law.equation, UNIQUE).predict(sizes, tokens)
    assert best.loss.value <= losses.min() * (1 + FLAT)
    assert best.params.value == pytest.approx(sizes[np.argmin(losses)], rel=GRID)
    assert best.epochs.value == pytest.approx(best.tokens.value / UNIQUE)
    fresh, _ = compute_optimal(law.supervised, law.forward, np.array([compute]))
    assert (best.epochs.value > 1) == (compute > 1e19)
    if compute == 1e19:
        assert best.params.value == pytest.approx(fresh[0])
    else:
        # R_N* is below R_D*: epochs are scaled faster than parameters, as the paper found.
        assert best.params.value < fresh[0]


def test_the_assessment_says_what_repeating_costs_and_what_it_assumes(law: Law, fitted: Law) -> None:
    found = assess_repetition(Spread.of(law), Training(1e9, 4e10, UNIQUE), {"both": 2e10})
    assert found.epochs.value == 4.0
    assert found.loss.value > found.loss_if_fresh.value == pytest.approx(float(law.supervised.predict(1e9, 4e10)))
    assert found.effective_tokens.value / UNIQUE == pytest.approx(WORTH[4.0], rel=DIGITS)
    assert found.distilled_epochs["both"].value == 2.0
    assert "assumed" in found.assumption
    assert "4 times" in found.text
    drawn = assess_repetition(Spread.of(fitted), Training(1e9, 4e10, UNIQUE), {})
    assert drawn.loss.low is not None
    assert drawn.best_use.params.low is not None
    own = assess_repetition(Spread.of(PUBLISHED["muennighoff2023"]), Training(1e9, 4e10, UNIQUE), {})
    assert "used as it is" in own.assumption
    once = assess_repetition(Spread.of(law), Training(1e9, 5e9, UNIQUE), {})
    assert "nothing repeats" in once.text
    assert once.loss == once.loss_if_fresh


def test_distilled_students_that_repeat_tokens_are_one_warning() -> None:
    (caution,) = repetition_cautions(UNIQUE, {"best": 4e10, "both": 5e9})
    assert caution.code == "repeated-tokens"
    assert "best 4)" in caution.text
    assert "both" not in caution.text.partition("(")[2].partition(")")[0]
    assert "no law of repeated data under distillation is known" in caution.text
    assert repetition_cautions(UNIQUE, {"best": 1e10}) == ()
