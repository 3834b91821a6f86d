"""Any JSON value as tables: what a report shows of answers whose shape it does not know.

Covers: numbers, texts and estimates of an object in one table; a list of objects, or an object of like objects, as rows
of one; what each number is follows from its key. Does not cover: long series, which belong in a figure.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from tutelage.records.estimate import Estimate
from tutelage.reports import words
from tutelage.reports.content import Table

_ESTIMATE = set(Estimate.__dataclass_fields__)
_LONGEST = 6
"""Longer lists are left out."""


def tables_of(found: object, title: str) -> list[Table]:
    """The tables of a value, its own numbers first."""
    if isinstance(found, list):
        return _listing([("", item) for item in found], title) if _is_nested(found) else []
    if not isinstance(found, Mapping):
        return []
    if len(found) > 1 and all(_is_object(value) for value in found.values()):
        return _listing([(str(name), value) for name, value in found.items()], title)
    rows: list[tuple[str, str, str]] = []
    tables: list[Table] = []
    for key, value in found.items():
        name = str(key)
        if _is_nested(value):
            tables += tables_of(value, words.sentence(words.label(name)))
        elif name != "text" and (cell := _cell(name, value)) != words.NONE:
            rows.append((words.label(name), cell, _ends(name, value)))
    if not rows:
        return tables
    if all(row[2] == words.NONE for row in rows):
        return [Table(("quantity", "value"), tuple(row[:2] for row in rows), title), *tables]
    return [Table(("quantity", "value", "interval"), tuple(rows), title), *tables]


def _listing(found: Sequence[tuple[str, Mapping[str, Any]]], title: str) -> list[Table]:
    """One row an object; columns without a value are left out."""
    keys = list(dict.fromkeys(str(key) for _, item in found for key in item))
    cells = {key: [_with_ends(key, item.get(key)) for _, item in found] for key in keys}
    kept = [key for key in keys if any(cell != words.NONE for cell in cells[key])]
    named = any(name for name, _ in found)
    headers = (*(("way",) if named else ()), *(words.label(key) for key in kept))
    rows = tuple(
        (*((words.label(name),) if named else ()), *(cells[key][row] for key in kept))
        for row, (name, _) in enumerate(found)
    )
    return [Table(headers, rows, title)] if kept else []


def _is_object(value: object) -> bool:
    return isinstance(value, Mapping) and not _is_estimate(value)


def _is_nested(value: object) -> bool:
    if isinstance(value, list):
        return bool(value) and all(_is_object(item) for item in value)
    return _is_object(value)


def _is_estimate(value: object) -> bool:
    return isinstance(value, Mapping) and "value" in value and set(value) <= _ESTIMATE


def _cell(name: str, value: object) -> str:
    if isinstance(value, Mapping):
        return _cell(name, value.get("value")) if _is_estimate(value) else words.NONE
    if isinstance(value, list):
        cells = [_cell(name, item) for item in value]
        if not cells or len(cells) > _LONGEST:
            return words.NONE
        return " to ".join(cells) if len(cells) == 2 else words.listed(cells)
    if isinstance(value, bool):
        return "yes" if value else "no"
    if not isinstance(value, int | float):
        return words.NONE if value is None else words.prose(str(value))
    return words.named(name, value)


def _with_ends(name: str, value: object) -> str:
    return words.with_ends(_cell(name, value), *_limits(value), lambda end: words.named(name, end))


def _limits(value: object) -> tuple[float | None, float | None]:
    if not isinstance(value, Mapping):
        return None, None
    low, high = value.get("low"), value.get("high")
    return (low, high) if isinstance(low, int | float) and isinstance(high, int | float) else (None, None)


def _ends(name: str, value: object) -> str:
    return words.between(*_limits(value), lambda end: words.named(name, end))
