"""What a run needs before anything heavy is loaded: data that was checked and models that were found.

Covers what every task's materials have. Does not cover gathering them (`speech.materials`, `text.materials`); nothing
here imports torch.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol

from tutelage.models.resolve import ResolvedModel
from tutelage.records.document import Caution
from tutelage.runs.recipe import Recipe


class Materials(Protocol):
    """A recipe with everything that it names, found and checked."""

    @property
    def recipe(self) -> Recipe:
        """The recipe."""

    @property
    def teacher(self) -> ResolvedModel | None:
        """The teacher's folder, where there is a teacher."""

    @property
    def student(self) -> ResolvedModel | None:
        """The folder that the student starts from, where it is not the teacher's."""

    @property
    def identity(self) -> dict[str, Any]:
        """What makes two runs the same but for their seed."""

    @property
    def recipe_hash(self) -> str:
        """SHA-256 of the identity."""

    @property
    def cautions(self) -> Sequence[Caution]:
        """Soft faults of the data."""
