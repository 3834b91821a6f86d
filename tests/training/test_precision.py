"""Mixed precision bf16, one step on a CPU: losses and weights stay float32. (Not measured on a GPU.)"""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from tiny_text_run import write_text_run
from toy import make_batch, toy_lesson
from tutelage.config import dump_recipe, load_recipe
from tutelage.errors import InputError
from tutelage.runs.attempt import Attempt
from tutelage.runs.distil import distil
from tutelage.runs.tasks import gather_materials
from tutelage.training import device
from tutelage.training.device import open_accelerator
from tutelage.training.step import Lesson, Stepper

BF16 = 0.02  # relative: a signal of 8 bits of mantissa, over one step
SEEN = {"weights": torch.float32, "gradients": torch.float32, "student": torch.bfloat16}


class Mixed:
    """An accelerator of a GPU, as far as a step asks it, whose device is the CPU."""

    def __init__(self):
        self._inner = open_accelerator("cpu")
        self.device, self.num_processes = self._inner.device, 1
        self.backward, self.reduce = self._inner.backward, self._inner.reduce

    def autocast(self):
        return torch.autocast("cpu", dtype=torch.bfloat16)


def one_step(lesson, batches, process):
    seen = {}

    def forward(batch):
        signal = lesson.student_forward(batch)
        logits = getattr(signal, "logits_BTV", None)
        seen["student"] = logits.dtype
        return signal

    watched = Lesson(lesson.student, lesson.projectors, lesson.objective, forward, lesson.teacher_forward)
    optimizer = torch.optim.SGD(lesson.trainable().values(), lr=0.0)
    report = Stepper(watched, optimizer, 1e9, process).take(1, batches, 0.0, measure_terms=True)
    seen["weights"] = next(iter(lesson.trainable().values())).dtype
    seen["gradients"] = next(iter(lesson.trainable().values())).grad.dtype
    return report, seen


@pytest.mark.parametrize("model", ["toy", "whisper"])
def test_a_step_in_bf16_is_a_float32_step_but_for_the_passes_rounding(whisper_lesson, clips, model):
    def lesson():
        return toy_lesson() if model == "toy" else whisper_lesson()

    batches = [(make_batch if model == "toy" else clips)([0, 1, 3])]
    plain, exact = one_step(lesson(), batches, open_accelerator("cpu"))
    mixed, seen = one_step(lesson(), batches, Mixed())
    assert exact["student"] == torch.float32
    assert seen == SEEN
    assert mixed.total == pytest.approx(plain.total, rel=BF16)
    assert mixed.total != plain.total
    assert mixed.terms == pytest.approx(plain.terms, rel=5 * BF16)
    assert mixed.gradient_norm == pytest.approx(plain.gradient_norm, rel=5 * BF16)


def test_the_recipes_precision_reaches_the_device_and_a_cpu_refuses_it(tmp_path: Path) -> None:
    recipe = load_recipe(write_text_run(tmp_path), ["training.precision=bf16"])
    with pytest.raises(InputError, match="bf16 is refused on a CPU"):
        distil(gather_materials(recipe), Attempt(tmp_path / "run", dump_recipe(recipe), device="cpu"))
    assert not (tmp_path / "run").exists()


def test_processes_wait_for_each_other_while_the_main_one_judges(monkeypatch) -> None:
    asked = {}
    monkeypatch.setattr(device, "Accelerator", lambda **options: asked.update(options))
    open_accelerator("cpu")
    (waiting,) = asked["kwargs_handlers"]
    assert waiting.timeout == device.WAIT
    assert waiting.timeout.total_seconds() == 24 * 3600
