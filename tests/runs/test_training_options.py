"""Options of `training` and schedules of terms, from a recipe to the log of a run."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from run_folders import read_log
from tiny_text_run import write_text_run
from tutelage.config import dump_recipe, load_recipe
from tutelage.runs.attempt import Attempt
from tutelage.runs.distil import distil
from tutelage.runs.tasks import gather_materials

SAME = 1e-5  # relative: float32 sums in another order


def log_of(folder: Path, out: str, *overrides: str, objective: str = "- {kind: kl}") -> list[dict[str, Any]]:
    recipe = load_recipe(write_text_run(folder, steps=2, objective=objective), overrides)
    distil(gather_materials(recipe), Attempt(folder / out, dump_recipe(recipe), device="cpu"))
    return read_log(folder / out)


def test_weights_change_by_stages_and_along_a_line(tmp_path: Path) -> None:
    objective = """- {kind: kl, weight: 0.8, schedule: {kind: stages, stages: [[0, 1.0], [2, 0.5], [3, 0]]}}
  - {kind: reverse_kl, weight: 0.4, schedule: {kind: linear, start: 0, end: 1, from_step: 1, to_step: 3}}"""
    lines = log_of(tmp_path, "run", "training.steps=4", objective=objective)
    assert [line["weights"]["kl"] for line in lines] == pytest.approx([0.8, 0.8, 0.4, 0.0])
    assert [line["weights"]["reverse_kl"] for line in lines] == pytest.approx([0.0, 0.0, 0.2, 0.4])
    for line in lines:
        weighted = sum(line["weights"][name] * line["terms"][name] for name in line["terms"])
        assert line["total"] == pytest.approx(weighted, rel=SAME)


def test_accumulating_two_micro_batches_is_a_batch_of_twice_the_size(tmp_path: Path) -> None:
    twice = log_of(tmp_path, "twice", "training.accumulate=2")
    once = log_of(tmp_path, "once", "training.batch_size=4")
    for one, other in zip(twice, once, strict=True):
        assert one["positions"] == other["positions"]
        assert one["total"] == pytest.approx(other["total"], rel=SAME)
        assert one["gradient_norm"] == pytest.approx(other["gradient_norm"], rel=SAME)


def test_recomputing_activations_changes_no_number_and_clipping_the_step(tmp_path: Path) -> None:
    plain = log_of(tmp_path, "plain")
    recomputed = log_of(tmp_path, "recomputed", "training.gradient_checkpointing=true")
    assert [line["total"] for line in recomputed] == pytest.approx([line["total"] for line in plain], rel=SAME)
    clipped = log_of(tmp_path, "clipped", "training.clip_norm=1e-9")  # AdamW's eps then decides the step
    assert clipped[0]["gradient_norm"] == pytest.approx(
        plain[0]["gradient_norm"], rel=SAME
    )  # as it was before the clip
    assert clipped[1]["total"] != pytest.approx(plain[1]["total"], rel=SAME)
