"""Designs of experiments: which sizes, tokens and teachers a set of runs has, for planning runs and simulating them.

Covers: three designs of ordinary training and the three of `busbridge2025` section 4 for distillation, with any number
of runs. Does not cover: losses (`tutelage.laws.simulate`), nor what a design costs.

Where a design mixes levels and continua, runs are spread by an additive recurrence, so that any first part of a design
fills it evenly and no two runs are equal.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from tutelage.errors import InputError
from tutelage.laws.law import Law, Range
from tutelage.laws.numbers import FloatArray

_PARAMS: Range = (1e8, 1e10)
_TOKENS: Range = (2e9, 5e11)
"""The spans where a law states none."""
RATIO = 20.0
"""Tokens per parameter of what a design keeps at one ratio."""
RATIOS = (20.0, 40.0, 80.0, 160.0)
EPOCHS = (1.0, 2.0, 4.0, 8.0, 16.0, 32.0)
"""How often the tokens of a run are repeated, for laws of unique tokens."""
_LINES = 8
_MOST_RUNS = 1_000_000
_TEACHERS = 6


@dataclass(frozen=True)
class Span:
    """The sizes and tokens that a design stays within."""

    params: Range
    tokens: Range


@dataclass(frozen=True)
class Design:
    """A named design with a number of runs.

    Args:
        name: One of `DESIGNS`.
        runs: How many runs it has.

    Raises:
        InputError: There is no such design, or it has no runs or more than a million.
    """

    name: str
    runs: int

    def __post_init__(self) -> None:
        faults = []
        if self.name not in DESIGNS:
            faults.append(f"no design {self.name!r}; it must be one of {', '.join(DESIGNS)}")
        if not 1 <= self.runs <= _MOST_RUNS:
            faults.append(f"a design of {self.runs} runs; it has 1 to {_MOST_RUNS:,}")
        if faults:
            raise InputError(faults)

    @property
    def kind(self) -> str:
        """What it trains: supervised or distillation."""
        return DESIGNS[self.name][0]

    def inputs(self, law: Law) -> dict[str, FloatArray]:
        """The inputs of each run by letter, within the range that `law` was fitted on, the teacher's loss left out.

        Returns:
            N and D, and U where the law knows of unique tokens; or N_S, D_S, N_T and D_T. Each of shape (runs,).

        Raises:
            InputError: The design is of the other kind of law.
        """
        wanted = {column.letter for column in law.family.inputs}
        kind, make = DESIGNS[self.name]
        if not wanted <= _LETTERS[kind]:
            of_kind = [name for name, (other, _) in DESIGNS.items() if wanted <= _LETTERS[other]]
            raise InputError(
                f"design {self.name} is of {kind} laws, and {law.name} is a law of {', '.join(sorted(wanted))}; "
                + (f"use one of {', '.join(of_kind)}" if of_kind else "there is no design for such laws")
            )
        columns = make(self.runs, _span(law, "student"), _span(law, "teacher"))
        if "U" in wanted:
            columns["U"] = columns["D"] / _level(_spread(self.runs, 3)[2], EPOCHS)
        return columns


def _span(law: Law, whose: str) -> Span:
    params = law.fitted.get(f"{whose}_params") or law.fitted.get("student_params") or _PARAMS
    tokens = law.fitted.get(f"{whose}_tokens") or law.fitted.get("student_tokens") or _TOKENS
    return Span(params, tokens)


def _isoflop(runs: int, student: Span, teacher: Span) -> dict[str, FloatArray]:  # noqa: ARG001 - one model
    line, place = _spread(runs, 2)
    params, tokens = _on_lines(line, place, student)
    return {"N": params, "D": tokens}


def _grid(runs: int, student: Span, teacher: Span) -> dict[str, FloatArray]:  # noqa: ARG001 - one model
    rows = np.array_split(np.arange(runs), max(1, round(np.sqrt(runs))))
    params = [
        np.full(len(row), size) for row, size in zip(rows, _between(_steps(len(rows)), student.params), strict=True)
    ]
    tokens = [_between(_steps(len(row)), student.tokens) for row in rows]
    return {"N": np.concatenate(params), "D": np.concatenate(tokens)}


def _fixed_ratio(runs: int, student: Span, teacher: Span) -> dict[str, FloatArray]:  # noqa: ARG001 - one model
    params, tokens = _at_ratio(_steps(runs), RATIO, student)
    return {"N": params, "D": tokens}


def _student_isoflop(runs: int, student: Span, teacher: Span) -> dict[str, FloatArray]:
    line, place, which = _spread(runs, 3)
    params, tokens = _on_lines(line, place, student)
    return _pairs((params, tokens), _at_ratio(_level(which, _steps(_TEACHERS)), RATIO, teacher))


def _teacher_isoflop(runs: int, student: Span, teacher: Span) -> dict[str, FloatArray]:
    line, place, which = _spread(runs, 3)
    params, tokens = _on_lines(line, place, teacher)
    return _pairs(_at_ratio(_level(which, _steps(_TEACHERS)), RATIO, student), (params, tokens))


def _capacity_gap(runs: int, student: Span, teacher: Span) -> dict[str, FloatArray]:
    size, teacher_size, ratio, teacher_ratio = _spread(runs, 4)
    return _pairs(
        _at_ratio(size, _level(ratio, RATIOS), student),
        _at_ratio(_level(teacher_size, _steps(_TEACHERS)), _level(teacher_ratio, RATIOS), teacher),
    )


def _all_three(runs: int, student: Span, teacher: Span) -> dict[str, FloatArray]:
    parts = [len(part) for part in np.array_split(np.arange(runs), 3)]
    designs = (_student_isoflop, _teacher_isoflop, _capacity_gap)
    made = [design(part, student, teacher) for design, part in zip(designs, parts, strict=True)]
    return {letter: np.concatenate([columns[letter] for columns in made]) for letter in made[0]}


_Maker = Callable[[int, Span, Span], dict[str, FloatArray]]
_LETTERS = {"supervised": {"N", "D", "U"}, "distillation": {"N_S", "D_S", "L_T"}}

DESIGNS: dict[str, tuple[str, _Maker]] = {
    "isoflop": ("supervised", _isoflop),
    "grid": ("supervised", _grid),
    "fixed-ratio": ("supervised", _fixed_ratio),
    "student-isoflop": ("distillation", _student_isoflop),
    "teacher-isoflop": ("distillation", _teacher_isoflop),
    "capacity-gap": ("distillation", _capacity_gap),
    "distillation": ("distillation", _all_three),
}
"""Kind and maker by name. isoflop: sizes along lines of equal compute 6ND. grid: every size with every number of
tokens. fixed-ratio: one ratio of tokens to parameters, which does not determine a law. student-isoflop: students along
such lines, teachers at a fixed ratio. teacher-isoflop: the other way round. capacity-gap: several ratios on both sides.
distillation: a third of the runs from each of these three.
"""


def _pairs(student: tuple[FloatArray, FloatArray], teacher: tuple[FloatArray, FloatArray]) -> dict[str, FloatArray]:
    return {"N_S": student[0], "D_S": student[1], "N_T": teacher[0], "D_T": teacher[1]}


def _spread(runs: int, dimensions: int) -> FloatArray:
    """Points that fill the unit cube evenly, shape (dimensions, runs): the additive recurrence of the golden ratio."""
    golden = 2.0
    for _ in range(64):  # the positive root of x^(dimensions + 1) = x + 1
        golden = (1.0 + golden) ** (1.0 / (dimensions + 1))
    steps = golden ** -np.arange(1.0, dimensions + 1.0)
    spread: FloatArray = (0.5 + np.outer(steps, np.arange(1, runs + 1))) % 1.0
    return spread


def _steps(count: int) -> FloatArray:
    """`count` even steps from 0 to 1; the middle for one."""
    return np.linspace(0.0, 1.0, count) if count > 1 else np.array([0.5])


def _level(place: FloatArray, levels: tuple[float, ...] | FloatArray) -> FloatArray:
    """The level that each place in [0, 1) falls on."""
    chosen: FloatArray = np.asarray(levels)[(place * len(levels)).astype(int)]
    return chosen


def _between(place: FloatArray, ends: Range | tuple[FloatArray, FloatArray]) -> FloatArray:
    """Places in [0, 1] between two positive ends, in logarithms."""
    low, high = np.log(ends[0]), np.log(ends[1])
    between: FloatArray = np.exp(low + place * (high - low))
    return between


def _on_lines(line: FloatArray, place: FloatArray, span: Span) -> tuple[FloatArray, FloatArray]:
    """Sizes and tokens along lines of equal N D, within the span; the outermost lines keep off its corners."""
    edges = tuple(params * tokens for params, tokens in zip(span.params, span.tokens, strict=True))
    product = _between(0.15 + 0.7 * _level(line, _steps(_LINES)), (edges[0], edges[1]))
    smallest = np.maximum(span.params[0], product / span.tokens[1])
    largest = np.minimum(span.params[1], product / span.tokens[0])
    params = _between(place, (smallest, largest))
    return params, product / params


def _at_ratio(place: FloatArray, ratio: float | FloatArray, span: Span) -> tuple[FloatArray, FloatArray]:
    """Sizes and tokens at a ratio of tokens to parameters, as far as the span reaches at it."""
    smallest = np.minimum(np.maximum(span.params[0], span.tokens[0] / ratio), span.params[1])
    largest = np.maximum(np.minimum(span.params[1], span.tokens[1] / ratio), smallest)
    params = _between(place, (smallest, largest))
    return params, params * ratio
