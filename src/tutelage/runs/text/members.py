"""Members of a cohort on text: a classroom each, on the backbone, the rows and the teacher of one.

Covers building them, the signal that serves all, and the members as one model. Does not cover training (`runs.cohort`).
"""

from __future__ import annotations

import dataclasses
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from tutelage.models.load import count_params
from tutelage.objectives.objective import Objective
from tutelage.objectives.signal import Signal
from tutelage.runs.attempt import Attempt
from tutelage.runs.caching import require_blocks
from tutelage.runs.cost import TrainingCost
from tutelage.runs.text.assembly import TextOutline, assemble, count_trained
from tutelage.runs.text.classroom import TextClassroom, make_lesson
from tutelage.runs.text.cost import count_training
from tutelage.runs.text.frozen_blocks import open_block_cache
from tutelage.runs.text.recipe import TextRecipe
from tutelage.students.cohort import share_weights
from tutelage.students.export import TextAdapterBase, save_adapter
from tutelage.tasks.text.batch import TextBatch
from tutelage.teachers.committee import PROBABILITY_AVERAGE
from tutelage.teachers.ensemble import Ensemble, Voice


def enrol_text(room: TextClassroom, recipe: TextRecipe) -> TextClassroom:
    """A classroom for one member.

    Args:
        room: Of the cohort: its outline's student has no adapters.
        recipe: The member's own.

    Raises:
        InputError: The member's design does not fit, or it compares states that a cached teacher does not have.
    """
    outline = outline_text_member(room.assembly.outline, recipe, copied=room.materials.student is None)
    student = dataclasses.replace(outline.student, model=share_weights(outline.student.model))
    assembly = assemble(recipe, dataclasses.replace(outline, student=student))
    teacher = None
    if assembly.objective.needs_teacher and recipe.teacher is not None:
        teacher = room.classes.teach(recipe.teacher, assembly.objective)
        if room.cached is not None:
            require_blocks(room.cached, assembly.objective, recipe)
    return dataclasses.replace(
        room,
        materials=dataclasses.replace(room.materials, recipe=recipe),
        assembly=assembly,
        teacher=teacher,
        lesson=make_lesson(assembly, None if teacher is None else room.cached or teacher),
    )


def outline_text_member(outline: TextOutline, recipe: TextRecipe, *, copied: bool) -> TextOutline:
    """The outline of the cohort with the layer map, ranks and budget of one member; its student is still shared.

    Args:
        outline: Of the cohort.
        recipe: The member's own.
        copied: Whether the student is a copy of the teacher.
    """
    largest = max(count_params(one.model) for one in outline.teachers.values() or [outline.student])
    pairs, projector_params, budget, adapted, pass_flops = count_trained(
        recipe, outline.student, outline.teacher, outline.origins if copied else None, largest
    )
    return dataclasses.replace(
        outline, pairs=pairs, projector_params=projector_params, budget=budget, adapted=adapted, pass_flops=pass_flops
    )


def teach_text(rooms: Sequence[TextClassroom], objective: Objective | None) -> Callable[[TextBatch], Signal] | None:
    """The signal that serves every member: the teacher's, with the states that any of them compares."""
    room = rooms[0]
    if objective is None or room.recipe.teacher is None:
        return None
    if room.cached is not None:
        return room.cached.signal
    return room.classes.teach(room.recipe.teacher, objective).signal


def recall_text(rooms: Sequence[TextClassroom], attempt: Attempt) -> Callable[[TextBatch], tuple[Any, ...]] | None:
    """What answers for the blocks that every member leaves frozen; None where they are run.

    Raises:
        InputError: Their outputs cannot be kept.
    """
    room = rooms[0]
    if not room.recipe.student.cache_prefix:
        return None
    assemblies = [one.assembly for one in rooms]
    return open_block_cache(room.recipe, assemblies, room.train, room.accelerator, attempt).outputs


def text_columns(room: TextClassroom) -> list[Mapping[str, str]]:
    """Nothing: a row holds several documents."""
    return [{}] * len(room.train.examples)


def spread_text(_room: TextClassroom, times: list[int] | None) -> list[int] | None:
    """How often a member takes what batches refer to: the rows themselves."""
    return times


def join_text(rooms: Mapping[str, TextClassroom]) -> TextClassroom:
    """A classroom whose student is the members' average: of their probabilities, token by token."""
    first = next(iter(rooms.values()))
    voices = {name: Voice(room.assembly.model) for name, room in rooms.items()}
    student = first.assembly.outline.student.model
    ensemble = Ensemble(voices, student.config, student.generation_config, PROBABILITY_AVERAGE)
    return dataclasses.replace(first, assembly=dataclasses.replace(first.assembly, model=ensemble.eval()))


def save_text_member(room: TextClassroom, out: Path) -> None:
    """A member's adapter as a PEFT folder."""
    source = room.materials.student or room.materials.teacher
    if source is not None:
        base = TextAdapterBase(source.reference, source.revision, room.assembly.outline.origins or ())
        save_adapter(room.assembly.model, out, base)


def cost_of_text(room: TextClassroom, tokens: float) -> TrainingCost:
    """FLOPs of a member's training, from its tokens: as many rows of the mean length as hold them."""
    training, rows = room.recipe.training, room.train.examples.packed.rows
    supervised = sum(int(row.keep.sum()) for row in rows) / len(rows)
    mean = round(sum(map(len, rows)) / len(rows))
    return count_training(
        room.assembly.outline,
        Counter({mean: round(tokens / supervised)}),
        live_teacher=room.teacher is not None and room.cached is None,
        passes=training.steps * training.accumulate,
    )


def text_lines(verdict: Any) -> list[dict[str, Any]]:
    """What a member makes of every document."""
    return list(verdict.lines())
