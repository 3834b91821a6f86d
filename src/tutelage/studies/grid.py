"""The runs of a study: recipes, each under several seeds.

Covers checking every recipe's data and models before anything starts, and the folder of every run. Does not cover
reading recipe files (`config`) or doing the runs (`study`). Nothing here imports torch.
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable, Sequence
from pathlib import Path

from tutelage.errors import InputError
from tutelage.progress import Talk, say_nothing
from tutelage.runs.folder import RunFolder, check_folder
from tutelage.runs.recipe import Recipe
from tutelage.runs.tasks import gather_materials
from tutelage.studies.job import Job


def plan_jobs(
    recipes: Sequence[Recipe],
    seeds: Sequence[int],
    out: Path,
    dump: Callable[[Recipe], str],
    device: str = "auto",
    talk: Talk = say_nothing,
    *,
    require_weights: bool = True,
) -> tuple[Job, ...]:
    """Every recipe under every seed, checked.

    Args:
        recipes: Resolved; their own seeds are not read.
        seeds: The seeds.
        out: The folder of the study; a run's is `NAME-seedSEED` in it.
        dump: Writes a recipe as a file (`config.dump_recipe`).
        device: torch device, or "auto".
        talk: Told where models were found.
        require_weights: False accepts folders of configuration alone, for a dry run.

    Raises:
        InputError: Every fault of every recipe; recipes of one name, or that are the same run; a folder that holds
            something else.
    """
    faults: list[str] = _repeats([str(seed) for seed in seeds], "seed")
    faults += _repeats([recipe.name for recipe in recipes], "recipe name (give each its own)")
    jobs: list[Job] = []
    for recipe in recipes:
        try:
            recipe_hash = gather_materials(recipe, talk=talk, require_weights=require_weights).recipe_hash
        except InputError as error:
            faults += [f"{recipe.name}: {fault}" for fault in error.faults]
            continue
        for seed in seeds:
            mine = dataclasses.replace(recipe, seed=seed)
            jobs.append(Job(mine, recipe_hash, dump(mine), out / f"{recipe.name}-seed{seed}", Path.cwd(), device))
    same = {job.recipe_hash: job.recipe.name for job in reversed(jobs)}
    twins = {job.recipe.name: same[job.recipe_hash] for job in jobs if same[job.recipe_hash] != job.recipe.name}
    faults += [f"{one} and {other} are the same but for their names; leave one out." for one, other in twins.items()]
    for job in jobs:
        faults += _faults_of_folder(job)
    if faults:
        raise InputError(dict.fromkeys(faults))
    return tuple(jobs)


def _repeats(values: Sequence[str], kind: str) -> list[str]:
    return [f"The study names the {kind} {one} twice." for one in sorted({v for v in values if values.count(v) > 1})]


def _faults_of_folder(job: Job) -> list[str]:
    """A run's folder is new, or holds this run: begun, or finished."""
    folder = RunFolder(job.out)
    if not folder.begun:
        try:
            check_folder(job.out)
        except InputError as error:
            return list(error.faults)
        return []
    try:
        about = json.loads((job.out / "run.json").read_text(encoding="utf-8"))
        found = (about["recipe_hash"], about["seed"])
    except (OSError, ValueError, KeyError, TypeError) as error:
        return [f"{job.out / 'run.json'} cannot be read: {error}"]
    if found != job.key:
        return [f"{job.out} holds another run (its recipe or data changed since). Choose another --out."]
    return []
