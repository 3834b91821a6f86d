"""Why a copy of its teacher leaves the live run beside a cache: Adam takes whole steps along rounding noise.

Covers the cause, isolated: a copied block's alignment has no gradient beside the teacher itself, and one of rounding
alone beside anything that is not equal to it bit by bit. Does not cover reading a cache (`runs/test_text_cache`).
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from accelerate import Accelerator
from torch import Tensor

from tiny_text_run import write_text_run
from tutelage.config import load_recipe
from tutelage.objectives.signal import Signal
from tutelage.runs.attempt import Attempt
from tutelage.runs.tasks import gather_materials
from tutelage.runs.text.classroom import TextClassroom, open_text_classroom
from tutelage.training.step import Stepper

STEPS = 6
FOLLOWS = 2e-3  # relative, of the angle: 1e-3 of a cached run's losses, doubled since SGD's steps are large here
LEAVES = 2e-2  # ten times that
MOVED = 1e-3  # of a frozen weight's mean size: far above the rounding (2^-11 of a state), far below what is learned
NO_STEP = 1e-8  # Adam's epsilon: what is far below it in a gradient moves nothing
A_STEP = 1e-4  # and what is far above it moves a weight by the learning rate
OTHER_KERNEL = 1e-7  # relative: what another order of sums in float32 does to a state
COPY = "layers: 2\n  layer_map: origin\n  lora: {rank: 2, targets: [q_proj, v_proj]}\n  budget_share: 0.9"
OBJECTIVE = "- {kind: kl, temperature: 2.0}\n  - {kind: angle, weight: 0.5}"
Change = Callable[[Tensor], Tensor]


def exact(state: Tensor) -> Tensor:
    return state


def rounded(state: Tensor) -> Tensor:
    """As a cache keeps it."""
    return state.half()


def nudged(state: Tensor) -> Tensor:
    """As another kernel might have it."""
    draws = torch.randn(state.shape, generator=torch.Generator().manual_seed(1))
    return state * (1 + OTHER_KERNEL * draws)


def classroom(folder: Path, moved: float = 0.0) -> TextClassroom:
    """A student whose first block is its teacher's, or nearly."""
    recipe = write_text_run(folder, student=COPY, objective=OBJECTIVE)
    attempt = Attempt(folder / "run", "", device="cpu")
    room = open_text_classroom(gather_materials(load_recipe(recipe)), Accelerator(cpu=True), attempt)
    generator = torch.Generator().manual_seed(3)
    with torch.no_grad():
        for name, weight in room.assembly.model.named_parameters():
            if ".layers.0." in name and not weight.requires_grad:
                weight.add_(moved * weight.abs().mean() * torch.randn(weight.shape, generator=generator))
    return room


def train(
    room: TextClassroom, change: Change, optimiser: type[torch.optim.Optimizer] = torch.optim.AdamW, rate: float = 1e-2
) -> tuple[list[float], dict[str, float]]:
    """The angle at each step, and the first step's gradient of what is trained, as the largest entry."""
    live = room.lesson.teacher_forward
    assert live is not None

    def teach(batch: object) -> Signal:
        signal = live(batch)  # type: ignore[arg-type]
        return Signal(signal.scores, {layer: change(state) for layer, state in signal.states.items()})

    lesson = dataclasses.replace(room.lesson, teacher_forward=teach)
    lesson.set_training(True)
    trainable = lesson.trainable()
    stepper = Stepper(lesson, optimiser(trainable.values(), lr=rate), 1e9, room.accelerator)  # type: ignore[call-arg]
    stream, angles, first = room.stream(), [], {}
    for step in range(1, STEPS + 1):
        report = stepper.take(step, [stream.make_batch(stream.sampler.next_batch())], rate)
        angles.append(report.terms["angle"])
        if step == 1:
            first = {name: float(one.grad.abs().max()) for name, one in trainable.items() if one.grad is not None}
    return angles, first


def furthest(folder: Path, change: Change, moved: float = 0.0, **how: object) -> float:
    """How far the angle goes from the live run's, relative."""
    live, _ = train(classroom(folder, moved), exact, **how)  # type: ignore[arg-type]
    other, _ = train(classroom(folder, moved), change, **how)  # type: ignore[arg-type]
    return max(abs(found / wanted - 1) for found, wanted in zip(other, live, strict=True))


def test_a_copied_blocks_projector_is_moved_by_rounding_alone(tmp_path: Path) -> None:
    name = "projector.1-1.weight"
    gradients = {how: train(classroom(tmp_path), how)[1][name] for how in (exact, rounded, nudged)}
    assert gradients[exact] < NO_STEP
    assert gradients[rounded] > A_STEP
    assert gradients[nudged] > A_STEP


@pytest.mark.parametrize("change", [rounded, nudged])
def test_adam_takes_whole_steps_along_it_however_small_it_is(tmp_path: Path, change: Change) -> None:
    """So no precision of a cache would help: a float32 one made in other batches leaves the live run as well."""
    assert furthest(tmp_path, change) > LEAVES


def test_plain_gradient_steps_follow_the_live_run(tmp_path: Path) -> None:
    assert furthest(tmp_path, rounded, optimiser=torch.optim.SGD, rate=0.1) < FOLLOWS


def test_a_student_that_is_nearly_a_copy_follows_the_live_run(tmp_path: Path) -> None:
    assert furthest(tmp_path, rounded, moved=MOVED) < FOLLOWS
