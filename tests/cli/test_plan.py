"""`tutelage plan`: its document, its table, its errors, what it loads."""

from __future__ import annotations

import json
import subprocess
import sys
from typing import Any

import pytest

from tutelage.cli.main import main

REALISTIC = ["--student-params", "1B", "--compute", "1e21", "--teacher", "name=7B,params=7.7e9,loss=2.02"]
# Losses at reference optima.
LOSS = 1e-4


def document(capsys: pytest.CaptureFixture[str], *words: str) -> Any:
    assert main(["plan", *words, "--json"]) == 0
    out, err = capsys.readouterr()
    assert err == ""
    return json.loads(out)


def refused(capsys: pytest.CaptureFixture[str], *words: str) -> list[str]:
    assert main(["plan", *words]) == 2
    out, err = capsys.readouterr()
    assert out == ""
    return err.splitlines()


def test_the_reference_case(capsys: pytest.CaptureFixture[str]) -> None:
    answer = document(capsys, "--student-params", "300M", "--compute", "1e20")
    assert answer["schema"] == {"name": "tutelage.plan", "version": 1}
    losses = {name: entry and entry["student_loss"]["value"] for name, entry in answer["scenarios"].items()}
    assert losses.pop("existing") is None
    assert losses == pytest.approx(
        {"best": 2.4196, "inference": 2.4418, "pretraining": 2.5421, "both": 2.5633}, abs=LOSS
    )
    assert answer["supervised"]["loss"]["value"] == pytest.approx(2.4766, abs=LOSS)
    assert answer["verdict"]["probability"] is None
    assert answer["cost"]["gpu_hours"] is None
    assert [warning["code"] for warning in answer["warnings"]] == ["at-bound"]


def test_an_existing_teacher(capsys: pytest.CaptureFixture[str]) -> None:
    answer = document(capsys, *REALISTIC)
    assert answer["scenarios"]["existing"]["teacher"] == "7B"
    assert answer["teachers"][0]["name"] == "7B"
    assert answer["crossover"]["existing"]["ends"]["low"] < 3.3e20 < answer["crossover"]["existing"]["ends"]["high"]
    assert answer["verdict"]["choice"] == "train"
    assert answer["cost"]["flops"]["value"] == pytest.approx(1e21)


def test_tokens_targets_and_students(capsys: pytest.CaptureFixture[str]) -> None:
    tokens = document(capsys, "--student-params", "1B", "--tokens", "20B")
    assert tokens["scenarios"]["both"]["student_tokens"]["value"] == 2e10
    target = document(capsys, "--student-params", "1B", "--target-loss", "2.15", "--students", "4")
    assert target["scenarios"]["shared"]["student_loss"]["value"] == pytest.approx(2.15)


def test_an_infeasible_target_names_the_floor(capsys: pytest.CaptureFixture[str]) -> None:
    answer = document(capsys, "--student-params", "1B", "--target-loss", "1.9")
    assert answer["status"]["kind"] == "infeasible"
    assert "2.0792" in answer["status"]["text"]
    assert answer["status"]["remedy"]
    assert answer["verdict"]["choice"] is None


def test_the_table_is_the_same_object(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["plan", *REALISTIC]) == 0
    out, err = capsys.readouterr()
    assert "existing (7B)" in out
    assert "Train: on 1e21 FLOPs" in out
    assert "above its teacher's always" in out
    assert err.startswith("warning: inference: teacher_tokens sits on the edge")


def test_a_supervised_law_says_what_it_cannot(capsys: pytest.CaptureFixture[str]) -> None:
    answer = document(capsys, *REALISTIC, "--law", "besiroglu2024")
    assert answer["status"]["kind"] == "no-distillation-law"
    assert set(answer["scenarios"].values()) == {None}
    assert answer["supervised"]["loss"]["value"] > 0


def test_all_faults_are_told_at_once(capsys: pytest.CaptureFixture[str]) -> None:
    lines = refused(
        capsys,
        "--student-params=x",
        "--compute=inf",
        "--target-loss=2",
        "--students=1.5",
        "--teacher=name=a,size=3",
        "--teacher=name=b,params=-1,loss=nan",
        "--law=bus",
    )
    assert len(lines) == 8
    assert all(line.startswith("error: ") for line in lines)
    text = "\n".join(lines)
    for part in (
        "no law 'bus'",
        "--student-params is 'x'",
        "--compute is inf",
        "--compute and --target-loss are given: give exactly one of --compute, --gpu-hours, --money, --tokens and "
        "--target-loss",
        "unknown 'size'; missing params, loss",
        "--teacher b: params is -1",
        "--teacher b: loss is nan",
        "--students is 1.5; it must be a whole number",
    ):
        assert part in text


def test_a_budget_is_needed(capsys: pytest.CaptureFixture[str]) -> None:
    (line,) = refused(capsys, "--student-params", "1B")
    assert "no budget: give exactly one of --compute" in line


def test_two_teachers_of_one_name_are_refused(capsys: pytest.CaptureFixture[str]) -> None:
    (line,) = refused(capsys, *REALISTIC, "--teacher", "name=7B,params=1e9,loss=2.2")
    assert "two teachers are called '7B'" in line


def test_plan_loads_neither_torch_nor_numba() -> None:
    script = (
        "import sys; from tutelage.cli.main import main\n"
        f"code = main({['plan', *REALISTIC, '--json']!r})\n"
        "heavy = {'numba', 'pyarrow', 'torch', 'transformers', 'pandas'} & set(sys.modules)\n"
        "print(sorted(heavy), file=sys.stderr); sys.exit(code)"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    assert done.stderr.strip() == "[]"
    json.loads(done.stdout)
