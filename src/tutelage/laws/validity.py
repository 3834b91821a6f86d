"""Where a law was fitted and how well, and the cautions for inputs outside of it.

Covers: positive finite inputs, the fitted range of each input, a fit that did not determine the law. Does not cover:
whether the law suits the data at hand. Outside its range the published distillation law can be absurd: a student of 10B
parameters, 0.15B tokens and a teacher of loss 1.43 is predicted to reach 1.99 where ordinary training gives 3.42.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping

from tutelage.laws.law import Law
from tutelage.records.document import Caution
from tutelage.units import format_quantity

OUTSIDE_RANGE = "outside-fitted-range"
OTHER_MODALITY = "other-modality"
LAW_STATUS = "law-status"

_WORDS: dict[str, tuple[str, Callable[[float], str]]] = {
    "student_params": ("a student's size", format_quantity),
    "student_tokens": ("training tokens", format_quantity),
    "unique_tokens": ("unique tokens", format_quantity),
    "teacher_params": ("a teacher's size", format_quantity),
    "teacher_tokens": ("a teacher's training tokens", format_quantity),
    "teacher_loss": ("a teacher's loss", "{:.4g}".format),
    "loss_ratio": ("a ratio of the teacher's loss to the student's supervised loss", "{:.3g}".format),
}
"""The inputs that a law can name in `fitted`, and how to say them."""

_SLACK = 1e-9
"""Relative: an input computed to be exactly on the edge is inside."""


def cautions(law: Law, inputs: Mapping[str, float | None]) -> tuple[Caution, ...]:
    """One caution for each input that lies outside the range that `law` was fitted on.

    Args:
        law: The law that is used.
        inputs: Inputs by the names of `Law.fitted`; None and names without a range are passed over.

    Returns:
        Cautions with the input, its value and the fitted range, in the order of `inputs`.
    """
    return cautions_among(law, {name: {"": value} for name, value in inputs.items()})


def cautions_among(law: Law, inputs: Mapping[str, Mapping[str, float | None]]) -> tuple[Caution, ...]:
    """As `cautions`, where an input has several values: one caution an input, which names every value outside.

    Args:
        law: The law that is used.
        inputs: By the names of `Law.fitted`, values by where each is used.

    Returns:
        Cautions whose value is the one furthest outside.
    """
    found = []
    for name, values in inputs.items():
        fitted = law.fitted.get(name)
        if fitted is None:
            continue
        outside = {where: value for where, value in values.items() if value is not None and not _inside(value, fitted)}
        if not outside:
            continue
        what, written = _WORDS[name]
        furthest = max(outside.values(), key=lambda value: max(fitted[0] / value, value / fitted[1]))
        listed = ", ".join(
            f"{written(value)} ({where})" if where else written(value) for where, value in outside.items()
        )
        text = (
            f"{name}: {what} of {listed} {'is' if len(outside) == 1 else 'are'} outside the range that {law.name} was "
            f"fitted on ({written(fitted[0])} to {written(fitted[1])}), where its predictions are extrapolations"
        )
        found.append(Caution(OUTSIDE_RANGE, name, float(furthest), fitted, text))
    return tuple(found)


def not_positive(numbers: Mapping[str, float | None]) -> list[str]:
    """One fault for each number that is not finite and greater than 0; None is passed over."""
    return [
        f"{name} is {value}; it must be a finite number greater than 0"
        for name, value in numbers.items()
        if value is not None and not (math.isfinite(value) and value > 0)
    ]


def status_cautions(law: Law) -> tuple[Caution, ...]:
    """The caution that the runs of `law` did not, or only weakly, determine it; none for any other law."""
    if law.status.kind in ("done", "converged"):
        return ()
    text = f"{law.name} is {law.status.kind}: {law.status.text} {law.status.remedy}".rstrip()
    return (Caution(LAW_STATUS, "law", law.status.kind, None, text),)


def modality_caution(law: Law, modality: str) -> Caution | None:
    """The caution that `law` does not apply at all, where it was fitted on another modality; else None."""
    if modality == law.modality:
        return None
    text = (
        f"{law.name} was fitted on {law.modality} models; it does not apply to {modality} models, whose loss is over "
        "other tokens and other inputs, so no loss is predicted for them"
    )
    return Caution(OTHER_MODALITY, "modality", modality, None, text)


def _inside(value: float, fitted: tuple[float, float]) -> bool:
    low, high = fitted
    return low * (1.0 - _SLACK) <= value <= high * (1.0 + _SLACK)
