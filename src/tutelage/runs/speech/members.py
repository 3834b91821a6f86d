"""Members of a cohort on speech: a classroom each, on the backbone, the clips and the teachers of one.

Covers building them, the signal that serves all, and the members as one model. Does not cover training (`runs.cohort`).
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from tutelage.objectives.objective import Objective
from tutelage.objectives.signal import Signal
from tutelage.runs.caching import require_blocks
from tutelage.runs.cost import TrainingCost
from tutelage.runs.speech.assembly import Outline, assemble, count_trained
from tutelage.runs.speech.classroom import SpeechClassroom
from tutelage.runs.speech.cost import count_training
from tutelage.runs.speech.lesson import make_lesson
from tutelage.runs.speech.recipe import SpeechRecipe
from tutelage.students.cohort import share_weights
from tutelage.students.export import AdapterBase, save_adapter
from tutelage.tasks.speech.batch import SpeechBatch
from tutelage.teachers.committee import PROBABILITY_AVERAGE
from tutelage.teachers.ensemble import Ensemble, Voice


def enrol_speech(room: SpeechClassroom, recipe: SpeechRecipe) -> SpeechClassroom:
    """A classroom for one member.

    Args:
        room: Of the cohort: its outline's student has no adapters.
        recipe: The member's own.

    Raises:
        InputError: The member's design does not fit, or it compares states that a cached teacher does not have.
    """
    outline = outline_member(room.assembly.outline, recipe, copied=room.materials.student is None)
    student = dataclasses.replace(outline.student, model=share_weights(outline.student.model))
    assembly = assemble(recipe, dataclasses.replace(outline, student=student))
    teacher = None
    if assembly.objective.needs_teacher:
        teacher = room.hearing.teach(recipe.teacher, assembly.objective)
        if room.cached is not None:
            require_blocks(room.cached, assembly.objective, recipe)
    return dataclasses.replace(
        room,
        materials=dataclasses.replace(room.materials, recipe=recipe),
        assembly=assembly,
        teacher=teacher,
        lesson=make_lesson(assembly, None if teacher is None else room.cached or teacher),
    )


def outline_member(outline: Outline, recipe: SpeechRecipe, *, copied: bool) -> Outline:
    """The outline of the cohort with the layer map, ranks and budget of one member; its student is still shared.

    Args:
        outline: Of the cohort.
        recipe: The member's own.
        copied: Whether the student is a copy of the leading teacher.
    """
    pairs, budget, adapted, pass_flops = count_trained(
        recipe, outline.student, outline.stock, outline.budget.teacher_params, copied=copied
    )
    return dataclasses.replace(outline, pairs=pairs, budget=budget, adapted=adapted, pass_flops=pass_flops)


def teach_speech(
    rooms: Sequence[SpeechClassroom], objective: Objective | None
) -> Callable[[SpeechBatch], Signal] | None:
    """The signal that serves every member: the teachers', with the states that any of them compares."""
    if objective is None:
        return None
    if rooms[0].cached is not None:
        return rooms[0].cached.signal
    return rooms[0].hearing.teach(rooms[0].recipe.teacher, objective).signal


def speech_columns(room: SpeechClassroom) -> list[Mapping[str, str]]:
    """What every training clip can be selected by."""
    return [clip.selectable for clip in room.materials.train.utterances]


def spread_speech(room: SpeechClassroom, times: list[int] | None) -> list[int] | None:
    """How often a member takes what batches refer to: every copy of an augmented clip as often as the clip."""
    drawn = getattr(getattr(room, "training", None), "drawn", None)  # None where clips are heard as they are
    return times if times is None or drawn is None else [times[heard.clip] for heard in drawn.heard]


def join_speech(rooms: Mapping[str, SpeechClassroom]) -> SpeechClassroom:
    """A classroom whose student is the members' average: of their probabilities, token by token."""
    first = next(iter(rooms.values()))
    voices = {name: Voice(room.assembly.peft_model) for name, room in rooms.items()}
    student = first.assembly.outline.student.model
    ensemble = Ensemble(voices, student.config, student.generation_config, PROBABILITY_AVERAGE)
    together = dataclasses.replace(first.assembly, peft_model=ensemble.eval())
    return dataclasses.replace(first, assembly=together)


def save_speech_member(room: SpeechClassroom, out: Path) -> None:
    """A member's adapter as a PEFT folder."""
    source, student = room.materials.student or room.materials.teacher, room.assembly.outline.student
    base = AdapterBase(source.reference, source.revision, student.origins, student.speech.window_seconds)
    save_adapter(room.assembly.peft_model, out, base)


def cost_of_speech(room: SpeechClassroom, tokens: float) -> TrainingCost:
    """FLOPs of a member's training, from its tokens: as many clips of the mean length as hold them."""
    training, clips = room.recipe.training, room.train.text_ids
    mean = sum(len(ids) + 1 for ids in clips.values()) / len(clips)
    return count_training(
        room.assembly.outline,
        [round(mean) + len(room.codec.prompt) - 1] * round(tokens / mean),
        len(clips),
        live_teacher=room.teacher is not None and room.cached is None,
        passes=training.steps * training.accumulate,
    )


def speech_lines(verdict: Any) -> list[dict[str, Any]]:
    """What a member wrote, clip by clip."""
    return [
        {"id": one.id, "group": one.group, "reference": one.raw.reference, "transcript": one.raw.hypothesis}
        for one in verdict.score.utterances
    ]
