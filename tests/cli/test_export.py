"""`tutelage export` on a real run: what it prints, and that what it leaves is whole."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tiny_finished import finished_text, hashes
from tiny_run import write_run
from tutelage.cli.main import main

CLIPS = 4  # held out by `write_run`


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("run")
    words = ["distill", str(write_run(folder)), "--out", str(folder / "out"), "--quiet"]
    assert main([*words, "--ledger", str(folder / "ledger.sqlite")]) == 0
    return folder / "out"


@pytest.mark.parametrize(("to", "part"), [("hf", "student"), ("adapter", "adapter")])
def test_a_distilled_run_is_exported(
    run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], to: str, part: str
) -> None:
    out = tmp_path / "out"
    assert main(["export", str(run), "--to", to, "--out", str(out), "--quiet"]) == 0
    assert capsys.readouterr().out.splitlines()[-1] == str(out)
    assert {**hashes(run / part), "export.json": hashes(out)["export.json"]} == hashes(out)


def test_a_distilled_whisper_is_converted_and_compared(
    run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["export", str(run), "--to", "ctranslate2", "--quantization", "int8", "--out", str(tmp_path / "out")]
    assert main([*words, "--json", "--dry-run"]) == 0
    planned = json.loads(capsys.readouterr().out)
    assert planned["schema"]["name"] == "tutelage.export.dry-run"
    assert list(tmp_path.iterdir()) == []
    assert main([*words, "--json", "--quiet"]) == 0
    document = json.loads(capsys.readouterr().out)
    assert document["schema"] == {"name": "tutelage.export", "version": 1}
    assert [warning["code"] for warning in document["warnings"]] == ["short-window"]  # the run's own data, unchanged
    assert document["agreement"]["clips"] == CLIPS
    assert document["compare_on"] == planned["compare_on"]
    assert main([*words, "--quiet"]) == 2
    assert "Replace it with --force" in capsys.readouterr().err
    assert main([*words, "--quiet", "--force"]) == 0
    said = capsys.readouterr()
    assert f"of {CLIPS} transcripts are the student's" in said.out
    assert "points of WER" in said.out
    assert "not compared: beam search" in said.out
    assert "faster-whisper pads" in said.err


def test_a_language_model_is_converted(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = ["--to", "ctranslate2", "--out", str(tmp_path / "out"), "--quiet"]
    assert main(["export", str(finished_text(tmp_path)), *words]) == 0
    said = capsys.readouterr().out
    assert "most likely tokens are the student's (computed in float32)" in said
    assert "nats per token" in said


def test_all_faults_of_an_order_are_said_at_once(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = ["--to", "adapter", "--quantization", "int8", "--samples", "0", "--out", str(tmp_path)]
    assert main(["export", "none", *words]) == 2
    said = capsys.readouterr().err
    assert len(said.splitlines()) == 3
    assert "--quantization int8 belongs to" in said
    assert "--samples is 0" in said
    assert f"{tmp_path} exists. Choose another" in said
