"""`tutelage report`: its page, its document, its errors, and what it never does to a file."""

from __future__ import annotations

import builtins
import hashlib
import json
from pathlib import Path
from typing import Any

import pytest

from run_folders import finished, unfinished
from tutelage.cli.main import main
from tutelage.laws.files import write_law
from tutelage.laws.published import PUBLISHED


def refused(capsys: pytest.CaptureFixture[str], *words: str) -> str:
    assert main(["report", *words]) == 2
    out, err = capsys.readouterr()
    assert out == ""
    (line,) = err.splitlines()
    assert line.startswith("error: ")
    return line


def test_a_published_law_and_its_document(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    out = tmp_path / "new" / "report.html"
    assert main(["report", "hoffmann2022", "--out", str(out), "--json"]) == 0
    printed, err = capsys.readouterr()
    assert err == ""
    document: dict[str, Any] = json.loads(printed)
    assert document["schema"] == {"name": "tutelage.report", "version": 1}
    assert document["path"] == str(out)
    assert document["sha256"] == hashlib.sha256(out.read_bytes()).hexdigest()
    assert [set(figure) for figure in document["figures"]] == [{"id", "title", "finding"}] * 2
    assert [figure["id"] for figure in document["figures"]] == ["tokens", "optimum"]


def test_a_plan_is_told_in_words(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    assert main(["plan", "--student-params", "1B", "--compute", "1e21", "--json"]) == 0
    (tmp_path / "plan.json").write_text(capsys.readouterr().out, encoding="utf-8")
    out = tmp_path / "plan.html"
    assert main(["report", str(tmp_path / "plan.json"), "--out", str(out)]) == 0
    first, *lines = capsys.readouterr().out.splitlines()
    assert first == str(out)
    assert lines[0].startswith("  loss: Training the teacher for this one student: ")
    assert "A student of 1B parameters on 10²¹ FLOPs" in out.read_text(encoding="utf-8")


def test_a_law_that_was_not_determined_is_warned_of(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    path = tmp_path / "law.json"
    write_law(PUBLISHED["hoffmann2022"], path)
    written = json.loads(path.read_text(encoding="utf-8"))
    written["status"] = {"kind": "not-identified", "text": "One ratio (20).", "remedy": "Add runs."}
    path.write_text(json.dumps(written), encoding="utf-8")
    out = tmp_path / "law.html"
    assert main(["report", str(path), "--out", str(out)]) == 0
    assert "One ratio (20). Add runs." in capsys.readouterr().err
    assert "Not identified: do not use these coefficients" in out.read_text(encoding="utf-8")


def test_a_runs_folder_and_its_result_give_the_same_page(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    folder = finished(tmp_path / "run", "speech")
    before = {path.name: path.read_bytes() for path in folder.iterdir()}
    assert main(["report", str(folder), "--out", str(tmp_path / "page.html")]) == 0
    first, *lines = capsys.readouterr().out.splitlines()
    assert first == str(tmp_path / "page.html")
    assert lines[0].startswith("  scores: Teacher, 10 s window has the lowest WER: 31.0 [29.0, 33.0]")
    assert main(["report", str(folder / "result.json"), "--out", str(tmp_path / "again.html"), "--json"]) == 0
    document = json.loads(capsys.readouterr().out)
    assert document["sha256"] == hashlib.sha256((tmp_path / "page.html").read_bytes()).hexdigest()
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == before


def test_an_unfinished_run_is_a_page_and_a_folder_without_a_run_is_not(
    capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    folder = unfinished(tmp_path / "run")
    assert main(["report", str(folder), "--out", str(tmp_path / "page.html"), "--json"]) == 0
    figures = json.loads(capsys.readouterr().out)["figures"]
    assert [figure["id"] for figure in figures][:2] == ["total-loss", "term-0"]
    (tmp_path / "empty").mkdir()
    assert "holds neither" in refused(capsys, str(tmp_path / "empty"), "--out", str(tmp_path / "no.html"))
    assert not (tmp_path / "no.html").exists()


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ("{", "is not JSON"),
        ("[" * 100_000, "is not JSON"),
        ("\ufeff\udcff", "is not JSON"),
        ("[]", "has no schema; a report is made from a law file"),
        ('{"schema": {"name": "tutelage.predict", "version": 1}}', 'has the schema {"name": "tutelage.predict"'),
        ('{"schema": {"name": "tutelage.plan", "version": 1}}', "question is missing"),
        ('{"schema": {"name": "tutelage.law", "version": 1}, "family": "x"}', "family 'x' is not known"),
    ],
)
def test_a_source_that_is_neither_is_one_line(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, content: str, said: str
) -> None:
    path, out = tmp_path / "in.json", tmp_path / "out.html"
    path.write_bytes(content.encode("utf-8", "surrogateescape"))
    line = refused(capsys, str(path), "--out", str(out))
    assert said in line
    assert not out.exists()


def test_another_schema_is_told_which_are_taken(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    (tmp_path / "in.json").write_text("{}", encoding="utf-8")
    line = refused(capsys, str(tmp_path / "in.json"), "--out", str(tmp_path / "out.html"))
    assert "tutelage.law" in line
    assert "tutelage.plan" in line


def test_no_such_source(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    line = refused(capsys, str(tmp_path / "absent.json"), "--out", str(tmp_path / "out.html"))
    assert "no file" in line
    assert "busbridge2025" in line
    assert "cannot be read" in refused(capsys, str(tmp_path), "--out", str(tmp_path / "out.html"))


def test_a_file_is_replaced_only_when_asked(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    out = tmp_path / "out.html"
    out.write_text("mine", encoding="utf-8")
    assert "--force" in refused(capsys, "hoffmann2022", "--out", str(out))
    assert out.read_text(encoding="utf-8") == "mine"
    assert main(["report", "hoffmann2022", "--out", str(out), "--force", "--quiet"]) == 0
    assert out.read_text(encoding="utf-8").startswith("<!DOCTYPE html>")


def test_a_page_never_takes_the_place_of_its_source(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    path = tmp_path / "law.json"
    write_law(PUBLISHED["hoffmann2022"], path)
    before = path.read_bytes()
    assert "the source itself" in refused(capsys, str(path), "--out", str(path), "--force")
    assert path.read_bytes() == before
    assert "is a folder" in refused(capsys, str(path), "--out", str(tmp_path), "--force")


def test_out_is_required() -> None:
    with pytest.raises(SystemExit) as stop:
        main(["report", "hoffmann2022"])
    assert stop.value.code == 2


@pytest.mark.parametrize("module", ["matplotlib", "jinja2"])
def test_a_missing_extra_is_named(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path, module: str
) -> None:
    real = builtins.__import__

    def without(name: str, *rest: Any) -> Any:
        if name.partition(".")[0] == module:
            raise ImportError(name)
        return real(name, *rest)

    monkeypatch.setattr(builtins, "__import__", without)
    line = refused(capsys, "hoffmann2022", "--out", str(tmp_path / "out.html"))
    assert line == f"error: {module} is not installed; this needs it: pip install 'tutelage[report]'"
    assert not list(tmp_path.iterdir())
