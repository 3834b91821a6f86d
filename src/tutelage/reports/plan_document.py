"""Reading a plan's document: the JSON that `tutelage plan --json` printed, checked part by part.

Covers: what a report reads from it, with the path of whatever is not as it should be. Does not cover: making a plan.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import numpy as np

from tutelage.errors import InputError
from tutelage.laws.numbers import FloatArray
from tutelage.records.estimate import Estimate


class Part:
    """One object of a document and where it is.

    Every reader raises `InputError`, with the path, where a value is not of its kind.

    Args:
        value: The object.
        path: Where it is, such as "scenarios.best".
    """

    def __init__(self, value: object, path: str) -> None:
        if not isinstance(value, Mapping):
            raise InputError(f"{path or 'the document'} is {_shown(value)}; it must be an object")
        self.value: Mapping[str, Any] = value
        self.path = path

    def has(self, key: str) -> bool:
        """Whether there is something under `key`."""
        return self.value.get(key) is not None

    def part(self, key: str) -> Part:
        """The object under `key`."""
        return Part(self.value.get(key), self._at(key))

    def parts(self, key: str) -> dict[str, Part]:
        """The objects of the object under `key`, by name, without those that are null; empty where it is absent."""
        if not self.has(key):
            return {}
        inner = self.part(key)
        return {str(name): inner.part(str(name)) for name in inner.value if inner.has(str(name))}

    def rows(self, key: str) -> list[Part]:
        """The objects of the list under `key`; empty where it is absent."""
        found = self.value.get(key) or []
        if not isinstance(found, list):
            raise InputError(f"{self._at(key)} is {_shown(found)}; it must be a list")
        return [Part(item, f"{self._at(key)}[{index}]") for index, item in enumerate(found)]

    def text(self, key: str) -> str:
        """The text under `key`; empty where it is absent."""
        found = self.value.get(key, "")
        if found is not None and not isinstance(found, str):
            raise InputError(f"{self._at(key)} is {_shown(found)}; it must be a text")
        return found or ""

    def texts(self, key: str) -> tuple[str, ...]:
        """The texts of the list under `key`."""
        found = self.value.get(key) or []
        if not isinstance(found, list) or not all(isinstance(item, str) for item in found):
            raise InputError(f"{self._at(key)} is {_shown(found)}; it must be a list of texts")
        return tuple(found)

    def number(self, key: str) -> float:
        """The number under `key`."""
        return _number(self.value.get(key), self._at(key))

    def estimate(self, key: str) -> Estimate | None:
        """The estimate under `key`; None where it is absent."""
        if not self.has(key):
            return None
        inner = self.part(key)
        low, high, level = (inner.number(end) if inner.has(end) else None for end in ("low", "high", "level"))
        return Estimate(inner.number("value"), low, high, level, inner.text("method") or "point")

    def needed(self, key: str) -> Estimate:
        """The estimate under `key`, which must be there."""
        found = self.estimate(key)
        if found is None:
            raise InputError(f"{self._at(key)} is missing")
        return found

    def series(self, key: str, length: int | None = None) -> FloatArray:
        """The numbers of the list under `key`, NaN where it holds null; `length` of them where given."""
        found = self.value.get(key)
        if not isinstance(found, list) or not found:
            raise InputError(f"{self._at(key)} is {_shown(found)}; it must be a list of numbers")
        if length is not None and len(found) != length:
            raise InputError(f"{self._at(key)} holds {len(found)} numbers; it must hold {length}, one a budget")
        values = [math.nan if item is None else _number(item, f"{self._at(key)}[{i}]") for i, item in enumerate(found)]
        return np.array(values)

    def ends(self, key: str) -> tuple[float, float] | None:
        """The two numbers of the range under `key`; None where it is absent."""
        if not self.has(key):
            return None
        found = self.series(key, 2)
        return (float(found[0]), float(found[1])) if np.isfinite(found).all() else None

    def _at(self, key: str) -> str:
        return f"{self.path}.{key}" if self.path else key


def _number(value: object, path: str) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        raise InputError(f"{path} is {_shown(value)}; it must be a finite number")
    return float(value)


def _shown(value: object) -> str:
    text = repr(value)
    return "missing" if value is None else text if len(text) < 60 else f"{text[:57]}..."
