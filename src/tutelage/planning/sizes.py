"""The answer to how large a student should be: sizes, tokens and compute for a target loss, as values.

Covers: what ordinary training and each way of distilling need, in JSON and in words. Does not cover: finding it
(`size_search`).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from tutelage.laws.numbers import FloatArray
from tutelage.planning.parts import Ends, as_document
from tutelage.records.estimate import Estimate
from tutelage.units import format_quantity

NEAR_COMPUTE = 0.05
"""Share of the least compute within which a size is nearly optimal."""


@dataclass(frozen=True)
class SizeCurve:
    """What each size needs to reach the target: tokens and total compute; each of shape (sizes,)."""

    params: FloatArray
    tokens: FloatArray
    compute: FloatArray

    def to_dict(self) -> dict[str, object]:
        """The JSON form."""
        return {name: getattr(self, name).tolist() for name in ("params", "tokens", "compute")}


@dataclass(frozen=True)
class SizeAnswer:
    """The student of least compute that reaches a target in one way.

    Args:
        floor: The loss that no size goes below, nats per token.
        smallest_params: The smallest size that reaches the target at all; None where none does, as is all that follows.
        params: The size of least total compute.
        tokens: Its training tokens.
        compute: Its total compute, the teacher's share included, FLOPs.
        teacher_params: N_T; None where the teacher is free or there is none.
        teacher_tokens: D_T; None likewise, and where it exists.
        teacher_loss: L_T; None where there is no teacher.
        near_optimal: The sizes that take at most `NEAR_COMPUTE` more compute.
        curve: What each size needs.
        at_edge: Whether larger sizes are left out only because the law was not fitted there.
        teacher: Name of the teacher, where it exists.
    """

    floor: float
    smallest_params: float | None = None
    params: Estimate | None = None
    tokens: Estimate | None = None
    compute: Estimate | None = None
    teacher_params: Estimate | None = None
    teacher_tokens: Estimate | None = None
    teacher_loss: Estimate | None = None
    near_optimal: Ends | None = None
    curve: SizeCurve | None = None
    at_edge: bool = False
    teacher: str | None = None

    def to_dict(self) -> dict[str, object]:
        """The JSON form."""
        near = None if self.near_optimal is None else {"within_compute": NEAR_COMPUTE, "params": self.near_optimal}
        return {**as_document(self), "near_optimal": near}


@dataclass(frozen=True)
class Sizes:
    """The sizes for a target loss.

    Args:
        target_loss: The wanted loss, nats per token.
        ordinary: Ordinary training.
        scenarios: The ways of distilling by name; "existing" is the given teacher that takes the least compute.
        way: The way of distilling that is at hand, else the first that reaches the target; None where none does.
    """

    target_loss: float
    ordinary: SizeAnswer
    scenarios: Mapping[str, SizeAnswer]
    way: str | None = None

    @property
    def planned(self) -> str | None:
        """`way` or "supervised", whichever takes less compute; None where neither reaches the target.

        The rest of the plan is made for its size, so that the verdict on that size holds for all sizes.
        """
        able = {name: found.compute.value for name, found in self._compared().items() if found.compute is not None}
        return min(able, key=lambda name: able[name]) if able else None

    def _compared(self) -> dict[str, SizeAnswer]:
        distilled = {} if self.way is None else {self.way: self.scenarios[self.way]}
        return {**distilled, "supervised": self.ordinary}

    @property
    def planned_params(self) -> float | None:
        """The size that the rest of the plan is made for."""
        if self.planned is None:
            return None
        answer = self._compared()[self.planned]
        return None if answer.params is None else answer.params.value

    @property
    def floor(self) -> float:
        """The loss that no way and no size goes below."""
        return min(answer.floor for answer in (self.ordinary, *self.scenarios.values()))

    @property
    def text(self) -> str:
        """The answer in a sentence or two."""
        if self.planned is None:
            return (
                f"No size reaches a loss of {self.target_loss:.4g}: unlimited parameters, tokens and compute go down "
                f"to {self.floor:.4f} and no further."
            )
        said = "; ".join(in_words(name, answer) for name, answer in self._compared().items())
        return f"A loss of {self.target_loss:.4g} takes the least compute with: {said}."

    def to_dict(self) -> dict[str, object]:
        """The JSON form."""
        return {
            **as_document(self),
            "planned": self.planned,
            "planned_params": self.planned_params,
            "floor": self.floor,
            "text": self.text,
        }


def in_words(name: str, answer: SizeAnswer) -> str:
    """One way's size, tokens and compute, or that it has none."""
    name = "ordinary training" if name == "supervised" else f"{name} ({answer.teacher})" if answer.teacher else name
    if answer.params is None or answer.tokens is None or answer.compute is None or answer.smallest_params is None:
        return f"{name}: no size does (floor {answer.floor:.4f})"
    edge = "; the edge of the fitted range" if answer.at_edge else ""
    return (
        f"{name}: {_count(answer.params)} parameters on {_count(answer.tokens)} tokens for {_count(answer.compute)} "
        f"FLOPs ({format_quantity(answer.smallest_params)} parameters at least{edge})"
    )


def _count(estimate: Estimate) -> str:
    value = format_quantity(estimate.value)
    if estimate.low is None or estimate.high is None:
        return value
    return f"{value} [{format_quantity(estimate.low)}, {format_quantity(estimate.high)}]"
