"""Predicted against achieved loss: which laws may be asked, what they say of a run, and that a run is not changed."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from tiny_text_run import write_text_run
from tutelage.cli.main import main
from tutelage.cli.run_tables import result_lines
from tutelage.config import load_recipe
from tutelage.errors import InputError
from tutelage.laws.files import write_law
from tutelage.laws.law import Law
from tutelage.laws.published import PUBLISHED
from tutelage.planning.prediction import predict
from tutelage.records.document import Status
from tutelage.records.run import LawColumns
from tutelage.runs.prediction import compare_with_law, find_run_law, forecast_run
from tutelage.runs.tasks import gather_materials

COVERED = LawColumns(N_S=1e9, D_S=1e11, N_T=3e9, L_T=2.2, L_S=2.4)
ROW = {"value": 2.4, "low": 2.25, "high": 2.5, "level": 0.95, "method": "group bootstrap, 100 draws of 9 groups"}
SYSTEMS: list[dict[str, Any]] = [
    {"name": "teacher", "metrics": {"nats_per_token": {**ROW, "value": 2.2}}},
    {"name": "student, distilled", "metrics": {"nats_per_token": ROW}},
]
PUBLISHED_LAW = PUBLISHED["busbridge2025"]


def own(modality: str = "text") -> Law:
    """A law of one's own runs, with joint draws that move E alone."""
    draws = tuple(1.22 + 0.001 * step for step in range(-10, 11))
    return replace(PUBLISHED_LAW, name="ours", modality=modality, draws={"E": draws}, rounding={})


def said(law: Law, columns: LawColumns = COVERED, task: str = "text", from_scratch: bool = True) -> Any:
    return compare_with_law(law, columns, task, SYSTEMS, from_scratch=from_scratch)


def test_a_law_of_ones_own_runs_predicts_with_its_draws() -> None:
    found = said(own())
    assert found.predicted == predict(own(), 1e9, 1e11, teacher_loss=2.2).student_loss
    assert found.predicted.level == 0.9
    assert found.predicted.low < found.predicted.value < found.predicted.high
    assert found.achieved.to_dict() == ROW
    assert found.warnings == ()
    gap = 2.4 / found.predicted.value - 1
    assert f"{100 * gap:.1f} % above" in found.text
    assert "It meets the law's 90 % interval" in found.text


@pytest.mark.parametrize("side", [-1, 1])
def test_a_loss_apart_from_the_interval_does_not_meet_it(side: int) -> None:
    predicted = said(own()).predicted
    loss = predicted.value + side * (predicted.high - predicted.low)
    found = said(own(), replace(COVERED, L_S=loss))  # no row has it, so it is a point
    assert (found.achieved.value, found.achieved.low) == (loss, None)
    assert "It does not meet" in found.text
    assert ("above" if side > 0 else "below") in found.text


def test_a_published_law_gives_a_rounding_band_and_what_is_other_here() -> None:
    found = said(PUBLISHED_LAW, from_scratch=False)
    assert found.predicted.level is None
    assert found.predicted.method == "rounding band"
    assert "rounding band" in found.text
    assert [warning.code for warning in found.warnings] == ["other-tokens", "trained-weights"]
    outside = said(PUBLISHED_LAW, replace(COVERED, N_S=1e5))
    told = [(warning.code, warning.input) for warning in outside.warnings]
    assert told[0] == ("outside-fitted-range", "student_params")
    assert told[-1] == ("other-tokens", "tokens")


@pytest.mark.parametrize(("law", "task"), [(PUBLISHED_LAW, "speech"), (own("speech"), "text")])
def test_a_law_of_another_modality_predicts_nothing(law: Law, task: str) -> None:
    found = said(law, task=task)
    assert found.predicted is None
    assert found.achieved is not None
    assert found.text.startswith("The law does not apply: ")


def test_a_law_of_ones_own_runs_on_speech_predicts_for_speech() -> None:
    assert said(own("speech"), task="speech").predicted == said(own()).predicted


def test_a_run_without_a_teachers_loss_has_no_prediction_and_says_so() -> None:
    found = said(own(), replace(COVERED, L_T=None, N_T=None))
    assert found.predicted is None
    assert "no L_T" in found.text
    assert "without a teacher's signal" in found.text
    assert "no N_S, D_S" in said(own(), replace(COVERED, N_S=None, D_S=0.0)).text


def test_a_loss_that_was_not_measured_is_not_made_up() -> None:
    found = said(own(), replace(COVERED, L_S=None))
    assert found.achieved is None
    assert found.text.endswith("the run's loss was not measured.")


@pytest.mark.parametrize(
    ("content", "fault"),
    [
        (None, "no law"),
        ("{", "not a readable law file"),
        ('{"schema": {"name": "tutelage.law", "version": 1}, "family": "x"}', "family 'x' is not known"),
    ],
)
def test_a_law_that_cannot_be_read_is_refused(tmp_path: Path, content: str | None, fault: str) -> None:
    path = tmp_path / "law.json"
    if content is not None:
        path.write_text(content, encoding="utf-8")
    with pytest.raises(InputError, match=fault) as raised:
        find_run_law(path)
    assert all(line.startswith("law: ") for line in raised.value.faults)


def test_a_law_without_students_or_not_determined_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="law: hoffmann2022 is a supervised law"):
        find_run_law(tmp_path / "hoffmann2022")
    path = tmp_path / "law.json"
    write_law(replace(own(), status=Status("not-identified", "One ratio.", "Add runs.")), path)
    with pytest.raises(InputError, match=r"law: ours is not-identified: One ratio\. Add runs\."):
        find_run_law(path)


def test_a_file_is_preferred_to_the_published_law_of_its_name(tmp_path: Path) -> None:
    named = tmp_path / "busbridge2025"
    assert find_run_law(named) is PUBLISHED_LAW
    write_law(own(), named)
    found = find_run_law(named)
    assert found is not None
    assert found.name == "ours"
    assert find_run_law(None) is None


def test_a_law_that_is_gone_after_training_costs_the_prediction_alone(tmp_path: Path) -> None:
    found = forecast_run(tmp_path / "gone.json", COVERED, "text", SYSTEMS, from_scratch=True)
    assert found is not None
    assert found.predicted is None
    assert found.achieved is not None
    assert "no law file" in found.text
    assert forecast_run(None, COVERED, "text", SYSTEMS, from_scratch=True) is None


def test_a_law_is_refused_before_anything_is_found_and_is_no_part_of_the_run(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    recipe = write_text_run(tmp_path)
    command = ["distill", str(recipe), "--out", str(tmp_path / "run")]
    assert main([*command, "--set", "law=hoffmann2022"]) == 2
    assert "law: hoffmann2022 is a supervised law" in capsys.readouterr().err
    assert not (tmp_path / "run").exists()
    plain, held = load_recipe(recipe), load_recipe(recipe, ["law=busbridge2025"])
    assert held.law == recipe.parent / "busbridge2025"
    assert gather_materials(held).recipe_hash == gather_materials(plain).recipe_hash


def test_a_run_is_held_against_the_law_that_its_recipe_names(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    recipe = write_text_run(tmp_path)
    write_law(own(), recipe.parent / "ours.json")
    out = tmp_path / "run"
    command = ["distill", str(recipe), "--set", "law=ours.json", "--set", "training.steps=1", "--out", str(out)]
    assert main([*command, "--ledger", str(tmp_path / "ledger.db"), "--quiet"]) == 0
    printed = capsys.readouterr().out
    document = json.loads((out / "result.json").read_text(encoding="utf-8"))
    prediction, law = document["prediction"], document["law"]
    assert prediction["law"] == "ours"
    expected = predict(own(), law["N_S"], law["D_S"], teacher_loss=law["L_T"]).student_loss
    assert expected is not None
    assert prediction["predicted"] == expected.to_dict()
    assert prediction["achieved"] == document["systems"][-1]["metrics"]["nats_per_token"]
    assert f"law: {prediction['text']}" in printed
    assert "  mind: student_params: a student's size" in printed
    without = [*result_lines({**document, "prediction": None})]
    assert not any(line.startswith(("law: ", "  mind: ")) for line in without)


def test_a_student_that_began_with_trained_weights_is_told_apart_from_those_of_the_published_law(
    tmp_path: Path,
) -> None:
    recipe = write_text_run(tmp_path)
    command = ["distill", str(recipe), "--set", "law=busbridge2025", "--set", "training.steps=1", "--quiet"]
    assert main([*command, "--out", str(tmp_path / "run"), "--ledger", str(tmp_path / "ledger.db")]) == 0
    prediction = json.loads((tmp_path / "run" / "result.json").read_text(encoding="utf-8"))["prediction"]
    assert prediction["warnings"][-1]["code"] == "trained-weights"
