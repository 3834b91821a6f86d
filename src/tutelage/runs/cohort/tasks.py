"""What a cohort needs of a task: its classrooms' members, as one table of functions a task.

Does not cover what the functions do (`speech.members`, `text.members`).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from tutelage.runs.speech import members as speech
from tutelage.runs.speech.voting import vote_speech
from tutelage.runs.text import members as text


@dataclass(frozen=True)
class CohortTask:
    """A task's part of a cohort; a room is that task's classroom.

    Args:
        enrol: (room, recipe) to a member's room.
        teach: (rooms, objective) to the signal that serves all.
        columns: (room) to what each training sample can be selected by.
        spread: (room, times of the samples) to the times of what batches refer to.
        join: (rooms by name) to a room whose student is their average.
        save: (room, folder) writes a member's adapter.
        cost: (room, tokens) to the FLOPs of a member's training.
        lines: (verdict) to JSON lines.
        outputs_name: The file that the lines go into.
        vote: (a member's room, verdicts, ensemble's verdict) to the verdict on the transcripts that the members agree
            on, or None of too few; None where nothing is transcribed.
        recall: (members' rooms, attempt) to what answers a batch for the blocks that all leave frozen, or None; None
            where no recipe of the task asks for it.
    """

    enrol: Callable[[Any, Any], Any]
    teach: Callable[..., Any]
    columns: Callable[[Any], Any]
    spread: Callable[[Any, list[int] | None], list[int] | None]
    join: Callable[[Any], Any]
    save: Callable[..., None]
    cost: Callable[[Any, float], Any]
    lines: Callable[[Any], list[dict[str, Any]]]
    outputs_name: str
    vote: Callable[[Any, list[Any], Any], Any] | None = None
    recall: Callable[[Any, Any], Any] | None = None


TASKS = {
    "speech": CohortTask(
        speech.enrol_speech,
        speech.teach_speech,
        speech.speech_columns,
        speech.spread_speech,
        speech.join_speech,
        speech.save_speech_member,
        speech.cost_of_speech,
        speech.speech_lines,
        "transcripts.jsonl",
        vote_speech,
    ),
    "text": CohortTask(
        text.enrol_text,
        text.teach_text,
        text.text_columns,
        text.spread_text,
        text.join_text,
        text.save_text_member,
        text.cost_of_text,
        text.text_lines,
        "documents.jsonl",
        recall=text.recall_text,
    ),
}
