"""The compute-optimal size under a law's supervised part: loss over size at several budgets.

Covers: the optimum with the law's uncertainty, and how flat the valley around it is. Does not cover: distillation under
a budget, which is a plan's.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from tutelage.laws.family import Equation
from tutelage.laws.fitting.quantities import Setting, optimal_params
from tutelage.laws.law import Law
from tutelage.laws.numbers import FloatArray
from tutelage.laws.uncertainty import interval
from tutelage.reports import words
from tutelage.reports.canvas import Canvas
from tutelage.reports.content import Figure, Table
from tutelage.reports.law_curves import POINTS, SIZES, TOKENS, band_name
from tutelage.reports.palette import STEPS

NEAR_OPTIMAL = 0.005
"""Relative: sizes whose loss is this close to the least one are as good."""
_REACH = 14.0
"""How far from the optimum a curve is drawn, as a factor."""
_RISE = 1.1
"""How far above the optimum, likewise."""


@dataclass(frozen=True)
class Valley:
    """Loss over size at one budget.

    Args:
        budget: FLOPs.
        params: The optimal size.
        low: Lower end of its interval.
        high: Upper end.
        tokens: What the budget pays for at that size.
        line: The loss at every size of the grid, NaN far from the optimum.
        near: The sizes that lose at most 0.5 % more.
    """

    budget: float
    params: float
    low: float
    high: float
    tokens: float
    line: FloatArray
    near: tuple[float, float]

    @property
    def ends(self) -> tuple[float | None, float | None]:
        """The interval of the size, where it has one."""
        return (self.low, self.high) if self.low < self.high else (None, None)

    @property
    def least(self) -> float:
        """The loss at the optimum, nats per token."""
        return float(np.nanmin(self.line))


def optimum_figure(law: Law) -> Figure:
    """Loss over size at several budgets, with the optimal size and the ones that are as good."""
    grid, valleys = _valleys(law)
    rows = tuple(
        (
            words.power(valley.budget),
            words.with_ends(words.count(valley.params), *valley.ends, words.count),
            words.between(*valley.near, words.count),
            words.count(valley.tokens),
            f"{valley.tokens / valley.params:.3g}",
            words.nats(valley.least),
        )
        for valley in valleys
    )
    headers = ("FLOPs", "parameters", "within 0.5 %", "tokens", "tokens a parameter", "loss")
    reading = (
        "One curve a budget in FLOPs for ordinary training: larger models see fewer tokens. The mark is the optimum, "
        "the thick part loses less than 0.5 % more. Shaded: outside the fitted range."
    )
    return Figure(
        "optimum",
        "Loss over size at fixed compute",
        _finding(law, valleys[len(valleys) // 2]),
        reading,
        Table(headers, rows, f"Compute-optimal training ({band_name(law)} below each size)"),
        lambda canvas: _draw(canvas, grid, valleys, law.fitted.get("student_params")),
    )


def _valleys(law: Law) -> tuple[FloatArray, list[Valley]]:
    sizes, data = law.fitted.get("student_params", SIZES), law.fitted.get("student_tokens", TOKENS)
    per_token = law.forward.training_per_token
    budgets = _round_budgets(*(float(per_token(size)) * tokens for size, tokens in zip(sizes, data, strict=True)))

    settings = [Setting(law.forward, budget, sizes[1], data[1]) for budget in budgets]

    def optimal(equation: Equation) -> FloatArray:
        found = [optimal_params(equation, setting) for setting in settings]
        return np.concatenate(found, axis=-1) if np.ndim(found[0]) else np.array(found)

    params = optimal(law.equation)
    low, high = interval(law, optimal)
    grid = np.geomspace(params[0] / _REACH, params[-1] * _REACH, 4 * POINTS)
    valleys = []
    for index, budget in enumerate(budgets):
        best = float(params[index])
        loss = law.supervised.predict(grid, budget / per_token(grid))
        near = grid[loss <= loss.min() * (1 + NEAR_OPTIMAL)]
        shown = (grid > best / _REACH) & (grid < best * _REACH) & (loss < _RISE * loss.min())
        valleys.append(
            Valley(
                budget,
                best,
                float(low[index]),
                float(high[index]),
                budget / float(per_token(best)),
                np.where(shown, loss, np.nan),
                (float(near[0]), float(near[-1])),
            )
        )
    return grid, valleys


def _round_budgets(low: float, high: float) -> list[float]:
    """Up to five powers of ten within, or the middle where there is none."""
    powers = [10.0**k for k in range(int(np.ceil(np.log10(low))), int(np.floor(np.log10(high))) + 1)]
    if not powers:
        return [float(f"{np.sqrt(low * high):.1e}")]
    chosen = np.unique(np.linspace(0, len(powers) - 1, min(len(STEPS), len(powers))).round().astype(int))
    return [powers[int(index)] for index in chosen]


def _finding(law: Law, valley: Valley) -> str:
    text = (
        f"At {words.power(valley.budget)} FLOPs the best size is {words.count(valley.params)} parameters on "
        f"{words.count(valley.tokens)} tokens ({valley.tokens / valley.params:.3g} a parameter"
    )
    if valley.low < valley.high:
        text += f"; {band_name(law)} {words.between(valley.low, valley.high, words.count)}"
    return (
        f"{text}), but it is a flat valley: {words.between(*valley.near, words.count)} lose less than "
        f"{words.percent(NEAR_OPTIMAL, 1)} more."
    )


def _label(canvas: Canvas, valley: Valley) -> str:
    return words.power(valley.budget) + ("" if canvas.narrow else " FLOPs")


def _draw(canvas: Canvas, grid: FloatArray, valleys: list[Valley], fitted: tuple[float, float] | None) -> None:
    canvas.log_x(float(grid[0]), float(grid[-1]))
    for index, valley in enumerate(valleys):
        step = STEPS[index]
        canvas.curve(grid, valley.line, step, width=1.3)
        good = (grid >= valley.near[0]) & (grid <= valley.near[1])
        canvas.curve(grid[good], valley.line[good], step, width=4.0)
        canvas.points(np.array([valley.params]), np.array([valley.least]), step, size=7.0)
        canvas.say(valley.params, valley.least, _label(canvas, valley), ("center", "top"), step)
    low, high = canvas.axes.get_ylim()
    canvas.axes.set_ylim(low - 0.06 * (high - low), high)
    canvas.few_y()
    canvas.label("Parameters", "Loss, nats per token")
    canvas.outside(fitted)
