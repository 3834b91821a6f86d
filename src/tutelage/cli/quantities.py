"""Arguments that hold numbers and laws, read together so that every fault is reported at once."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TypeVar

from tutelage.errors import InputError
from tutelage.laws.files import find_law
from tutelage.laws.law import Law
from tutelage.units import parse_quantity

Read = TypeVar("Read")


class Faults:
    """Collects what is wrong with the arguments of one command."""

    def __init__(self) -> None:
        self._lines: list[str] = []

    def add(self, *lines: str) -> None:
        """Note faults."""
        self._lines += lines

    def quantity(self, text: str | None, name: str) -> float | None:
        """The quantity, or None where there is none or it is at fault."""
        return None if text is None else self.attempt(lambda: parse_quantity(text, name))

    def law(self, reference: str, accept: bool = False) -> Law | None:
        """The law, or None where it is at fault: not there, or not determined by its runs and not to be `accept`ed."""
        return self.attempt(lambda: find_law(reference) if accept else find_law(reference).require_identified())

    def count(self, text: str, name: str) -> int | None:
        """The whole number greater than 0, or None where it is at fault."""
        value = self.quantity(text, name)
        if value is not None and value != int(value):
            self.add(f"{name} is {text}; it must be a whole number")
            return None
        return None if value is None else int(value)

    def not_negative(self, text: str, name: str) -> float | None:
        """The finite number that is 0 or more, or None where it is at fault."""
        try:
            value = float(text)
        except ValueError:
            value = math.nan
        if math.isfinite(value) and value >= 0:
            return value
        self.add(f"{name} is {text!r}; it must be 0 or a positive number")
        return None

    def seed(self, given: int | None) -> int:
        """The seed of every draw; 0 where none is given."""
        if given is not None and given < 0:
            self.add(f"--seed is {given}; it must be 0 or greater")
        return given or 0

    def mapping(self, texts: Sequence[str], name: str, example: str) -> dict[str, str]:
        """The pairs of `KEY=VALUE,KEY=VALUE`, where commas within a value are kept."""
        pairs: dict[str, str] = {}
        for text in texts:
            for part in re.split(r",(?=\s*\w+=)", text):
                key, equals, value = (word.strip() for word in part.partition("="))
                if not (key and equals and value):
                    self.add(f"{name} {text!r}: {part!r} is not KEY=VALUE; write it as {example}")
                elif key in pairs:
                    self.add(f"{name} gives {key} twice")
                else:
                    pairs[key] = value
        return pairs

    def not_there(self, path: Path, force: bool) -> None:
        """A file to be written must not exist yet, unless `force` is given."""
        if path.is_dir():
            self.add(f"--out {path} is a folder; name a file")
        elif path.exists() and not force:
            self.add(f"--out {path} exists; name another file, or replace it with --force")

    def attempt(self, read: Callable[[], Read]) -> Read | None:
        """What `read` returns, or None where it finds bad input."""
        try:
            return read()
        except InputError as error:
            self.add(*error.faults)
            return None

    def raise_if_any(self) -> None:
        """Raise what was collected.

        Raises:
            InputError: There were faults.
        """
        if self._lines:
            raise InputError(self._lines)
