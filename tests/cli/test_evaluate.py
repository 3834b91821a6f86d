"""`tutelage evaluate`: its arguments, its faults, its tables."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tiny import shared_tiny_whisper, tiny_whisper
from tiny_run import SENTENCES, write_manifest
from tiny_text import shared_tiny_text, tiny_text
from tiny_text_run import write_documents
from tutelage.cli.main import main

QUICK = ["--speed", "0", "--quiet"]


def test_every_fault_of_the_arguments_is_said_at_once(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "out.json"
    out.write_text("")
    words = ["evaluate", "a", "a", "--data", "x", "--task", "text", "--language", "es", "--system", "=b", "--system"]
    words += ["c=d,,e", "--baseline", "z", "--speed", "-1", "--batch-size", "0", "--seed", "-2", "--out", str(out)]
    assert main(words) == 2
    said = capsys.readouterr().err
    for part in (
        "--speed is -1",
        "--batch-size is 0",
        "--seed is -2",
        "Replace it with --force",
        "--language es belongs to speech",
        "--system =b is not NAME=MODEL",
        "--system c=d,,e is not NAME=MODEL",
        "a is named more than once",
        "The baseline z is none of the systems a, a",
    ):
        assert said.count(part) == 1, part
    assert main(["evaluate", "--data", "x"]) == 2
    assert "There is no model to evaluate" in capsys.readouterr().err


def test_faulty_lines_of_the_data_are_said_with_their_numbers(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    manifest = write_manifest(tmp_path, "held_out.jsonl", list(enumerate(SENTENCES[:2])))
    lines = manifest.read_text().splitlines()
    manifest.write_text("\n".join([*lines, "{", json.dumps({"id": "no audio", "text": "x"})]) + "\n")
    words = ["evaluate", str(shared_tiny_whisper()), "--data", str(manifest), "--language", "es", *QUICK]
    assert main(words) == 2
    said = capsys.readouterr().err
    assert "line 3" in said
    assert "line 4" in said


def test_text_tables(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    _, held_out = write_documents(tmp_path)
    seeds = ",".join(str(tiny_text(tmp_path / f"seed{seed}", seed=seed)) for seed in (1, 2))
    words = ["evaluate", "--system", f"teacher={shared_tiny_text()}", "--system", f"arm={seeds}", "--task", "text"]
    words += ["--data", str(held_out), "--length", "24", "--out", str(tmp_path / "out.json"), *QUICK]
    assert main(words) == 0
    said = capsys.readouterr().out
    for part in (
        "bits/byte",
        "loss and calibration, per token; agreement with teacher",
        "if calibrated",
        "KL from the teacher",
        "runs of one system, by seed",
        "MiB on disk",
        "differences, candidate minus baseline",
        "nats per token",
        "Brier score",
    ):
        assert part in said, part
    assert "WER" not in said
    assert "time on this machine" not in said
    kept = json.loads((tmp_path / "out.json").read_text())
    assert kept["schema"] == {"name": "tutelage.evaluate", "version": 1}
    assert [row["name"] for row in kept["models"]] == ["teacher", "arm"]


@pytest.mark.slow
def test_speech_tables(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    manifest = write_manifest(tmp_path, "held_out.jsonl", list(enumerate(SENTENCES[:3])))
    other = tiny_whisper(tmp_path / "other", seed=1)
    words = ["evaluate", str(shared_tiny_whisper()), "--system", f"other={other}", "--data", str(manifest)]
    assert main([*words, "--language", "es", "--speed", "1", "--quiet"]) == 0
    said = capsys.readouterr().out
    for part in (
        "WER %",
        "capped WER %",
        "loops %",
        "raw characters",
        "substitutions",
        "perplexity",
        "ECE %",
        "agreement %",
        "real-time factor",
        "tokens/s",
        "p99 ms",
        "peak MiB in its own process",
        "points of capped WER",
    ):
        assert part in said, part
    assert "by seed" not in said
