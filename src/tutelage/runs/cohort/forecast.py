"""A dry run of a cohort: every member counted alone, and together what they take.

The teacher and the encoder are counted once, the students each; of memory the frozen weights once. Does not cover
counting a single run (the tasks' `forecast`). Nothing here imports torch by itself.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any

from tutelage.errors import InputError
from tutelage.records.document import Document
from tutelage.runs.cohort.settings import enrol

_TRAINED_BYTES = 4 * 4  # of a trained parameter in float32: itself, its gradient and two moments

Forecast = Callable[[Any], tuple[Document, str]]


def forecast_cohort(materials: Any, forecast_one: Forecast) -> tuple[Document, str]:
    """Count a cohort.

    Args:
        materials: With a recipe that has a cohort.
        forecast_one: Counts a single run.

    Returns:
        The document, and the same for people.

    Raises:
        InputError: The design of some member does not fit, or is over its budget; all members' faults.
    """
    whole, human = forecast_one(materials)
    members, faults, lines = [], [], []
    for one in enrol(materials.recipe):
        try:
            document, _ = forecast_one(dataclasses.replace(materials, recipe=one.recipe))
        except InputError as error:
            faults += [f"member {one.name}: {fault}" for fault in error.faults]
            continue
        body = document.body
        params = body["budget"]["params"] if "budget" in body else body["trained_params"]
        members.append({"name": one.name, "seed": one.recipe.seed, "params": params, "expected": body["expected"]})
        lines.append(f"member {one.name}: seed {one.recipe.seed}, trains {params:,} parameters")
    if faults:
        raise InputError(faults)
    expected = _together(members)
    flops, memory = expected["flops"], expected["memory_bytes"]
    lines.append(
        f"together: {flops['total']:.2e} FLOPs (encoder {flops['encoder']:.1e}, teacher {flops['teacher']:.1e}, "
        f"students {flops['student']:.1e}), {memory / 1e9:.1f} GB of memory"
    )
    cohort = {"members": members, "expected": expected}
    return dataclasses.replace(whole, body={**whole.body, "cohort": cohort}), "\n".join([human, *lines])


def _together(members: list[dict[str, Any]]) -> dict[str, Any]:
    """Encoder and teacher once, students each; blocks that run once for all are counted for every member."""
    costs = [member["expected"]["flops"] for member in members]
    flops = {name: max(cost[name] for cost in costs) for name in ("encoder", "teacher")}
    flops["student"] = sum(cost["student"] for cost in costs)
    own = [member["expected"]["memory_bytes"] for member in members]
    largest = own.index(max(own))
    extra = sum(_TRAINED_BYTES * member["params"] for place, member in enumerate(members) if place != largest)
    return {"flops": {**flops, "total": sum(flops.values())}, "memory_bytes": own[largest] + extra}
