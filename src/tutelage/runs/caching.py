"""Targets of a recipe's teacher, whatever the task: what a build would take, building, and opening with every check.

Covers the plan of a cache, final states as a teacher's answer, and a cache in the place of a teacher. Does not cover
samples, teachers and identities (`runs.text.caching`, `runs.speech.caching`), or files (`teachers.target_cache`).
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import nn

from tutelage.errors import InputError
from tutelage.objectives.logits import DeferredLogits, Head
from tutelage.objectives.objective import Objective
from tutelage.objectives.signal import Signal
from tutelage.planning.storage import TeacherCache
from tutelage.records.document import Document
from tutelage.runs.attempt import Attempt
from tutelage.runs.recipe import Recipe
from tutelage.teachers.committee import average_heads
from tutelage.teachers.settings import ALONE, Teacher
from tutelage.teachers.target_cache.build import Forward, build_targets
from tutelage.teachers.target_cache.cache import TargetCache
from tutelage.teachers.target_cache.cached import CachedTeacher
from tutelage.teachers.target_cache.contents import CacheIdentity, CacheSettings, SampleKey

_HALF = 2  # bytes of a float16
_ROW = 240  # bytes of a row's id, hash and Arrow's own


@dataclass(frozen=True)
class CacheCount:
    """A cache that could be built, counted.

    Args:
        name: Of the recipe.
        keys: Every sample.
        identity: Whom the targets would come from.
        positions: Supervised positions of all samples.
        settings: What is kept, blocks among it.
        width: Of the teacher's states.
        vocabulary: Of the teacher.
        finals: Width of what the logits are made of: that of all members of a committee; None is `width`.
    """

    name: str
    keys: Sequence[SampleKey]
    identity: CacheIdentity
    positions: int
    settings: CacheSettings
    width: int
    vocabulary: int
    finals: int | None = None

    @property
    def bytes_per_token(self) -> float:
        """Of the numbers alone; for sampled targets at most this, since equal draws are kept once."""
        settings = self.settings
        kind = "sampled" if settings.sampled else settings.kind
        targets = TeacherCache(kind, settings.size or self.finals or self.width, self.vocabulary)
        return targets.bytes_per_token(self.vocabulary) + _HALF * self.width * len(settings.layers)

    def document(self, name: str, folder: Path, **more: Any) -> Document:
        """The plan, and what was made of it."""
        expected = {
            "rows": len(self.keys),
            "positions": self.positions,
            "bytes_per_token": self.bytes_per_token,
            "bytes": round(self.bytes_per_token * self.positions + _ROW * len(self.keys)),
        }
        body = {
            "recipe": self.name,
            "path": str(folder),
            "contents": {**dataclasses.asdict(self.identity), **self.settings.contents()},
            "expected": expected,
            **more,
        }
        return Document(name, body)

    def build(self, forward: Forward, attempt: Attempt) -> Document:
        """Run the teacher over every sample once; `attempt.out` may hold what an earlier build finished.

        Raises:
            InputError: The folder holds a cache of something else, or cannot be written.
            InterruptedRunError: Ctrl-C; finished shards stay.
        """
        built = build_targets(self.keys, forward, self.identity, self.settings, attempt.out, attempt.progress)
        found = {name: getattr(built, name) for name in ("bytes", "kept", "computed")}
        return self.document("cache", attempt.out, built={**found, "damaged": list(built.damaged)})


def require_kept(settings: CacheSettings, vocabulary: int) -> None:
    """Refuse more classes than there are.

    Raises:
        InputError: With the way out.
    """
    if settings.kind == "topk" and settings.size > vocabulary:
        raise InputError(f"--size is {settings.size}; the teacher has {vocabulary} tokens.")


def final_states(read: Callable[..., Signal], head: Head, last: int) -> Callable[..., Signal]:
    """A pass that answers with the states before the head, which replays them, in the place of logits.

    Args:
        read: The task's own pass: model, batch, blocks.
        head: The model's.
        last: Its last block.
    """

    def final(model: nn.Module, batch: Any, layers: Collection[int]) -> Signal:
        states = read(model, batch, {*layers, last}).states
        return Signal(DeferredLogits(states[last], head), {layer: states[layer] for layer in layers})

    return final


def replaying(heads: Mapping[str, Head], teacher: Teacher) -> Head:
    """What makes logits of the final states that a cache keeps: the teacher's own head, or a committee's of all.

    Args:
        heads: Frozen, by member.
        teacher: The recipe's.
    """
    return average_heads(heads, teacher.space, teacher.shares) if teacher.is_committee else heads[ALONE]


def open_targets(
    folder: Path,
    keys: Sequence[SampleKey],
    identity: CacheIdentity,
    head: Callable[[], Head],
    attempt: Attempt,
) -> CachedTeacher:
    """A cache in the place of a teacher.

    Args:
        folder: The cache.
        keys: Every sample of the run, all of which must be there.
        identity: Whom the targets must come from.
        head: Gives the teacher's frozen head, which replays final states.
        attempt: Told of shards.

    Raises:
        InputError: The cache is of something else (every field that differs is named), or damaged.
    """
    cache = TargetCache.open(folder, identity, progress=attempt.progress)
    cache.require(keys)
    attempt.talk(f"teacher: cached ({cache.kind}, {cache.positions:,} positions); it is not run in training")
    return CachedTeacher(cache, head() if cache.kind == "hidden" else None)


def require_blocks(cached: CachedTeacher, objective: Objective, recipe: Recipe) -> None:
    """Refuse an objective that compares blocks which a cache does not keep.

    Args:
        cached: The open cache.
        objective: Of the student, or of a member of a cohort.
        recipe: Its own; named in the error.

    Raises:
        InputError: With the blocks of both.
    """
    lacking = sorted(set(objective.teacher_layers) - set(cached.layers))
    if lacking:
        raise InputError(
            f"{recipe.name}: teacher.cache keeps the states of blocks {list(cached.layers)}, and the objective "
            f"compares those of {lacking} too (layers); build it for this recipe in another folder."
        )
