"""The exception family. Every error that tutelage raises on purpose is one of these.

A message states the fact with its value, the reason and the way out. Callers of the command line see the message
alone; `exit_code` is what the process returns. Programming errors are ordinary Python exceptions and keep their
traceback.
"""

from __future__ import annotations

from collections.abc import Iterable


class TutelageError(Exception):
    """Work that failed while running (exit code 1)."""

    exit_code = 1


class InputError(TutelageError):
    """Bad input: a recipe, an argument, data or a model folder (exit code 2).

    All faults of one input are reported together.

    Args:
        faults: One line each, as a sentence. A single string is one fault.
    """

    exit_code = 2

    def __init__(self, faults: str | Iterable[str]) -> None:
        self.faults: tuple[str, ...] = (faults,) if isinstance(faults, str) else tuple(faults)
        super().__init__("\n".join(self.faults))


class MissingExtraError(InputError):
    """A feature needs an optional dependency that is not installed.

    Args:
        module: The module that could not be imported.
        extra: The extra of this package that brings it.
    """

    def __init__(self, module: str, extra: str) -> None:
        super().__init__(f"{module} is not installed; this needs it: pip install 'tutelage[{extra}]'")


class PreflightError(TutelageError):
    """A check before the first training step found a fault that would make the run meaningless."""

    exit_code = 2


class DivergedError(TutelageError):
    """A training step whose loss or gradient is not finite (exit code 1); the weights are as they were before it."""


class InterruptedRunError(TutelageError):
    """The user stopped a run; its checkpoint is complete and `--resume` continues it (exit code 130)."""

    exit_code = 130
