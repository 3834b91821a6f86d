"""What repeating tokens does to a plan, and the best use of compute when data is limited.

Covers: ordinary training on repeated tokens beside fresh ones, the best size, tokens and epochs for a budget, the
caution for distilled students that repeat tokens. Does not cover: the law itself (`repeated_training`).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from tutelage.laws.compute import ForwardCost
from tutelage.laws.families.data_constrained import DataConstrainedLaw
from tutelage.laws.family import Equation
from tutelage.planning.optimum import compute_optimal
from tutelage.planning.parts import as_document, known
from tutelage.planning.repeated_training import R_D_STAR, R_N_STAR, repeated_training, training_law
from tutelage.planning.spread import Spread
from tutelage.records.document import Caution
from tutelage.records.estimate import Estimate
from tutelage.units import Params, Tokens, format_quantity

AS_GOOD_AS_FRESH = 4.0
"""Epochs up to which repeated tokens are worth nearly as much as fresh ones (`muennighoff2023`, its abstract)."""
REPEATED = "repeated-tokens"


@dataclass(frozen=True)
class BestUse:
    """Ordinary training that makes the most of a budget when tokens repeat: size, tokens, epochs and loss."""

    params: Estimate
    tokens: Estimate
    epochs: Estimate
    loss: Estimate

    def to_dict(self) -> dict[str, object]:
        """The JSON form."""
        return as_document(self)


@dataclass(frozen=True)
class Repetition:
    """What repeating tokens does to ordinary training of the student's size.

    Args:
        unique_tokens: U.
        epochs: Passes over them that the tokens of ordinary training are.
        effective_tokens: D', the fresh tokens that those are worth.
        loss: With repetition, nats per token.
        loss_if_fresh: Were all tokens distinct.
        as_good_as_fresh: Epochs up to which repeating costs little.
        best_use: The same compute with size and epochs left free.
        distilled_epochs: Passes of each way's student over the unique tokens, by name; above 1 no law knows its loss.
        assumption: What the numbers rest on.
        text: The finding in a sentence or two.
    """

    unique_tokens: Estimate
    epochs: Estimate
    effective_tokens: Estimate
    loss: Estimate
    loss_if_fresh: Estimate
    as_good_as_fresh: Estimate
    best_use: BestUse
    distilled_epochs: dict[str, Estimate]
    assumption: str
    text: str

    def to_dict(self) -> dict[str, object]:
        """The JSON form."""
        return as_document(self)


@dataclass(frozen=True)
class Training:
    """Ordinary training of one size: N, D and U."""

    params: Params
    tokens: Tokens
    unique_tokens: Tokens


def assess_repetition(spread: Spread, training: Training, distilled: dict[str, Tokens]) -> Repetition:
    """What repeating tokens does to ordinary training, and the best use of the same compute.

    Args:
        spread: The law with its uncertainty.
        training: Ordinary training of the student's size.
        distilled: Tokens of each way's distilled student, by name.
    """
    forward, unique = spread.law.forward, training.unique_tokens
    size, tokens = training.params, training.tokens
    worth = spread.estimate(lambda equation: repeated_training(equation, unique).effective_tokens(tokens))
    repeated = spread.estimate(lambda equation: training_law(equation, unique).predict(size, tokens))
    fresh = spread.estimate(lambda equation: training_law(equation, tokens).predict(size, tokens))
    best = best_use(spread, forward, float(forward.training_per_token(size)) * tokens, unique)
    epochs = tokens / unique
    best_text = f"{format_quantity(best.params.value)} parameters and {best.epochs.value:.3g} epochs"
    text = (
        f"ordinary training reads {format_quantity(unique)} distinct tokens {epochs:.3g} times: worth "
        f"{format_quantity(worth.value)} fresh ones, loss {repeated.value:.4f} instead of {fresh.value:.4f}. Up to "
        f"about {AS_GOOD_AS_FRESH:g} epochs repeating is nearly as good as fresh data. The same compute is best spent "
        f"on {best_text} (loss {best.loss.value:.4f})."
        if epochs > 1.0
        else f"ordinary training reads {format_quantity(tokens)} of {format_quantity(unique)} distinct tokens: nothing "
        f"repeats. The same compute is best spent on {best_text} (loss {best.loss.value:.4f})."
    )
    return Repetition(
        known(unique),
        known(epochs),
        worth,
        repeated,
        fresh,
        known(AS_GOOD_AS_FRESH),
        best,
        {name: known(tokens / unique) for name, tokens in distilled.items()},
        _assumption(spread.law.name, spread.law.equation),
        text,
    )


def best_use(spread: Spread, forward: ForwardCost, compute: float, unique_tokens: Tokens) -> BestUse:
    """Size, tokens and epochs of ordinary training that reach the least loss with `compute` FLOPs on U tokens."""
    budget = np.array([compute])
    size, tokens = compute_optimal(training_law(spread.law.equation, unique_tokens), forward, budget)
    drawn = (
        (np.empty(0), np.empty(0))
        if spread.ensemble is None
        else compute_optimal(training_law(spread.ensemble, unique_tokens), forward, budget, float(size[0]))
    )
    loss = spread.estimate(lambda equation: training_law(equation, unique_tokens).predict(size[0], tokens[0]))
    return BestUse(
        spread.around(size[0], drawn[0]),
        spread.around(tokens[0], drawn[1]),
        spread.around(tokens[0] / unique_tokens, drawn[1] / unique_tokens),
        loss,
    )


def repetition_cautions(unique_tokens: Tokens, distilled: dict[str, Tokens]) -> tuple[Caution, ...]:
    """One caution where distilled students repeat tokens: no law says what that costs them."""
    repeating = {name: tokens / unique_tokens for name, tokens in distilled.items() if tokens > unique_tokens}
    if not repeating:
        return ()
    listed = ", ".join(f"{name} {epochs:.3g}" for name, epochs in repeating.items())
    text = (
        f"unique_tokens: distilled students would read {format_quantity(unique_tokens)} distinct tokens more than once "
        f"(epochs: {listed}); no law of repeated data under distillation is known, so their losses are those of fresh "
        "tokens, which is too low, while ordinary training's losses count the repetition"
    )
    return (Caution(REPEATED, "unique_tokens", float(unique_tokens), (max(distilled.values()), np.inf), text),)


def _assumption(name: str, equation: Equation) -> str:
    if isinstance(equation, DataConstrainedLaw):
        return f"{name} is a law of repeated data and is used as it is"
    return (
        f"{name} knows no repeated data: the discounts of muennighoff2023 (R_D* = {R_D_STAR:.2f}, R_N* = "
        f"{R_N_STAR:.2f}), fitted on other models and data, are assumed to hold on top of it"
    )
