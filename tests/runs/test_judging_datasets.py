"""`evaluate`, `export` and `merge` on datasets: the scores of the file, and a run's own data without `--data`."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from tiny import shared_tiny_whisper
from tiny_finished import finished_speech, finished_text
from tiny_run import SENTENCES, write_manifest
from tiny_text import shared_tiny_text
from tiny_text_run import write_documents, write_text_run
from tutelage.cli.main import main
from tutelage.errors import InputError
from tutelage.runs.finished import read_finished
from tutelage.tasks.sources import AudioSource, DatasetSource

QUICK = ["--quiet", "--json"]
CLIPS = 4
SAME = 1e-5
"""Nats per token, of float32 weights after two additions."""


def save(folder: Path, file: Path) -> Path:
    """The rows of a manifest or of documents as a dataset of two splits; recordings as bytes."""
    import datasets

    rows = [json.loads(line) for line in file.read_text(encoding="utf-8").splitlines()]
    columns = {"name": [row["id"] for row in rows], "said": [row["text"] for row in rows]}
    if "audio" in rows[0]:
        columns["sound"] = [{"bytes": (file.parent / row["audio"]).read_bytes(), "path": None} for row in rows]
    made = datasets.Dataset.from_dict(columns)
    if "audio" in rows[0]:
        made = made.cast_column("sound", datasets.Audio(decode=False))
    datasets.DatasetDict({"train": made.select(range(1)), "test": made}).save_to_disk(str(folder))
    return folder


def printed(capsys: pytest.CaptureFixture[str], *words: str) -> dict[str, Any]:
    assert main([*words, *QUICK]) == 0
    document: dict[str, Any] = json.loads(capsys.readouterr().out)
    return document


def test_clips_of_a_dataset_score_as_their_manifest(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    manifest = write_manifest(tmp_path, "held_out.jsonl", list(enumerate(SENTENCES[:CLIPS])))
    save(tmp_path / "clips", manifest)
    monkeypatch.chdir(tmp_path)  # the folder is relative to it
    words = ["evaluate", str(shared_tiny_whisper()), "--language", "es", "--speed", "0", "--data"]
    found = printed(capsys, *words, "{dataset: clips, split: test, audio: sound, text: said, id: name}")
    wanted = printed(capsys, *words, str(manifest))
    assert found["data"] == wanted["data"]
    assert found["models"] == wanted["models"]


def test_documents_of_a_dataset_score_as_their_file(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    _, held_out = write_documents(tmp_path)
    folder = save(tmp_path / "texts", held_out)
    words = ["evaluate", str(shared_tiny_text()), "--task", "text", "--length", "24", "--speed", "0", "--data"]
    found = printed(capsys, *words, f"{{dataset: {folder}, split: test, text: said, id: name}}")
    wanted = printed(capsys, *words, str(held_out))
    assert found["data"] == wanted["data"]
    assert found["models"] == wanted["models"]


def test_faults_of_the_mapping_are_said_with_the_others(capsys: pytest.CaptureFixture[str]) -> None:
    words = ["evaluate", "a", "--speed", "-1", "--task", "text", "--data", "{dataset: x, audio: y, split: 3}"]
    assert main(words) == 2
    said = capsys.readouterr().err
    for part in ("--speed is -1", "--data: audio: unknown key; known here: dataset,", "--data: split: 3 should be"):
        assert said.count(part) == 1, part
    assert main(["evaluate", "a", "--data", "{split: test}"]) == 2
    assert "--data: dataset: this key is required." in capsys.readouterr().err
    assert main(["evaluate", "a", "--data", "{dataset: x"]) == 2
    assert "--data line 1, column 12: not YAML" in capsys.readouterr().err


def judged_on(run: Path, mapping: dict[str, str]) -> Path:
    """The run, as if its held-out data had been this dataset."""
    result = json.loads((run / "result.json").read_bytes())
    result["recipe"]["resolved"]["data"]["held_out"] = mapping
    (run / "result.json").write_text(json.dumps(result))
    return run


def test_an_export_is_compared_on_the_dataset_of_its_run(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run = finished_speech(tmp_path)
    folder = save(tmp_path / "clips", tmp_path / "held_out.jsonl")
    mapping = {"dataset": str(folder), "split": "test", "audio": "sound", "text": "said", "id": "name"}
    words = ["export", str(judged_on(run, mapping)), "--to", "ctranslate2", "--out", str(tmp_path / "out")]
    document = printed(capsys, *words, "--dry-run")
    assert document["compare_on"] == json.loads((run / "result.json").read_bytes())["data"]["held_out"]["sha256"]
    assert [warning["code"] for warning in document["warnings"]] == ["short-window"]
    given = "{dataset: %s, split: train, audio: sound, text: said}"
    assert printed(capsys, *words, "--dry-run", "--data", given % folder)["compare_on"] != document["compare_on"]
    folder.rename(tmp_path / "elsewhere")
    gone = printed(capsys, *words, "--dry-run")["warnings"][-1]
    assert (gone["code"], gone["value"]) == ("not-compared", f"{folder} [test]")
    assert main([*words, "--data", given % folder, *QUICK]) == 2
    assert f"The dataset {folder} cannot be opened" in capsys.readouterr().err


def test_held_out_data_are_those_of_the_runs_task(tmp_path: Path) -> None:
    run = finished_text(tmp_path)
    folder = save(tmp_path / "texts", tmp_path / "held_out.jsonl")
    finished = read_finished(judged_on(run, {"dataset": str(folder), "split": "test", "text": "said"}))
    own = DatasetSource(dataset=str(folder), split="test", text="said")
    assert finished.find_held_out(None) == own
    given = Path(tmp_path / "held_out.jsonl")
    assert finished.find_held_out(given) == given
    nowhere = DatasetSource(dataset=str(folder), split="test", text="sung")
    with pytest.raises(InputError, match="has no column 'sung' for text"):
        finished.find_held_out(nowhere)
    spoken = {"dataset": "clips", "audio": "sound"}
    (tmp_path / "speech").mkdir()
    assert read_finished(judged_on(finished_speech(tmp_path / "speech"), spoken)).held_out == AudioSource(**spoken)


def test_members_are_merged_and_judged_on_the_dataset_of_their_run(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    lora = "layers: 2\n  lora: {rank: 2, targets: [q_proj]}\n  budget_share: 0.5"
    recipe = write_text_run(tmp_path, student=lora, extra="students: 2")
    save(tmp_path / "texts", tmp_path / "held_out.jsonl")
    chosen = ["--set", "data.held_out={dataset: texts, split: test, text: said, id: name}"]
    distill = ["distill", str(recipe), "--out", str(tmp_path / "run"), "--ledger", str(tmp_path / "l.db")]
    result = printed(capsys, *distill, *chosen)
    document = printed(capsys, "merge", str(tmp_path / "run"), "--how", "svd", "--out", str(tmp_path / "merged"))
    assert document["warnings"] == []
    learned, judged = (
        {row["name"]: row["metrics"]["nats_per_token"]["value"] for row in rows}
        for rows in (result["systems"], document["evaluation"]["models"])
    )
    members = [loss for name, loss in learned.items() if name.startswith("member ")]
    assert judged["mean member"] == pytest.approx(sum(members) / len(members), abs=SAME)
