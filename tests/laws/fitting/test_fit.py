"""The use case: faults of the runs, the law with all that it must carry, its document, interruption."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import pytest

from simulated_runs import BUSBRIDGE, inputs_for, simulated
from tutelage.errors import InputError, MissingExtraError
from tutelage.laws.families import find_family
from tutelage.laws.files import law_to_dict, read_law, write_law
from tutelage.laws.fitting import Fit, FitSettings, compilation, fit
from tutelage.laws.published import PUBLISHED
from tutelage.laws.table import RunTable
from tutelage.progress import Advance

DIAGNOSTICS = {
    "objective", "delta", "runs", "starts", "followed_starts", "agreeing_starts", "agreement", "condition_number",
    "correlation", "distinct_ratios", "at_bounds", "linear_share", "coefficients", "at_compute", "at_student",
    "identified", "held_out", "forms", "notes", "weak",
}  # fmt: skip
ESTIMATE = {"value", "low", "high", "level", "method"}
SUPERVISED = replace(PUBLISHED["busbridge2025"], name="inside", equation=BUSBRIDGE.supervised)
KNEE = 0.01  # relative: several times the width of its interval from 90 runs
OPTIMUM = 1e-5  # relative: the closed form against a search on a grid with Newton steps


@pytest.fixture(scope="module")
def fitted() -> Fit:
    runs = simulated("gamma", 60, 1e-3)
    named = RunTable(runs.columns, source="runs.csv", counting={"params": "non-embedding", "tokens": "of C4"})
    return fit(named, find_family("gamma"), FitSettings(bootstrap=128, name="ours", compute=1e21))


def test_the_law_carries_everything(fitted: Fit) -> None:
    law = fitted.law
    assert (law.name, law.equation.family) == ("ours", "gamma")
    assert law.source == f"fitted by gamma to 60 runs of runs.csv (sha256 {law.runs.sha256})"
    assert (law.counting.params, law.counting.tokens) == ("non-embedding", "of C4")
    assert law.fitted["student_params"] == (min(law.runs.columns["N"]), max(law.runs.columns["N"]))
    assert {len(values) for values in law.draws.values()} == {128}
    assert law.draws.keys() == law.intervals.keys() == {"E", "A", "B", "alpha", "beta", "gamma"}
    for name, (low, high) in law.intervals.items():
        assert low < law.equation.coefficients()[name] < high
    assert law.provenance["seconds"].keys() == {"compile", "fit", "bootstrap", "diagnostics"}
    assert law.provenance["packages"]["numba"]
    assert law.provenance["settings"]["bootstrap"] == 128


def test_diagnostics_are_plain_and_complete(fitted: Fit) -> None:
    said = fitted.law.diagnostics
    assert said.keys() == DIAGNOSTICS
    assert said["coefficients"]["alpha"]["method"] == "bootstrap, 128 draws"
    assert all(number.keys() == ESTIMATE for number in (*said["coefficients"].values(), *said["identified"].values()))
    assert said["identified"].keys() == {
        "largest_run_loss", "optimal_params", "optimal_tokens", "tokens_per_param", "alpha_gamma", "beta_gamma",
    }  # fmt: skip
    assert said["forms"].keys() == {"hoffmann", "gamma"}
    assert said["forms"]["gamma"]["objective"] == pytest.approx(said["objective"])
    assert said["forms"]["gamma"]["held_out_median_error"] == pytest.approx(said["held_out"]["median_error"])
    assert said["held_out"]["text"] in said["notes"]


def test_the_optimum_is_that_of_the_closed_form(fitted: Fit) -> None:
    law, said = fitted.law.supervised, fitted.law.diagnostics
    ratio = (law.alpha * law.A / (law.beta * law.B)) ** (1 / (law.alpha + law.beta))
    params = ratio * (1e21 / 6) ** (law.beta / (law.alpha + law.beta))
    assert said["at_compute"] == 1e21
    assert said["identified"]["optimal_params"]["value"] == pytest.approx(params, rel=OPTIMUM)
    assert said["identified"]["optimal_tokens"]["value"] == pytest.approx(1e21 / 6 / params, rel=OPTIMUM)
    per_param = said["identified"]["tokens_per_param"]
    assert per_param["value"] == pytest.approx(1e21 / 6 / params**2, rel=OPTIMUM)
    assert per_param["low"] < per_param["value"] < per_param["high"]


def test_a_law_file_gives_the_law_back(fitted: Fit, tmp_path: Path) -> None:
    write_law(fitted.law, tmp_path / "law.json")
    again = read_law(tmp_path / "law.json")
    assert law_to_dict(again) == json.loads(json.dumps(law_to_dict(fitted.law)))
    assert again.status.kind == fitted.status.kind


def test_the_document_is_the_contract(fitted: Fit) -> None:
    document = json.loads(fitted.document().to_json())
    assert document["schema"] == {"name": "tutelage.fit", "version": 1}
    assert document["status"]["kind"] == fitted.status.kind
    assert document["law"] == law_to_dict(fitted.law)
    assert document["diagnostics"] == document["law"]["diagnostics"]


def test_a_distillation_law_states_its_knee_and_best_teacher() -> None:
    law = fit(
        simulated("distillation", 90, 1e-3), find_family("distillation"), FitSettings(bootstrap=64), SUPERVISED
    ).law
    said = law.diagnostics
    assert said["identified"].keys() == {
        "knee", "alpha_prime_gamma_prime", "c0", "f1", "best_teacher_loss", "best_student_loss",
    }  # fmt: skip
    at = said["at_student"]
    best, student = law.require_distillation().best_teacher_loss(at["params"], at["tokens"])
    assert said["identified"]["best_teacher_loss"]["value"] == pytest.approx(float(best))
    assert said["identified"]["best_student_loss"]["value"] == pytest.approx(float(student))
    knee = said["identified"]["knee"]
    assert knee["value"] == pytest.approx(BUSBRIDGE.knee, rel=KNEE)
    assert knee["low"] < knee["value"] < knee["high"]
    assert law.fitted.keys() == {"student_params", "student_tokens", "teacher_loss", "loss_ratio"}
    assert said["forms"] is None
    assert law.provenance["supervised"]["name"] == "inside"


def test_without_runs_below_a_tenth_there_is_no_hold_out() -> None:
    inputs = inputs_for("hoffmann", 40)
    inputs["D"] = 1e20 / inputs["N"] * (1.0 + inputs["D"] / inputs["D"].max())
    losses = PUBLISHED["besiroglu2024"].supervised.predict(inputs["N"], inputs["D"])
    said = fit(RunTable({**inputs, "L": losses}), find_family("hoffmann"), FitSettings(bootstrap=0)).law.diagnostics
    assert said["held_out"] is None
    assert said["forms"]["gamma"]["held_out_median_error"] is None
    assert any(note.startswith("No hold-out: 0 runs lie below") for note in said["notes"])
    assert "No intervals: there was no bootstrap." in said["notes"]


def test_every_fault_of_the_runs_is_reported_at_once() -> None:
    runs = RunTable({"N": (1e9, -1.0, 1e9), "D": (1e10, 1e10, float("nan"))})
    with pytest.raises(InputError) as caught:
        fit(runs, find_family("hoffmann"), FitSettings(fixed={"gamma": 2.0, "E": -1.0}), SUPERVISED)
    said = "\n".join(caught.value.faults)
    assert "no column L" in said
    assert "run 2: N is -1.0" in said
    assert "run 3: D is nan" in said
    assert "fixed: gamma is not fitted by hoffmann" in said
    assert "fixed: E is -1.0" in said
    assert "has no supervised law inside" in said
    with pytest.raises(InputError, match="fitted on a supervised law"):
        fit(simulated("distillation", 20), find_family("distillation"))
    with pytest.raises(InputError, match="busbridge2025 is a distillation law; fit on a supervised law"):
        fit(simulated("distillation", 20), find_family("distillation"), supervised=PUBLISHED["busbridge2025"])


@pytest.mark.parametrize(
    ("name", "value"),
    [("delta", 0.0), ("starts", 0), ("bootstrap", 1), ("bootstrap", -1), ("level", 1.0), ("compute", -1.0)],
)
def test_settings_out_of_range_are_refused(name: str, value: float) -> None:
    with pytest.raises(ValueError, match=f"{name} is {value}"):
        replace(FitSettings(), **{name: value})


def test_long_work_shows_progress_and_stops_between_chunks() -> None:
    bars: dict[str, list[int]] = {}

    @contextmanager
    def progress(title: str, total: int, unit: str, done: int = 0) -> Iterator[Advance]:
        def advance(count: int = 1, note: str = "") -> None:
            bars.setdefault(title, []).append(count)
            if title == "bootstrap" and sum(bars[title]) >= total:
                return
            if title == "bootstrap":
                raise KeyboardInterrupt

        yield advance

    with pytest.raises(KeyboardInterrupt):
        fit(simulated("hoffmann", 40, 1e-3), find_family("hoffmann"), FitSettings(bootstrap=4096), progress=progress)
    assert sum(bars["starts"]) == 64
    assert sum(bars["bootstrap"]) < 4096


def test_without_numba_the_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "numba", None)
    compilation._compiled.cache_clear()
    with pytest.raises(MissingExtraError, match=r"numba is not installed.*tutelage\[fit\]"):
        fit(simulated("hoffmann", 40), find_family("hoffmann"))
