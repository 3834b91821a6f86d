"""Several live teachers of one vocabulary, averaged into one signal: a committee.

Covers averages of probabilities and of logits, with uniform, given or entropy weights, and the refusal of members that
do not share a tokenizer. Does not cover recipes (`settings`), vocabularies that differ (`vocabulary` makes members
answer in one), decoding (`ensemble`) or reading caches. Each member's logits are made whole, one member after the
other; `average_heads` makes the average a few positions at a time, from the final states that a cache keeps of them.

With w_m the members' weights at a position, which sum to 1, and softmax at temperature 1:

    probability-average    p = sum over m of w_m softmax(z_m)            handed on as log p
    logit-average          z = sum over m of w_m z_m                     softmax(z) is proportional to prod p_m^w_m
    entropy weights        w_m = exp(-H_m) / sum over k of exp(-H_k),    H_m the entropy of softmax(z_m) in nats

exp(H) is a perplexity, the number of classes that a member hesitates between, so a member's say is one over it: from
1 / V to 1, never nought and never without bound (as 1 / H is).

**The temperature comes after the average.** The committee is one model at temperature 1, the one that is scored as an
ensemble; a divergence softens it like any teacher, so terms of different temperatures, standardised logits and caches
see the same teacher. The mean of probabilities that were softened at T each is another teacher, since softening and
that mean do not commute, and is not offered. For logit averages with fixed weights the two are the same.

A class that a member masks with -inf keeps what the others give it in a probability average; in a logit average a
single member rules it out. Float32 throughout, whatever the members' dtypes.

Source: hinton2015 for both means ("arithmetic or geometric mean of their individual predictive distributions"); the
entropy weights are our own choice.

Shape letters: B batch, T positions, V vocabulary, M members.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Generic, TypeVar

import torch
from torch import Tensor

from tutelage.errors import InputError, PreflightError
from tutelage.objectives.logits import DeferredLogits, Head
from tutelage.objectives.signal import Signal
from tutelage.teachers.live import LiveTeacher

BatchT = TypeVar("BatchT")

PROBABILITY_AVERAGE, LOGIT_AVERAGE = SPACES = ("probability-average", "logit-average")
UNIFORM, ENTROPY = RULES = ("uniform", "entropy")


@dataclass(frozen=True)
class Member(Generic[BatchT]):
    """One teacher of a committee.

    Args:
        teacher: Frozen, in evaluation mode, checked at every call. Only the member that states are taken from needs
            `layers`.
        tokens: Id of every token that it answers with: its tokenizer's (`tokenizer.get_vocab()`), special ones
            included, or the student's where its answers are translated.
    """

    teacher: LiveTeacher[BatchT]
    tokens: Mapping[str, int]


class Committee(Generic[BatchT]):
    """Answers batches like `LiveTeacher`, with the average of its members. The equations stand above.

    It is no module and holds no parameters of its own, so nothing of it is trained or reaches a saved file.

    Args:
        members: By name; their order does not matter.
        space: "probability-average" or "logit-average".
        weights: "uniform", "entropy" (per position), or a number above 0 for every member; given ones are divided by
            their sum.
        layers: Blocks whose states an objective compares (`Objective.teacher_layers`).
        states_from: The member whose states those are: states of different models have no common space, so they are
            never averaged.

    Raises:
        InputError: No members; an unknown space, rule or name; a weight that is not above 0; tokenizers that differ;
            layers with no member to take them from, or that it does not carry.
    """

    def __init__(
        self,
        members: Mapping[str, Member[BatchT]],
        space: str,
        weights: str | Mapping[str, float] = UNIFORM,
        layers: Collection[int] = (),
        states_from: str | None = None,
    ) -> None:
        self._layers = tuple(sorted(set(layers)))
        faults = [] if members else ["a committee has no members; name at least one"]
        if space not in SPACES:
            faults.append(f"a committee averages in {' or '.join(SPACES)}, not {space!r}")
        faults += _weight_faults(weights, members)
        faults += _token_faults(members)
        faults += _state_faults(members, self._layers, states_from)
        if faults:
            raise InputError(faults)
        self._teachers = {name: member.teacher for name, member in members.items()}
        self._space, self._states_from = space, states_from
        self._weights = shares(weights, members)

    @property
    def layers(self) -> tuple[int, ...]:
        """The blocks whose states every signal carries, ascending."""
        return self._layers

    @torch.no_grad()
    def signal(self, batch: BatchT) -> Signal:
        """The averaged logits (log-probabilities, for a probability average) and the named member's states.

        Raises:
            PreflightError: A member was thawed or put in training mode.
            InputError: The members score different numbers of classes; or, in a logit average, at some position every
                class is ruled out by one member or another.
            ValueError: The members answer for different positions.
        """
        mean = Mean(self._space)
        shapes: dict[str, tuple[int, ...]] = {}
        states: dict[int, Tensor] = {}
        classes: Tensor | None = None
        for name in self._teachers:
            found = self._ask(name, batch)
            logits_BTV = found.logits_BTV
            shapes[name] = tuple(logits_BTV.shape)
            classes = found.classes
            if name == self._states_from:
                states = {layer: found.states[layer] for layer in self._layers}
            if shapes[name] == next(iter(shapes.values())):
                mean.add(logits_BTV.float(), self._weights.get(name))
        _require_one_shape(shapes)
        return Signal(mean.taken(), states, classes)

    @torch.no_grad()
    def deferred(self, batch: BatchT) -> Signal:
        """The same answer not made yet: the members' final states side by side, and the head that averages them.

        Raises:
            PreflightError: As `signal`.
            InputError: The members score different numbers of classes.
            ValueError: A member's pass gives logits in place of final states.
        """
        heads: dict[str, Head] = {}
        finals: dict[str, Tensor] = {}
        states: dict[int, Tensor] = {}
        for name in self._teachers:
            found = self._ask(name, batch)
            if not isinstance(found.scores, DeferredLogits):
                raise ValueError(f"member {name} answers with logits; its pass must give final states and their head")
            heads[name], finals[name] = found.scores.head, found.scores.states_BTH
            if name == self._states_from:
                states = {layer: found.states[layer] for layer in self._layers}
        head = average_heads(heads, self._space, self._weights)
        return Signal(DeferredLogits(torch.cat([finals[name] for name in sorted(finals)], -1), head), states)

    def _ask(self, name: str, batch: BatchT) -> Signal:
        try:
            return self._teachers[name].signal(batch)
        except PreflightError as error:
            raise PreflightError(f"Member {name} of the committee: {error}") from error


def average_heads(heads: Mapping[str, Head], space: str, weights: str | Mapping[str, float]) -> Head:
    """One head for the members' final states side by side, in the order of their names: their average's logits.

    Args:
        heads: By member; each a module (`Head.of`).
        space: As of `Committee`.
        weights: As of `Committee`.

    Raises:
        InputError: The members score different numbers of classes.
    """
    names = sorted(heads)
    _require_one_shape({name: (heads[name].vocabulary,) for name in names})
    widths = [heads[name].parameters[0].shape[-1] for name in names]
    of_member = shares(weights, names)

    def average(h_NH: Tensor) -> Tensor:
        mean = Mean(space)
        for name, part_NH in zip(names, torch.split(h_NH, widths, -1), strict=True):
            mean.add(heads[name].logits(part_NH).float(), of_member.get(name))
        return mean.taken()

    return Head(average, heads[names[0]].vocabulary, tuple(part for name in names for part in heads[name].parameters))


class Mean:
    """Adds member after member; holds one sum however many there are.

    Args:
        space: "probability-average" or "logit-average".
    """

    def __init__(self, space: str) -> None:
        self._in_logs = space == PROBABILITY_AVERAGE
        self._sum_BTV: Tensor | None = None
        self._mass_BT1: Tensor | None = None

    def add(self, logits_BTV: Tensor, weight: float | None) -> None:
        """Add one member; a weight of None is exp(-entropy) at each position."""
        weight_BT1 = exp_of_minus_entropy(logits_BTV) if weight is None else logits_BTV.new_full((), weight)
        if self._in_logs:
            part_BTV = torch.log_softmax(logits_BTV, -1) + weight_BT1.log()
            self._sum_BTV = part_BTV if self._sum_BTV is None else torch.logaddexp(self._sum_BTV, part_BTV)
        else:
            part_BTV = logits_BTV * weight_BT1
            self._sum_BTV = part_BTV if self._sum_BTV is None else self._sum_BTV + part_BTV
        self._mass_BT1 = weight_BT1 if self._mass_BT1 is None else self._mass_BT1 + weight_BT1

    def taken(self) -> Tensor:
        """(B, T, V), float32."""
        if self._sum_BTV is None or self._mass_BT1 is None:
            raise AssertionError("a committee has members")
        if self._in_logs:
            return self._sum_BTV - self._mass_BT1.log()
        empty = int((self._sum_BTV.amax(-1) == -torch.inf).sum())
        if empty:
            raise InputError(
                f"{LOGIT_AVERAGE}: at {empty} positions every class is masked by one member or another, so the "
                f"committee has no distribution there; use {PROBABILITY_AVERAGE}, or members with the same masks"
            )
        return self._sum_BTV / self._mass_BT1


def exp_of_minus_entropy(logits_BTV: Tensor) -> Tensor:
    """One over the perplexity of each position's distribution, (B, T, 1), from 1 / V to 1.

    Example:
        >>> import torch
        >>> exp_of_minus_entropy(torch.tensor([[0.0, 0.0, -torch.inf], [0.0, -torch.inf, -torch.inf]])).flatten()
        tensor([0.5000, 1.0000])
    """
    entropy_BT1: Tensor = torch.special.entr(torch.softmax(logits_BTV.float(), -1)).sum(-1, keepdim=True)
    return (-entropy_BT1).exp()


def shares(weights: str | Mapping[str, float], members: Collection[str]) -> dict[str, float]:
    """Weights that sum to 1, by member; empty where each position has its own."""
    if weights == ENTROPY:
        return {}
    if isinstance(weights, str):
        return dict.fromkeys(members, 1.0 / len(members))
    whole = math.fsum(weights.values())
    return {name: weight / whole for name, weight in weights.items()}


def _weight_faults(weights: str | Mapping[str, float], members: Collection[str]) -> list[str]:
    if isinstance(weights, str):
        wrong = f"a committee's weights are {', '.join(RULES)} or a number for every member, not {weights!r}"
        return [] if weights in RULES else [wrong]
    faults = [f"member {name} has no weight; give every member one" for name in members if name not in weights]
    faults += [f"a weight is given to {name}, which is no member" for name in weights if name not in members]
    return faults + [
        f"member {name} has weight {weight:g}; a weight is a finite number above 0 (leave the member out instead)"
        for name, weight in weights.items()
        if not 0 < weight < math.inf
    ]


def _token_faults(members: Mapping[str, Member[BatchT]]) -> list[str]:
    """One line for every member whose tokenizer is not that of the first."""
    faults = []
    first = next(iter(members), "")
    for name, member in members.items():
        mine, theirs = members[first].tokens, member.tokens
        differing = sorted(token for token in mine.keys() | theirs.keys() if mine.get(token) != theirs.get(token))
        if differing:
            token = differing[0]
            faults.append(
                f"members {first} and {name} have different tokenizers: {token!r} has id {mine.get(token)} in the "
                f"one and {theirs.get(token)} in the other ({len(differing)} tokens differ); the classes of a "
                "committee are the same for all, so choose members of one tokenizer"
            )
    return faults


def _state_faults(members: Mapping[str, Member[BatchT]], layers: tuple[int, ...], states_from: str | None) -> list[str]:
    names = ", ".join(members)
    if states_from is None:
        ask = f"an alignment reads blocks {list(layers)}, and a committee has no states of its own"
        return [f"{ask}; name the member to take them from ({names}), or drop the alignment"] if layers else []
    if states_from not in members:
        return [f"states are to come from {states_from}, which is no member ({names})"]
    carried = members[states_from].teacher.layers
    if not set(layers) <= set(carried):
        return [f"an alignment reads blocks {list(layers)}, and member {states_from} was made with {list(carried)}"]
    return []


def _require_one_shape(shapes: Mapping[str, tuple[int, ...]]) -> None:
    (first, shape), *others = shapes.items()
    faults = [
        f"member {name} scores {other[-1]} classes and member {first} {shape[-1]}; an average needs one vocabulary, "
        "padding included, so choose members of one vocabulary"
        for name, other in others
        if other[-1] != shape[-1]
    ]
    if faults:
        raise InputError(faults)
    for name, other in others:
        if other != shape:
            raise ValueError(f"member {name} answers with logits of shape {other}, and member {first} with {shape}.")
