"""How well a law meets the runs that it was fitted on: residuals, and observed against predicted.

Covers: every run's residual with the interval of its prediction, where the worst lie. Does not cover: the fit's own
diagnostics, which a law carries (`law_report`).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from tutelage.laws.families.distillation import DistillationLaw
from tutelage.laws.law import Law
from tutelage.laws.numbers import FloatArray
from tutelage.laws.uncertainty import interval
from tutelage.reports import words
from tutelage.reports.canvas import Canvas
from tutelage.reports.content import Figure, Table
from tutelage.reports.law_curves import band_name
from tutelage.reports.palette import colour

_SHARE = 0.9
"""The share of runs that a finding speaks of."""
_CLASSES = 5


@dataclass(frozen=True)
class Residuals:
    """The runs of a law against its predictions; every array has shape (runs,).

    Args:
        law: The law.
        columns: The runs.
        observed: Losses, nats per token.
        predicted: The law's losses.
        low: Lower end of the law's interval.
        high: Upper end.
        across: What the residuals are drawn over.
        axis: Its name.
        split: A place on it worth a mark, with its name, or None.
    """

    law: Law
    columns: Mapping[str, FloatArray]
    observed: FloatArray
    predicted: FloatArray
    low: FloatArray
    high: FloatArray
    across: FloatArray
    axis: str
    split: tuple[float, str] | None

    @property
    def relative(self) -> FloatArray:
        """Observed over predicted, minus 1."""
        relative: FloatArray = self.observed / self.predicted - 1.0
        return relative

    @property
    def typical(self) -> float:
        """What 90 % of the absolute relative residuals are within."""
        return float(np.quantile(np.abs(self.relative), _SHARE))

    @property
    def worst(self) -> int:
        """Index of the run with the largest absolute residual."""
        return int(np.argmax(np.abs(self.relative)))


def residuals(law: Law) -> Residuals | None:
    """The residuals of a law's runs; None where it has no runs, or not the columns of its family."""
    family = law.family
    letters = {column.letter for column in family.inputs} | {family.loss}
    if law.runs is None or len(law.runs) == 0 or not letters <= set(law.runs.columns):
        return None
    columns = law.runs.arrays()
    low, high = interval(law, lambda equation: family.predict(equation, columns))
    across, axis, split = _across(law, columns)
    predicted = family.predict(law.equation, columns)
    return Residuals(law, columns, columns[family.loss], predicted, low, high, across, axis, split)


def _across(law: Law, columns: Mapping[str, FloatArray]) -> tuple[FloatArray, str, tuple[float, str] | None]:
    if isinstance(law.equation, DistillationLaw):
        own = law.supervised.predict(columns["N_S"], columns["D_S"])
        return (
            columns["L_T"] / own,
            "Loss of the teacher over the student's supervised loss",
            (
                float(law.equation.knee),
                "knee",
            ),
        )
    if "U" in columns:
        return columns["D"] / np.minimum(columns["U"], columns["D"]), "Passes over the distinct tokens", None
    held_out = law.diagnostics.get("held_out")
    begins = held_out.get("compute_from") if isinstance(held_out, dict) else None
    split = (float(begins), "held-out check begins") if isinstance(begins, int | float) else None
    return law.forward.training_per_token(columns["N"]) * columns["D"], "Training compute, FLOPs", split


def residual_figure(found: Residuals) -> Figure:
    """Each run's residual with the interval of its prediction."""
    worst, relative = found.worst, found.relative
    finding = (
        f"{100 * _SHARE:.0f} % of the {len(relative)} runs lie within ±{words.percent(found.typical)} of the law; the "
        f"worst, run {worst + 1}, is {words.percent(abs(relative[worst]))} {_side(relative[worst])} it."
    )
    reading = f"Each point is a run; the shaded band holds {100 * _SHARE:.0f} % of them."
    if found.law.draws or found.law.rounding:
        outside = float(np.mean((found.observed < found.low) | (found.observed > found.high)))
        reading += (
            f" Vertical lines: {band_name(found.law)} of the prediction; {words.percent(outside)} of the runs lie "
            "beyond it, since it leaves out the noise of a run."
        )
    table = _run_table(found)
    return Figure(
        "residuals",
        "Residuals of the runs",
        finding,
        reading,
        table,
        lambda canvas: _draw_residuals(canvas, found),
        0.46,
    )


def _side(relative: float) -> str:
    return "above" if relative > 0 else "below"


def _draw_residuals(canvas: Canvas, found: Residuals) -> None:
    axes, across, relative, worst = canvas.axes, found.across, 100 * found.relative, found.worst
    if found.axis.startswith("Loss"):
        pad = 0.04 * float(np.ptp(across)) or 0.1
        axes.set_xlim(float(across.min()) - pad, float(across.max()) + pad)
        canvas.few_x()
    else:
        write = words.power if "compute" in found.axis else words.number
        canvas.log_x(float(across.min()) / 1.3, float(across.max()) * 1.3, write)
    axes.axhspan(-100 * found.typical, 100 * found.typical, facecolor=colour("hue1"), alpha=0.12, linewidth=0)
    axes.axhline(0, color=colour("soft"), linewidth=1.0)
    low, high = (100 * (end / found.predicted - 1) for end in (found.low, found.high))
    if np.any(high > low):
        axes.vlines(across, relative + low, relative + high, color=colour("hue1"), linewidth=0.8, alpha=0.55)
    canvas.points(across, relative, "hue1", size=4.5)
    canvas.points(across[[worst]], relative[[worst]], "hue2", marker=3, size=7.0)
    reach = (1.15 if found.split is None else 1.35) * float(np.max(np.abs(relative))) or 1.0
    axes.set_ylim(-reach, reach)
    place = ("center", "bottom" if relative[worst] > 0 else "top")
    canvas.say(float(across[worst]), float(relative[worst]), f"run {worst + 1}", place)
    if found.split is not None:
        canvas.at(*found.split)
    canvas.few_y(lambda value: f"{value:+g} %".replace("-", "−") if value else "0")
    canvas.label(found.axis, "Observed over predicted loss")


def _run_table(found: Residuals) -> Table:
    letters = [column.letter for column in found.law.family.inputs]
    rows = tuple(
        (
            str(run + 1),
            *(
                words.nats(float(found.columns[letter][run]))
                if letter.startswith("L")
                else words.count(float(found.columns[letter][run]))
                for letter in letters
            ),
            words.nats(float(found.observed[run]), 4),
            words.nats(float(found.predicted[run]), 4),
            words.between(float(found.low[run]), float(found.high[run]), lambda end: words.nats(end, 4))
            if found.low[run] < found.high[run]
            else words.NONE,
            f"{100 * found.relative[run]:+.2f}",
        )
        for run in range(len(found.observed))
    )
    headers = ("run", *letters, "observed", "predicted", "interval of the prediction", "residual, %")
    return Table(headers, rows, "Every run, numbered as in the law file; losses in nats per token")


def agreement_figure(found: Residuals) -> Figure:
    """Observed against predicted loss."""
    observed, predicted = found.observed, found.predicted
    order = np.argsort(predicted, kind="stable")
    parts = [part for part in np.array_split(order, _CLASSES) if len(part)]
    bias = [float(np.mean(found.relative[part])) for part in parts]
    largest = int(np.argmax(np.abs(bias)))
    where, size = _ordinal(largest, len(parts)), words.percent(abs(bias[largest]))
    finding = (
        "The law is even across the range of losses: the largest mean residual of any fifth of the runs is "
        f"{size} ({where}, {_side(bias[largest])} the law)."
        if abs(bias[largest]) <= found.typical
        else "The law is not even across the range of losses: the runs with the "
        f"{where} lie {size} {_side(bias[largest])} it on average."
    )

    def draw(canvas: Canvas) -> None:
        low, high = float(min(observed.min(), predicted.min())), float(max(observed.max(), predicted.max()))
        pad = 0.04 * (high - low) or 0.1
        ends = np.array([low - pad, high + pad])
        axes = canvas.axes
        axes.set_xlim(*ends)
        axes.set_ylim(*ends)
        canvas.band(ends, ends * (1 - found.typical), ends * (1 + found.typical), "hue1", 0.12)
        canvas.curve(ends, ends, "soft", width=1.0)
        canvas.points(predicted, observed, "hue1", size=4.5)
        worst = found.worst
        canvas.points(predicted[[worst]], observed[[worst]], "hue2", marker=3, size=7.0)
        side = "left" if observed[worst] < predicted[worst] else "right"
        canvas.say(float(predicted[worst]), float(observed[worst]), f"run {worst + 1}", (side, "center"))
        canvas.few_x()
        canvas.few_y()
        canvas.label("Predicted loss, nats per token", "Observed loss, nats per token")

    rows = tuple(
        (
            _ordinal(index, len(parts)),
            str(len(part)),
            words.between(float(predicted[part].min()), float(predicted[part].max()), words.nats),
            f"{100 * mean:+.2f}",
            f"{100 * float(np.max(np.abs(found.relative[part]))):.2f}",
        )
        for index, (part, mean) in enumerate(zip(parts, bias, strict=True))
    )
    headers = ("runs", "number", "predicted loss", "mean residual, %", "largest residual, %")
    reading = (
        f"Each point is a run; on the line the law is right, in the band it is within ±{words.percent(found.typical)}."
    )
    table = Table(headers, rows, "The runs in order of their predicted loss")
    return Figure("agreement", "Observed against predicted loss", finding, reading, table, draw, 0.62)


def _ordinal(index: int, of: int) -> str:
    names = ("lowest", "second lowest", "middle", "second highest", "highest") if of == _CLASSES else ()
    return f"{names[index] if names else 'highest' if index == of - 1 else 'lower'} losses"
