"""Decisions on a dev split: pure functions of the checks so far."""

import pytest

from tutelage.training.optimisation import Optimisation
from tutelage.training.selection import DevCheck, EarlyStop, best_of, stops, waited


def checks(*values):
    return [DevCheck(10 * number, "loss", value) for number, value in enumerate(values, start=1)]


def test_the_best_is_the_lowest_and_the_earliest_of_equals():
    assert best_of(checks(3.0, 1.0, 2.0, 1.0)).step == 20
    assert best_of([]) is None


@pytest.mark.parametrize(
    ("values", "min_delta", "expected"),
    [
        ((), 0.0, 0),
        ((3.0, 2.0, 1.0), 0.0, 0),
        ((3.0, 3.0), 0.0, 1),  # equal is no improvement
        ((3.0, 2.95, 2.9, 2.85), 0.1, 0),  # three small steps are one large one: against the last improvement
        ((3.0, 2.95, 2.9), 0.1, 2),
        ((1.0, 2.0, 0.5, 2.0, 2.0), 0.0, 2),
    ],
)
def test_what_counts_as_waiting(values, min_delta, expected):
    assert waited(checks(*values), min_delta) == expected


def test_patience_ends_a_training_and_none_never_does():
    worse = checks(1.0, 2.0, 3.0)
    assert not stops(worse[:2], EarlyStop(10, patience=2))
    assert stops(worse, EarlyStop(10, patience=2))
    assert not stops(worse, EarlyStop(10, patience=None))


@pytest.mark.parametrize(
    ("settings", "fault"),
    [
        ({"every": 0}, "every must be a whole number from 1, not 0"),
        ({"every": 5, "patience": 0}, "patience must be a whole number from 1, not 0"),
        ({"every": 5, "min_delta": -0.1}, "min_delta must be a finite number from 0, not -0.1"),
    ],
)
def test_settings_that_make_no_sense_are_refused(settings, fault):
    with pytest.raises(ValueError, match=fault):
        EarlyStop(**settings)


def test_keep_best_alone_looks_at_the_loss_at_every_checkpoint():
    found = Optimisation(steps=100, checkpoint_every=20, keep_best=True).dev_checks
    assert found == EarlyStop(20, patience=None, metric="loss")
    assert Optimisation(steps=100).dev_checks is None
    own = EarlyStop(7, metric="wer")
    assert Optimisation(steps=100, keep_best=True, early_stop=own).dev_checks == own


def test_the_identity_leaves_out_what_changes_no_number():
    plain = Optimisation(steps=5).identity()
    assert not {"trackers", "early_stop", "keep_best", "precision"} & set(plain)
    assert Optimisation(steps=5, trackers=("tensorboard",)).identity() == plain
    assert Optimisation(steps=5, keep_best=True).identity() == {**plain, "keep_best": True}
    assert Optimisation(steps=5, precision="bf16").identity() == {**plain, "precision": "bf16"}
