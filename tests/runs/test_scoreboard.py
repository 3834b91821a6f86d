"""Rows and comparisons from simulated verdicts: seeds as spread, symmetry, other tokens, calibration of several."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import numpy as np
import pytest

from simulated_predictions import simulate
from tutelage.errors import InputError
from tutelage.evaluation.bootstrap import GroupSums, Resampling, group_interval
from tutelage.evaluation.calibration import Calibration, measure_calibration
from tutelage.evaluation.predictions import Predictions
from tutelage.runs.scoreboard import JudgedSystem, compare_systems

DRAWS = Resampling(draws=400)
SAME = 1e-12  # the same sums in another order
POSITIONS = 4000


@dataclass(frozen=True)
class Fake:
    """A model of known calibration; `worse` nats are added to every loss."""

    sharpness: float = 1.0
    worse: float = 0.0
    data: int = 0

    @cached_property
    def predictions(self) -> Predictions:
        found = simulate(POSITIONS, seed=self.data, sharpness=self.sharpness)
        return replace(found, nats_N=found.nats_N + self.worse)

    @cached_property
    def calibration(self) -> Calibration:
        return measure_calibration(self.predictions, resampling=DRAWS)

    def parts(self) -> Mapping[str, Mapping[str, GroupSums]]:
        mine = self.predictions
        return {"metrics": {"nats_per_token": mine.by_group("nats"), "brier": mine.by_group("brier")}}

    def to_dict(self) -> dict[str, Any]:
        metrics = {name: group_interval(sums, DRAWS).to_dict() for name, sums in self.parts()["metrics"].items()}
        return {"name": "fake", "params": 7, "status": {}, "metrics": metrics}


def system(name: str, *runs: Fake) -> JudgedSystem:
    return JudgedSystem(name, runs, tuple(range(len(runs))))


def width(estimate: Mapping[str, Any]) -> float:
    return float(estimate["high"] - estimate["low"])


def test_one_model_has_its_own_row_under_its_systems_name() -> None:
    row = system("mine", Fake()).row(DRAWS)
    assert row == {**Fake().to_dict(), "name": "mine"}


def test_seeds_are_pooled_and_spread_more_than_one_of_them() -> None:
    runs = [Fake(worse=worse) for worse in (0.0, 0.4, 0.8)]
    row = system("three", *runs).row(DRAWS)
    alone = [run.to_dict()["metrics"]["nats_per_token"] for run in runs]
    pooled = row["metrics"]["nats_per_token"]
    assert pooled["value"] == pytest.approx(np.mean([one["value"] for one in alone]), abs=SAME)
    assert width(pooled) > 2 * max(width(one) for one in alone)
    assert "3 seeds" in pooled["method"]
    assert row["metrics"]["perplexity"]["value"] == pytest.approx(np.exp(pooled["value"]))
    assert row["seeds"] == [0, 1, 2]
    assert len(row["runs"]) == 3
    assert "status" not in row
    same = system("same", Fake(), Fake(), Fake()).row(DRAWS)["metrics"]["nats_per_token"]
    assert width(same) < 2 * width(alone[0])  # seeds that do not differ add nothing but doubt


def test_comparisons_are_paired_and_symmetric() -> None:
    systems = {"a": system("a", Fake()), "b": system("b", Fake(sharpness=2.0))}
    (there, _), (back, _) = (
        compare_systems(systems, [pair], ("nats_per_token", "brier"), DRAWS) for pair in (("a", "b"), ("b", "a"))
    )
    assert [row["metric"] for row in there] == ["nats_per_token", "brier"]
    for one, other in zip(there, back, strict=True):
        assert one["difference"]["value"] == pytest.approx(-other["difference"]["value"], abs=SAME)
        assert one["difference"]["low"] == pytest.approx(-other["difference"]["high"], abs=SAME)
        assert (one["verdict"], other["verdict"]) == ("worse", "better")
        assert one["candidate"] == other["baseline"]
        assert width(one["difference"]) < width(one["candidate"])  # what both find hard cancels


def test_a_teacher_is_held_fixed_against_seeds() -> None:
    systems = {"teacher": system("teacher", Fake()), "arm": system("arm", Fake(worse=0.1), Fake(worse=0.3))}
    (row,), _ = compare_systems(systems, [("teacher", "arm")], ("nats_per_token",), DRAWS)
    assert row["difference"]["value"] == pytest.approx(0.2)
    assert "2 seeds" in row["difference"]["method"]


def test_models_that_read_other_tokens_are_not_compared_by_token() -> None:
    systems = {"a": system("a", Fake()), "b": system("b", Fake(data=1))}
    rows, (caution,) = compare_systems(systems, [("a", "b")], ("nats_per_token", "brier"), DRAWS)
    assert rows == []
    assert (caution.code, caution.input) == ("other-tokens", "b")
    with pytest.raises(InputError, match="runs of b read other tokens"):
        system("b", Fake(), Fake(data=1))


def test_calibration_of_several_runs_is_their_mean_over_all_positions() -> None:
    runs = (Fake(), Fake(sharpness=2.0), Fake(sharpness=3.0))
    found = system("three", *runs).row(DRAWS)["calibration"]
    errors = [run.calibration.errors["equal-width"] for run in runs]
    assert found["ece"]["value"] == pytest.approx(np.mean([error.value.value for error in errors]))
    assert found["ece_null"]["value"] == pytest.approx(np.mean([error.null.value for error in errors]))
    assert found["ece_null"]["runs_exceeding"] == 2
    assert found["ece_null"]["exceeded"]
    assert found["positions"] == sum(row["count"] for row in found["bins"]) == 3 * POSITIONS
    right = sum(row["count"] * row["accuracy"] for row in found["bins"] if row["count"])
    assert right == pytest.approx(sum(run.predictions.correct.sum() for run in runs))
    assert found["brier"]["value"] == pytest.approx(np.mean([run.predictions.brier_N.mean() for run in runs]))


def test_a_calibrated_run_does_not_exceed_its_null() -> None:
    found = system("two", Fake(), Fake()).row(DRAWS)["calibration"]
    assert not found["ece_null"]["exceeded"]
    assert found["ece"]["value"] < 2 * found["ece_null"]["value"]
