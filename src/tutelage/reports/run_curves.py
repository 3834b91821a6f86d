"""How a run went, step by step: total loss, every term, weights, gradients, learning rate, checks on the dev split.

Covers: one figure each, with a running mean where there are enough steps. Does not cover: what the run reached
(`run_scores`).
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from tutelage.laws.numbers import FloatArray
from tutelage.reports import words
from tutelage.reports.canvas import Canvas
from tutelage.reports.content import Figure, Table
from tutelage.reports.palette import HUES
from tutelage.reports.run_files import RunFiles
from tutelage.reports.run_words import METRICS, in_sentence, term_name

_ROWS = 13
_MARGIN = 0.015
"""Left free beside the first and the last step, as a share, so that marks are whole."""
_ENDS = 0.1
"""The share of the steps at each end whose mean a finding speaks of."""
_SMOOTH = 0.05
"""The share of the steps that a running mean goes over."""
_FEWEST = 40
"""With fewer steps there is nothing to smooth."""
_UNITS = {"angle": "radians", "cross_entropy": "nats per token", "kl": "nats per token"}
_REACH = 20.0
"""Norms that differ by more are drawn on a logarithmic axis."""


def curve_figures(files: RunFiles) -> tuple[Figure, ...]:
    """Every figure along the steps; none where no step was logged."""
    steps = files.steps
    if not steps:
        return ()
    at = np.array([float(line["step"]) for line in steps])
    names = list(dict.fromkeys(name for line in steps for name in line["terms"]))
    weights = {name: _series(steps, "weights", name) for name in names}
    norms = {name: _series(steps, "term_gradient_norms", name) for name in names}
    found = [_loss("total-loss", "Total loss", at, np.array([float(line["total"]) for line in steps]), "", _TOTAL)]
    found += [
        _loss(
            f"term-{number}",
            term_name(name),
            at,
            _series(steps, "terms", name),
            _UNITS.get(name, ""),
            _weighing(weights[name]),
        )
        for number, name in enumerate(names)
    ]
    varying = {name: values for name, values in weights.items() if np.unique(values[np.isfinite(values)]).size > 1}
    if varying:
        found.append(_weights(at, weights))
    found.append(_gradients(at, np.array([float(line["gradient_norm"]) for line in steps]), norms))
    found.append(_rate(at, np.array([float(line["learning_rate"]) for line in steps])))
    return (*found, *_dev(files.checks))


_TOTAL = "The weighted sum that was minimised."


def _series(steps: Sequence[Mapping[str, Any]], key: str, name: str) -> FloatArray:
    """One number a step, NaN where it was not measured."""
    found = [(line.get(key) or {}).get(name) for line in steps]
    return np.array([float(value) if isinstance(value, int | float) else math.nan for value in found])


def _weighing(values: FloatArray) -> str:
    known = values[np.isfinite(values)]
    if not known.size:
        return "Unweighted."
    if np.unique(known).size == 1:
        return f"Unweighted; its weight is {words.number(float(known[0]))} throughout."
    return f"Unweighted; its weight goes from {words.number(float(known[0]))} to {words.number(float(known[-1]))}."


def _loss(name: str, title: str, at: FloatArray, values: FloatArray, unit: str, note: str) -> Figure:
    known = np.isfinite(values)
    x, y = at[known], values[known]
    if not x.size:
        x, y = at[:1], np.zeros(1)
        note = f"{note} Never measured."
    axis = f"{title}, {unit}" if unit else title

    def draw(canvas: Canvas) -> None:
        smooth = _smooth(y)
        if smooth is None:
            canvas.curve(x, y, "hue1")
            if x.size == 1:
                canvas.points(x, y, "hue1")
        else:
            canvas.curve(x, y, "mark", width=0.6)
            canvas.curve(x, smooth, "hue1", width=2.2)
        _along(canvas, at, axis)

    how = "" if _smooth(y) is None else f" Thin: every step; strong: mean over {_window(y.size)} steps."
    table = _table(at, {axis: values}, f"{title} at some steps")
    return Figure(name, title, _change(title, x, y), note + how, table, draw, 0.36)


def _change(title: str, x: FloatArray, y: FloatArray) -> str:
    """From the mean over the first steps to the mean over the last."""
    if y.size == 1:
        return f"{title} is {words.number(float(y[0]))} at step {x[0]:.0f}, the only one."
    count = max(1, round(_ENDS * y.size))
    first, last = float(y[:count].mean()), float(y[-count:].mean())
    verb = "fell" if last < first else "rose" if last > first else "stayed"
    over = f"means over the first and the last {words.plural(count, 'step')}" if count > 1 else "first and last step"
    return f"{title} {verb} from {words.number(first, 3)} to {words.number(last, 3)} ({over})."


def _window(count: int) -> int:
    return max(3, round(_SMOOTH * count))


def _smooth(values: FloatArray) -> FloatArray | None:
    """The centred running mean, shorter at the ends; None where there are few steps."""
    if values.size < _FEWEST:
        return None
    half = _window(values.size) // 2
    total = np.concatenate([[0.0], np.cumsum(values)])
    low = np.maximum(np.arange(values.size) - half, 0)
    high = np.minimum(np.arange(values.size) + half + 1, values.size)
    smoothed: FloatArray = (total[high] - total[low]) / (high - low)
    return smoothed


def _along(canvas: Canvas, at: FloatArray, axis: str) -> None:
    from matplotlib.ticker import MaxNLocator

    left, right = float(at.min()), float(at.max())
    pad = _MARGIN * (right - left) or 0.5
    canvas.axes.set_xlim(left - pad, right + pad)
    most = 5 if canvas.narrow else 7
    canvas.axes.xaxis.set_major_locator(MaxNLocator(most, steps=[1, 2, 2.5, 5, 10], integer=True))
    canvas.few_y()
    canvas.label("Step", axis)


def _weights(at: FloatArray, weights: Mapping[str, FloatArray]) -> Figure:
    def draw(canvas: Canvas) -> None:
        for number, values in enumerate(weights.values()):
            canvas.curve(at, values, HUES[number % len(HUES)], dash=number)
        _along(canvas, at, "Weight")
        for number, (name, values) in enumerate(weights.items()):
            canvas.end(float(values[-1]), term_name(name), HUES[number % len(HUES)])

    ends = [
        f"{in_sentence(term_name(name))} {words.number(float(values[0]))} to {words.number(float(values[-1]))}"
        for name, values in weights.items()
    ]
    table = _table(at, {term_name(name): values for name, values in weights.items()}, "Weights at some steps")
    finding = f"Weights from the first to the last step: {'; '.join(ends)}."
    return Figure("weights", "Weights of the terms", finding, "One line a term.", table, draw, 0.36)


def _gradients(at: FloatArray, whole: FloatArray, norms: Mapping[str, FloatArray]) -> Figure:
    measured = {name: values for name, values in norms.items() if np.isfinite(values).any()}
    everything = np.concatenate([whole, *measured.values()])
    positive = everything[np.isfinite(everything) & (everything > 0)]
    log = positive.size > 0 and positive.max() > _REACH * positive.min()

    def draw(canvas: Canvas) -> None:
        canvas.curve(at, whole, "mark", width=1.0)
        for number, values in enumerate(measured.values()):
            some = np.isfinite(values)
            hue = HUES[number % len(HUES)]
            if some.sum() > 1:
                canvas.curve(at[some], values[some], hue, dash=number)
            canvas.points(at[some], values[some], hue, marker=number)
        if log:
            canvas.axes.set_yscale("log")
        _along(canvas, at, "Gradient norm, before clipping")
        if log:
            _decades(canvas, float(positive.min()), float(positive.max()))
        canvas.end(float(whole[-1]), "all", "soft")
        for number, (name, values) in enumerate(measured.items()):
            some = np.flatnonzero(np.isfinite(values))
            last, hue = some[-1], HUES[number % len(HUES)]
            if some.size > 1:
                canvas.end(float(values[last]), term_name(name), hue)
            else:
                canvas.say(float(at[last]), float(values[last]), term_name(name), ("left", "bottom"), hue)

    finding = f"The gradient's norm is {words.number(float(np.median(whole)), 3)} at the median step"
    if measured:
        last = {name: float(values[np.isfinite(values)][-1]) for name, values in measured.items()}
        told = words.listed(
            [f"{in_sentence(term_name(name))} {words.number(value, 3)}" for name, value in last.items()]
        )
        finding += f"; of the unweighted terms, where last measured: {told}"
    columns = {"all, weighted": whole, **{term_name(name): values for name, values in measured.items()}}
    shown = [*np.flatnonzero(np.any([np.isfinite(values) for values in measured.values()], axis=0))] if measured else []
    table = _table(at, columns, "Gradient norms at some steps", shown)
    reading = (
        "Grey: all terms as weighted, every step. Marks: each unweighted term alone, at the steps that measured it."
    )
    return Figure("gradients", "Gradient norms", f"{finding}.", reading, table, draw, 0.42)


def _decades(canvas: Canvas, low: float, high: float) -> None:
    """Few ticks on a logarithmic y axis."""
    from matplotlib.ticker import FixedLocator, FuncFormatter, NullLocator

    from tutelage.reports.canvas import round_ticks

    axes = canvas.axes
    axes.set_ylim(low / 1.3, high * 1.3)
    axes.yaxis.set_major_locator(FixedLocator(round_ticks(low / 1.3, high * 1.3, 5)))
    axes.yaxis.set_minor_locator(NullLocator())
    axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: words.number(value, 3)))


def _rate(at: FloatArray, rates: FloatArray) -> Figure:
    def draw(canvas: Canvas) -> None:
        canvas.curve(at, rates, "hue1")
        _along(canvas, at, "Learning rate")
        canvas.few_y(lambda value: words.number(value, 2))

    top = int(np.argmax(rates))
    finding = (
        f"The learning rate is highest at step {at[top]:.0f} ({words.number(float(rates[top]), 2)}) and ends at "
        f"{words.number(float(rates[-1]), 2)}."
    )
    table = _table(at, {"learning rate": rates}, "Learning rate at some steps")
    return Figure("learning-rate", "Learning rate", finding, "One value a step.", table, draw, 0.3)


def _dev(checks: Sequence[Mapping[str, Any]]) -> tuple[Figure, ...]:
    """The metric on the dev split with its interval; none without checks."""
    if not checks:
        return ()
    name = str(checks[0].get("metric") or "metric")
    kind = METRICS.get({"loss": "nats_per_token"}.get(name, name))
    title = kind.label if kind is not None else words.sentence(words.label(name))
    scale = kind.scale if kind is not None else 1.0
    write = (lambda value: f"{value:.{kind.digits}f}") if kind is not None else words.number
    at = np.array([float(line["step"]) for line in checks])
    value, low, high = (
        scale * np.array([float(line[end]) if isinstance(line.get(end), int | float) else math.nan for line in checks])
        for end in ("value", "low", "high")
    )
    best = int(np.argmin(value))

    def draw(canvas: Canvas) -> None:
        canvas.band(at, low, high, "hue1")
        canvas.curve(at, value, "hue1")
        canvas.points(at, value, "hue1")
        canvas.points(at[[best]], value[[best]], "hue2", marker=3, size=8.0)
        _along(canvas, at, f"{title}, dev split")

    rows = tuple(
        (f"{step:.0f}", write(float(v)), words.between(float(lo), float(hi), write))
        for step, v, lo, hi in zip(at, value, low, high, strict=True)
    )
    finding = (
        f"On the dev split the {in_sentence(title)} is lowest at step {at[best]:.0f}: {write(float(value[best]))}."
    )
    reading = "Each point is a check; the band is its interval; the diamond is the lowest. Lower is better."
    table = Table(("step", title, "interval"), rows, "Every check on the dev split")
    return (Figure("dev", "Checks on the dev split", finding, reading, table, draw, 0.42),)


def _table(at: FloatArray, columns: Mapping[str, FloatArray], title: str, wanted: Sequence[int] = ()) -> Table:
    """Evenly spaced steps, the first and the last among them; of `wanted` ones where given."""
    among = np.array(wanted if len(wanted) else range(at.size), dtype=int)
    chosen = among[np.unique(np.linspace(0, among.size - 1, min(_ROWS, among.size)).round().astype(int))]
    rows = tuple(
        (f"{at[index]:.0f}", *(words.number(float(values[index])) for values in columns.values())) for index in chosen
    )
    return Table(("step", *columns), rows, title)
