"""The budget of trainable parameters, as a share of the teacher's.

The share counted is (adapters + projectors) / parameters of the teacher. Projectors are dropped at export, so both
numbers are reported; for several teachers the largest is the denominator, the harder reading. Covers the count and the
choice of a rank. Does not cover building anything: counts come from `lora` and `projection`, which work on
configurations alone. Nothing here imports torch.

Source: yang2026's abstract ("below 1 %" of the teacher's parameters); what is counted is a reconstruction.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from fractions import Fraction
from typing import Literal

from tutelage.errors import InputError


@dataclass(frozen=True)
class Budget:
    """How much may be trained.

    Args:
        teacher_params: Parameters of the teacher, of the largest where there are several.
        share: The most that adapters and projectors may count together, as a share of them, in (0, 1].
        allow_over: Report a student over the budget instead of refusing it.
    """

    teacher_params: int
    share: float
    allow_over: bool = False

    def __post_init__(self) -> None:
        if self.teacher_params < 1:
            raise ValueError(f"A teacher has at least one parameter, not {self.teacher_params}.")

    @property
    def limit(self) -> int:
        """The most parameters that fit."""
        return _limit(self.share, self.teacher_params)


@dataclass(frozen=True)
class Trainables:
    """What a student trains, as it depends on the rank.

    Args:
        params_per_rank: Parameters of all adapters together at rank 1, without `fixed_params`; they grow in proportion.
        projector_params: Parameters of all projectors together.
        largest_rank: The rank above which an adapter gains nothing.
        fixed_params: Parameters of adapters that do not depend on the rank: those of layers with ranks of their own,
            and DoRA's lengths.
        own_ranks: Ranks that the recipe gives to some layers, by name.
    """

    params_per_rank: int
    projector_params: int = 0
    largest_rank: int | None = None
    fixed_params: int = 0
    own_ranks: Mapping[str, int] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if self.params_per_rank < 0 or self.params_per_rank + self.fixed_params < 1:
            raise ValueError(f"Adapters have at least one parameter at rank 1, not {self.params_per_rank}.")


@dataclass(frozen=True)
class BudgetReport:
    """What is trained and what that is of the budget.

    Args:
        lora_params: Parameters of the adapters.
        projector_params: Parameters of the projectors, dropped at export.
        teacher_params: Parameters of the teacher.
        share: (adapters + projectors) / teacher.
        limit: The share that is allowed.
        rank: Rank of the adapters.
        own_ranks: Ranks of their own that some adapters have, by name.
    """

    lora_params: int
    projector_params: int
    teacher_params: int
    share: float
    limit: float
    rank: int
    own_ranks: Mapping[str, int] = field(default_factory=dict)

    @property
    def lora_share(self) -> float:
        """Adapters alone / teacher: what is left after export."""
        return self.lora_params / self.teacher_params

    @property
    def within(self) -> bool:
        """Whether the student is inside the budget."""
        return self.lora_params + self.projector_params <= _limit(self.limit, self.teacher_params)

    def describe(self) -> str:
        """One line with both numbers."""
        verdict = "within" if self.within else "over"
        return (
            f"trains {self.lora_params:,} adapter + {self.projector_params:,} projector parameters at rank "
            f"{self.rank}{_own(self.own_ranks)} = {_percent(self.share)} of the teacher's {self.teacher_params:,} "
            f"({_percent(self.lora_share)} without the projectors), {verdict} the budget of {_percent(self.limit)}"
        )


def choose_rank(budget: Budget, trainables: Trainables, rank: int | Literal["auto"] = "auto") -> BudgetReport:
    """Count a student against its budget, choosing the largest rank that fits where it is left open.

    Args:
        budget: The budget.
        trainables: What is trained.
        rank: A rank, or "auto".

    Raises:
        InputError: The student is over the budget at this rank, or at rank 1 where the rank is open, and that is not
            allowed.
    """
    left = budget.limit - trainables.projector_params - trainables.fixed_params
    chosen = rank if rank != "auto" else max(1, left // max(1, trainables.params_per_rank))
    if rank == "auto" and trainables.largest_rank is not None:
        chosen = min(chosen, trainables.largest_rank)
    report = _report(budget, trainables, chosen)
    if not report.within and not budget.allow_over:
        raise InputError(_over(budget, trainables, report))
    return report


def _limit(share: float, teacher_params: int) -> int:
    # The share as it was written: 0.29 of 100 is 29, which binary floats make 28.999...
    return math.floor(Fraction(repr(float(share))) * teacher_params)


def _report(budget: Budget, trainables: Trainables, rank: int) -> BudgetReport:
    lora = rank * trainables.params_per_rank + trainables.fixed_params
    share = (lora + trainables.projector_params) / budget.teacher_params
    return BudgetReport(
        lora, trainables.projector_params, budget.teacher_params, share, budget.share, rank, trainables.own_ranks
    )


def _over(budget: Budget, trainables: Trainables, report: BudgetReport) -> str:
    left = budget.limit - trainables.projector_params - trainables.fixed_params
    fits = left // trainables.params_per_rank if trainables.params_per_rank else 0
    if fits >= 1:
        way_out = f"Rank {fits} fits"
    else:
        way_out = "No rank fits: choose a smaller projector or fewer targets"
        way_out += ", or lower ranks of their own (lora.ranks)" if trainables.own_ranks else ""
    return (
        f"The student trains {report.lora_params:,} adapter + {report.projector_params:,} projector parameters at rank "
        f"{report.rank}{_own(report.own_ranks)} = {_percent(report.share)} of the teacher's {report.teacher_params:,}, "
        f"over the budget of {_percent(report.limit)}. {way_out}, or allow it (student.allow_over_budget)."
    )


def _own(ranks: Mapping[str, int]) -> str:
    return f" ({', '.join(f'{name} {rank}' for name, rank in ranks.items())})" if ranks else ""


def _percent(share: float) -> str:
    return f"{100 * share:.3f} %"
