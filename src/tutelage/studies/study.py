"""Many runs to the end: what is finished is left alone, what was begun goes on, what died is tried again.

Covers the order, the attempts and the records: the driver alone writes the ledger, each run once. Does not cover which
runs there are (`grid`) or where they are done (`engine`). The same call again goes on where the last one stopped.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tutelage.errors import InputError
from tutelage.progress import Progress, Talk, no_progress, say_nothing
from tutelage.records.ledger import Ledger
from tutelage.runs.folder import RunFolder
from tutelage.runs.result import run_of
from tutelage.studies.engine import Engine
from tutelage.studies.job import Job, do_job

ATTEMPTS = 3
"""How often a run whose worker dies is begun; it continues from its checkpoint each time."""


@dataclass(frozen=True)
class Ran:
    """One run of a study, in the end.

    Args:
        job: The run.
        state: "found" (finished before), "done", "failed", "interrupted" or "died" (its worker, at every attempt).
        text: Why it is not finished; empty where it is.
        attempts: How often a worker began it in this call.
    """

    job: Job
    state: str
    text: str = ""
    attempts: int = 0

    @property
    def finished(self) -> bool:
        """Whether there is a result."""
        return self.state in ("found", "done")


def run_study(
    jobs: Sequence[Job],
    engine: Engine,
    ledger: Path,
    *,
    progress: Progress = no_progress,
    talk: Talk = say_nothing,
) -> tuple[Ran, ...]:
    """Do every run that is not finished yet, and record each as it ends.

    Args:
        jobs: No two of them the same run or of one folder (`grid.plan_jobs` sees to it).
        engine: Where.
        ledger: The file that records them.
        progress: A bar of runs.
        talk: Told of every run that ends.

    Returns:
        One for each job, in the order given.

    Raises:
        InputError: The ledger cannot be written.
    """
    book = Ledger(ledger)
    book.check_writable()
    recorded = {(run.recipe_hash, run.seed) for run in book.runs()}
    ran: dict[Path, Ran] = {}
    for job in jobs:
        if RunFolder(job.out).result.is_file():
            ran[job.out] = Ran(job, "found")
            if job.key not in recorded:
                _record(book, job)
    attempts: dict[Path, int] = {}
    with progress("study", len(jobs), "run", len(ran)) as advance:
        left = [job for job in jobs if job.out not in ran]
        while left:
            again: list[Job] = []
            for outcome in engine.run(do_job, left):
                job, answer = outcome.job, outcome.result
                tried = attempts[job.out] = attempts.get(job.out, 0) + 1
                if answer is None and tried < ATTEMPTS:
                    talk(f"{job.label}: its worker died ({outcome.died}); trying again")
                    again.append(job)
                    continue
                if answer is None:
                    end = Ran(job, "died", f"its worker died {tried} times: {outcome.died}", tried)
                else:
                    end = Ran(job, answer.state, answer.text, tried)
                if end.state == "done":
                    _record(book, job)
                ran[job.out] = end
                advance(1, note=job.label)
                talk(f"{job.label}: {end.state}{f': {end.text}' if end.text else ''}")
            left = again
    return tuple(ran[job.out] for job in jobs)


def result_of(job: Job) -> dict[str, Any]:
    """The document of a finished run.

    Raises:
        InputError: It is not there, or cannot be read.
    """
    path = RunFolder(job.out).result
    try:
        document: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise InputError(f"{path} cannot be read: {error}") from error
    return document


def _record(book: Ledger, job: Job) -> None:
    book.record(run_of(result_of(job), job.out))
