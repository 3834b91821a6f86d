"""`tutelage study`: every run once, killed ones again, records by the driver alone, refusals before any work."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest

from tiny_run import tutelage, write_run
from tutelage.cli.main import main
from tutelage.config import dump_recipe, load_recipe
from tutelage.errors import InputError
from tutelage.records.ledger import Ledger
from tutelage.studies.engine import Outcome
from tutelage.studies.grid import plan_jobs
from tutelage.studies.job import Answer, Job
from tutelage.studies.study import ATTEMPTS, run_study

RESULT = {
    "recipe": {"name": "tiny", "sha256": "", "resolved": {"task": "speech", "seed": 0}},
    "law": {"N_S": 10.0},
    "scores": {"student.wer": {"value": 0.5, "low": None, "high": None, "level": None, "method": "point"}},
    "provenance": {},
}


class ScriptedEngine:
    """Answers as told, and leaves what a worker would: "done" writes the run's result."""

    def __init__(self, *answers: str) -> None:
        self.answers = list(answers)
        self.asked: list[str] = []

    def run(self, work: Callable[[Job], Answer], jobs: Sequence[Job]) -> Iterator[Outcome[Job, Answer]]:
        for job in jobs:
            self.asked.append(job.label)
            answer = self.answers.pop(0)
            if answer == "dies":
                yield Outcome(job, None, died="killed")
                continue
            if answer == "done":
                finish(job)
            yield Outcome(job, Answer(answer, "" if answer == "done" else "because"))


def finish(job: Job) -> None:
    about = {
        "name": job.recipe.name,
        "sha256": job.recipe_hash,
        "resolved": {"task": "speech", "seed": job.recipe.seed},
    }
    job.out.mkdir(parents=True)
    (job.out / "run.json").write_text(json.dumps({"recipe_hash": job.recipe_hash, "seed": job.recipe.seed}))
    (job.out / "result.json").write_text(json.dumps({**RESULT, "recipe": about}))


@pytest.fixture
def jobs(tmp_path: Path) -> tuple[Job, ...]:
    recipe = load_recipe(write_run(tmp_path))
    return plan_jobs([recipe], (0, 1), tmp_path / "runs", dump_recipe)


def seeds(path: Path) -> list[int]:
    return sorted(run.seed for run in Ledger(path).runs())


def test_every_run_is_done_and_recorded_once(jobs: tuple[Job, ...], tmp_path: Path) -> None:
    ledger = tmp_path / "ledger.db"
    ran = run_study(jobs, ScriptedEngine("done", "done"), ledger)
    assert [(one.job.label, one.state, one.attempts) for one in ran] == [
        ("tiny-seed0", "done", 1),
        ("tiny-seed1", "done", 1),
    ]
    assert seeds(ledger) == [0, 1]
    assert {run.folder for run in Ledger(ledger).runs()} == {job.out for job in jobs}
    created = [run.created for run in Ledger(ledger).runs()]
    idle = ScriptedEngine()
    again = run_study(jobs, idle, ledger)
    assert [(one.state, one.finished) for one in again] == [("found", True)] * 2
    assert idle.asked == []
    assert [run.created for run in Ledger(ledger).runs()] == created, "recorded once, not again"


def test_a_finished_run_that_the_ledger_lacks_is_recorded(jobs: tuple[Job, ...], tmp_path: Path) -> None:
    finish(jobs[0])
    ran = run_study(jobs, ScriptedEngine("failed"), tmp_path / "ledger.db")
    assert [one.state for one in ran] == ["found", "failed"]
    assert ran[1].text == "because"
    assert seeds(tmp_path / "ledger.db") == [0]


def test_a_run_whose_worker_dies_is_tried_again_and_the_others_are_not(jobs: tuple[Job, ...], tmp_path: Path) -> None:
    engine = ScriptedEngine("dies", "done", "done")
    ran = run_study(jobs, engine, tmp_path / "ledger.db")
    assert engine.asked == ["tiny-seed0", "tiny-seed1", "tiny-seed0"]
    assert [(one.state, one.attempts) for one in ran] == [("done", 2), ("done", 1)]
    assert seeds(tmp_path / "ledger.db") == [0, 1]


def test_a_run_that_always_dies_is_given_up(jobs: tuple[Job, ...], tmp_path: Path) -> None:
    engine = ScriptedEngine("dies", "done", *["dies"] * (ATTEMPTS - 1))
    ran = run_study(jobs, engine, tmp_path / "ledger.db")
    assert [(one.state, one.attempts) for one in ran] == [("died", ATTEMPTS), ("done", 1)]
    assert ran[0].text == f"its worker died {ATTEMPTS} times: killed"
    assert seeds(tmp_path / "ledger.db") == [1]


def test_interrupted_and_failed_runs_are_not_tried_again(jobs: tuple[Job, ...], tmp_path: Path) -> None:
    engine = ScriptedEngine("interrupted", "failed")
    assert [one.state for one in run_study(jobs, engine, tmp_path / "ledger.db")] == ["interrupted", "failed"]
    assert len(engine.asked) == len(jobs)


def test_all_faults_of_all_recipes_at_once(tmp_path: Path) -> None:
    good = write_run(tmp_path)
    for name, change in (("one", "data/none.jsonl"), ("other", "data/nothing.jsonl")):
        text = good.read_text().replace("data/train.jsonl", change).replace("name: tiny", f"name: {name}")
        (tmp_path / f"{name}.yaml").write_text(text)
    (tmp_path / "twin.yaml").write_text(good.read_text().replace("name: tiny", "name: twin"))
    recipes = [load_recipe(tmp_path / f"{name}.yaml") for name in ("one", "other", "recipe", "twin")]
    out = tmp_path / "runs"
    (out / "tiny-seed0").mkdir(parents=True)
    with pytest.raises(InputError) as refused:
        plan_jobs(recipes, (0, 0), out, dump_recipe)
    text = str(refused.value)
    for part in (
        "the seed 0 twice",
        "one: ",
        "none.jsonl",
        "other: ",
        "nothing.jsonl",
        "twin and tiny are the same but for their names",
        f"{out / 'tiny-seed0'} exists",
    ):
        assert part in text


def test_a_folder_of_another_run_is_refused(jobs: tuple[Job, ...], tmp_path: Path) -> None:
    finish(jobs[0])
    (jobs[0].out / "run.json").write_text(json.dumps({"recipe_hash": "another", "seed": 0}))
    with pytest.raises(InputError, match="holds another run"):
        plan_jobs([jobs[0].recipe], (0,), tmp_path / "runs", dump_recipe)


@pytest.mark.parametrize(
    ("words", "part"),
    [
        (["--seeds", "0,x"], "'x' is no seed"),
        (["--seeds", "3-1"], "3-1 is no range"),
        (["--seeds", "1,1"], "the seed 1 twice"),
        (["--workers", "0"], "at least one worker, not 0"),
        (["--address", "auto"], "--address auto belongs to --engine ray"),
        (["--engine", "ray", "--workers", "0"], "not 0"),
    ],
)
def test_wrong_arguments_end_in_one_line(
    words: list[str], part: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["study", str(write_run(tmp_path)), "--out", str(tmp_path / "runs"), *words]) == 2
    shown = capsys.readouterr()
    assert part in shown.err
    assert shown.err.splitlines()[-1].startswith("error: ")
    assert not (tmp_path / "runs").exists()


def test_ctrl_c_says_how_to_go_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def stopped(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("tutelage.studies.study.run_study", stopped)
    words = ["--out", str(tmp_path / "runs"), "--ledger", str(tmp_path / "ledger.db"), "--quiet"]
    assert main(["study", str(write_run(tmp_path)), *words]) == 130
    assert "Stopped. Give the same command again" in capsys.readouterr().err


def test_a_dry_run_names_the_runs_and_does_nothing(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = ["study", str(write_run(tmp_path)), "--seeds", "3,5-6", "--out", str(tmp_path / "runs"), "--dry-run"]
    assert main([*words, "--json"]) == 0
    assert [run["seed"] for run in json.loads(capsys.readouterr().out)["runs"]] == [3, 5, 6]
    assert not (tmp_path / "runs").exists()


@pytest.mark.slow  # real runs in processes of their own
def test_two_seeds_side_by_side_a_killed_worker_and_the_same_numbers(tmp_path: Path) -> None:
    """A worker is killed while it trains; its run is continued, and equals the one that `distill` makes."""
    write_run(tmp_path, steps=40)
    words = [
        "study",
        "recipe.yaml",
        "--seeds",
        "0-1",
        "--out",
        "runs",
        "--ledger",
        "ledger.db",
        "--workers",
        "2",
        "--json",
    ]
    command = [sys.executable, "-m", "tutelage.cli.main", *words]
    study = subprocess.Popen(command, cwd=tmp_path, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    log = tmp_path / "runs" / "tiny-seed1" / "log.jsonl"
    while not (log.is_file() and len(log.read_bytes().splitlines()) >= 3):
        assert study.poll() is None, study.communicate()
        time.sleep(0.02)
    os.kill(a_worker_of(study.pid), signal.SIGKILL)
    out, err = study.communicate(timeout=240)
    assert study.returncode == 0, err
    rows = {row["seed"]: row for row in json.loads(out)["runs"]}
    assert [row["state"] for row in rows.values()] == ["done", "done"]
    assert sorted(row["attempts"] for row in rows.values()) == [1, 2]
    assert seeds(tmp_path / "ledger.db") == [0, 1]
    killed = next(str(seed) for seed, row in rows.items() if row["attempts"] == 2)
    assert f"tiny-seed{killed}: its worker died" in err
    alone = tutelage("distill", "recipe.yaml", "--seed", killed, "--out", "alone", "--ledger", "other.db", cwd=tmp_path)
    assert alone.returncode == 0, alone.stderr
    for file in ("student/model.safetensors", "adapter/adapter_model.safetensors"):
        assert (tmp_path / "alone" / file).read_bytes() == (tmp_path / f"runs/tiny-seed{killed}" / file).read_bytes()
    mine, other = (Ledger(tmp_path / name).runs() for name in ("ledger.db", "other.db"))
    assert {run.recipe_hash for run in mine} == {run.recipe_hash for run in other}


def a_worker_of(study: int) -> int:
    """One of the processes that a study started to work in."""
    for process in Path("/proc").glob("[0-9]*"):
        try:
            parent = int((process / "stat").read_text().rpartition(")")[2].split()[1])
            if parent == study and b"popen_loky" in (process / "cmdline").read_bytes():
                return int(process.name)
        except OSError:  # ended meanwhile
            continue
    raise AssertionError("the study has no worker")


def test_rows_of_json_have_every_field(jobs: tuple[Job, ...], tmp_path: Path) -> None:
    from tutelage.cli.study import _row

    ran = run_study(jobs, ScriptedEngine("done", "failed"), tmp_path / "ledger.db")
    rows: list[dict[str, Any]] = [_row(one) for one in ran]
    assert rows[0]["scores"] == RESULT["scores"]
    assert rows[1]["scores"] is None
    assert rows[1]["text"] == "because"
