"""A finished run as a frozen value: what it was, what a law needs of it, and its scores.

Not here: where runs are kept (`ledger`) and the files of the run folder.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from pathlib import Path
from types import MappingProxyType
from typing import Any

from tutelage.records.estimate import Estimate
from tutelage.records.provenance import utc_now


@dataclass(frozen=True)
class LawColumns:
    """What a distillation law is fitted on, under the letters of `docs/notation.md`; None where it was not measured.

    Args:
        N_S: Student's non-embedding parameters.
        D_S: Tokens that the student was distilled on.
        N_T: Teacher's non-embedding parameters.
        D_T: Tokens that the teacher was trained on.
        L_T: Teacher's loss on the held-out set, nats per token.
        L_S: Student's loss on the held-out set, nats per token.
        FLOPs: Compute of the student's training, with the teacher's forward passes where they were made live.
        held_out_sha256: Hash of the held-out set that both losses were measured on.

    Raises:
        ValueError: A number is negative or not finite, or the hash is empty.
    """

    N_S: float | None = None
    D_S: float | None = None
    N_T: float | None = None
    D_T: float | None = None
    L_T: float | None = None
    L_S: float | None = None
    FLOPs: float | None = None
    held_out_sha256: str | None = None

    def __post_init__(self) -> None:
        for name in LAW_NUMBERS:
            value = getattr(self, name)
            if value is not None and not (math.isfinite(value) and value >= 0):
                raise ValueError(f"{name} is {value}; it must be finite and not negative, or None when not measured")
        if self.held_out_sha256 == "":
            raise ValueError("held_out_sha256 is empty; give the hash, or None when there is no held-out set")


LAW_NUMBERS = ("N_S", "D_S", "N_T", "D_T", "L_T", "L_S", "FLOPs")
LAW_COLUMNS = (*LAW_NUMBERS, "held_out_sha256")


@dataclass(frozen=True)
class Run:
    """One finished run; `(recipe_hash, seed)` is its identity.

    Args:
        name: What people call it.
        task: "speech" or "text".
        recipe_hash: SHA-256 of the resolved recipe.
        seed: Seed of every draw of the run.
        folder: The run folder.
        law: The columns that a law needs.
        scores: Metric name to estimate; a name holds its system and unit where it needs one, such as "student.wer".
        provenance: JSON values, as `Provenance.to_dict` gives them.
        created: UTC time, ISO 8601; now, where it is not given.

    Raises:
        ValueError: The recipe hash or the name is empty, or a score is not a finite number.
    """

    name: str
    task: str
    recipe_hash: str
    seed: int
    folder: Path
    law: LawColumns = field(default_factory=LawColumns)
    scores: Mapping[str, Estimate] = field(default_factory=dict)
    provenance: Mapping[str, Any] = field(default_factory=dict)
    created: str = field(default_factory=utc_now)

    def __post_init__(self) -> None:
        if not self.name or not self.recipe_hash:
            raise ValueError("a run needs a name and the hash of its recipe")
        broken = [name for name, score in self.scores.items() if not math.isfinite(score.value)]
        if broken:
            raise ValueError(f"not finite, so not a score: {', '.join(broken)}; leave it out")
        object.__setattr__(self, "folder", Path(self.folder))
        object.__setattr__(self, "scores", MappingProxyType(dict(self.scores)))
        object.__setattr__(self, "provenance", MappingProxyType(dict(self.provenance)))

    def to_dict(self) -> dict[str, Any]:
        """One flat row, as `tutelage runs --json` prints it: the law's columns under their letters."""
        return {
            "name": self.name,
            "task": self.task,
            "created": self.created,
            "recipe_hash": self.recipe_hash,
            "seed": self.seed,
            "folder": str(self.folder),
            **{column.name: getattr(self.law, column.name) for column in fields(LawColumns)},
            "scores": {name: estimate.to_dict() for name, estimate in self.scores.items()},
            "provenance": dict(self.provenance),
        }
