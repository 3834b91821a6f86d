"""What a recipe's learners need of a cache of targets, held against the kind that it keeps, before anything is loaded.

Covers terms that sparse targets cannot serve, and states where none are kept; of a cohort every member is named. Does
not cover whom the targets are of or which blocks are kept (`caching`). Nothing here imports torch.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from tutelage.errors import InputError
from tutelage.objectives.divergences import divergences
from tutelage.objectives.terms import Term
from tutelage.runs.cohort.settings import name_learners
from tutelage.runs.recipe import Recipe
from tutelage.teachers.target_cache.manifest import read_manifest


def require_served(recipe: Recipe, kind: str) -> None:
    """Refuse terms that targets of this kind cannot serve.

    Args:
        recipe: With or without a cohort.
        kind: What a cache keeps of the teacher's distribution.

    Raises:
        InputError: Every such term of every learner, by name.
    """
    if kind != "hidden":
        _refuse(_sparse_faults(recipe, kind))


def require_cache(recipe: Recipe, folder: Path) -> None:
    """Refuse a cache that is not finished, or keeps too little for some learner.

    Raises:
        InputError: With every fault.
    """
    contents = read_manifest(folder).contents
    require_served(recipe, contents["kind"])
    if not contents["layers"]:
        _refuse(
            f"{name}Term {term.kind} compares states, and teacher.cache {folder} keeps none; build it for this recipe "
            "in another folder."
            for name, one in name_learners(recipe).items()
            for term in one.objective
            if term.compares_states
        )


def _sparse_faults(recipe: Recipe, kind: str) -> Iterator[str]:
    for name, one in name_learners(recipe).items():
        for term in one.objective:
            if (why := _why_not(term, kind)) is not None:
                yield f"{name}Term {term.kind} {why}. Cache with --kind hidden, which serves every term."


def _why_not(term: Term, kind: str) -> str | None:
    """What a divergence asks for that sparse targets do not have."""
    if term.family != "divergence":
        return None
    if term.temperature != 1.0:
        return (
            f"has temperature {term.temperature:g}, and {kind} keeps targets at 1 only, since softened ones are nearly "
            "flat"
        )
    if term.standardise or not divergences()[term.kind].linear:
        whole = "standardised logits" if term.standardise else "the teacher's whole distribution"
        return f"compares {whole}, and {kind} keeps a part of it"
    return None


def _refuse(faults: Iterator[str]) -> None:
    found = list(faults)
    if found:
        raise InputError(found)
