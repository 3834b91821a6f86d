"""`tutelage merge`: the folder computes what was asked for, is judged beside its members, bad orders are refused."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest

from tiny import shared_tiny_whisper
from tiny_run import write_run
from tiny_text_run import write_text_run
from tutelage.cli.main import main
from tutelage.models.load import load_speech_model
from tutelage.students.merge import read_adapter

COHORT = "\nstudents: 3\n"
SAME = 2e-6
"""Float32 weights after two additions."""


@pytest.fixture(scope="module")
def cohort(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished run of three members."""
    folder = tmp_path_factory.mktemp("cohort")
    recipe = write_run(folder, steps=3, extra=COHORT)
    words = ["--set", "evaluation.speed_clips=0", "--set", "evaluation.stock_clips=0", "--device", "cpu", "--quiet"]
    assert main(["distill", str(recipe), "--out", str(folder / "run"), "--ledger", str(folder / "l.db"), *words]) == 0
    return folder / "run"


def merge(run: Path, out: Path, *words: str) -> dict[str, Any]:
    assert main(["merge", str(run), "--out", str(out), "--quiet", "--device", "cpu", "--json", *words]) == 0
    document: dict[str, Any] = json.loads((out / "merge.json").read_text(encoding="utf-8"))
    return document


def losses(run: Path) -> dict[str, float]:
    result = json.loads((run / "result.json").read_text())
    rows = {row["name"].removeprefix("member "): row for row in result["systems"]}
    return {one["name"]: rows[one["name"]]["metrics"]["nats_per_token"]["value"] for one in result["cohort"]["members"]}


def test_the_exact_merge_is_judged_beside_its_members(
    cohort: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    document = merge(cohort, tmp_path / "merged", "--how", "exact")
    assert json.loads(capsys.readouterr().out) == document
    assert document["schema"]["name"] == "tutelage.merge"
    assert sum(document["weights"].values()) == pytest.approx(1)
    assert (document["rank"], document["lost"]) == (6, 0.0)
    rows = {row["name"]: row for row in document["evaluation"]["models"]}
    assert set(rows) == {"mean member", "merged"}
    assert rows["mean member"]["members"] == list(losses(cohort))
    mean = sum(losses(cohort).values()) / 3
    assert rows["mean member"]["metrics"]["nats_per_token"]["value"] == pytest.approx(mean, abs=1e-5)
    compared = {row["metric"] for row in document["evaluation"]["comparisons"]}
    assert {"wer", "nats_per_token"} <= compared
    assert sorted(file.name for file in tmp_path.iterdir()) == ["merged"], "nothing is left of the members"
    assert sorted(file.name for file in (tmp_path / "merged").iterdir()) == ["adapter", "merge.json", "student"]


def test_the_student_holds_the_merged_update(cohort: Path, tmp_path: Path) -> None:
    """W of the student - its own update + the written adapter's, layer by layer."""
    document = merge(cohort, tmp_path / "merged", "--how", "svd", "--rank", "1", "--no-judge")
    assert document["rank"] == 1
    assert 0 < document["lost"] < 1
    assert document["evaluation"] is None
    best = json.loads((cohort / "result.json").read_text())["cohort"]["best"]
    old, new = read_adapter(cohort / "members" / best / "adapter"), read_adapter(tmp_path / "merged" / "adapter")
    before, after = (load_speech_model(path / "student").model.state_dict() for path in (cohort, tmp_path / "merged"))
    for name, update in new.updates.items():
        was = old.updates[name]
        change = update.B_OR @ update.A_RI - was.B_OR @ was.A_RI
        assert (after[f"{name}.weight"] - before[f"{name}.weight"] - change).abs().max() < SAME
    untouched = before.keys() - {f"{name}.weight" for name in new.updates}
    assert all(bool((before[name] == after[name]).all()) for name in untouched)


def test_the_best_member_is_the_runs_student(cohort: Path, tmp_path: Path) -> None:
    document = merge(cohort, tmp_path / "best", "--how", "best", "--no-judge")
    found = losses(cohort)
    assert document["weights"] == {min(found, key=lambda name: found[name]): 1.0}
    assert [warning["code"] for warning in document["warnings"]] == ["chosen-on-held-out"]
    before, after = (load_speech_model(path / "student").model.state_dict() for path in (cohort, tmp_path / "best"))
    assert max(float((before[name] - after[name]).abs().max()) for name in before) < SAME


def test_weights_by_score_and_members_by_name(cohort: Path, tmp_path: Path) -> None:
    found = losses(cohort)
    document = merge(cohort, tmp_path / "some", "--how", "exact", "--weights", "score", "--no-judge")
    ordered = sorted(found, key=lambda name: found[name])
    assert sorted(document["weights"], key=lambda name: -document["weights"][name]) == ordered
    first, *_, last = ordered
    ratio = document["weights"][first] / document["weights"][last]
    assert ratio == pytest.approx(2.718281828 ** (found[last] - found[first]))
    two = merge(cohort, tmp_path / "two", "--how", "exact", "--members", ",".join(ordered[:2]), "--no-judge")
    assert set(two["weights"]) == set(ordered[:2])
    assert two["rank"] == 4


def test_a_cohort_of_language_models(tmp_path: Path) -> None:
    lora = "layers: 2\n  lora: {rank: 2, targets: [q_proj]}\n  budget_share: 0.5"
    recipe = write_text_run(tmp_path, student=lora, extra="students: 2")
    words = ["--ledger", str(tmp_path / "l.db"), "--device", "cpu", "--quiet"]
    assert main(["distill", str(recipe), "--out", str(tmp_path / "run"), *words]) == 0
    document = merge(tmp_path / "run", tmp_path / "merged", "--how", "svd")
    rows = {row["name"]: row for row in document["evaluation"]["models"]}
    mean = sum(losses(tmp_path / "run").values()) / 2
    assert rows["mean member"]["metrics"]["nats_per_token"]["value"] == pytest.approx(mean, abs=1e-5)


@pytest.mark.parametrize(
    ("words", "part"),
    [
        (["--how", "exact", "--rank", "2"], "--rank 2 belongs to --how svd"),
        (["--how", "best", "--weights", "score"], "nothing to weigh"),
        (["--how", "svd", "--rank", "0"], "not 0"),
        (["--how", "exact", "--members", "seed0,nobody"], "There is no member nobody"),
        (["--how", "exact", "--data", "nowhere.jsonl"], "There is no held-out data nowhere.jsonl"),
    ],
)
def test_bad_orders(
    words: list[str], part: str, cohort: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["merge", str(cohort), "--out", str(tmp_path / "out"), "--quiet", *words]) == 2
    assert part in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []


def test_a_run_that_is_no_cohorts_or_was_changed(
    cohort: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    copy = shutil.copytree(cohort, tmp_path / "copy")
    adapter = next((copy / "members").iterdir()) / "adapter" / "adapter_model.safetensors"
    adapter.write_bytes(adapter.read_bytes()[:-1] + b"x")
    assert main(["merge", str(copy), "--how", "exact", "--out", str(tmp_path / "out"), "--quiet"]) == 2
    assert "is not the file that the run wrote" in capsys.readouterr().err
    result = json.loads((copy / "result.json").read_text())
    (copy / "result.json").write_text(json.dumps({name: value for name, value in result.items() if name != "cohort"}))
    assert main(["merge", str(copy), "--how", "exact", "--out", str(tmp_path / "out"), "--quiet"]) == 2
    assert "only the members of a cohort are merged" in capsys.readouterr().err
    assert main(["merge", str(cohort), "--how", "exact", "--out", str(tmp_path / "copy"), "--quiet"]) == 2
    assert "exists; choose another --out" in capsys.readouterr().err


def test_what_people_read(cohort: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert (
        main(["merge", str(cohort), "--how", "svd", "--out", str(tmp_path / "out"), "--quiet", "--device", "cpu"]) == 0
    )
    shown = capsys.readouterr().out
    assert shown.splitlines()[-1] == str(tmp_path / "out")
    for part in ("svd: ", "of the update left out", "mean member", "merged", "Brier score"):
        assert part in shown


def test_a_dry_run_writes_nothing(cohort: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = ["merge", str(cohort), "--how", "exact", "--out", str(tmp_path / "out"), "--dry-run", "--json"]
    assert main(words) == 0
    assert set(json.loads(capsys.readouterr().out)["weights"]) == set(losses(cohort))
    assert list(tmp_path.iterdir()) == []


def test_a_members_folder_is_a_model_wherever_one_is_named(
    cohort: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Evaluated, a member scores as it did in its run; the members as a committee teach one student."""
    names = list(losses(cohort))
    members = [str(cohort / "members" / name) for name in names]
    data = json.loads((cohort / "result.json").read_text())["recipe"]["resolved"]["data"]["held_out"]
    words = ["--data", data, "--language", "es", "--speed", "0", "--device", "cpu", "--json", "--quiet"]
    assert main(["evaluate", *members, *words]) == 0
    rows = json.loads(capsys.readouterr().out)["models"]
    found = {row["name"]: row["metrics"]["nats_per_token"]["value"] for row in rows}
    assert found == pytest.approx(dict(zip(members, losses(cohort).values(), strict=True)), abs=1e-5)
    recipe = write_run(tmp_path, steps=2, student="layer_map: uniform")
    committee = ", ".join(f"{{name: {name}, model: {path}}}" for name, path in zip(names, members, strict=True))
    text = recipe.read_text().replace(
        "teacher: {model:", "teacher: {members: [" + committee + "], states_from: seed0} #"
    )
    recipe.write_text(text.replace("student:", f"student:\n  model: {shared_tiny_whisper()}"))
    out = ["--out", str(tmp_path / "run"), "--ledger", str(tmp_path / "l.db"), "--set", "evaluation.stock_clips=0"]
    assert main(["distill", str(recipe), *out, "--quiet", "--device", "cpu"]) == 0
    result = json.loads((tmp_path / "run" / "result.json").read_text())
    assert [member["name"] for member in result["teachers"]["members"]] == names
    assert [member["model"]["reference"] for member in result["teachers"]["members"]] == members


def test_a_members_folder_that_is_none(cohort: Path, capsys: pytest.CaptureFixture[str]) -> None:
    data = json.loads((cohort / "result.json").read_text())["recipe"]["resolved"]["data"]["held_out"]
    assert main(["evaluate", str(cohort / "members" / "nobody"), "--data", data, "--quiet"]) == 2
    assert "has no finished member nobody; it has seed0, seed1, seed2" in capsys.readouterr().err
