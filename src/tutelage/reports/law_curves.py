"""What a law says along training tokens: several sizes, and tokens that are repeated.

Covers: the two figures, each with the band of the law's own uncertainty; the sizes that figures of a law show. Does not
cover: teachers (`law_teachers`), the best size (`law_sizes`), how well runs are met (`law_runs`).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from tutelage.laws.families.data_constrained import DataConstrainedLaw
from tutelage.laws.family import Equation
from tutelage.laws.law import Law, Range
from tutelage.laws.numbers import FloatArray
from tutelage.laws.uncertainty import LEVEL, interval, interval_method
from tutelage.reports import words
from tutelage.reports.canvas import Canvas
from tutelage.reports.content import Figure, Table
from tutelage.reports.palette import STEPS

POINTS = 97
"""Points of a curve."""
SIZES: Range = (1e8, 1e10)
TOKENS: Range = (1e9, 1e12)
"""What is drawn of a law that does not say where it was fitted."""
_BEYOND = 4.0
"""How far past the fitted tokens a figure looks, as a factor."""
_ROWS = 7


@dataclass(frozen=True)
class Curve:
    """Loss along tokens with its interval, each of shape (points,).

    Args:
        name: What tells it from the others.
        loss: Nats per token.
        low: Lower end.
        high: Upper end.
    """

    name: str
    loss: FloatArray
    low: FloatArray
    high: FloatArray

    def cell(self, index: int) -> str:
        """One point as a cell of a table."""
        loss, low, high = (float(part[index]) for part in (self.loss, self.low, self.high))
        return words.with_ends(words.nats(loss), low, high, words.nats) if low < high else words.nats(loss)


def size_classes(law: Law) -> FloatArray:
    """The edges of five classes of size, equal in logarithm over the fitted range."""
    low, high = law.fitted.get("student_params", SIZES)
    return np.geomspace(low, high, len(STEPS) + 1)


def shown_sizes(law: Law) -> list[float]:
    """One size a class: its middle in logarithm, to two digits."""
    edges = size_classes(law)
    return [float(f"{size:.1e}") for size in np.sqrt(edges[1:] * edges[:-1])]


def band_name(law: Law) -> str:
    """What the bands of this law are made of, in a sentence."""
    if law.draws:
        return f"{100 * LEVEL:g} % interval from {interval_method(law).removeprefix('bootstrap, ')}"
    return "rounding band" if law.rounding else "no band: the law has neither draws nor rounding"


def token_figure(law: Law) -> Figure:
    """Loss of ordinary training along tokens, one curve a size, with the runs where the law has them."""
    fitted = law.fitted.get("student_tokens", TOKENS)
    tokens = np.geomspace(fitted[0] / _BEYOND, fitted[1] * _BEYOND, POINTS)
    curves = [_supervised(law, size, tokens) for size in shown_sizes(law)]
    runs = _supervised_runs(law)
    reading = (
        "One curve a size in parameters; bands are the law's uncertainty, not the spread of runs. Shaded: outside the "
        "fitted range."
    )
    if runs is not None:
        reading += f" Points are the {len(runs['N'])} runs, in the shade and shape of the nearest size."
    return Figure(
        "tokens",
        "Loss along training tokens",
        _token_finding(law, fitted, tokens, curves),
        reading,
        _table(tokens, curves, "Loss in nats per token, by size; the interval below"),
        lambda canvas: _draw_tokens(canvas, law, tokens, curves, fitted, runs),
    )


def _token_finding(law: Law, fitted: Range, tokens: FloatArray, curves: list[Curve]) -> str:
    smallest, largest = curves[0], curves[-1]
    ends = [
        float(law.supervised.predict(size, end))
        for size, end in zip((shown_sizes(law)[0], shown_sizes(law)[-1]), fitted, strict=True)
    ]
    text = (
        f"From {smallest.name} parameters on {words.count(fitted[0])} tokens to {largest.name} on "
        f"{words.count(fitted[1])}, the loss falls from {words.nats(ends[0])} to {words.nats(ends[1])} nats per token"
    )
    if not (law.draws or law.rounding):
        return f"{text}."
    inside = (tokens >= fitted[0]) & (tokens <= fitted[1])
    half = [(curve.high - curve.low) / curve.loss / 2 for curve in curves]
    within, beyond = (max(float(each[where].max()) for each in half) for where in (inside, ~inside))
    return (
        f"{text}; the {band_name(law)} is within ±{words.percent(within)} where the law was fitted and reaches "
        f"±{words.percent(beyond)} at {_BEYOND:g} times as many or as few tokens."
    )


def _draw_tokens(
    canvas: Canvas,
    law: Law,
    tokens: FloatArray,
    curves: list[Curve],
    fitted: Range,
    runs: dict[str, FloatArray] | None,
) -> None:
    canvas.log_x(float(tokens[0]), float(tokens[-1]))
    if runs is not None:
        classes = np.clip(np.digitize(runs["N"], size_classes(law)) - 1, 0, len(STEPS) - 1)
        for index, step in enumerate(STEPS):
            chosen = classes == index
            canvas.points(runs["D"][chosen], runs["L"][chosen], step, marker=index, size=4.5)
    for step, curve in zip(STEPS, curves, strict=True):
        canvas.band(tokens, curve.low, curve.high, step)
        canvas.curve(tokens, curve.loss, step)
        canvas.end(float(curve.loss[-1]), curve.name, step)
    canvas.few_y()
    canvas.label("Training tokens", "Loss, nats per token")
    canvas.outside(fitted)


def _supervised(law: Law, size: float, tokens: FloatArray) -> Curve:
    def loss(equation: Equation) -> FloatArray:
        return equation.supervised.predict(size, tokens)

    return Curve(words.count(size), loss(law.equation), *interval(law, loss))


def _supervised_runs(law: Law) -> dict[str, FloatArray] | None:
    """Runs of ordinary training on fresh tokens."""
    if law.runs is None or "U" in law.runs.columns or not {"N", "D", "L"} <= set(law.runs.columns):
        return None
    return law.runs.arrays()


def _table(tokens: FloatArray, curves: list[Curve], title: str) -> Table:
    chosen = np.linspace(0, len(tokens) - 1, _ROWS).astype(int).tolist()
    rows = tuple((words.count(float(tokens[i])), *(curve.cell(i) for curve in curves)) for i in chosen)
    return Table(("tokens", *(curve.name for curve in curves)), rows, title)


def repetition_figure(law: Law, equation: DataConstrainedLaw) -> Figure:
    """Loss along tokens when only so many of them are distinct."""
    size = shown_sizes(law)[2]
    most = law.fitted.get("student_tokens", TOKENS)[1]
    unique = [float(f"{supply:.0e}") for supply in np.geomspace(most / 300, most / 10, 3)]
    tokens = np.geomspace(unique[0], most, POINTS)
    curves = [_repeated(law, size, tokens, words.count(supply), np.full_like(tokens, supply)) for supply in unique]
    curves.append(_repeated(law, size, tokens, "all fresh", tokens))
    worth = float(equation.effective_tokens(4 * unique[1], unique[1])) / unique[1]
    four, sixteen = (float(equation.predict(size, times * unique[1], unique[1])) for times in (4, 16))
    finding = (
        f"Of {words.count(unique[1])} distinct tokens, four passes are worth {worth:.2f} passes of fresh ones; for "
        f"{words.count(size)} parameters, sixteen passes end {words.nats(abs(four - sixteen))} nats "
        f"{'below' if sixteen <= four else 'above'} four."
    )

    def draw(canvas: Canvas) -> None:
        canvas.log_x(float(tokens[0]), float(tokens[-1]))
        for index, (curve, begins) in enumerate(zip(curves, (*unique, 0.0), strict=True)):
            shown, hue = tokens >= begins, f"hue{index + 1}"
            canvas.band(tokens[shown], curve.low[shown], curve.high[shown], hue)
            canvas.curve(tokens[shown], curve.loss[shown], hue, dash=index)
            canvas.end(float(curve.loss[-1]), curve.name, hue)
        canvas.few_y()
        canvas.label("Training tokens, repeats included", "Loss, nats per token")

    reading = f"One curve a supply of distinct tokens, for {words.count(size)} parameters; each begins with one pass."
    table = _table(tokens, curves, "Loss in nats per token, by distinct tokens")
    return Figure("repetition", "Loss when tokens are repeated", finding, reading, table, draw)


def _repeated(law: Law, size: float, tokens: FloatArray, name: str, unique: FloatArray) -> Curve:
    def loss(equation: Any) -> FloatArray:
        predicted: FloatArray = equation.predict(size, tokens, unique)
        return predicted

    return Curve(name, loss(law.equation), *interval(law, loss))
