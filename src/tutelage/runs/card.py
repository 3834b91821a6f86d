"""What the model cards of every task say alike: numbers with their intervals, teacher, ending, and the objective.

Covers these pieces of text. Does not cover the cards (`speech.card`, `text.card`).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from tutelage.objectives.terms import TERM_FAMILIES
from tutelage.runs.ending import describe_ending


def shown(estimate: Mapping[str, Any] | None, scale: float, digits: int) -> str:
    """The value with its interval where it has one; "-" where it was not measured."""
    if estimate is None or estimate["value"] is None:
        return "-"
    value = f"{scale * estimate['value']:.{digits}f}"
    if estimate["low"] is None or estimate["high"] is None:
        return value
    return f"{value} [{scale * estimate['low']:.{digits}f}, {scale * estimate['high']:.{digits}f}]"


def ending_lines(document: Mapping[str, Any]) -> list[str]:
    """A paragraph on when a training that was watched on a dev split ended; none where it was not."""
    ending = describe_ending(document["training"], document["recipe"]["resolved"]["training"]["steps"])
    return [ending, ""] if ending else []


def describe_teacher(teacher: Mapping[str, Any]) -> str:
    """Who taught, from the resolved recipe: a model, with its adapter, or a committee with its space."""
    members = teacher.get("members")
    if not members:
        return _with_adapter(teacher)
    weights = "given" if all(one.get("weight") is not None for one in members) else teacher["weights"]
    names = ", ".join(_with_adapter(one) for one in members)
    return f"a committee ({teacher['space']}, {weights} weights) of {names}"


def copied_from(teacher: Mapping[str, Any]) -> Mapping[str, Any]:
    """Whose copy a student without a beginning of its own is: the model, or the leading member's part."""
    members = teacher.get("members") or [teacher]
    leading: Mapping[str, Any] = next(
        (one for one in members if one.get("name") == teacher.get("states_from")), members[0]
    )
    return leading


def _with_adapter(one: Mapping[str, Any]) -> str:
    adapter = one.get("adapter")
    return f"`{one['model']}`" if adapter is None else f"`{one['model']}` with the adapter `{adapter}`"


def describe_objective(terms: Sequence[Mapping[str, Any]]) -> str:
    """The weighted terms of a resolved recipe, with what is not at its default."""
    return ", ".join(_term(term) for term in terms)


def _term(term: Mapping[str, Any]) -> str:
    family = TERM_FAMILIES[term["kind"]]
    squared = ", times its square" if family == "divergence" else ""
    temperature = f" at temperature {term['temperature']:g}{squared}" if family in ("divergence", "contrast") else ""
    options = [f"mix {term['mix']:g}"] if term.get("mix") is not None else []
    options += [name for name in ("standardise", "centre") if term.get(name)]
    options += ["a schedule of its weight"] if term.get("schedule") else []
    return f"{term['weight']:g} x {term['kind']}{temperature}" + (f" ({', '.join(options)})" if options else "")
