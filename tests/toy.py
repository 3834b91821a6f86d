"""A lesson small enough to be trained in a test, or in a process that a test kills.

The student and the teacher are two random maps from tokens to states to logits; the student's adapter (with dropout)
and the projector are trained. As a program it trains in a folder and may kill itself:

    python tests/toy.py FOLDER [--resume] [--steps 12] [--every 5] [--kill-after 7] [--signal SIGKILL]
"""

from __future__ import annotations

import argparse
import os
import signal
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, nn

from tutelage.objectives.logits import DeferredLogits, Head
from tutelage.objectives.objective import Objective
from tutelage.objectives.signal import Signal
from tutelage.objectives.terms import LayerPair, Term
from tutelage.teachers.live import LiveTeacher
from tutelage.training.optimisation import Optimisation
from tutelage.training.step import Lesson

VOCABULARY = 11
STUDENT_WIDTH, TEACHER_WIDTH = 6, 8
SAMPLES = 14
TERMS = (Term("cross_entropy", 1.0), Term("kl", 0.5, temperature=2.0), Term("angle", 0.3))
PAIRS = (LayerPair(1, 1),)


@dataclass(frozen=True)
class ToyBatch:
    """Token ids, labels and the mask of supervised positions."""

    inputs_BT: Tensor
    labels_BT: Tensor
    keep_BT: Tensor


class ToyModel(nn.Module):
    """Frozen embedding, block and head, and where `rank` is above 0 a trainable low-rank adapter beside the block.

    In training its logits are deferred, as a student's are.
    """

    def __init__(self, width: int, seed: int, rank: int = 0, dropout: float = 0.0) -> None:
        super().__init__()
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            self.embed = nn.Embedding(VOCABULARY, width)
            self.block = nn.Linear(width, width)
            self.head = nn.Linear(width, VOCABULARY)
            self.requires_grad_(False)
            self.dropout = nn.Dropout(dropout)
            self.adapter = (
                nn.Sequential(nn.Linear(width, rank, bias=False), nn.Linear(rank, width, bias=False)) if rank else None
            )

    def forward(self, inputs_BT: Tensor) -> Signal:
        x_BTH = self.embed(inputs_BT)
        h_BTH = self.block(x_BTH)
        if self.adapter is not None:
            h_BTH = h_BTH + self.adapter(self.dropout(x_BTH))
        h_BTH = torch.tanh(h_BTH)
        scores = DeferredLogits(h_BTH, Head.of(self.head, VOCABULARY))
        return Signal(scores if self.training else scores.made(), {0: x_BTH, 1: h_BTH})


class ToySampler:
    """Walks through the samples in a new order every epoch."""

    def __init__(self, batch_size: int, seed: int = 0) -> None:
        self.batch_size, self.seed, self.drawn = batch_size, seed, 0

    def next_batch(self) -> list[int]:
        found = []
        while len(found) < self.batch_size:
            epoch, position = divmod(self.drawn, SAMPLES)
            order = torch.randperm(SAMPLES, generator=torch.Generator().manual_seed(self.seed + epoch))
            found.append(int(order[position]))
            self.drawn += 1
        return found

    def state_dict(self) -> dict[str, int]:
        return {"drawn": self.drawn}

    def load_state_dict(self, state: dict[str, int]) -> None:
        self.drawn = state["drawn"]


def make_batch(indices: Sequence[int]) -> ToyBatch:
    """Samples of 2 to 6 tokens, padded; the first position of each is a prompt and not supervised."""
    lengths = [2 + index % 5 for index in indices]
    inputs = torch.zeros(len(lengths), max(lengths), dtype=torch.long)
    labels, keep = torch.zeros_like(inputs), torch.zeros_like(inputs, dtype=torch.bool)
    for row, (index, length) in enumerate(zip(indices, lengths, strict=True)):
        tokens = torch.randint(VOCABULARY, (length + 1,), generator=torch.Generator().manual_seed(index))
        inputs[row, :length], labels[row, :length] = tokens[:-1], tokens[1:]
        keep[row, 1:length] = True
    return ToyBatch(inputs, labels, keep)


def toy_lesson(dropout: float = 0.0, terms: Sequence[Term] = TERMS, dtype: torch.dtype = torch.float32) -> Lesson:
    """A fresh lesson; the same numbers every time."""
    student = ToyModel(STUDENT_WIDTH, seed=1, rank=2, dropout=dropout).to(dtype)
    teacher = ToyModel(TEACHER_WIDTH, seed=2).to(dtype)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(3)
        projectors = {pair.name: nn.Linear(STUDENT_WIDTH, TEACHER_WIDTH).to(dtype) for pair in PAIRS}
    live = LiveTeacher(teacher, (1,), lambda model, batch, layers: model(batch.inputs_BT))
    return Lesson(student, projectors, Objective(terms, PAIRS), lambda batch: student(batch.inputs_BT), live.signal)


def toy_settings(**changes: object) -> Optimisation:
    """Twelve steps of two micro-batches of three samples."""
    defaults = {"steps": 12, "batch_size": 3, "accumulate": 2, "learning_rate": 0.05, "warmup_steps": 2}
    return Optimisation(**{**defaults, "checkpoint_every": 5, "threads": 1, **changes})


def main() -> int:
    from tutelage.errors import TutelageError
    from tutelage.training.device import open_accelerator
    from tutelage.training.loop import Keeping, Stream, Watch, train

    parser = argparse.ArgumentParser()
    parser.add_argument("folder", type=Path)
    parser.add_argument("--resume", action="store_true")
    parser.add_argument("--steps", type=int, default=12)
    parser.add_argument("--every", type=int, default=5)
    parser.add_argument("--kill-after", type=int)
    parser.add_argument("--signal", default="SIGKILL")
    arguments = parser.parse_args()
    settings = toy_settings(steps=arguments.steps, checkpoint_every=arguments.every)

    def on_step(report) -> None:
        if report.step == arguments.kill_after:
            os.kill(os.getpid(), signal.Signals[arguments.signal])

    keeping = Keeping(arguments.folder, {"steps": arguments.steps}, arguments.resume, "tutelage distil --resume")
    stream = Stream(ToySampler(settings.batch_size), make_batch)
    try:
        train(toy_lesson(0.3), stream, settings, keeping, open_accelerator("cpu"), 7, Watch(on_step=on_step))
    except TutelageError as error:
        sys.stdout.write(f"{error}\n")
        return error.exit_code
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
