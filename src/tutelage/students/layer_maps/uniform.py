"""Every student block with the teacher block at the same share of the depth."""

from __future__ import annotations

from collections.abc import Sequence

from tutelage.students.layer_maps import NamedMap, Pairs


def uniform(n_student: int, n_teacher: int, _: Sequence[int] | None) -> Pairs:
    """Student block l meets round(l * n_teacher / n_student), halves up, at least 1; the last meets the last."""
    # In whole numbers, since round() sends halves to the even neighbour.
    return [
        (layer, max(1, (2 * layer * n_teacher + n_student) // (2 * n_student))) for layer in range(1, n_student + 1)
    ]


MEMBERS = (NamedMap("uniform", uniform),)
