"""Every student block with the teacher block that it was copied from."""

from __future__ import annotations

from collections.abc import Sequence

from tutelage.students.layer_maps import NamedMap, Pairs


def origin(_: int, __: int, origins: Sequence[int] | None) -> Pairs:
    """As many pairs as the student has blocks."""
    return list(enumerate(origins or (), start=1))


MEMBERS = (NamedMap("origin", origin, needs_origins=True),)
