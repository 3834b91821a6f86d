"""Runs train from deferred logits: those of the student, and of a teacher that is asked beside it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from accelerate import Accelerator

from tiny_run import write_run
from tiny_text_run import write_text_run
from tutelage.config import load_recipe
from tutelage.objectives.logits import DeferredLogits
from tutelage.runs.attempt import Attempt
from tutelage.runs.speech.classroom import open_speech_classroom
from tutelage.runs.tasks import gather_materials
from tutelage.runs.text.classroom import open_text_classroom

TASKS = {"text": (write_text_run, open_text_classroom), "speech": (write_run, open_speech_classroom)}


@pytest.mark.parametrize("task", TASKS)
def test_both_signals_are_deferred_and_evaluation_is_not(task: str, tmp_path: Path) -> None:
    write, open_classroom = TASKS[task]
    recipe: Any = load_recipe(write(tmp_path))
    room = open_classroom(gather_materials(recipe), Accelerator(cpu=True), Attempt(tmp_path / "run", "", device="cpu"))
    batch = room.train.batch([0, 1]) if task == "speech" else room.train.examples.batch([0, 1])
    for forward in (room.lesson.student_forward, room.lesson.teacher_forward):
        signal = forward(batch)
        assert isinstance(signal.scores, DeferredLogits)
        assert torch.isfinite(signal.logits_BTV[batch.keep_BT]).all()
