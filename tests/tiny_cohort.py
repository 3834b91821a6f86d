"""Cohorts in miniature: Whisper students on one backbone whose lower block has no adapters, and the same ones alone."""

from __future__ import annotations

import functools

import torch

from tiny import shared_tiny_whisper
from tutelage.objectives.objective import Objective
from tutelage.objectives.terms import LayerPair, Term
from tutelage.students.cohort import share_weights
from tutelage.students.design import Lora
from tutelage.students.lora import add_lora
from tutelage.tasks.speech.forward import decode
from tutelage.teachers.live import LiveTeacher
from tutelage.training.cohort import Cohort
from tutelage.training.cohort_member import Member
from tutelage.training.optimisation import Optimisation
from tutelage.training.step import Lesson

WIDTH = 32
PAIRS = (LayerPair(2, 3), LayerPair(3, 4))
FULL = (Term("cross_entropy"), Term("kl", 1.0, temperature=2.0), Term("angle", 0.5))
PLAIN = (Term("cross_entropy"),)


def settings(**changes: object) -> Optimisation:
    defaults = {"steps": 5, "batch_size": 4, "checkpoint_every": 2, "threads": 1, "learning_rate": 0.01}
    return Optimisation(**{**defaults, **changes})


def load(seed: int = 1, layers: int = 3):
    from transformers import WhisperForConditionalGeneration

    folder = shared_tiny_whisper(seed=seed, decoder_layers=layers)
    return WhisperForConditionalGeneration.from_pretrained(folder).eval()


@functools.cache
def teacher() -> LiveTeacher:
    return LiveTeacher(load(0, 4), tuple(pair.teacher for pair in PAIRS), decode)


def lesson(base, seed: int, terms=FULL, **lora: object) -> Lesson:
    """A student of `base`, which is wrapped, with adapters and projectors drawn from `seed`."""
    design = Lora(**{"rank": 2, "dropout": 0.3, "first_block": 1, **lora})
    student = add_lora(base, design, design.rank, seed)
    objective = Objective(terms, PAIRS if len(terms) > 1 else ())
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        projectors = {pair.name: torch.nn.Linear(WIDTH, WIDTH) for pair in objective.pairs}
    forward = functools.partial(decode, student, layers=objective.student_layers)
    return Lesson(student, projectors, objective, forward, teacher().signal if objective.needs_teacher else None)


DIFFERENCES = (
    {"seed": 3},
    {"seed": 4, "rank": 4},
    {"seed": 5, "terms": PLAIN},
    {"seed": 6, "use_dora": True},
)


def members(count: int = 4, *, times=None, changes=({}, {"learning_rate": 0.003, "clip_norm": 0.1}, {}, {})):
    """Members `a`, `b`, ... that differ as `DIFFERENCES` say, on one backbone; the second has its own schedule."""
    base = load()
    return tuple(
        Member(
            "abcdefgh"[number],
            lesson(share_weights(base), **DIFFERENCES[number % 4]),
            settings(**changes[number % 4]),
            DIFFERENCES[number % 4]["seed"],
            None if times is None else times[number],
        )
        for number in range(count)
    )


def cohort(count: int = 4, **options) -> Cohort:
    share = options.pop("share_prefix", True)
    return Cohort(members(count, **options), teacher().signal, 0, share)


def weights(member: Member) -> dict[str, torch.Tensor]:
    return {name: value.detach().clone() for name, value in member.lesson.trainable().items()}
