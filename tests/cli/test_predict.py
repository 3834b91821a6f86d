"""`tutelage predict`: its document, its table, its errors, what it loads."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tutelage.cli.main import main
from tutelage.laws.families.data_constrained import DataConstrainedLaw
from tutelage.laws.files import write_law
from tutelage.laws.published import PUBLISHED
from tutelage.records.document import Status

# Half a unit of the last digit of the reference values.
SIX_DECIMALS = 5e-7
FOUR_DECIMALS = 5e-5
STUDENT = ["--student-params", "1B", "--student-tokens", "2.5e11"]
LOSSES = ("student_loss", "supervised_loss", "best_teacher_loss", "best_student_loss", "teacher_loss")


def document(capsys: pytest.CaptureFixture[str], *words: str) -> Any:
    assert main(["predict", *words, "--json"]) == 0
    out, err = capsys.readouterr()
    assert err == ""
    return json.loads(out)


def refused(capsys: pytest.CaptureFixture[str], *words: str) -> list[str]:
    assert main(["predict", *words]) == 2
    out, err = capsys.readouterr()
    assert out == ""
    return err.splitlines()


def test_the_reference_values(capsys: pytest.CaptureFixture[str]) -> None:
    answer = document(capsys, *STUDENT, "--teacher-loss", "2.0")
    assert answer["schema"] == {"name": "tutelage.predict", "version": 1}
    assert answer["status"]["kind"] == "done"
    assert answer["warnings"] == []
    assert answer["law"] == "busbridge2025"
    assert answer["student_loss"]["value"] == pytest.approx(2.171606, abs=SIX_DECIMALS)
    assert answer["supervised_loss"]["value"] == pytest.approx(2.190752, abs=SIX_DECIMALS)
    assert answer["best_teacher_loss"]["value"] == pytest.approx(1.9909, abs=FOUR_DECIMALS)
    assert answer["best_student_loss"]["value"] == pytest.approx(2.171530, abs=SIX_DECIMALS)
    assert answer["teacher_loss"] == {"value": 2.0, "low": None, "high": None, "level": None, "method": "given"}
    for name in LOSSES[:4]:
        assert set(answer[name]) == {"value", "low", "high", "level", "method"}
        assert answer[name]["low"] < answer[name]["value"] < answer[name]["high"]
        assert answer[name]["method"] == "rounding band"
        assert answer[name]["level"] is None


def test_a_teacher_by_its_size_and_tokens(capsys: pytest.CaptureFixture[str]) -> None:
    words = ["--student-params", "546M", "--student-tokens", "10.92B"]
    answer = document(capsys, *words, "--teacher-params", "1.82B", "--teacher-tokens", "36.4B")
    assert answer["student_loss"]["value"] == pytest.approx(2.4238, abs=FOUR_DECIMALS)
    assert answer["teacher_loss"]["value"] == pytest.approx(2.25088, abs=FOUR_DECIMALS)
    assert answer["teacher_loss"]["method"] == "rounding band"


def test_without_a_teacher_the_student_is_left_open(capsys: pytest.CaptureFixture[str]) -> None:
    answer = document(capsys, *STUDENT)
    assert answer["student_loss"] is None
    assert answer["teacher_loss"] is None
    assert answer["best_student_loss"]["value"] == pytest.approx(2.171530, abs=SIX_DECIMALS)


def test_a_supervised_law_predicts_the_supervised_loss_alone(capsys: pytest.CaptureFixture[str]) -> None:
    answer = document(capsys, *STUDENT, "--teacher-loss", "2.0", "--law", "hoffmann2022")
    assert answer["supervised_loss"]["value"] == pytest.approx(1.69 + 406.4 / 1e9**0.34 + 410.7 / 2.5e11**0.28)
    assert all(answer[name] is None for name in LOSSES if name != "supervised_loss")
    assert [warning["code"] for warning in answer["warnings"]] == ["teacher-not-used"]


def test_the_absurd_extrapolation_carries_its_warnings(capsys: pytest.CaptureFixture[str]) -> None:
    words = ["--student-params", "10B", "--student-tokens", "0.15B", "--teacher-loss", "1.43"]
    answer = document(capsys, *words)
    assert answer["student_loss"]["value"] == pytest.approx(1.9868, abs=FOUR_DECIMALS)
    assert [warning["input"] for warning in answer["warnings"]] == ["student_tokens", "teacher_loss", "loss_ratio"]
    tokens = answer["warnings"][0]
    assert set(tokens) == {"code", "input", "value", "range", "text"}
    assert (tokens["value"], tokens["range"]) == (0.15e9, [4e9, 512e9])


def test_the_sizes_of_a_small_speech_run_are_warned_of(capsys: pytest.CaptureFixture[str]) -> None:
    answer = document(capsys, "--student-params", "5e7", "--student-tokens", "1e5")
    assert [warning["input"] for warning in answer["warnings"]] == ["student_params", "student_tokens"]


def test_the_table_is_the_same_object(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["predict", *STUDENT, "--teacher-loss", "2.9"]) == 0
    out, err = capsys.readouterr()
    assert "2.1908" in out
    assert "rounding band" in out
    assert "busbridge2025" in out
    assert err.splitlines()[0].startswith("warning: teacher_loss: ")


def test_a_law_file_is_used(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    write_law(PUBLISHED["besiroglu2024"], tmp_path / "law.json")
    answer = document(capsys, *STUDENT, "--law", str(tmp_path / "law.json"))
    assert answer["law"] == "besiroglu2024"


def test_all_faults_are_told_at_once(capsys: pytest.CaptureFixture[str]) -> None:
    lines = refused(
        capsys,
        "--student-params=-1e9",
        "--student-tokens=nan",
        "--teacher-loss=2.0",
        "--teacher-tokens=0",
        "--law=busbridge",
    )
    assert len(lines) == 5
    assert lines[0] == (
        "error: no law 'busbridge'; did you mean busbridge2025? "
        "(published laws: busbridge2025, hoffmann2022, besiroglu2024, muennighoff2023; or give a law file)"
    )
    assert "--student-params is -1e9" in lines[1]
    assert "--student-tokens is nan" in lines[2]
    assert "--teacher-tokens is 0" in lines[3]
    assert "give one kind of teacher" in lines[4]


@pytest.mark.parametrize("number", ["inf", "-inf", "0", "-3", "seven", "1e999", ""])
def test_a_bad_number_is_one_line(capsys: pytest.CaptureFixture[str], number: str) -> None:
    (line,) = refused(capsys, "--student-params", "1B", f"--student-tokens={number}")
    assert line.startswith(
        f"error: --student-tokens is {number!r}" if number in ("seven", "") else "error: --student-t"
    )


def test_half_a_teacher_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    (line,) = refused(capsys, *STUDENT, "--teacher-params", "7B")
    assert "belong together" in line


def test_predict_loads_nothing_heavy() -> None:
    script = (
        "import sys; from tutelage.cli.main import main\n"
        f"code = main({['predict', *STUDENT, '--teacher-loss', '2', '--json']!r})\n"
        "heavy = {'scipy', 'numba', 'pyarrow', 'torch', 'transformers', 'pandas'} & set(sys.modules)\n"
        "print(sorted(heavy), file=sys.stderr); sys.exit(code)"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    assert done.stderr.strip() == "[]"
    json.loads(done.stdout)


@pytest.fixture
def fitted(tmp_path: Path) -> Callable[..., str]:
    """Writes a law file with a status and joint draws; returns its path."""

    def write(kind: str = "converged", draws: int = 0) -> str:
        law, random = PUBLISHED["busbridge2025"], np.random.default_rng(0)
        spread = np.exp(random.normal(0.0, 0.01, draws))
        drawn = {name: tuple((law.equation.coefficients()[name] * spread).tolist()) for name in ("E", "c0")}
        status = Status(kind, "One ratio D/N cannot determine it.", "Add runs at other ratios.")
        path = tmp_path / "law.json"
        write_law(replace(law, name="mine", rounding={}, status=status, draws=drawn if draws else None), path)
        return str(path)

    return write


def test_a_law_that_its_runs_did_not_determine_is_refused(
    capsys: pytest.CaptureFixture[str], fitted: Callable[..., str]
) -> None:
    law = fitted("not-identified")
    (line,) = refused(capsys, *STUDENT, "--law", law)
    assert line == (
        "error: the law mine is not-identified: One ratio D/N cannot determine it. Add runs at other ratios. Use it "
        "all the same with --accept-unidentified."
    )
    answer = document(capsys, *STUDENT, "--law", law, "--accept-unidentified")
    (warning,) = answer["warnings"]
    assert (warning["code"], warning["input"], warning["value"]) == ("law-status", "law", "not-identified")
    assert warning["text"].startswith("mine is not-identified: One ratio")


def test_a_weakly_identified_law_is_used_and_says_so(
    capsys: pytest.CaptureFixture[str], fitted: Callable[..., str]
) -> None:
    answer = document(capsys, *STUDENT, "--law", fitted("weakly-identified"))
    assert [warning["code"] for warning in answer["warnings"]] == ["law-status"]
    assert document(capsys, *STUDENT, "--law", fitted("converged"))["warnings"] == []


def test_joint_draws_give_the_intervals(capsys: pytest.CaptureFixture[str], fitted: Callable[..., str]) -> None:
    answer = document(capsys, *STUDENT, "--teacher-params", "7B", "--teacher-tokens", "140B", "--law", fitted(draws=50))
    for name in LOSSES:
        assert answer[name]["low"] < answer[name]["value"] < answer[name]["high"]
        assert (answer[name]["method"], answer[name]["level"]) == ("bootstrap, 50 draws", 0.9)


def test_repeated_tokens_are_worth_less(capsys: pytest.CaptureFixture[str]) -> None:
    words = ["--student-params", "1B", "--student-tokens", "100B", "--law", "muennighoff2023"]
    losses = [
        document(capsys, *words, *unique)["supervised_loss"]["value"]
        for unique in ([], ["--unique-tokens", "100B"], ["--unique-tokens", "10B"], ["--unique-tokens", "1B"])
    ]
    assert losses[0] == losses[1] < losses[2] < losses[3]
    law = PUBLISHED["muennighoff2023"].equation
    assert isinstance(law, DataConstrainedLaw)
    assert losses[2] == pytest.approx(float(law.predict(1e9, 1e11, 1e10)))
    few = document(capsys, *words, "--unique-tokens", "1M")
    assert [warning["input"] for warning in few["warnings"]] == ["unique_tokens"]
    other = document(capsys, *STUDENT, "--unique-tokens", "1B")
    assert [warning["code"] for warning in other["warnings"]] == ["unique-tokens-not-used"]
