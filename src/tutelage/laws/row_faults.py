"""The numbers of chosen columns, and every row that would spoil a fit silently, listed by its number in the file.

Covers: missing, non-numeric and non-positive cells; one run twice; one name with two parameter counts; a column in two
units, or in a unit that was not stated. Does not cover: choosing columns (`tutelage.laws.reading`).
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from tutelage.laws.numbers import FloatArray
from tutelage.laws.run_files import Rows, shortened

_GAP = 1e3
"""Sizes and tokens of real designs are graded; a jump of this factor between neighbours is a change of units."""
_SMALLEST_COUNT = 1e5
"""A table whose largest model has fewer parameters, or longest run fewer tokens, is in another unit."""
_TWO_COUNTS = 10.0
"""Embeddings make a model's parameters at most this many times more; names with wider sizes name something else."""
_SHOWN = 30
_NAMES = ("run", "run_name", "name", "model", "model_name")


@dataclass(frozen=True)
class Chosen:
    """The column of one letter.

    Args:
        letter: The letter.
        column: The name of the column in the file.
        kind: "params", "tokens" or "loss".
        scale: What its values are multiplied by.
        unit: The unit that the user stated; None where it was not.
    """

    letter: str
    column: str
    kind: str
    scale: float = 1.0
    unit: str | None = None

    @property
    def said(self) -> str:
        """The letter with its column, where that has another name."""
        return self.letter if self.column == self.letter else f"{self.letter} ({self.column})"


def read_numbers(rows: Rows, chosen: Sequence[Chosen]) -> tuple[dict[str, tuple[float, ...]], list[str]]:
    """The columns by letter, in plain units, and every fault of the rows, without the name of the file.

    Returns:
        Columns, in which NaN stands for a cell at fault, and one line a fault.
    """
    columns, faults = {}, []
    for each in chosen:
        values, found = _column(rows, each)
        columns[each.letter] = values
        faults += found
        if each.kind != "loss":
            faults += _unit_faults(rows, each, values)
    faults += _duplicates(rows, chosen, columns)
    for each in chosen:
        if each.kind == "params":
            faults += _two_counts(rows, each, columns[each.letter])
    return {letter: tuple(values.tolist()) for letter, values in columns.items()}, faults


def _column(rows: Rows, chosen: Chosen) -> tuple[FloatArray, list[str]]:
    values = np.full(len(rows.cells), np.nan)
    missing, not_numbers, not_positive = [], [], []
    for index, cells in enumerate(rows.cells):
        cell, number = cells.get(chosen.column), rows.numbers[index]
        if cell is None or (isinstance(cell, str) and not cell.strip()):
            missing.append(number)
            continue
        value = _number(cell)
        if value is None or not math.isfinite(value):
            not_numbers.append(f"{number} ({str(cell)[:_SHOWN]})")
        elif value <= 0:
            not_positive.append(f"{number} ({cell})")
        else:
            values[index] = value * chosen.scale
    faults = [
        f"{chosen.said} {what} in {places(rows.unit, listed)}; {remedy}"
        for what, listed, remedy in (
            ("is missing", missing, "fill it in, or remove these runs"),
            ("is not a finite number", not_numbers, "write plain numbers, or remove these runs"),
            ("is not greater than 0", not_positive, "correct it, or remove these runs"),
        )
        if listed
    ]
    return values, faults


def _number(cell: Any) -> float | None:
    if isinstance(cell, bool):
        return None
    try:
        return float(cell)
    except (TypeError, ValueError, OverflowError):
        return None


def _unit_faults(rows: Rows, chosen: Chosen, values: FloatArray) -> list[str]:
    """A column whose values change unit on the way, or whose unit cannot be the one that is assumed."""
    known = np.flatnonzero(np.isfinite(values))
    if not len(known) or chosen.unit in ("parameters", "tokens"):
        return []
    order = known[np.argsort(values[known], kind="stable")]
    ratios = values[order[1:]] / values[order[:-1]]
    if len(ratios) and ratios.max() >= _GAP:
        cut = int(ratios.argmax()) + 1
        fewer = order[:cut] if cut <= len(order) / 2 else order[cut:]
        listed = [f"{rows.numbers[index]} ({values[index] / chosen.scale:.6g})" for index in sorted(fewer.tolist())]
        factor = f"a factor of {ratios.max():.2g} lies between {places(rows.unit, listed)} and the other runs"
        remedy = f"write one unit (if it is one: --units {chosen.letter}={_plain(chosen)})"
        return [f"{chosen.said} is in two units: {factor}; {remedy}"]
    if chosen.unit is None and values[order[-1]] < _SMALLEST_COUNT:
        fact = f"is at most {values[order[-1]]:.6g}, which cannot be a count of {_plain(chosen)}"
        remedy = f"--units {chosen.letter}=millions (or billions; {_plain(chosen)}, if it is right)"
        return [f"{chosen.said} {fact}; state its unit: {remedy}"]
    return []


def _plain(chosen: Chosen) -> str:
    return "parameters" if chosen.kind == "params" else "tokens"


def _duplicates(rows: Rows, chosen: Sequence[Chosen], columns: dict[str, FloatArray]) -> list[str]:
    seen: dict[tuple[float, ...], list[str]] = {}
    for index, number in enumerate(rows.numbers):
        key = tuple(float(columns[each.letter][index]) for each in chosen)
        if all(map(math.isfinite, key)):
            seen.setdefault(key, []).append(number)
    twice = [
        f"{places(rows.unit, numbers)} ({', '.join(f'{c.letter}={v:.6g}' for c, v in zip(chosen, key, strict=True))})"
        for key, numbers in seen.items()
        if len(numbers) > 1
    ]
    if not twice:
        return []
    return [f"the same run is there more than once and would count double: {listed(twice)}; keep one of each"]


def _two_counts(rows: Rows, chosen: Chosen, values: FloatArray) -> list[str]:
    """Models that appear with two or three parameter counts."""
    name = next((name for name in _NAMES if name in rows.columns and name != chosen.column), None)
    if name is None or rows.kind == "a ledger":
        return []
    counts: dict[str, dict[float, str]] = {}
    for index in np.flatnonzero(np.isfinite(values)).tolist():
        model = str(rows.cells[index].get(name) or "")
        counts.setdefault(model, {}).setdefault(float(values[index]), rows.numbers[index])
    mixed = [
        f"{model} has " + " and ".join(f"{value:.6g} ({rows.unit} {number})" for value, number in sizes.items())
        for model, sizes in counts.items()
        if model and 1 < len(sizes) <= 3 and max(sizes) < _TWO_COUNTS * min(sizes)
    ]
    remedy = "count parameters in one way throughout, or give different models different names"
    return [f"{chosen.said} is counted in two ways for one {name}: {listed(mixed)}; {remedy}"] if mixed else []


def places(unit: str, numbers: Sequence[str]) -> str:
    """Row numbers in words: "line 4", "lines 4, 7 and 3 more"."""
    return f"{unit}{'s' if len(numbers) > 1 else ''} {listed(numbers)}"


def listed(items: Iterable[str]) -> str:
    """At most ten items, and how many more there are."""
    shown = shortened(list(items))
    return "; ".join(shown) if any("; " in each or ", " in each for each in shown) else ", ".join(shown)
