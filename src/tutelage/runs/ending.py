"""When a training that was watched on a dev split ended, and which step's weights were kept, in one sentence.

Covers the sentence, for the terminal, the model card and the report. Does not cover deciding (`training.selection`).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

_METRICS = {"loss": "loss", "wer": "word error rate"}


def describe_ending(training: Mapping[str, Any], planned: int) -> str:
    """The sentence; empty where no dev split was looked at.

    Args:
        training: The part `training` of a result: `steps`, `best` and `kept_step`.
        planned: Steps that the recipe asked for.

    Example:
        >>> best = {"step": 40, "metric": "loss", "value": 3.0}
        >>> describe_ending({"steps": 60, "best": best, "kept_step": 40}, 120)
        'Stopped early at step 60 of 120, kept step 40: the loss on the dev split was lowest at step 40.'
    """
    best, steps = training.get("best"), training["steps"]
    if not best:
        return ""
    ended = f"Stopped early at step {steps} of {planned}" if steps < planned else f"Trained all {planned} steps"
    kept = steps if training["kept_step"] is None else training["kept_step"]
    metric = _METRICS.get(best["metric"], best["metric"])
    return f"{ended}, kept step {kept}: the {metric} on the dev split was lowest at step {best['step']}."
