"""One run of a study, as a value that travels, and the function that does it.

Covers what a worker is told, what it answers, and that a run which was begun is continued. Does not cover which runs
there are (`grid`), where they are done (`engine`) or their records (`study`): a worker writes the run's folder alone.
"""

from __future__ import annotations

import contextlib
from dataclasses import dataclass
from pathlib import Path

from tutelage.errors import InputError, InterruptedRunError, TutelageError
from tutelage.runs.attempt import Attempt
from tutelage.runs.folder import RunFolder, require_same_run
from tutelage.runs.recipe import Recipe
from tutelage.runs.tasks import gather_materials


@dataclass(frozen=True)
class Job:
    """One run.

    Args:
        recipe: The resolved recipe, its seed among it.
        recipe_hash: SHA-256 of its identity, data included.
        recipe_yaml: The resolved recipe as a file.
        out: The run's folder.
        cwd: The folder that the recipe's relative paths start from; every machine sees it under this name.
        device: torch device, or "auto".
    """

    recipe: Recipe
    recipe_hash: str
    recipe_yaml: str
    out: Path
    cwd: Path
    device: str = "auto"

    @property
    def key(self) -> tuple[str, int]:
        """What makes it one run: recording it twice would count it twice."""
        return self.recipe_hash, self.recipe.seed

    @property
    def label(self) -> str:
        """The run's folder, which names recipe and seed."""
        return self.out.name


@dataclass(frozen=True)
class Answer:
    """What a worker says.

    Args:
        state: "done", "failed" or "interrupted".
        text: Why not; empty where done.
    """

    state: str
    text: str = ""


def do_job(job: Job) -> Answer:
    """Do one run, or what is left of it; its errors are answers."""
    try:
        with contextlib.chdir(job.cwd):
            _distil(job)
    except InterruptedRunError as error:
        return Answer("interrupted", str(error))
    except TutelageError as error:
        return Answer("failed", str(error))
    return Answer("done")


def _distil(job: Job) -> None:
    begun = RunFolder(job.out).begun
    materials = gather_materials(job.recipe)
    if materials.recipe_hash != job.recipe_hash:
        raise InputError("The data or the models changed since the study was called; call it again.")
    if begun:
        require_same_run(job.out, materials.identity, job.recipe.seed)
    from tutelage.runs.distil import distil  # loads torch: in the worker alone

    distil(materials, Attempt(job.out, job.recipe_yaml, resume=begun, device=job.device))
