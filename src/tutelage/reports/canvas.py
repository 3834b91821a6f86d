"""The ground that figures are drawn on: one look for all, in a wide and a narrow form.

Covers: axes without ornament, ticks as quantities and powers, labels at the ends of curves that keep out of each
other's way, shading of what lies outside the fitted range. Does not cover: what is drawn, and the SVG's embedding in a
page (`svg`).

Each figure is drawn twice, for a desk and for a phone: one drawing scaled to both would be too small on one of them.
"""

from __future__ import annotations

import io
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from tutelage.errors import MissingExtraError
from tutelage.laws.numbers import FloatArray
from tutelage.reports import words
from tutelage.reports.content import Figure
from tutelage.reports.palette import DASHES, MARKERS, STEPS, colour
from tutelage.reports.svg import embed

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_WIDTHS = {"wide": 720, "narrow": 360}
"""Pixels, at which a drawing has its nominal type size."""
_TYPE = {"wide": 12.5, "narrow": 11.0}
_NARROW_STRETCH = 1.55
"""A narrow drawing is taller for its width."""
_SALT = "tutelage"


def drawings(figure: Figure) -> tuple[str, str]:
    """The wide and the narrow drawing of a figure, each one `svg` element.

    Raises:
        MissingExtraError: matplotlib is not installed.
    """
    wide, narrow = (_draw(figure, form) for form in _WIDTHS)
    return wide, narrow


def _draw(figure: Figure, form: str) -> str:
    try:
        import matplotlib.style
        from matplotlib.backends.backend_svg import FigureCanvasSVG
        from matplotlib.figure import Figure as Drawing
    except ImportError as error:
        raise MissingExtraError("matplotlib", "report") from error

    width = _WIDTHS[form]
    height = width * figure.height * (_NARROW_STRETCH if form == "narrow" else 1.0)
    buffer = io.StringIO()
    with matplotlib.style.context(["default", _style(_TYPE[form])], after_reset=True):
        drawing = Drawing(figsize=(width / 72, height / 72), dpi=72, layout="constrained")
        FigureCanvasSVG(drawing)
        canvas = Canvas(drawing.subplots(), form == "narrow")
        figure.draw(canvas)
        canvas.finish()
        drawing.savefig(buffer, format="svg", transparent=True, metadata={"Date": None, "Creator": None})
    return embed(buffer.getvalue(), f"{figure.id}-{form}", figure.title, figure.finding, form)


def _style(size: float) -> dict[str, Any]:
    return {
        "svg.fonttype": "none",
        "svg.hashsalt": _SALT,
        "text.parse_math": False,
        "font.size": size,
        "axes.titlesize": size,
        "axes.labelsize": size,
        "xtick.labelsize": size,
        "ytick.labelsize": size,
        "text.color": colour("ink"),
        "axes.labelcolor": colour("soft"),
        "axes.titlecolor": colour("soft"),
        "axes.titlelocation": "left",
        "axes.titlepad": 9.0,
        "axes.edgecolor": colour("rule"),
        "axes.grid": True,
        "axes.grid.axis": "y",
        "axes.axisbelow": True,
        "axes.spines.left": False,
        "axes.spines.right": False,
        "axes.spines.top": False,
        "grid.color": colour("rule"),
        "grid.linewidth": 0.6,
        "xtick.color": colour("rule"),
        "ytick.color": colour("rule"),
        "xtick.labelcolor": colour("soft"),
        "ytick.labelcolor": colour("soft"),
        "xtick.minor.visible": False,
        "ytick.major.size": 0.0,
        "lines.linewidth": 1.8,
        "lines.solid_capstyle": "round",
        "figure.constrained_layout.h_pad": 0.03,
        "figure.constrained_layout.w_pad": 0.03,
    }


@dataclass(frozen=True)
class End:
    """A label for a curve, at its right end.

    Args:
        y: Where the curve ends.
        text: The label.
        hue: Name of the curve's colour.
    """

    y: float
    text: str
    hue: str


class Canvas:
    """One drawing in the making.

    Args:
        axes: The axes.
        narrow: Whether this is the form for a phone.
    """

    def __init__(self, axes: Axes, narrow: bool) -> None:
        self.axes = axes
        self.narrow = narrow
        self._ends: list[End] = []

    def label(self, x: str, y: str) -> None:
        """Name the axes: x below, y on top, where it reads without turning the head."""
        self.axes.set_xlabel(x, labelpad=6.0)
        self.axes.set_title(y)

    def log_x(self, low: float, high: float, write: Callable[[float], str] = words.count) -> None:
        """A logarithmic x axis from `low` to `high` with round ticks."""
        from matplotlib.ticker import FixedLocator, FuncFormatter, NullLocator

        self.axes.set_xscale("log")
        self.axes.set_xlim(low, high)
        self.axes.xaxis.set_major_locator(FixedLocator(round_ticks(low, high, 4 if self.narrow else 7)))
        self.axes.xaxis.set_minor_locator(NullLocator())
        self.axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: write(value)))

    def few_y(self, write: Callable[[float], str] | None = None) -> None:
        """Few ticks on the y axis, at round numbers, written by `write` where given."""
        from matplotlib.ticker import FuncFormatter, MaxNLocator

        self.axes.yaxis.set_major_locator(MaxNLocator(5 if self.narrow else 6, steps=[1, 2, 2.5, 5, 10]))
        if write is not None:
            self.axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: write(value)))

    def few_x(self) -> None:
        """Few ticks on a linear x axis."""
        from matplotlib.ticker import MaxNLocator

        self.axes.xaxis.set_major_locator(MaxNLocator(5 if self.narrow else 7, steps=[1, 2, 2.5, 5, 10]))

    def curve(self, x: FloatArray, y: FloatArray, hue: str, dash: int = 0, width: float = 1.8) -> None:
        """A line; points that are not finite leave a gap."""
        self.axes.plot(x, y, color=colour(hue), linestyle=DASHES[dash % len(DASHES)], linewidth=width)

    def band(self, x: FloatArray, low: FloatArray, high: FloatArray, hue: str, strength: float = 0.16) -> None:
        """The area between the ends of an interval."""
        self.axes.fill_between(x, low, high, color=colour(hue), alpha=strength, linewidth=0)

    def points(self, x: FloatArray, y: FloatArray, hue: str, marker: int = 0, size: float = 5.0) -> None:
        """Marks without a line."""
        self.axes.plot(
            x,
            y,
            linestyle="none",
            marker=MARKERS[marker % len(MARKERS)],
            markersize=size,
            markerfacecolor=colour(hue),
            markeredgecolor=colour("paper"),
            markeredgewidth=0.7,
        )

    def outside(self, fitted: tuple[float, float] | None, what: str = "extrapolation") -> None:
        """Shade what lies outside the fitted range along x; call it when the limits of x are set."""
        if fitted is None:
            return
        self.headroom(0.09 if self.narrow else 0.07)
        left, right = self.axes.get_xlim()
        for low, high, place in ((left, min(fitted[0], right), "left"), (max(fitted[1], left), right, "right")):
            if high <= low:
                continue
            self.axes.axvspan(low, high, facecolor=colour("shade"), edgecolor="none", zorder=0.1)
            start, end = self._across(low), self._across(high)
            wide_enough = end - start > (0.3 if self.narrow else 0.13)
            if wide_enough:
                x, side = (start + 0.012, "left") if place == "left" else (end - 0.012, "right")
                self._note(x, 0.985, what, side)

    def at(self, x: float, text: str, hue: str = "soft", side: str | None = None) -> None:
        """A vertical line with words beside it at the top; `side` is the side of the words that the line is on."""
        place = self._across(x)
        if not 0.0 <= place <= 1.0:
            return
        self.axes.axvline(x, color=colour(hue), linewidth=1.0, linestyle=DASHES[2], zorder=1.5)
        room = 0.4 if self.narrow else 0.2
        side = "left" if place < room else "right" if place > 1 - room else side or ("left" if place < 0.6 else "right")
        self._note(place + (0.012 if side == "left" else -0.012), 0.985, text, side, hue)

    def end(self, y: float, text: str, hue: str) -> None:
        """Remember the label of a curve, which ends at the right edge; `finish` places all of them."""
        if np.isfinite(y):
            self._ends.append(End(float(y), text, hue))

    def say(self, x: float, y: float, text: str, place: tuple[str, str] = ("left", "bottom"), hue: str = "ink") -> None:
        """Words at a point, a little off it; `place` is how matplotlib aligns them with it."""
        dx = {"left": 6, "right": -6, "center": 0}[place[0]]
        dy = {"bottom": 5, "top": -7, "center": 0}[place[1]]
        self.axes.annotate(
            text,
            (x, y),
            (dx, dy),
            textcoords="offset points",
            ha=place[0],
            va=place[1],
            color=_of_text(hue),
            fontweight="normal" if hue == "ink" else "bold",
            annotation_clip=True,
        )

    def below(self, marks: Sequence[tuple[float, float, str]], marker: int) -> None:
        """Marks on a curve, each named under the drawing's top on a line of its own, by a thin line to its mark."""
        self.headroom(0.06 + 0.075 * (1.3 if self.narrow else 1.0) * len(marks))
        for row, (x, y, text) in enumerate(sorted(marks)):
            top = 0.97 - 0.075 * (1.3 if self.narrow else 1.0) * row
            place = self._across(x)
            if not 0.0 <= place <= 1.0:
                continue
            self.axes.plot(
                [place, place],
                [top - 0.02, self._up(y)],
                color=colour("soft"),
                linewidth=0.8,
                transform=self.axes.transAxes,
            )
            self.points(np.array([x]), np.array([y]), "ink", marker=marker, size=7.0)
            side, shift = ("left", 0.012) if place < 0.6 else ("right", -0.012)
            self._note(place + shift, top + 0.02, text, side, "ink")

    def headroom(self, share: float) -> None:
        """Leave this share of the height free above what is drawn."""
        low, high = self.axes.get_ylim()
        self.axes.set_ylim(low, low + (high - low) / (1.0 - share))

    def finish(self) -> None:
        """Place the labels of the curves beside the right edge, apart from one another."""
        if not self._ends:
            return
        to_axes = self.axes.transData + self.axes.transAxes.inverted()
        x_edge = self.axes.get_xlim()[1]
        ends = sorted(self._ends, key=lambda end: end.y)
        wanted = np.clip([to_axes.transform((x_edge, end.y))[1] for end in ends], 0.0, 1.0)
        size = _TYPE["narrow" if self.narrow else "wide"]
        drawing = self.axes.get_figure(root=True)
        assert drawing is not None
        drawing.draw_without_rendering()
        height = self.axes.get_window_extent().height
        placed = apart(wanted, 1.25 * size / height)
        for end, here, there in zip(ends, wanted.tolist(), placed, strict=True):
            self.axes.annotate(
                end.text,
                (1.0, here),
                (10.0, (there - here) * height),
                xycoords="axes fraction",
                textcoords="offset points",
                va="center",
                color=_of_text(end.hue),
                fontweight="bold",
                arrowprops={"arrowstyle": "-", "color": colour(end.hue), "linewidth": 0.7, "shrinkA": 1, "shrinkB": 1},
            )

    def _across(self, x: float) -> float:
        place: float = (self.axes.transData + self.axes.transAxes.inverted()).transform((x, self.axes.get_ylim()[0]))[0]
        return place

    def _up(self, y: float) -> float:
        place: float = (self.axes.transData + self.axes.transAxes.inverted()).transform((self.axes.get_xlim()[0], y))[1]
        return place

    def _note(self, x: float, y: float, text: str, side: str, hue: str = "soft") -> None:
        self.axes.text(
            x, y, text, transform=self.axes.transAxes, ha=side, va="top", color=colour(hue), linespacing=1.25
        )


def _of_text(hue: str) -> str:
    """The colour of words about a curve: its own, unless that is only good enough for lines."""
    return colour("ink" if hue in STEPS else hue)


def apart(wanted: FloatArray, gap: float) -> list[float]:
    """Places near the wanted ones, in their order, none closer to the next than `gap`.

    Args:
        wanted: Ascending, in 0..1.
        gap: The least distance.
    """
    groups: list[tuple[float, int]] = []  # centre and members
    for place in wanted.tolist():
        groups.append((place, 1))
        while len(groups) > 1 and groups[-1][0] - groups[-2][0] < gap * (groups[-1][1] + groups[-2][1]) / 2:
            (high, above), (low, below) = groups.pop(), groups.pop()
            groups.append(((low * below + high * above) / (below + above), below + above))
    placed: list[float] = []
    for centre, members in groups:
        placed += [centre + gap * (index - (members - 1) / 2) for index in range(members)]
    return placed


def round_ticks(low: float, high: float, most: int) -> list[float]:
    """Round places on a logarithmic axis: decades, or 1, 2, 5 of each where there are few decades."""
    first, last = int(np.floor(np.log10(low))), int(np.ceil(np.log10(high)))

    def inside(steps: Sequence[float], every: int = 1) -> list[float]:
        found = [step * 10.0**exponent for exponent in range(first, last + 1, 1) for step in steps]
        return [tick for tick in found if low <= tick * (1 + 1e-9) and tick <= high * (1 + 1e-9)][::every]

    for steps in ((1.0, 2.0, 5.0), (1.0, 3.0), (1.0,)):
        ticks = inside(steps)
        if len(ticks) <= most:
            return ticks
    decades = inside((1.0,))
    return decades[:: -(-len(decades) // most)]
