"""What a model costs over its lifetime: its training, and a forward pass over every token that it will serve.

Covers: lifetime FLOPs and money of each way at the student's size; the size of ordinary training that reaches the same
loss with the least over its lifetime; what a smaller model than the compute-optimal one costs to train to the same
loss. Does not cover: the best size of a distilled student over its lifetime, latency, and serving hardware that waits.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace

import numpy as np

from tutelage.laws.compute import ForwardCost
from tutelage.laws.families.supervised import SupervisedLaw
from tutelage.laws.family import Equation
from tutelage.laws.numbers import FloatArray, Numbers
from tutelage.planning.cost import added, cost_of
from tutelage.planning.hardware import Hardware
from tutelage.planning.parts import as_document, known
from tutelage.planning.repeated_training import training_law
from tutelage.planning.spread import Spread
from tutelage.planning.target import cheapest_training
from tutelage.records.estimate import Estimate
from tutelage.units import Tokens, format_quantity

SHARES = (0.75, 0.5, 0.3)
"""Sizes, as shares of the compute-optimal one, whose price is told."""


def lifetime_flops(forward: ForwardCost, params: Numbers, tokens: Numbers, served_tokens: Numbers) -> FloatArray:
    """3 F(N) D + F(N) D_served, in FLOPs.

    Args:
        forward: The forward cost; a context and a vocabulary of 0 give 6 N D + 2 N D_served.
        params: N.
        tokens: D, training tokens.
        served_tokens: Tokens that the finished model processes, read and written alike.

    Source: `sardana2024` Eq. 3, with F(N) for 2N.
    """
    per_token = forward.per_token(params)
    return np.asarray(forward.training_per_token(params) * tokens + per_token * served_tokens)


def price_of_sizes(
    law: SupervisedLaw, forward: ForwardCost, loss: float, shares: tuple[float, ...] = SHARES
) -> dict[float, float]:
    """Training compute of models of given shares of the compute-optimal size, over that of this size, at one loss.

    Infinite where a size cannot reach the loss.
    """
    size, tokens = (part[0] for part in cheapest_training(law, forward, loss))
    least = float(forward.training_per_token(size)) * tokens
    needed = {share: float(law.tokens_for(share * size, loss)) for share in shares}
    return {share: float(forward.training_per_token(share * size)) * D / least for share, D in needed.items()}


@dataclass(frozen=True)
class Lived:
    """One model over its lifetime.

    Args:
        params: Its size.
        tokens: Its training tokens.
        loss: Nats per token.
        training: What it costs to make, FLOPs; the teacher's part included.
        serving: Forward passes over the served tokens, FLOPs; None before they are counted, like the next two.
        total: Both.
        money: Both, each on its own hardware; None without prices.
    """

    params: Estimate
    tokens: Estimate
    loss: Estimate
    training: Estimate
    serving: Estimate | None = None
    total: Estimate | None = None
    money: Estimate | None = None

    def to_dict(self) -> dict[str, object]:
        """The JSON form."""
        return as_document(self)


@dataclass(frozen=True)
class Lifetime:
    """The lifetime cost of every way, and of ordinary training with its size left free.

    Args:
        served_tokens: Tokens that the finished model processes.
        ways: The student of each way, by name; "train" is ordinary training.
        loss: The quality that `optimal` and `compute_optimal` have: that of ordinary training of the student's size,
            or the target loss.
        optimal: Ordinary training to that loss with the least lifetime cost.
        compute_optimal: The same with the least training compute.
        saving: Share of the lifetime FLOPs of `compute_optimal` that `optimal` saves.
        serving_weight: Money of a FLOP in serving over one in training; 1 without prices. The optimum is of weighted
            FLOPs.
        smaller: Training compute of smaller models than the compute-optimal one over its, at the same loss, by share
            of its size; null where they cannot reach it.
        text: The finding in a sentence or two.
    """

    served_tokens: Estimate
    ways: dict[str, Lived]
    loss: Estimate
    optimal: Lived
    compute_optimal: Lived
    saving: Estimate
    serving_weight: float
    smaller: dict[float, float]
    text: str

    def to_dict(self) -> dict[str, object]:
        """The JSON form."""
        return as_document(self)


@dataclass(frozen=True)
class Service:
    """What a finished model will do, and what it is trained and served on.

    Args:
        served_tokens: Tokens that it processes.
        hardware: Trains it; None where only FLOPs are counted.
        serving: Serves it; None for `hardware`.
    """

    served_tokens: Tokens
    hardware: Hardware | None = None
    serving: Hardware | None = None

    @property
    def server(self) -> Hardware | None:
        """The device that serves."""
        return self.serving or self.hardware

    @property
    def weight(self) -> float:
        """Money of a FLOP in serving over one in training; 1 without prices."""
        train, serve = (cost_of(Estimate(1.0), device).money for device in (self.hardware, self.server))
        return serve.value / train.value if serve and train else 1.0

    def money(self, training: Estimate, serving: Estimate) -> Estimate | None:
        """What training and serving cost together; None without prices."""
        spent, kept = cost_of(training, self.hardware).money, cost_of(serving, self.server).money
        return added(spent, kept.value) if spent and kept else None


@dataclass(frozen=True)
class Goal:
    """What models of different sizes are compared at.

    Args:
        loss: Takes an equation, returns nats per token: a number, or shape (draws, 1) for an ensemble.
        unique_tokens: U of ordinary training; None where nothing repeats.
    """

    loss: Callable[[Equation], Numbers]
    unique_tokens: Tokens | None = None


def live(spread: Spread, service: Service, made: Lived) -> Lived:
    """`made`, a model with what its training cost, with the cost of its service."""
    serving = known(spread.law.forward.per_token(made.params.value) * service.served_tokens)
    total, money = added(made.training, serving.value), service.money(made.training, serving)
    return replace(made, serving=serving, total=total, money=money)


def assess_lifetime(spread: Spread, service: Service, made: Mapping[str, Lived], goal: Goal) -> Lifetime | None:
    """Every way over its lifetime, and the best size of ordinary training; None where no size reaches the goal.

    Args:
        spread: The law with its uncertainty.
        service: What the finished model will do.
        made: The student of each way with what its training costs, by name.
        goal: The quality at which sizes are compared.
    """
    optimal, usual, saving = _sizes(spread, service, goal)
    if not np.isfinite(optimal.params.value):
        return None
    law = training_law(spread.law.equation, goal.unique_tokens)
    smaller = price_of_sizes(law, spread.law.forward, float(goal.loss(spread.law.equation)))
    listed = ", ".join(f"{share:g} of it {_percent(price - 1)}" for share, price in smaller.items())
    what = "fewer FLOPs" if service.weight == 1.0 else "less money"
    text = (
        f"for {format_quantity(service.served_tokens)} served tokens and a loss of {usual.loss.value:.4f}, ordinary "
        f"training costs least over the lifetime with {format_quantity(optimal.params.value)} parameters on "
        f"{format_quantity(optimal.tokens.value)} tokens: {saving.value:.1%} {what} than the compute-optimal "
        f"{format_quantity(usual.params.value)}. A model smaller than that one costs more to train to the same loss: "
        f"{listed}."
    )
    return Lifetime(
        known(service.served_tokens),
        {name: live(spread, service, each) for name, each in made.items()},
        usual.loss,
        optimal,
        usual,
        saving,
        service.weight,
        smaller,
        text,
    )


def _sizes(spread: Spread, service: Service, goal: Goal) -> tuple[Lived, Lived, Estimate]:
    """Ordinary training to the goal, cheapest over the lifetime and cheapest to train, and what the first saves."""
    forward, served = spread.law.forward, service.served_tokens
    weighted = served * service.weight

    def choose(equation: Equation, paid: float, near: float | None = None) -> tuple[FloatArray, FloatArray]:
        law = training_law(equation, goal.unique_tokens)
        return cheapest_training(law, forward, goal.loss(equation), near, paid)

    near = {paid: float(choose(spread.law.equation, paid)[0][0]) for paid in (weighted, 0.0)}

    def numbers(equation: Equation) -> FloatArray:
        columns, totals = [], []
        for paid, start in near.items():
            size, tokens = choose(equation, paid, start)
            whole = lifetime_flops(forward, size, tokens, served)
            columns += [
                size,
                tokens,
                lifetime_flops(forward, size, tokens, 0.0),
                forward.per_token(size) * served,
                whole,
            ]
            totals.append(lifetime_flops(forward, size, tokens, weighted))
        table = np.stack([*columns, 1.0 - totals[0] / totals[1]], axis=-1)
        return table if np.ndim(equation.supervised.alpha) else table[0]

    *found, saving = _estimates(spread, numbers)
    loss = spread.estimate(lambda equation: np.asarray(goal.loss(equation)))
    models = []
    for params, tokens, training, serving, total in (found[:5], found[5:]):
        models.append(Lived(params, tokens, loss, training, serving, total, service.money(training, serving)))
    return models[0], models[1], saving


def _estimates(spread: Spread, numbers: Callable[[Equation], FloatArray]) -> list[Estimate]:
    """Several numbers, each with its interval; a point where its ends are not known."""
    band = spread.band(numbers)
    return [
        Estimate(value, low, high, spread.level, spread.method) if np.isfinite(low + high) else Estimate(value)
        for value, low, high in np.stack([band.value, band.low, band.high], axis=-1).tolist()
    ]


def _percent(share: float) -> str:
    return f"{share:+.0%}" if np.isfinite(share) else "never reaches it"
