"""Arguments that hold numbers and laws, read together so that every fault is reported at once."""

from __future__ import annotations

from tutelage.errors import InputError
from tutelage.laws.files import find_law
from tutelage.laws.law import Law
from tutelage.units import parse_quantity


class Faults:
    """Collects what is wrong with the arguments of one command."""

    def __init__(self) -> None:
        self._lines: list[str] = []

    def add(self, *lines: str) -> None:
        """Note faults."""
        self._lines += lines

    def quantity(self, text: str | None, name: str) -> float | None:
        """The quantity, or None where there is none or it is at fault."""
        if text is None:
            return None
        try:
            return parse_quantity(text, name)
        except InputError as error:
            self.add(*error.faults)
            return None

    def law(self, reference: str, accept: bool = False) -> Law | None:
        """The law, or None where it is at fault: not there, or not determined by its runs and not to be `accept`ed."""
        try:
            law = find_law(reference)
            return law if accept else law.require_identified()
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
