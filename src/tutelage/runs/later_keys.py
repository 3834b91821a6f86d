"""Keys that recipes had not once: at their default they say what was said without them.

So they are left out of what identifies a run, and a run of before, or a committed baseline, stays comparable with one
of today. A new key of a recipe gets a row here, and its default never changes after. Nothing here imports torch.
"""

from __future__ import annotations

from typing import Any

LATER: tuple[tuple[str, Any], ...] = (
    ("teacher.adapter", None),
    ("teacher.members", None),
    ("teacher.space", "probability-average"),
    ("teacher.weights", "uniform"),
    ("teacher.states_from", None),
    ("teacher.device", None),
    ("teacher.dtype", "float32"),
    ("student.align", "decoder"),
    ("student.sensitivity_batches", 8),
    ("student.lora.first_block", 0),
    ("student.lora.init", "default"),
    ("student.lora.ranks", {}),
    ("student.lora.use_dora", False),
    ("student.projector.members", 3),
    ("members_step", "auto"),
)
LATER_IN_SPEECH: tuple[tuple[str, Any], ...] = (
    ("student.feedback", False),
    ("student.keep", "spaced"),
    ("teacher.cache", None),
)
"""Text had these before, or has none."""
LATER_IN_TEXT: tuple[tuple[str, Any], ...] = (("student.cache_prefix", False),)
"""Speech has none of these."""


def drop_later(plain: dict[str, Any]) -> None:
    """Remove keys of a resolved recipe, as plain values, that are at the default of before they were."""
    for path, default in (*LATER, *(LATER_IN_SPEECH if plain.get("task") == "speech" else LATER_IN_TEXT)):
        *parents, key = path.split(".")
        place: Any = plain
        for name in parents:
            place = place.get(name) if isinstance(place, dict) else None
        if isinstance(place, dict) and key in place and place[key] == default:
            del place[key]
