"""The figures of a plan: loss and gain along compute, who gets which share, and which teacher.

Covers: drawing what the document's `curves` and `teacher_curve` hold, and the findings that their numbers give. Does
not cover: computing curves.
"""

from __future__ import annotations

import numpy as np

from tutelage.laws.numbers import FloatArray
from tutelage.reports import words
from tutelage.reports.canvas import Canvas
from tutelage.reports.content import Figure, Table
from tutelage.reports.palette import HUES, colour
from tutelage.reports.plan_curves import ORDER, Curves

_ROWS = 9
WITH = {
    "best": "With a free teacher",
    "inference": "Paying for any teacher's logits",
    "pretraining": "Training the teacher and storing its logits",
    "both": "Training the teacher for this one student",
    "shared": "Sharing a trained teacher",
    "existing": "With an existing teacher",
}
"""The ways in words that begin a sentence."""
_PARTS = ("student", "logits", "teacher")
_TRAINED = ("shared", "both", "pretraining")
"""Ways that train a teacher, and so divide the budget in three."""


def hue_of(way: str) -> str:
    """The colour that a way has in every figure."""
    return HUES[ORDER.index(way) % len(HUES)] if way in ORDER else "mark"


def _dash_of(way: str) -> int:
    return ORDER.index(way) if way in ORDER else 0


def loss_figure(curves: Curves) -> Figure:
    """The student's loss along compute in every way, against ordinary training."""
    shown = curves.shown
    compute = curves.compute[shown]
    ordinary = curves.supervised.series("loss", len(curves.compute))[shown]
    low, high = (curves.supervised.series(end, len(curves.compute))[shown] for end in ("low", "high"))

    def draw(canvas: Canvas) -> None:
        canvas.log_x(float(compute[0]), float(compute[-1]), words.power)
        canvas.band(compute, low, high, "ink", 0.12)
        if curves.free is not None:
            canvas.curve(compute, curves.free[shown], "soft", dash=2, width=1.3)
            canvas.end(_last(curves.free[shown]), "train, any size", "soft")
        for way in curves.ways:
            loss, hue = curves.series(way, "loss")[shown], hue_of(way)
            if way == curves.way:
                canvas.band(compute, curves.series(way, "low")[shown], curves.series(way, "high")[shown], hue)
            canvas.curve(compute, loss, hue, dash=_dash_of(way), width=2.4 if way == curves.way else 1.6)
            canvas.end(_last(loss), way, hue)
        canvas.curve(compute, ordinary, "ink", width=2.0)
        canvas.end(_last(ordinary), "train", "ink")
        _marks(canvas, curves)
        canvas.few_y()
        canvas.label("Compute for one student, FLOPs", "Loss of the student, nats per token")

    reading = (
        "One curve a way to distil; "
        "the plain line is ordinary training of the same size, the finely dotted one of any size."
    )
    if curves.breaks.get(curves.way or ""):
        reading += f" Shaded: where the break-even of {curves.way} may lie."
    headers = ("FLOPs", *curves.ways, "train", *(("train, any size",) if curves.free is not None else ()))
    columns = [curves.series(way, "loss")[shown] for way in curves.ways] + [ordinary]
    columns += [curves.free[shown]] if curves.free is not None else []
    rows = tuple(
        (words.power(float(compute[i])), *(words.nats(float(column[i]), 4) for column in columns))
        for i in _some(len(compute))
    )
    table = Table(headers, rows, "Loss in nats per token")
    return Figure("loss", "Loss along compute", _loss_finding(curves), reading, table, draw, 0.56)


def _loss_finding(curves: Curves) -> str:
    way = curves.way if curves.way in curves.scenarios else (curves.ways[0] if curves.ways else None)
    if way is None:
        return "No way to distil can be paid for at any budget that was looked at."
    text = words.prose(curves.texts.get(way, "no break-even was looked for"))
    return f"{WITH.get(way, way)}: {text}."


def gain_figure(curves: Curves) -> Figure:
    """What distilling gains over ordinary training of the same size, along compute."""
    shown = curves.shown
    compute = curves.compute[shown]
    gains = {way: curves.series(way, "gain")[shown] for way in curves.ways}
    bands = {way: [curves.series(way, f"gain_{end}")[shown] for end in ("low", "high")] for way in curves.ways}

    def draw(canvas: Canvas) -> None:
        canvas.log_x(float(compute[0]), float(compute[-1]), words.power)
        reach = _reach(curves, compute, list(gains.values()))
        canvas.axes.set_ylim(*reach)
        for way in curves.ways:
            hue = hue_of(way)
            canvas.band(compute, bands[way][0], bands[way][1], hue, 0.2 if way == curves.way else 0.1)
            canvas.curve(compute, gains[way], hue, dash=_dash_of(way), width=2.4 if way == curves.way else 1.6)
            canvas.end(float(np.clip(_last(gains[way]), *reach)), way, hue)
        canvas.axes.axhline(0, color=colour("ink"), linewidth=1.2)
        _marks(canvas, curves)
        canvas.few_y(lambda value: f"{value:+.3g}".replace("-", "−") if value else "0")
        canvas.label("Compute for one student, FLOPs", "Gain over ordinary training, nats per token")

    rows = tuple(
        (
            words.power(float(compute[i])),
            *(_gain_cell(gains[way], bands[way], i) for way in curves.ways),
        )
        for i in _some(len(compute))
    )
    reading = "Above the line distilling is better. Bands are the law's uncertainty; the two losses share it in part."
    table = Table(("FLOPs", *curves.ways), rows, "Gain in nats per token, with its interval below")
    return Figure("gain", "Gain of distilling along compute", _gain_finding(curves), reading, table, draw)


def _gain_cell(gain: FloatArray, band: list[FloatArray], index: int) -> str:
    low, high = (float(end[index]) for end in band)
    return words.with_ends(words.signed(float(gain[index])), low, high, words.signed)


def _gain_finding(curves: Curves) -> str:
    at = curves.budget or float(np.sqrt(curves.compute[0] * curves.compute[-1]))
    known = {way: _at(curves.compute, curves.series(way, "gain"), at) for way in curves.ways}
    known = {way: gain for way, gain in known.items() if np.isfinite(gain)}
    if not known:
        return f"At {words.power(at)} FLOPs no way to distil can be paid for."
    best, worst = max(known, key=known.__getitem__), min(known, key=known.__getitem__)
    text = f"At {words.power(at)} FLOPs distilling ends "
    if best == worst:
        return f"{text}{_below(known[best])} ordinary training."
    text += f"between {_below(known[best])} ({best}) and {_below(known[worst])} ordinary training ({worst})"
    if curves.way in known and curves.way not in (best, worst):
        text += f"; {WITH.get(curves.way, curves.way).lower()}: {_below(known[curves.way])}"
    return f"{text}."


def _below(gain: float) -> str:
    return f"{abs(gain):.3f} nats {'below' if gain >= 0 else 'above'}"


def share_figure(curves: Curves) -> Figure | None:
    """How the best allocation divides the budget, along compute."""
    way = curves.way if curves.way in _TRAINED else next((name for name in _TRAINED if name in curves.scenarios), None)
    if way is None or way not in curves.scenarios or not curves.scenarios[way].has("shares"):
        return None
    shown = curves.shown & np.isfinite(curves.series(way, "loss"))
    if shown.sum() < 2:
        return None
    shares = curves.scenarios[way].part("shares")
    parts = [100 * shares.series(name, len(curves.compute))[shown] for name in _PARTS]
    compute = curves.compute[shown]
    rows = tuple((words.power(float(compute[i])), *(f"{part[i]:.1f}" for part in parts)) for i in _some(len(compute)))
    return Figure(
        "shares",
        "Who gets which share",
        _share_finding(way, curves.budget, compute, parts),
        "Areas are shares of the best allocation at each budget; the vertical line is the budget asked about.",
        Table(("FLOPs", *(f"{name}, %" for name in _PARTS)), rows, f"Shares of the compute in the way {way}"),
        lambda canvas: _draw_shares(canvas, curves.budget, compute, parts),
        0.46,
    )


def _share_finding(way: str, budget: float | None, compute: FloatArray, parts: list[FloatArray]) -> str:
    at = budget or float(compute[len(compute) // 2])
    here = [f"{_at(compute, part, at):.0f}" for part in parts]
    last = [f"{part[-1]:.0f}" for part in parts]
    near, end = words.power(at), words.power(float(compute[-1]))
    return (
        f"{WITH.get(way, way)}: at {near} FLOPs {here[0]} % go to the student, {here[1]} % to logits and "
        f"{here[2]} % to training the teacher; at {end} it is {words.listed(last)} %."
    )


def _draw_shares(canvas: Canvas, budget: float | None, compute: FloatArray, parts: list[FloatArray]) -> None:
    canvas.log_x(float(compute[0]), float(compute[-1]), words.power)
    canvas.axes.set_ylim(0, 100)
    base, margin = np.zeros(len(compute)), len(compute) // 6
    for name, part, hue in zip(_PARTS, parts, ("hue1", "hue2", "hue3"), strict=True):
        canvas.band(compute, base, base + part, hue, 0.32)
        canvas.curve(compute, base + part, hue, width=1.2)
        widest = margin + int(np.argmax(part[margin : len(part) - margin]))
        if part[widest] > 7:
            side = "left" if widest < len(part) / 3 else "right" if widest > 2 * len(part) / 3 else "center"
            canvas.say(float(compute[widest]), float((base + part / 2)[widest]), name, (side, "center"))
        base = base + part
    if budget is not None:
        canvas.at(budget, "")
    canvas.few_y(lambda value: f"{value:g} %")
    canvas.label("Compute for one student, FLOPs", "Share of the compute")


def _marks(canvas: Canvas, curves: Curves) -> None:
    """The band of the break-even, and the budget asked about."""
    for end in curves.breaks.get(curves.way or "", ()):
        hue = hue_of(curves.way or "")
        if end.low is not None and end.high is not None:
            canvas.axes.axvspan(end.low, end.high, facecolor=colour(hue), alpha=0.1, linewidth=0, zorder=0.2)
        left = curves.budget is not None and end.value < curves.budget
        canvas.at(end.value, "break-even", hue, side="right" if left else "left")
    if curves.budget is not None:
        left = any(curves.budget < end.value for end in curves.breaks.get(curves.way or "", ()))
        canvas.at(curves.budget, "asked about", "ink", side="right" if left else "left")


def _reach(curves: Curves, compute: FloatArray, gains: list[FloatArray]) -> tuple[float, float]:
    """The range of gains that matters: from a decade below the budget on; what lies beyond runs out of the drawing."""
    from_here = compute >= (curves.budget or compute[0]) / 10
    values = np.concatenate([gain[from_here] for gain in gains])
    values = values[np.isfinite(values)]
    low, high = (float(min(values.min(), 0)), float(max(values.max(), 0))) if len(values) else (-1.0, 1.0)
    pad = 0.15 * (high - low) or 0.1
    return low - pad, high + pad


def _at(compute: FloatArray, series: FloatArray, budget: float) -> float:
    """A series at one budget, between its points."""
    return float(np.interp(np.log(budget), np.log(compute), series))


def _last(values: FloatArray) -> float:
    """The last number that there is."""
    finite = values[np.isfinite(values)]
    return float(finite[-1]) if len(finite) else float("nan")


def _some(length: int) -> list[int]:
    """A few indices, the ends included."""
    return [int(index) for index in np.unique(np.linspace(0, length - 1, min(_ROWS, length)).round())]
