"""A tiny random Whisper with adapters, as a lesson, and what to run it with."""

import os
from dataclasses import dataclass

import pytest
import torch

from tiny import shared_tiny_whisper

ENCODER_POSITIONS, WIDTH = 200, 32


@dataclass(frozen=True)
class ClipBatch:
    """What the speech forward pass and a step read of a batch."""

    encoder_BSH: torch.Tensor
    decoder_input_ids_BT: torch.Tensor
    labels_BT: torch.Tensor
    keep_BT: torch.Tensor


def make_clips(indices):
    """Random encoder outputs and transcripts of 3 to 7 tokens; the first two positions are not supervised."""
    lengths = [3 + index % 5 for index in indices]
    inputs = torch.zeros(len(lengths), max(lengths), dtype=torch.long)
    labels, keep = torch.zeros_like(inputs), torch.zeros_like(inputs, dtype=torch.bool)
    states = []
    for row, (index, length) in enumerate(zip(indices, lengths, strict=True)):
        generator = torch.Generator().manual_seed(index)
        states.append(torch.randn(ENCODER_POSITIONS, WIDTH, generator=generator))
        tokens = torch.randint(300, (length + 1,), generator=generator)
        inputs[row, :length], labels[row, :length] = tokens[:-1], tokens[1:]
        keep[row, 2:length] = True
    return ClipBatch(torch.stack(states), inputs, labels, keep)


def _whisper_lesson(dropout=0.0):
    from transformers import WhisperForConditionalGeneration

    from tutelage.objectives.objective import Objective
    from tutelage.objectives.terms import LayerPair, Term
    from tutelage.students.design import Lora
    from tutelage.students.lora import add_lora
    from tutelage.tasks.speech.forward import decode
    from tutelage.teachers.live import LiveTeacher
    from tutelage.training.step import Lesson

    teacher = WhisperForConditionalGeneration.from_pretrained(shared_tiny_whisper())
    student = WhisperForConditionalGeneration.from_pretrained(shared_tiny_whisper(seed=1, decoder_layers=2))
    student = add_lora(student, Lora(rank=2, dropout=dropout), 2, seed=0)
    pairs = (LayerPair(1, 2), LayerPair(2, 4))
    terms = (Term("cross_entropy"), Term("kl", 1.0, temperature=2.0), Term("angle", 0.5))
    objective = Objective(terms, pairs)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(4)
        projectors = {pair.name: torch.nn.Linear(WIDTH, WIDTH) for pair in pairs}
    live = LiveTeacher(teacher, objective.teacher_layers, decode)
    return Lesson(
        student, projectors, objective, lambda batch: decode(student, batch, objective.student_layers), live.signal
    )


@pytest.fixture
def whisper_lesson():
    """A function of the adapters' dropout; a fresh lesson of the same numbers at every call."""
    return _whisper_lesson


@pytest.fixture
def no_fsync(monkeypatch):
    """Do not wait for the disk: a kill, unlike a power cut, loses no byte that was written."""
    monkeypatch.setattr(os, "fsync", lambda descriptor: None)


@pytest.fixture
def clips():
    """A function of indices that makes a batch for `whisper_lesson`."""
    return make_clips
