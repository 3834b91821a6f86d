"""How large a student, and how many tokens, for a target loss.

Covers: for ordinary training and for every way of distilling, the student's size that reaches a loss with the least
total compute, the sizes that do nearly as well, the smallest size that can at all, and the floor where none can. Does
not cover: what a smaller student saves when it is served.

A student of unlimited size makes the distillation law absurd: with a strong teacher, 8B parameters would learn in 12M
tokens what takes 1B a trillion. Sizes whose allocation leaves the fitted range on that side (fewer tokens, or a
stronger teacher beside the student's own supervised loss, than any run had), or that have less than one token a
parameter, are left out, and an answer on that edge says so.

Intervals: every draw of the law moves the compute that each size needs, to first order along the allocations of the
law itself; the draw's best size is the lowest point of its own curve.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

import numpy as np

from tutelage.laws.families.distillation import as_distillation
from tutelage.laws.numbers import FloatArray
from tutelage.planning.curves import FEWEST_TOKENS_PER_PARAM
from tutelage.planning.optimum import Allocations
from tutelage.planning.parts import Ends, point
from tutelage.planning.scenarios import HIGHEST, LOWEST
from tutelage.planning.sizes import NEAR_COMPUTE, SizeAnswer, SizeCurve, Sizes
from tutelage.planning.spread import Spread
from tutelage.planning.ways import Way

_SIZES = 25
_CLOSER = 12
"""Between the neighbours of the lowest: an even number, so that none falls on it."""
_LARGEST = 1e3
"""Times the smallest feasible size: the size of least compute is a few times the smallest."""
_ABOVE_SMALLEST = 1.01
_FLOOR_SIZES = 221
_ROUNDS = 60
_CLOSE = 1e-6
"""Natural logarithm of compute: the cost of a size is then smooth enough to fit a parabola to."""
_MOST_COMPUTE = 1e36
"""Nothing within the bounds costs more."""
_FURTHEST = 1.5
"""Natural logarithm of compute: a size whose need a draw moves further than a line can be trusted is no candidate.

These are the sizes near the smallest, whose floor is close to the target; they are far from the least compute.
"""
_FEWEST_SIZES = 3


def find_sizes(spread: Spread, target: float, ways: Mapping[str, Way], preferred: str) -> Sizes:
    """The sizes for a target loss.

    Args:
        spread: The law; without a distillation law `ways` is empty.
        target: The wanted loss, nats per token.
        ways: Ways of distilling by name; those with a teacher that exists become one, "existing".
        preferred: The way at hand.
    """
    ordinary = _ordinary(spread, target)
    found = {name: _distilled(spread, target, way) for name, way in ways.items()}
    given = [found.pop(name) for name, way in ways.items() if way.teacher is not None]
    if given:
        found["existing"] = min(given, key=lambda answer: answer.compute.value if answer.compute else np.inf)
    reached = [name for name in (preferred, *found) if name in found and found[name].params is not None]
    return Sizes(target, ordinary, found, reached[0] if reached else None)


def _ordinary(spread: Spread, target: float) -> SizeAnswer:
    law, forward = spread.ordinary(spread.law.equation), spread.law.forward
    floor, smallest = _smallest(lambda sizes: law.predict(sizes, HIGHEST), target)
    if smallest is None:
        return SizeAnswer(floor)

    def needed(sizes: FloatArray) -> FloatArray:
        return np.log(forward.training_per_token(sizes) * law.tokens_for(sizes, target))

    found = _lowest(needed, smallest)
    if found is None:
        return SizeAnswer(floor)
    sizes, costs, best = found
    tokens = float(law.tokens_for(best, target))
    drawn = _Drawn()
    if spread.ensemble is not None:
        every = spread.ordinary(spread.ensemble).tokens_for(sizes, target)
        drawn = _lowest_drawn(sizes, np.log(forward.training_per_token(sizes) * every), np.log(every))
    return SizeAnswer(
        floor,
        smallest,
        spread.around(best, drawn.params),
        spread.around(tokens, drawn.tokens),
        spread.around(float(forward.training_per_token(best)) * tokens, drawn.compute),
        near_optimal=_near(sizes, costs),
        curve=SizeCurve(sizes, law.tokens_for(sizes, target), np.exp(costs)),
    )


def _distilled(spread: Spread, target: float, way: Way) -> SizeAnswer:
    law = spread.law.require_distillation()

    def at_best(sizes: FloatArray) -> FloatArray:
        if way.teacher is not None:
            return law.predict(sizes, HIGHEST, way.teacher.loss)
        return law.best_teacher_loss(sizes, HIGHEST)[1]

    floor, smallest = _smallest(at_best, target)
    name = way.teacher.name if way.teacher else None
    if smallest is None:
        return SizeAnswer(floor, teacher=name)
    found = _lowest(lambda sizes: _credible(spread, way, sizes, _reach(way, target, sizes, at_best(sizes))), smallest)
    if found is None:
        return SizeAnswer(floor, teacher=name)
    sizes, costs, best = found
    chosen = np.array([best])
    cost = np.exp(_reach(way, target, chosen, at_best(chosen)))
    allocations, along = way.spend(chosen, cost), way.spend(sizes, np.exp(costs))
    drawn = _Drawn()
    if spread.ensemble is not None:
        moved = _moved(spread, target, way, along, costs)
        drawn = _lowest_drawn(sizes, moved, np.log(along.student_tokens) + moved - costs)
    return SizeAnswer(
        floor,
        smallest,
        spread.around(best, drawn.params),
        spread.around(allocations.student_tokens[0], drawn.tokens),
        spread.around(cost[0], drawn.compute),
        point(allocations.teacher_params[0]),
        point(allocations.teacher_tokens[0]),
        point(allocations.teacher_loss[0]),
        _near(sizes, costs),
        SizeCurve(sizes, along.student_tokens, np.exp(costs)),
        at_edge=bool(np.argmin(costs) == len(sizes) - 1),
        teacher=name,
    )


def _credible(spread: Spread, way: Way, sizes: FloatArray, costs: FloatArray) -> FloatArray:
    """The costs, infinite where the allocation has fewer tokens or a stronger teacher than the fitted runs had."""
    possible = np.isfinite(costs)
    found = way.spend(sizes, np.exp(np.where(possible, costs, np.log(_MOST_COMPUTE))))
    fitted, own = spread.law.fitted, spread.law.supervised.predict(sizes, found.student_tokens)
    lowest, strongest = (fitted.get(name, (0.0, 0.0))[0] for name in ("student_tokens", "loss_ratio"))
    fewest = np.maximum(lowest, FEWEST_TOKENS_PER_PARAM * sizes)
    inside = (found.student_tokens >= fewest) & (found.teacher_loss / own >= strongest)
    return np.where(possible & inside, costs, np.inf)


def _moved(spread: Spread, target: float, way: Way, along: Allocations, costs: FloatArray) -> FloatArray:
    """Ln of the compute that each size needs under each draw, shape (draws, sizes)."""
    assert spread.ensemble is not None
    step = 0.1
    less = way.spend(along.student_params, np.exp(costs - step), near=along).student_loss
    slope = (less - along.student_loss) / step
    shift = (along.student_loss_under(as_distillation(spread.ensemble)) - target) / slope
    return np.where(np.abs(shift) <= _FURTHEST, costs + shift, np.inf)


def _smallest(at_best: Callable[[FloatArray], FloatArray], target: float) -> tuple[float, float | None]:
    """The floor over all sizes, and the smallest size whose own floor is at most `target`."""
    logs = np.linspace(np.log(LOWEST), np.log(HIGHEST), _FLOOR_SIZES)
    floors = at_best(np.exp(logs))
    if not floors.min() <= target:
        return float(floors.min()), None
    first = int(np.argmax(floors <= target))
    if first == 0:
        return float(floors.min()), LOWEST
    low, high = logs[first - 1], logs[first]
    for _ in range(_ROUNDS // 2):
        middle = 0.5 * (low + high)
        low, high = (low, middle) if at_best(np.exp([middle]))[0] <= target else (middle, high)
    return float(floors.min()), float(np.exp(high))


def _lowest(needed: Callable[[FloatArray], FloatArray], smallest: float) -> tuple[FloatArray, FloatArray, float] | None:
    """Sizes from just above the smallest, ln of the compute that each needs, and the size that needs least.

    None where fewer than three sizes have an answer.
    """
    sizes = np.geomspace(min(_ABOVE_SMALLEST * smallest, HIGHEST), min(_LARGEST * smallest, HIGHEST), _SIZES)
    costs = needed(sizes)
    least = int(np.argmin(costs))
    closer = np.geomspace(sizes[max(least - 1, 0)], sizes[min(least + 1, _SIZES - 1)], _CLOSER)[1:-1]
    sizes, costs = np.concatenate([sizes, closer]), np.concatenate([costs, needed(closer)])
    order = np.argsort(sizes)
    order = order[np.isfinite(costs[order])]
    sizes, costs = sizes[order], costs[order]
    if len(np.unique(sizes)) < _FEWEST_SIZES:
        return None
    sizes, first = np.unique(sizes, return_index=True)
    costs = costs[first]
    return sizes, costs, float(np.exp(_bottom(np.log(sizes), costs[None])[0][0]))


def _bottom(x: FloatArray, curves: FloatArray) -> tuple[FloatArray, FloatArray]:
    """The place and height of each curve's minimum: of the parabola through its lowest point and the two beside it.

    The lowest point itself where it is at an end or beside a point without an answer.
    """
    every, lowest = np.arange(len(curves)), np.argmin(curves, axis=1)
    middle = np.clip(lowest, 1, len(x) - 2)
    left, here, right = (x[middle + offset] for offset in (-1, 0, 1))
    with np.errstate(invalid="ignore", divide="ignore"):
        below, least, above = (curves[every, middle + offset] for offset in (-1, 0, 1))
        first, second = (least - below) / (here - left), (above - least) / (right - here)
        bend = (second - first) / (right - left)
        place = 0.5 * (left + here) - first / (2.0 * bend)
        height = below + (place - left) * (first + bend * (place - here))
    inside = (lowest == middle) & np.isfinite(height) & (bend > 0)
    return np.where(inside, place, x[lowest]), np.where(inside, height, curves[every, lowest])


@dataclass(frozen=True)
class _Drawn:
    """The best size, its tokens and its compute under each draw; empty without draws."""

    params: FloatArray = field(default_factory=lambda: np.empty(0))
    tokens: FloatArray = field(default_factory=lambda: np.empty(0))
    compute: FloatArray = field(default_factory=lambda: np.empty(0))


def _lowest_drawn(sizes: FloatArray, costs: FloatArray, log_tokens: FloatArray) -> _Drawn:
    """The lowest point of each draw's curve; `costs` and `log_tokens` of shape (draws, sizes)."""
    logs = np.log(sizes)
    place, height = _bottom(logs, costs)
    tokens = np.array([np.interp(at, logs, row) for at, row in zip(place, log_tokens, strict=True)])
    found = np.isfinite(height)
    return _Drawn(*(np.where(found, np.exp(part), np.nan) for part in (place, tokens, height)))


def _near(sizes: FloatArray, costs: FloatArray) -> Ends:
    """Where compute is `NEAR_COMPUTE` above its minimum on either side; an end of the curve where it is not."""
    logs, least = np.log(sizes), int(np.argmin(costs))
    ceiling = costs[least] + np.log1p(NEAR_COMPUTE)
    left = np.interp(-ceiling, -costs[: least + 1], logs[: least + 1])
    right = np.interp(ceiling, costs[least:], logs[least:])
    return float(np.exp(left)), float(np.exp(right))


def _reach(way: Way, target: float, sizes: FloatArray, floors: FloatArray) -> FloatArray:
    """Ln of the least compute with which students of each size reach `target`; infinity where they do not.

    The excess of the loss over the size's floor is close to a power of compute, so that its logarithm is close to a
    line: false position with Illinois' halving closes in on the zero in a few steps.
    """
    own = way.law.forward.training_per_token(sizes)
    low, high = np.log(0.5 * LOWEST * own), np.full_like(sizes, np.log(_MOST_COMPUTE))
    wanted = target - floors
    near: Allocations | None = None

    def excess(logs: FloatArray) -> FloatArray:
        nonlocal near
        found = way.spend(sizes, np.exp(logs), near=near)
        affordable = np.isfinite(found.student_loss)
        near = found if affordable.all() else None
        above = np.maximum(np.where(affordable, found.student_loss, np.inf) - floors, 1e-15)
        return np.log(above) - np.log(np.maximum(wanted, 1e-15))

    above, below = np.full_like(sizes, np.inf), excess(high)
    possible = below <= 0.0
    before = np.zeros_like(possible)
    first = True
    for _ in range(_ROUNDS):
        straight = np.isfinite(above) & (above > below)
        with np.errstate(invalid="ignore"):
            share = np.where(straight, above / np.where(straight, above - below, 1.0), 0.5)
        middle = low + np.clip(share, 0.01, 0.99) * (high - low)
        value = excess(middle)
        under = value <= 0.0
        # Illinois: an end that stays twice counts half.
        half = np.where((under == before) & (not first), 0.5, 1.0)
        low, above, high, below = (
            np.where(under, low, middle),
            np.where(under, half * above, value),
            np.where(under, middle, high),
            np.where(under, value, half * below),
        )
        before, first = under, False
        if np.all((high - low < _CLOSE) | (np.abs(value) < _CLOSE) | ~possible):
            break
    return np.where(possible, middle, np.inf)
