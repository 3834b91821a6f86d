"""The last block with the last block: what feeds the head, and nothing else."""

from __future__ import annotations

from collections.abc import Sequence

from tutelage.students.layer_maps import NamedMap, Pairs


def last(n_student: int, n_teacher: int, _: Sequence[int] | None) -> Pairs:
    """One pair."""
    return [(n_student, n_teacher)]


MEMBERS = (NamedMap("last", last),)
