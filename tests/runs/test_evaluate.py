"""Evaluating tiny models of both tasks: agreement, divergence, seeds, runs' folders, time and memory, refusals."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from tiny import shared_tiny_whisper, tiny_whisper
from tiny_finished import finished_text
from tiny_run import SENTENCES, write_manifest
from tiny_text import shared_tiny_text, tiny_text
from tiny_text_run import write_documents
from tutelage.errors import InputError
from tutelage.models.load import load_speech_model
from tutelage.runs.scoreboard import OF_TOKENS
from tutelage.runs.speech.evaluate import COMPARED, Examination, evaluate
from tutelage.runs.speech.examine import OutputsOnce
from tutelage.runs.systems import System, Systems
from tutelage.runs.text.evaluate import TextExamination, evaluate_text
from tutelage.tasks.speech.manifest import read_manifest

ZERO = 1e-6  # nats, of a divergence at equality
CLIPS = 4


def judge_text(folder: Path, *systems: System, **settings: Any) -> dict[str, Any]:
    chosen = {
        "systems": settings.get("systems") or Systems(systems),
        "length": 24,
        "device": "cpu",
        "draws": 100,
        "speed_items": 0,
    }
    document = evaluate_text(TextExamination(documents=folder / "held_out.jsonl", **{**chosen, **settings})).to_dict()
    found: dict[str, Any] = json.loads(json.dumps(document))
    return found


def judge_speech(manifest: Path, *models: Path, **settings: Any) -> dict[str, Any]:
    chosen = {"language": "es", "device": "cpu", "draws": 100, "batch_size": 3, "speed_items": 0}
    systems = Systems.of(*map(str, models))
    document = evaluate(Examination(manifest=manifest, systems=systems, **{**chosen, **settings})).to_dict()
    found: dict[str, Any] = json.loads(json.dumps(document))
    return found


@pytest.fixture
def documents(tmp_path: Path) -> Path:
    write_documents(tmp_path)
    return tmp_path


@pytest.fixture
def manifest(tmp_path: Path) -> Path:
    return write_manifest(tmp_path, "held_out.jsonl", list(enumerate(SENTENCES[:CLIPS])))


def copy(folder: Path, where: Path) -> Path:
    return Path(shutil.copytree(folder, where))


def test_a_model_agrees_with_its_copy_and_not_with_another(documents: Path) -> None:
    teacher = shared_tiny_text()
    names = (str(teacher), str(copy(teacher, documents / "copy")), str(tiny_text(documents / "other", seed=3)))
    body = judge_text(documents, *(System(name, (name,)) for name in names))
    itself, same, other = body["models"]
    assert itself["agreement"] is None
    assert "teacher_kl" not in itself["metrics"]
    assert same["agreement"]["value"] == 1
    assert same["metrics"]["teacher_kl"]["value"] == pytest.approx(0, abs=ZERO)
    assert same["metrics"]["nats_per_token"] == itself["metrics"]["nats_per_token"]
    assert other["agreement"]["value"] < 0.9
    assert other["metrics"]["teacher_kl"]["value"] > 0.01
    undecided = [row["verdict"] for row in body["comparisons"] if row["candidate_name"] == names[1]]
    assert undecided == ["undecided", "undecided"]
    assert [row["metric"] for row in body["comparisons"]] == [*OF_TOKENS, *OF_TOKENS]


def test_another_teacher_and_another_baseline_are_obeyed(documents: Path) -> None:
    one, two = shared_tiny_text(), tiny_text(documents / "two", seed=3)
    body = judge_text(documents, System("one", (str(one),)), System("two", (str(two),)))
    chosen = Systems((System("one", (str(one),)), System("two", (str(two),))), baseline="two", teacher="two")
    other = judge_text(documents, systems=chosen)
    assert [row["name"] for row in other["models"]] == ["one", "two"]
    assert other["models"][0]["agreement"]["value"] == body["models"][1]["agreement"]["value"]
    assert other["models"][1]["agreement"] is None
    there, back = (found["comparisons"][0] for found in (body, other))
    assert (back["baseline_name"], back["candidate_name"]) == ("two", "one")
    assert back["difference"]["value"] == pytest.approx(-there["difference"]["value"])


def test_seeds_named_as_one_system_are_pooled(documents: Path) -> None:
    runs = tuple(str(tiny_text(documents / f"seed{seed}", seed=seed)) for seed in (1, 2, 3))
    body = judge_text(documents, System("arm", runs), System("teacher", (str(shared_tiny_text()),)))
    arm, teacher = body["models"]
    losses = [run["metrics"]["nats_per_token"]["value"] for run in arm["runs"]]
    assert arm["metrics"]["nats_per_token"]["value"] == pytest.approx(np.mean(losses))
    assert "3 seeds" in arm["metrics"]["nats_per_token"]["method"]
    assert body["teacher"] is None  # the first system is no one model
    assert (arm["agreement"], teacher["agreement"]) == (None, None)
    assert "3 seeds" in body["comparisons"][0]["difference"]["method"]


def test_a_run_is_named_by_its_folder(tmp_path: Path) -> None:
    run = finished_text(tmp_path)
    body = judge_text(tmp_path, System("mine", (str(run),)))
    assert body["models"][0]["name"] == "mine"
    assert body["models"][0]["size"]["files"] == len(list((run / "student").iterdir()))
    assert body["models"][0]["peak_memory"] is None
    assert body["timing"] is None


def test_a_teacher_with_another_tokenizer_is_not_agreed_with(documents: Path) -> None:
    other = tiny_text(documents / "other")
    settings = json.loads((other / "tokenizer.json").read_text(encoding="utf-8"))
    settings["model"]["merges"] = settings["model"]["merges"][:10]
    (other / "tokenizer.json").write_text(json.dumps(settings), encoding="utf-8")
    body = judge_text(documents, *(System(name, (name,)) for name in (str(shared_tiny_text()), str(other))))
    assert [row["metric"] for row in body["comparisons"]] == ["bits_per_byte"]
    assert [warning["code"] for warning in body["warnings"]] == ["other-vocabulary", "other-tokens"]
    assert body["models"][1]["agreement"] is None
    assert body["models"][1]["calibration"]["ece"]["value"] is not None


def test_speech_has_errors_by_kind_loss_calibration_and_agreement(manifest: Path, tmp_path: Path) -> None:
    teacher = shared_tiny_whisper()
    models = (teacher, copy(teacher, tmp_path / "copy"), tiny_whisper(tmp_path / "other", seed=1))
    body = judge_speech(manifest, *models)
    itself, same, other = body["models"]
    for row in body["models"]:
        metrics, kinds = row["metrics"], row["kinds"]
        for rate, prefix in (("wer", ""), ("raw_wer", "raw_"), ("cer", "character_"), ("raw_cer", "raw_character_")):
            parts = [kinds[prefix + kind]["value"] for kind in ("substitutions", "deletions", "insertions")]
            assert sum(parts) == pytest.approx(metrics[rate]["value"])
        assert metrics["perplexity"]["value"] == pytest.approx(np.exp(metrics["nats_per_token"]["value"]))
        assert sum(one["count"] for one in row["calibration"]["bins"]) == row["calibration"]["positions"]
    assert itself["agreement"] is None
    assert "teacher_kl" not in itself["metrics"]
    assert same["agreement"]["value"] == 1
    assert same["metrics"]["teacher_kl"]["value"] == pytest.approx(0, abs=ZERO)
    assert other["metrics"]["teacher_kl"]["value"] > 0.01
    assert [row["metric"] for row in body["comparisons"]] == [*COMPARED, *COMPARED]


def test_batches_change_no_score(manifest: Path) -> None:
    one, other = (judge_speech(manifest, shared_tiny_whisper(), batch_size=size)["models"][0] for size in (1, 4))
    for metric in ("wer", "nats_per_token", "brier"):
        assert one["metrics"][metric]["value"] == pytest.approx(other["metrics"][metric]["value"], rel=1e-5)


def test_the_order_of_the_manifest_changes_no_score(tmp_path: Path) -> None:
    manifest = write_manifest(tmp_path, "held_out.jsonl", list(enumerate(SENTENCES)))
    turned = tmp_path / "turned.jsonl"
    turned.write_text("\n".join(reversed(manifest.read_text().splitlines())) + "\n")
    one, other = (judge_speech(path, shared_tiny_whisper())["models"][0] for path in (manifest, turned))
    for metric in ("wer", "cer", "nats_per_token", "brier"):
        for end in ("low", "value", "high"):  # the ends too: every clip's sums are in its own group
            assert one["metrics"][metric][end] == pytest.approx(other["metrics"][metric][end], rel=1e-5)


def test_a_model_with_another_vocabulary_is_judged_without_agreement(manifest: Path, tmp_path: Path) -> None:
    other = tiny_whisper(tmp_path / "other", extra_languages=1)
    body = judge_speech(manifest, shared_tiny_whisper(), other)
    assert [warning["code"] for warning in body["warnings"]] == ["other-vocabulary"]
    assert body["models"][1]["agreement"] is None
    assert [row["metric"] for row in body["comparisons"]] == [*COMPARED]  # the transcripts' tokens are the same


def test_clips_longer_than_a_window_are_refused_before_anything_is_loaded(manifest: Path, tmp_path: Path) -> None:
    short = tiny_whisper(tmp_path / "short", window_seconds=1)
    with pytest.raises(InputError, match="longer than the 1 s window"):
        judge_speech(manifest, shared_tiny_whisper(), short)


def test_outputs_of_the_last_batch_are_not_made_again(manifest: Path) -> None:
    speech = load_speech_model(shared_tiny_whisper())
    clips = read_manifest(manifest).utterances
    outputs = OutputsOnce(clips, speech)
    made_BSH = outputs.encode(clips[:2])
    assert torch.equal(outputs[clips[1].id], made_BSH[1])
    assert outputs[clips[1].id].data_ptr() == made_BSH[1].data_ptr()
    other_SH = outputs[clips[3].id]  # a look at another clip makes it, and lets the batch go
    assert torch.equal(other_SH, outputs.encode(clips[3:4])[0])
    assert (set(outputs), len(outputs)) == ({clip.id for clip in clips}, CLIPS)
    assert "nobody" not in outputs


@pytest.mark.slow
def test_time_and_memory_of_text(documents: Path) -> None:
    names = (str(shared_tiny_text()), str(tiny_text(documents / "small", blocks=1)))
    body = judge_text(documents, *(System(name, (name,)) for name in names), speed_items=2, speed_rounds=2)
    first, second = body["models"]
    assert body["timing"]["items"] == body["timing"]["rounds"] == 2
    assert body["timing"]["baseline"] == names[0]
    assert first["share_of_baseline_time"] is None
    assert second["share_of_baseline_time"]["value"] > 0
    for row in (first, second):
        latency = row["latency"]
        assert latency["p50"]["value"] <= latency["p90"]["value"] <= latency["p99"]["value"]
        assert latency["tokens_per_second"]["value"] > 0
        assert latency["real_time_factor"] is None
        assert row["peak_memory"]["value"] > 50e6  # an interpreter with torch
        assert "process of its own" in row["peak_memory"]["method"]
        assert row["gpu_peak_memory"]["value"] is None
        assert row["size"]["weight_bytes"] < row["size"]["bytes"]


@pytest.mark.slow
def test_time_and_memory_of_speech(manifest: Path) -> None:
    (row,) = judge_speech(manifest, shared_tiny_whisper(), speed_items=2, speed_rounds=1)["models"]
    assert row["latency"]["real_time_factor"]["value"] > 0
    assert row["latency"]["items"] == 2
    assert row["peak_memory"]["value"] > 50e6
