"""What a training costs, in FLOPs counted from the models' configurations.

Covers the value. Does not cover counting it (`speech.cost`, `text.cost`), judging, or time (the tasks' `forecast`
estimates it).
"""

from __future__ import annotations

from dataclasses import asdict, dataclass


@dataclass(frozen=True)
class TrainingCost:
    """FLOPs of a training.

    Args:
        encoder: The frozen encoder, once a clip (nothing where its outputs were in the cache already; counted anyway,
            since somebody paid for them); 0 where there is none.
        teacher: The teacher beside every student step; 0 where no term needs it.
        student: Forward and backward of the student with its adapters and projectors.
    """

    encoder: float
    teacher: float
    student: float

    @property
    def total(self) -> float:
        """All of it."""
        return self.encoder + self.teacher + self.student

    def to_dict(self) -> dict[str, float]:
        """With the total."""
        return {**asdict(self), "total": self.total}
