"""The frame of the command line: exit codes, one line an error, negative numbers, broken pipes."""

from __future__ import annotations

import subprocess
import sys

import pytest

from tutelage.cli import main as frame
from tutelage.errors import InputError, InterruptedRunError, TutelageError


def test_a_negative_number_is_the_verbs_fault_and_not_an_unknown_option(capsys: pytest.CaptureFixture[str]) -> None:
    code = frame.main(["predict", "--student-params", "-1e9", "--student-tokens", "-20B", "--teacher-loss", "-2"])
    captured = capsys.readouterr()
    assert code == 2
    assert captured.out == ""
    assert [line.startswith("error: ") for line in captured.err.splitlines()] == [True, True, True]
    assert "usage" not in captured.err


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (InputError(["a", "b"]), 2),
        (TutelageError("a\nb"), 1),
        (InterruptedRunError("a\nb"), 130),
    ],
)
def test_errors_of_ours_are_lines_with_a_code(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], error: Exception, code: int
) -> None:
    from tutelage.cli import runs

    def fail(arguments: object) -> int:
        raise error

    monkeypatch.setattr(runs, "run", fail)
    assert frame.main(["runs"]) == code
    assert capsys.readouterr().err == "error: a\nerror: b\n"
    with pytest.raises(type(error)):
        frame.main(["runs", "--debug"])


def test_ctrl_c_is_130(monkeypatch: pytest.MonkeyPatch) -> None:
    from tutelage.cli import runs

    def stop(arguments: object) -> int:
        raise KeyboardInterrupt

    monkeypatch.setattr(runs, "run", stop)
    assert frame.main(["runs"]) == 130


def test_an_unknown_verb_is_a_usage_error(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stop:
        frame.main(["distil-it"])
    assert stop.value.code == 2
    assert "distil-it" in capsys.readouterr().err


def test_a_reader_that_leaves_early_causes_no_traceback() -> None:
    command = f"{sys.executable} -m tutelage.cli.main plan --help | head -n 1"
    done = subprocess.run(command, shell=True, capture_output=True, text=True, check=False)
    assert "Traceback" not in done.stderr
    assert "Exception" not in done.stderr


def test_the_demo_from_a_wheel_says_where_its_speech_is(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path_factory: pytest.TempPathFactory
) -> None:
    from tutelage.runs import demo

    monkeypatch.setattr(demo, "_checkout", lambda: tmp_path_factory.mktemp("site-packages"))
    assert frame.main(["demo"]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert "examples/captions_es" in line
