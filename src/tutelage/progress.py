"""How long work says how far it is: the library never prints, a caller that wants bars passes a `Progress`."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from typing import Protocol


class Progress(Protocol):
    """Opens one bar: `with progress("encode", total=512, unit="clip") as advance: advance(1, note="loss 2.3")`."""

    def __call__(self, title: str, total: int, unit: str, done: int = 0) -> AbstractContextManager[Advance]:
        """A bar of `total` units, `done` of them behind it already."""


class Advance(Protocol):
    """Moves an open bar by `count` units; `note` is shown beside the time left."""

    def __call__(self, count: int = 1, note: str = "") -> None:
        """Move the bar."""


Talk = Callable[[str], None]
"""Takes one line of talk for the user (the command line sends it to stderr)."""


def say_nothing(line: str) -> None:
    """The silent `Talk`."""


@contextmanager
def no_progress(title: str, total: int, unit: str, done: int = 0) -> Iterator[Advance]:  # noqa: ARG001 - silent
    """The silent `Progress`."""

    def advance(count: int = 1, note: str = "") -> None:  # noqa: ARG001 - silent
        return None

    yield advance
