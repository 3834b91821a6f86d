"""What a law said of a run, beside what the run reached: predicted against achieved loss.

Covers: finding the law that a recipe names and refusing one that can say nothing (before anything is loaded), the
predicted loss with the law's own interval, and the words about the two. Does not cover: fitting laws, planning, or runs
whose recipe names no law. Nothing here imports torch. A law changes nothing of the student, so it is no part of what
identifies a run (`Recipe.identify`): the same run may be held against another law.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from tutelage.errors import InputError
from tutelage.laws.files import find_law, law_to_dict
from tutelage.laws.law import IDENTIFIED, Law
from tutelage.laws.published import PUBLISHED
from tutelage.laws.validity import modality_caution
from tutelage.planning.prediction import predict
from tutelage.records.document import Caution
from tutelage.records.estimate import Estimate
from tutelage.records.hashing import sha256_json
from tutelage.records.run import LawColumns

_SAME = 1e-9
"""Relative: the loss of a row is the run's loss, summed in another order."""


@dataclass(frozen=True)
class Forecast:
    """A law's loss for a run and the run's own, in nats per token.

    Args:
        law: Name of the law.
        law_sha256: Of its content; None where it could not be read any more.
        predicted: With the law's interval; None where the law does not cover the run.
        achieved: On the run's held-out data; None where it was not measured.
        text: What the two say, or why there is no prediction.
        warnings: Inputs outside the range that the law was fitted on, and the like.
    """

    law: str
    law_sha256: str | None
    predicted: Estimate | None
    achieved: Estimate | None
    text: str
    warnings: tuple[Caution, ...] = ()

    def to_dict(self) -> dict[str, Any]:
        """The JSON form: `prediction` of result.json."""
        return asdict(self)


def find_run_law(named: Path | None) -> Law | None:
    """The law that a recipe's key `law` names: a law file, or a published law by name.

    Args:
        named: As the recipe has it, relative to the recipe's folder; None for no law.

    Raises:
        InputError: There is no such law, its file is broken, it says nothing of distillation, or its runs did not
            determine it; every fault of a file.
    """
    if named is None:
        return None
    try:
        law = find_law(named.name if named.name in PUBLISHED and not named.exists() else str(named))
        law.require_distillation()
    except InputError as error:
        raise InputError(f"law: {fault}" for fault in error.faults) from error
    if law.status.kind not in IDENTIFIED:
        raise InputError(
            f"law: {law.name} is {law.status.kind}: {law.status.text} {law.status.remedy} A loss that it predicted "
            "would mean nothing; name another law, or leave the key out."
        )
    return law


def forecast_run(
    named: Path | None, columns: LawColumns, task: str, systems: Sequence[Mapping[str, Any]], *, from_scratch: bool
) -> Forecast | None:
    """As `compare_with_law`, for the law that the recipe names; None where it names none.

    The law was checked before training. A file that is gone by now costs the prediction, not the run.
    """
    try:
        law = find_run_law(named)
    except InputError as error:
        said = " ".join(error.faults)
        return Forecast(str(named), None, None, _achieved(columns.L_S, systems), f"No prediction: {said}.")
    return None if law is None else compare_with_law(law, columns, task, systems, from_scratch=from_scratch)


def compare_with_law(
    law: Law, columns: LawColumns, task: str, systems: Sequence[Mapping[str, Any]], *, from_scratch: bool
) -> Forecast:
    """What `law` predicts for a finished run, against what the run reached.

    Args:
        law: From `find_run_law`.
        columns: The run's.
        task: The run's modality, "speech" or "text".
        systems: The rows of the result, for the interval of the achieved loss.
        from_scratch: Whether the student began with random weights, as the students of the published law did.
    """
    about = law.name, sha256_json(law_to_dict(law))
    achieved = _achieved(columns.L_S, systems)
    other = modality_caution(law, task)
    if other is not None:
        return Forecast(*about, None, achieved, f"The law does not apply: {other.text}.", (other,))
    needed = {"N_S": columns.N_S, "D_S": columns.D_S, "L_T": columns.L_T}
    missing = [name for name, value in needed.items() if not value]
    if missing:
        why = f"No prediction: the run has no {', '.join(missing)}, which {law.name} needs"
        told = " (a student without a teacher's signal has no L_T)" if "L_T" in missing else ""
        return Forecast(*about, None, achieved, f"{why}{told}.")
    assert columns.N_S and columns.D_S and columns.L_T  # noqa: PT018  (they are what `missing` looked at)
    found = predict(law, columns.N_S, columns.D_S, teacher_loss=columns.L_T)
    assert found.student_loss is not None  # a distillation law with a teacher's loss has one
    if not math.isfinite(found.student_loss.value):
        return Forecast(*about, None, achieved, f"No prediction: {law.name} has no finite loss here.", found.warnings)
    warnings = (*found.warnings, *_differences(law, from_scratch))
    return Forecast(*about, found.student_loss, achieved, _say(law, found.student_loss, achieved), warnings)


def _achieved(loss: float | None, systems: Sequence[Mapping[str, Any]]) -> Estimate | None:
    """The run's loss with the interval that its row has."""
    if loss is None:
        return None
    for row in reversed(systems):
        measured = row.get("metrics", {}).get("nats_per_token")
        if measured is not None and math.isclose(measured["value"], loss, rel_tol=_SAME):
            return Estimate(**measured)
    return Estimate(loss)


def _differences(law: Law, from_scratch: bool) -> tuple[Caution, ...]:
    """How a run here differs from the runs of a published law, beyond the ranges of its inputs."""
    if law.name not in PUBLISHED:
        return ()
    texts = [
        ("other-tokens", "tokens", f"{law.name} counts {law.counting.tokens}; losses over other tokens are not its own")
    ]
    if not from_scratch:
        texts.append(
            (
                "trained-weights",
                "student",
                f"the students of {law.name} began with random weights and this one with trained weights",
            )
        )
    return tuple(Caution(code, name, None, None, text) for code, name, text in texts)


def _say(law: Law, predicted: Estimate, achieved: Estimate | None) -> str:
    said = f"{law.name} predicts {_written(predicted)} nats per token"
    if achieved is None:
        return f"{said}; the run's loss was not measured."
    gap = achieved.value / predicted.value - 1.0
    side = "above" if gap > 0 else "below"
    said += f"; the student reached {_written(achieved)}, {100 * abs(gap):.1f} % {side}"
    if predicted.low is None or predicted.high is None:
        return f"{said}. The law has no interval to judge that by."
    what = f"{100 * predicted.level:g} % interval" if predicted.level is not None else "rounding band"
    low = achieved.value if achieved.low is None else achieved.low
    high = achieved.value if achieved.high is None else achieved.high
    apart = high < predicted.low or predicted.high < low
    meets = "does not meet" if apart else "meets"
    return f"{said}. It {meets} the law's {what}, which leaves out what runs of one recipe differ by."


def _written(found: Estimate) -> str:
    ends = "" if found.low is None or found.high is None else f" [{found.low:.3f}, {found.high:.3f}]"
    return f"{found.value:.3f}{ends}"
