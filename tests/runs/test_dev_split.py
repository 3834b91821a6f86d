"""Runs with a dev split: what is refused, what is judged, and what the result says."""

from __future__ import annotations

import importlib.util
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from run_folders import read_log
from tiny_run import SENTENCES, TRAINED, write_manifest
from tiny_text_run import DEV_TEXTS, write_dev, write_text_run
from tiny_text_run import TRAINED as TRAINED_TEXTS
from tutelage.cli.run_tables import result_lines
from tutelage.config import dump_recipe, load_recipe
from tutelage.errors import InputError
from tutelage.runs.attempt import Attempt
from tutelage.runs.distil import distil
from tutelage.runs.tasks import gather_materials

Write = Callable[..., Path]
STOP = "training.early_stop={every: 2, patience: 1}"
SAME = 1e-6  # relative: the judge of the run and of the dev split sum in another order


def run(recipe: Path, *overrides: str, out: str = "run") -> dict[str, Any]:
    loaded = load_recipe(recipe, overrides)
    path = distil(gather_materials(loaded), Attempt(recipe.parent / out, dump_recipe(loaded), device="cpu"))
    document: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    return document


def dev_lines(folder: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (folder / "dev.jsonl").read_text(encoding="utf-8").splitlines()]


def write_speech(write_recipe: Write, folder: Path, steps: int = 4) -> tuple[Path, str]:
    """A recipe on speech whose held-out clips gave two to a dev split, and that override."""
    recipe = write_recipe(steps=steps)
    numbered = list(enumerate(SENTENCES))
    write_manifest(folder / "data", "held_out.jsonl", numbered[TRAINED:-2])
    write_manifest(folder / "data", "dev.jsonl", numbered[-2:])
    return recipe, "data.dev=data/dev.jsonl"


@pytest.mark.parametrize(
    ("overrides", "fault"),
    [
        ([STOP], "the recipe names no data.dev to judge it on (held-out data decide nothing in training)"),
        (["training.keep_best=true"], "Name data.dev, or leave them out."),
        (["data.dev=x.jsonl"], "data.dev is named and nothing looks at it: add training.early_stop"),
        (["data.dev=x.jsonl", "training.early_stop={every: 2, metric: wer}"], 'metric is "wer", which a run on text'),
        (["data.dev=x.jsonl", "training.early_stop={every: 0}"], "every must be a whole number from 1"),
        (["data.dev=x.jsonl", "training.early_stop={every: 1, metric: bleu}"], "training.early_stop.metric: 'bleu'"),
        (["training.trackers=[visdom]"], "training.trackers.0: 'visdom' should be"),
        (["training.trackers=[wandb, wandb]"], "must name each one once"),
        (["training.precision=fp16"], "training.precision: 'fp16' should be 'no' or 'bf16'"),
    ],
)
def test_settings_that_do_not_fit_are_refused(tmp_path: Path, overrides: list[str], fault: str) -> None:
    with pytest.raises(InputError) as caught:
        load_recipe(write_text_run(tmp_path), overrides)
    assert fault in str(caught.value)


def test_speech_measures_wer_and_needs_a_dev_split_too(write_recipe: Write) -> None:
    wer = "training.early_stop={every: 2, metric: wer}"
    assert load_recipe(write_recipe(), ["data.dev=data/dev.jsonl", wer]).training.dev_checks.metric == "wer"
    with pytest.raises(InputError, match=r"names no data\.dev"):
        load_recipe(write_recipe(), [wer])


def test_documents_that_are_in_another_set_too_are_named_all_at_once(tmp_path: Path) -> None:
    recipe = write_text_run(tmp_path)
    rows = [json.loads(line) for line in (tmp_path / "train.jsonl").read_text().splitlines()]
    rows += [json.loads(line) for line in (tmp_path / "held_out.jsonl").read_text().splitlines()]
    dev = write_dev(tmp_path, (rows[0]["text"].replace(" ", "  "), rows[TRAINED_TEXTS]["text"]))
    with pytest.raises(InputError) as caught:
        gather_materials(load_recipe(recipe, [dev, STOP]))
    learned, held_out = caught.value.faults
    assert learned.startswith("1 documents of data.dev are among the training documents, so what was learned")
    assert "dev0 (also text0)" in learned
    assert held_out.startswith(
        "1 documents of data.dev are among the held-out documents, so the result would be chosen"
    )
    assert f"dev1 (also text{TRAINED_TEXTS})" in held_out


def test_recordings_that_are_in_another_set_too_are_named_all_at_once(write_recipe: Write, tmp_path: Path) -> None:
    recipe, dev = write_speech(write_recipe, tmp_path)
    write_manifest(tmp_path / "data", "dev.jsonl", [(0, SENTENCES[0]), (TRAINED, SENTENCES[TRAINED])])
    with pytest.raises(InputError) as caught:
        gather_materials(load_recipe(recipe, [dev, STOP]))
    learned, held_out = caught.value.faults
    assert learned.startswith("1 recordings of data.dev are among the training recordings")
    assert "tone0 (also tone0)" in learned
    assert held_out.startswith("1 recordings of data.dev are among the held-out recordings")


def test_a_missing_dev_split_is_bad_input(tmp_path: Path, write_recipe: Write) -> None:
    with pytest.raises(InputError, match=r"dev\.jsonl"):
        gather_materials(load_recipe(write_text_run(tmp_path), ["data.dev=dev.jsonl", STOP]))
    with pytest.raises(InputError, match=r"no\.jsonl"):
        gather_materials(load_recipe(write_recipe(), ["data.dev=no.jsonl", STOP]))


def test_a_tracker_that_is_not_installed_is_bad_input(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    recipe = load_recipe(write_text_run(tmp_path), ["training.trackers=[wandb]"])
    monkeypatch.setattr(importlib.util, "find_spec", lambda _name: None)
    with pytest.raises(InputError, match=r"training\.trackers names wandb, not installed here"):
        gather_materials(recipe)


def test_a_run_is_identified_by_what_its_dev_split_holds(tmp_path: Path) -> None:
    recipe = write_text_run(tmp_path)
    plain = gather_materials(load_recipe(recipe)).recipe_hash
    assert "dev" not in gather_materials(load_recipe(recipe)).identity["data"]
    assert gather_materials(load_recipe(recipe, ["training.trackers=[tensorboard]"])).recipe_hash == plain
    dev = write_dev(tmp_path)
    first = gather_materials(load_recipe(recipe, [dev, STOP])).recipe_hash
    write_dev(tmp_path, DEV_TEXTS[:1])
    second = gather_materials(load_recipe(recipe, [dev, STOP])).recipe_hash
    assert len({plain, first, second}) == 3


def test_a_text_run_keeps_its_best_step_and_counts_its_tokens(tmp_path: Path) -> None:
    """A learning rate that is far too high: the loss rises, so the run stops and goes back."""
    recipe = write_text_run(tmp_path, steps=12)
    dev = write_dev(tmp_path)
    rate = ["training.learning_rate=3.0", "training.clip_norm=100"]
    result = run(recipe, dev, STOP, "training.keep_best=true", *rate, "training.trackers=[tensorboard]")
    training, lines = result["training"], dev_lines(tmp_path / "run")
    best = min(lines, key=lambda line: line["value"])
    assert training["best"] == best
    assert training["kept_step"] == best["step"] < training["steps"] < 12
    assert training["stopped_early"] is True
    assert training["steps"] == lines[-1]["step"]
    said = f"Stopped early at step {training['steps']} of 12, kept step {best['step']}: the loss on the dev split"
    for shown in ((tmp_path / "run/student/README.md").read_text(), "\n".join(result_lines(result))):
        assert shown.count(said) == 1
    assert all(line["low"] <= line["value"] <= line["high"] for line in lines)
    positions = [line["positions"] for line in read_log(tmp_path / "run")]
    assert training["supervised_tokens"] == sum(positions)  # what was paid for
    assert result["law"]["D_S"] == sum(positions[: best["step"]])  # what the judged weights saw
    assert list((tmp_path / "run/tensorboard").iterdir())
    (best_file,) = (tmp_path / "run/checkpoints").glob("step-*/best.safetensors")
    exported, kept = load_file(tmp_path / "run/student/model.safetensors"), load_file(best_file)
    assert kept
    assert all(torch.equal(exported[name.removeprefix("student.")], tensor) for name, tensor in kept.items())


def test_dev_loss_is_the_loss_that_the_run_judges_with(tmp_path: Path) -> None:
    """A second run of the same numbers is judged on what the first one had as its dev split."""
    recipe = write_text_run(tmp_path, steps=4)
    dev = write_dev(tmp_path)
    run(recipe, dev, "training.early_stop={every: 4}")
    judged = run(recipe, "data.held_out=dev.jsonl", out="judged")
    last = dev_lines(tmp_path / "run")[-1]
    assert last["step"] == 4
    assert last["value"] == pytest.approx(judged["systems"][-1]["metrics"]["nats_per_token"]["value"], rel=SAME)


@pytest.mark.parametrize("metric", ["wer", "loss"])
def test_a_speech_run_is_judged_on_its_dev_clips_as_on_held_out_ones(
    write_recipe: Write, tmp_path: Path, metric: str
) -> None:
    recipe, dev = write_speech(write_recipe, tmp_path)
    short = ["evaluation.stock_clips=0", "evaluation.speed_clips=0"]
    stop = f"training.early_stop={{every: 2, patience: null, metric: {metric}}}"
    result = run(recipe, dev, stop, *short)
    lines = dev_lines(tmp_path / "run")
    assert [line["step"] for line in lines] == [2, 4]
    assert {line["metric"] for line in lines} == {metric}
    assert result["training"]["best"] == min(lines, key=lambda line: line["value"])
    assert result["training"]["kept_step"] is None
    assert "Trained all 4 steps, kept step 4" in (tmp_path / "run/student/README.md").read_text()
    judged = run(recipe, "data.held_out=data/dev.jsonl", *short, out="judged")
    name = "nats_per_token" if metric == "loss" else "wer"
    assert lines[-1]["value"] == pytest.approx(judged["systems"][-1]["metrics"][name]["value"], rel=SAME)
