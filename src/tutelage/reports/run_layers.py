"""Which teacher layer each student layer is compared with, and how near the two are on held-out data.

Covers: the layer map, the angle beside its two baselines. Does not cover: how the map is made (`students.layer_map`).
"""

from __future__ import annotations

import numpy as np

from tutelage.reports import words
from tutelage.reports.canvas import Canvas
from tutelage.reports.content import Figure, Section, Table
from tutelage.reports.palette import colour
from tutelage.reports.plan_document import Part

_SHOWN = (
    ("angle", "student and teacher", "hue2"),
    ("mean_vector", "mean vector", "hue1"),
    ("shuffled", "shuffled", "mark"),
)


def layer_section(document: Part) -> Section:
    """The layer map with its figure; empty where no term compares states."""
    pairs = document.rows("layer_map")
    measured = {name: part for name, part in document.parts("alignment").items() if part.has("angle")}
    if not pairs and not measured:
        return Section("Layers")
    figure = (_figure(measured),) if measured else ()
    rows = tuple(
        (f"{pair.text('side') or 'decoder'} {pair.number('student'):.0f}", f"{pair.number('teacher'):.0f}")
        for pair in pairs
    )
    table = Table(("student's layer", "teacher's layer"), rows, "The layer map, counted from 1") if rows else None
    return Section("Layers", figures=figure, tables=(table,) if table is not None and not figure else ())


def _figure(measured: dict[str, Part]) -> Figure:
    names = list(measured)
    values = {
        key: [part.number(key) if part.has(key) else np.nan for part in measured.values()] for key, _, _ in _SHOWN
    }
    nearer = [a < min(b, c) for a, b, c in zip(*(values[key] for key, _, _ in _SHOWN), strict=True)]
    count = sum(nearer)
    finding = (
        f"At {count} of {words.plural(len(names), 'pair')} of layers the student's states are nearer to the teacher's "
        "than both the teacher's mean vector and the states of other positions are."
    )

    def draw(canvas: Canvas) -> None:
        x = np.arange(len(names), dtype=float)
        for marker, (key, label, hue) in enumerate(_SHOWN):
            canvas.points(x, np.array(values[key]), hue, marker=marker, size=8.0)
            canvas.axes.plot([], [], linestyle="none", marker="os^"[marker], color=colour(hue), label=label)
        canvas.axes.set_xlim(-0.5, len(names) - 0.5)
        canvas.axes.set_ylim(bottom=0.0)
        every = -(-len(names) // (4 if canvas.narrow else 10))
        canvas.axes.set_xticks(x[::every], [_pair(name) for name in names[::every]])
        canvas.headroom(0.3 if canvas.narrow else 0.16)
        canvas.axes.legend(
            loc="upper left",
            ncols=1 if canvas.narrow else 3,
            frameon=False,
            labelcolor=colour("ink"),
            borderaxespad=0.1,
        )
        canvas.few_y()
        canvas.label("Student's layer → teacher's layer", "Angle, radians")

    rows = tuple(
        (_pair(name), *(words.nats(values[key][index]) for key, _, _ in _SHOWN)) for index, name in enumerate(names)
    )
    table = Table(("student's → teacher's layer", *(label for _, label, _ in _SHOWN)), rows, "Mean angles in radians")
    reading = (
        "Mean angle between student's and teacher's states on held-out data; lower is nearer. Beside it what the "
        "teacher's mean vector and its states of shuffled positions give without any learning."
    )
    return Figure("layers", "Alignment of layers", finding, reading, table, draw, 0.45)


def _pair(name: str) -> str:
    return name.replace("-", " → ")
