"""The real command in two processes under `torchrun` (gloo on a CPU): the same numbers, one folder, one voice."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from run_folders import read_log
from tiny_run import tutelage
from tiny_text_run import write_dev, write_text_run
from tutelage.cli import ranks
from tutelage.cli.main import main
from tutelage.errors import InterruptedRunError

Write = Callable[..., Path]
CLOSE = 1e-4  # relative, of a loss: float32 sums in another order, then Adam over some steps
NEAR = 5e-3  # of a weight of size about 0.1, likewise: where a gradient is rounding, Adam moves by up to the rate
TORCHRUN = [str(Path(sys.executable).with_name("torchrun")), "--nproc_per_node", "2", "-m", "tutelage"]


def start(folder: Path, *words: str) -> subprocess.Popen[str]:
    settings = {**os.environ, "OMP_NUM_THREADS": "1"}
    command = [*TORCHRUN, "distill", "recipe.yaml", "--device", "cpu", *words]
    return subprocess.Popen(
        command, cwd=folder, env=settings, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )


def run_two(folder: Path, *words: str) -> tuple[int, str, str]:
    process = start(folder, *words)
    printed, said = process.communicate(timeout=240)
    return process.returncode, printed, said


def read(folder: Path) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    result: dict[str, Any] = json.loads((folder / "result.json").read_text(encoding="utf-8"))
    return result, read_log(folder)


def assert_same_run(two: Path, one: Path) -> None:
    (found, steps), (expected, straight) = read(two), read(one)
    assert [step["step"] for step in steps] == [step["step"] for step in straight]
    assert [step["positions"] for step in steps] == [step["positions"] for step in straight]
    assert [step["total"] for step in steps] == pytest.approx([step["total"] for step in straight], rel=CLOSE)
    assert found["law"]["D_S"] == expected["law"]["D_S"]
    assert found["training"]["kept_step"] == expected["training"]["kept_step"]
    metric = "nats_per_token"
    for row, other in zip(found["systems"], expected["systems"], strict=True):
        loss = other["metrics"][metric]
        assert row["metrics"][metric] == loss or row["metrics"][metric]["value"] == pytest.approx(loss["value"], CLOSE)
    weights, others = (load_file(folder / "student" / "model.safetensors") for folder in (two, one))
    assert weights.keys() == others.keys()
    assert all(torch.allclose(weights[name], others[name], atol=NEAR) for name in weights)
    assert {path.name for path in two.iterdir()} == {path.name for path in one.iterdir()}
    assert len(list((two / "checkpoints").iterdir())) == 1


@pytest.mark.slow
def test_a_text_run_of_two_processes_is_that_of_one(tmp_path: Path) -> None:
    """Rows of unequal lengths in micro-batches of 3, of which one process gets two and the other one."""
    write_text_run(tmp_path, steps=6)
    changes = [write_dev(tmp_path), "training.batch_size=3", "training.accumulate=2", "training.keep_best=true"]
    words = [part for change in changes for part in ("--set", change)]
    code, printed, said = run_two(tmp_path, *words, "--out", "two", "--ledger", "two.db")
    assert code == 0, said
    assert printed.splitlines()[-1] == "two/result.json"
    assert printed.count("result.json") == 1  # the other process says nothing
    assert said.count("preflight:") == 1
    done = tutelage("distill", "recipe.yaml", *words, "--out", "one", "--ledger", "one.db", "--quiet", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert_same_run(tmp_path / "two", tmp_path / "one")
    rows = json.loads(tutelage("runs", "--ledger", "two.db", "--json", cwd=tmp_path).stdout)["runs"]
    assert len(rows) == 1


@pytest.mark.slow
def test_a_speech_run_of_two_processes_is_that_of_one(write_recipe: Write, tmp_path: Path) -> None:
    write_recipe(steps=4)
    words = ["--set", "training.batch_size=3", "--set", "evaluation.stock_clips=0", "--set", "evaluation.speed_clips=0"]
    code, _, said = run_two(tmp_path, *words, "--out", "two")
    assert code == 0, said
    assert said.count("encoder outputs:") == 1
    done = tutelage("distill", "recipe.yaml", *words, "--out", "one", "--quiet", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert_same_run(tmp_path / "two", tmp_path / "one")


@pytest.mark.slow
def test_one_ctrl_c_stops_both_processes_and_the_run_goes_on(tmp_path: Path) -> None:
    steps = 60
    write_text_run(tmp_path, steps=steps)
    process = start(tmp_path, "--out", "run")
    log = tmp_path / "run" / "log.jsonl"
    while not (log.is_file() and len(log.read_text(encoding="utf-8").splitlines()) >= 5):
        assert process.poll() is None, process.communicate()[1]
        time.sleep(0.02)
    process.send_signal(signal.SIGINT)
    _, said = process.communicate(timeout=120)
    assert process.returncode == 1  # torchrun's own
    assert said.count("error: Stopped after step") == 1
    assert "Continue with: torchrun --nproc_per_node 2 -m tutelage distill recipe.yaml" in said
    refused = tutelage("distill", "recipe.yaml", "--out", "run", "--resume", cwd=tmp_path)
    assert refused.returncode == 2
    assert "The run used 2 processes and now has 1; resume with 2." in refused.stderr
    code, _, said = run_two(tmp_path, "--out", "run", "--resume")
    assert code == 0, said
    done = tutelage("distill", "recipe.yaml", "--out", "one", "--quiet", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    (_, found), (_, expected) = read(tmp_path / "run"), read(tmp_path / "one")
    assert [line["step"] for line in found] == list(range(1, steps + 1))
    assert [line["total"] for line in found] == pytest.approx([line["total"] for line in expected], rel=20 * CLOSE)


@pytest.mark.slow
def test_bad_input_leaves_nothing_and_says_which_process(tmp_path: Path) -> None:
    write_text_run(tmp_path)
    code, _, said = run_two(tmp_path, "--out", "run", "--set", "student.layers=99")
    assert code == 1
    assert "error: " in said
    assert not (tmp_path / "run").exists()


def test_who_speaks_and_how_the_command_is_given_again(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("RANK", "WORLD_SIZE", "LOCAL_WORLD_SIZE"):
        monkeypatch.delenv(name, raising=False)
    assert (ranks.rank(), ranks.processes(), ranks.launcher()) == (0, 1, [])
    monkeypatch.setenv("RANK", "3")
    assert ranks.rank() == 0  # left over from something else: there is one process
    monkeypatch.setenv("WORLD_SIZE", "4")
    assert (ranks.rank(), ranks.processes()) == (3, 4)
    assert ranks.launcher() == ["torchrun", "--nproc_per_node", "4", "-m"]
    monkeypatch.setenv("LOCAL_WORLD_SIZE", "2")
    assert ranks.launcher() == ["torchrun", "--nproc_per_node", "2", "-m"]


def test_a_fault_names_the_process_and_an_interruption_is_said_once(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["distill", "no-such-recipe.yaml"]
    assert main(words) == 2
    assert capsys.readouterr().err.startswith("error: There is no recipe")
    monkeypatch.setenv("RANK", "1")
    monkeypatch.setenv("WORLD_SIZE", "2")
    assert main(words) == 2
    assert capsys.readouterr().err.startswith("error (process 1): There is no recipe")

    def stopped(_arguments: object) -> int:
        raise InterruptedRunError("Stopped.")

    monkeypatch.setattr("tutelage.cli.distill.run", stopped)
    assert main(words) == 130
    assert capsys.readouterr().err == ""
