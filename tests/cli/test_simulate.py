"""`tutelage simulate`: its document, its file, its faults."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from tutelage.cli.main import main
from tutelage.laws.families import find_family
from tutelage.laws.reading import read_runs

WORDS = ["--law", "besiroglu2024", "--design", "isoflop", "--runs", "12", "--noise", "1e-3", "--seed", "5"]


def simulated(capsys: pytest.CaptureFixture[str], *words: str) -> Any:
    assert main(["simulate", *words, "--json"]) == 0
    out, err = capsys.readouterr()
    assert err == ""
    return json.loads(out)


def refused(capsys: pytest.CaptureFixture[str], *words: str) -> list[str]:
    assert main(["simulate", *words]) == 2
    out, err = capsys.readouterr()
    assert out == ""
    return err.splitlines()


@pytest.mark.parametrize("suffix", ["csv", "jsonl", "parquet"])
def test_the_file_is_read_again(capsys: pytest.CaptureFixture[str], tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"runs.{suffix}"
    answer = simulated(capsys, *WORDS, "--out", str(path))
    assert answer["schema"] == {"name": "tutelage.simulate", "version": 1}
    assert answer["status"]["kind"] == "done"
    told = {key: answer[key] for key in ("out", "law", "family", "design", "runs", "noise", "seed")}
    assert told == {
        "out": str(path), "law": "besiroglu2024", "family": "hoffmann", "design": "isoflop", "runs": 12,
        "noise": 1e-3, "seed": 5,
    }  # fmt: skip
    table = read_runs(path, find_family("gamma"))
    assert len(table) == 12
    assert table.sha256 == answer["sha256"]
    assert answer["columns"]["L"] == {"low": min(table.columns["L"]), "high": max(table.columns["L"])}


def test_a_distillation_law_is_the_default(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    path = tmp_path / "runs.csv"
    answer = simulated(capsys, "--design", "capacity-gap", "--runs", "9", "--out", str(path))
    assert list(answer["columns"]) == ["N_S", "D_S", "N_T", "D_T", "L_T", "L_S"]
    assert len(read_runs(path, find_family("distillation"))) == 9


def test_the_human_rendering(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    path = tmp_path / "runs.csv"
    assert main(["simulate", *WORDS, "--out", str(path)]) == 0
    out, err = capsys.readouterr()
    assert err == ""
    first, *_, last = out.splitlines()
    assert first == "12 simulated runs of besiroglu2024, design isoflop, noise 0.001, seed 5"
    assert last == f"written to {path}"


def test_all_faults_are_told_at_once(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    path = tmp_path / "runs.xls"
    path.write_text("old", "utf-8")
    lines = refused(
        capsys,
        "--law",
        "besiroglu",
        "--design",
        "line",
        "--runs",
        "1.5",
        "--noise",
        "-1",
        "--seed",
        "-5",
        "--out",
        str(path),
    )
    for line, part in zip(
        lines,
        (
            "no law 'besiroglu'; did you mean besiroglu2024?",
            "--runs is 1.5; it must be a whole number",
            "no design 'line'; it must be one of isoflop, grid, fixed-ratio, student-isoflop",
            "--noise is '-1'; it must be 0 or a positive number",
            "--seed is -5; it must be 0 or greater",
            "its suffix must say what to write: .csv, .jsonl or .parquet",
            f"--out {path} exists; name another file, or replace it with --force",
        ),
        strict=True,
    ):
        assert part in line
    assert path.read_text("utf-8") == "old"


def test_a_design_of_the_other_kind_writes_nothing(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    path = tmp_path / "runs.csv"
    (line,) = refused(capsys, *WORDS, "--design", "capacity-gap", "--out", str(path))
    assert "is of distillation laws, and besiroglu2024 is a law of D, N; use one of isoflop" in line
    assert not path.exists()


def test_a_file_is_replaced_only_by_force(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    path = tmp_path / "runs.csv"
    simulated(capsys, *WORDS, "--out", str(path))
    (line,) = refused(capsys, *WORDS, "--out", str(path))
    assert line.endswith("exists; name another file, or replace it with --force")
    again = simulated(capsys, *WORDS, "--runs", "7", "--out", str(path), "--force")
    assert again["runs"] == 7
    folder = tmp_path / "folder.csv"
    folder.mkdir()
    (line,) = refused(capsys, *WORDS, "--out", str(folder), "--force")
    assert line.endswith("is a folder; name a file")
