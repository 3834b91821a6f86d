from __future__ import annotations

import csv
import json
import subprocess
import sys
from pathlib import Path

import pytest

from tutelage.cli.main import main
from tutelage.records.estimate import Estimate
from tutelage.records.ledger import Ledger
from tutelage.records.run import LawColumns, Run


@pytest.fixture
def ledger(tmp_path: Path) -> Path:
    path = tmp_path / "runs.sqlite3"
    wer = Estimate(0.3514, 0.291, 0.42, 0.95, "group bootstrap")
    for seed, name in ((1, "older"), (2, "newer")):
        created = f"2026-01-0{seed}T10:20:30.000000+00:00"
        law = LawColumns(N_S=5e7, L_S=1.25, held_out_sha256="cd")
        scores = {"student.wer": wer} if seed == 2 else {"loss": Estimate(1.0)}
        Ledger(path).record(Run(name, "speech", "ab", seed, Path("/out") / name, law, scores, {"python": "3"}, created))
    return path


def test_the_table_is_newest_first_with_intervals(ledger: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["runs", "--ledger", str(ledger)]) == 0
    out, err = capsys.readouterr()
    lines = out.splitlines()
    assert "newer" in lines[2]
    assert "35.1 [29.1, 42.0] % WER" in lines[2]
    assert "2026-01-02 10:20:30" in lines[2]
    assert "older" in lines[3]
    assert err == ""


def test_a_run_on_text_shows_its_loss(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    loss = {"student.nats_per_token": Estimate(3.25, 3.2, 3.3, 0.95, "group bootstrap")}
    Ledger(tmp_path / "l.db").record(Run("words", "text", "ab", 0, Path("/out"), LawColumns(), loss, {}))
    assert main(["runs", "--ledger", str(tmp_path / "l.db")]) == 0
    assert "3.250 [3.200, 3.300] nats/token" in capsys.readouterr().out


def test_json_is_one_document_with_every_column(ledger: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["runs", "--json", "--ledger", str(ledger)]) == 0
    document = json.loads(capsys.readouterr().out)
    assert document["schema"] == {"name": "tutelage.runs", "version": 1}
    assert document["status"]["kind"] == "done"
    assert document["warnings"] == []
    newest = document["runs"][0]
    assert (newest["seed"], newest["N_S"], newest["D_T"], newest["held_out_sha256"]) == (2, 5e7, None, "cd")
    assert newest["scores"]["student.wer"]["high"] == 0.42
    assert newest["provenance"] == {"python": "3"}


def test_csv(ledger: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["runs", "--csv", "--ledger", str(ledger)]) == 0
    rows = list(csv.DictReader(capsys.readouterr().out.splitlines()))
    assert [row["name"] for row in rows] == ["newer", "older"]
    assert rows[0]["student.wer.low"] == "0.291"


def test_an_empty_ledger_is_fine_and_says_so(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TUTELAGE_LEDGER", str(tmp_path / "none" / "l"))
    assert main(["runs"]) == 0
    out, err = capsys.readouterr()
    assert out == "no runs\n"
    assert "holds no runs yet" in err
    assert "tutelage demo" in err
    assert main(["runs", "--json"]) == 0
    document = json.loads(capsys.readouterr().out)
    assert (document["runs"], document["status"]["kind"], document["exists"]) == ([], "empty", False)
    assert main(["runs", "--csv"]) == 0
    assert capsys.readouterr().out.startswith("name,task,created")
    assert list(tmp_path.iterdir()) == []


def test_the_option_beats_the_variable(
    ledger: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TUTELAGE_LEDGER", "/nowhere")
    assert main(["runs", "--ledger", str(ledger)]) == 0
    assert "newer" in capsys.readouterr().out


def test_what_is_not_a_ledger_is_one_line_and_exit_2(tmp_path: Path) -> None:
    (tmp_path / "x").write_text("not a database, but long enough to have a header")
    command = [sys.executable, "-m", "tutelage.cli.main", "runs", "--ledger", str(tmp_path / "x")]
    answer = subprocess.run(command, capture_output=True, text=True, check=False)
    assert answer.returncode == 2
    assert answer.stdout == ""
    assert len(answer.stderr.splitlines()) == 1
    assert "is not a ledger" in answer.stderr


def test_two_formats_at_once_are_refused(ledger: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["runs", "--csv", "--json", "--ledger", str(ledger)]) == 2
    assert capsys.readouterr().out == ""
