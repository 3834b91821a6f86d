"""Do every recipe under every seed, side by side, and record each run in the ledger as it ends.

The same command again goes on where the last one stopped: finished runs are left alone, begun ones continue from their
checkpoints, and a run whose worker was killed is tried again. Exit code 1 where a run is not finished in the end.
"""

from __future__ import annotations

import argparse
import os
import re
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tutelage.cli.options import add_options
from tutelage.errors import InputError, InterruptedRunError

if TYPE_CHECKING:
    from tutelage.studies.engine import Engine
    from tutelage.studies.job import Job
    from tutelage.studies.study import Ran

_RANGE = re.compile(r"(\d+)(?:-(\d+))?")
_MOST_SEEDS = 1000
_AGAIN = "Give the same command again: finished runs are kept, begun ones continue."


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The arguments of `tutelage study`."""
    parser.add_argument("recipes", nargs="+", type=Path, metavar="RECIPE", help="recipe files (YAML)")
    parser.add_argument("--seeds", default="0", metavar="LIST", help="such as 0,1,2 or 0-4 (default: %(default)s)")
    parser.add_argument("--engine", choices=("loky", "ray"), default="loky", help="processes here, or a Ray cluster")
    parser.add_argument("--workers", type=int, metavar="N", help="runs at once (default: one a core)")
    parser.add_argument("--address", metavar="HOST:PORT", help="ray: the cluster's head, or auto (default: start one)")
    parser.add_argument("--gpus-per-run", type=float, default=0.0, metavar="X", help="ray: GPUs of a run (default: 0)")
    add_options(parser, "--out", "--set", "--ledger", "--dry-run", "--device")


def run(arguments: argparse.Namespace) -> int:
    """Do the runs; returns the exit code."""
    from tutelage.cli.output import print_document, progress, talk
    from tutelage.config import dump_recipe, load_recipe
    from tutelage.records.document import Document, Status
    from tutelage.records.ledger import Ledger
    from tutelage.records.locations import ledger_path
    from tutelage.studies.grid import plan_jobs
    from tutelage.studies.study import run_study

    seeds = read_seeds(arguments.seeds)
    faults: list[str] = []
    recipes = []
    for path in arguments.recipes:
        try:
            recipes.append(load_recipe(path, arguments.overrides))
        except InputError as error:
            faults += error.faults
    if faults:
        raise InputError(faults)
    engine = _engine(arguments)
    out = (arguments.out or Path("runs")).absolute()
    ledger = ledger_path(arguments.ledger)
    say, device, whole = talk(arguments.quiet), arguments.device or "auto", not arguments.dry_run
    jobs = plan_jobs(recipes, seeds, out, dump_recipe, device, say, require_weights=whole)
    if arguments.dry_run:
        planned = {"runs": [{"recipe": job.recipe.name, "seed": job.recipe.seed, "path": str(job.out)} for job in jobs]}
        print_document(Document("study.dry-run", planned), as_json=arguments.json, human="\n".join(map(_line, jobs)))
        return 0
    Ledger(ledger).check_writable()
    try:
        ran = run_study(jobs, engine, ledger, progress=progress(arguments.quiet), talk=say)
    except KeyboardInterrupt:
        raise InterruptedRunError(f"Stopped. {_AGAIN}") from None
    left = [one for one in ran if not one.finished]
    status = Status()
    if left:
        status = Status("incomplete", f"{len(left)} of {len(ran)} runs are not finished.", _AGAIN)
    body: dict[str, Any] = {"runs": [_row(one) for one in ran], "ledger": str(ledger)}
    print_document(Document("study", body, status=status), as_json=arguments.json, human=_table(ran))
    return 1 if left else 0


def read_seeds(text: str) -> tuple[int, ...]:
    """The seeds of a list such as "0,3-5".

    Raises:
        InputError: A part is no number and no range.

    Example:
        >>> read_seeds("0,3-5")
        (0, 3, 4, 5)
    """
    seeds: list[int] = []
    for part in text.split(","):
        match = _RANGE.fullmatch(part.strip())
        if match is None:
            raise InputError(f"--seeds {text}: {part.strip()!r} is no seed and no range; write 0,1,2 or 0-4.")
        first, last = int(match[1]), int(match[2] or match[1])
        if last < first or last - first >= _MOST_SEEDS:
            raise InputError(f"--seeds {text}: {part.strip()} is no range of 1 to {_MOST_SEEDS} seeds.")
        seeds += range(first, last + 1)
    return tuple(seeds)


def _engine(arguments: argparse.Namespace) -> Engine:
    foreign = {"--address": arguments.address, "--gpus-per-run": arguments.gpus_per_run or None}
    given = [f"{name} {value} belongs to --engine ray." for name, value in foreign.items() if value is not None]
    if arguments.engine == "loky" and given:
        raise InputError(given)
    workers = (os.cpu_count() or 1) if arguments.workers is None else arguments.workers
    if arguments.engine == "ray":
        from tutelage.studies.ray_engine import RayEngine

        return RayEngine(arguments.address, workers, gpus=arguments.gpus_per_run)
    from tutelage.studies.engine import LokyEngine

    return LokyEngine(workers)


def _line(job: Job) -> str:
    return f"{job.recipe.name}, seed {job.recipe.seed}: {job.out}"


def _row(one: Ran) -> dict[str, Any]:
    from tutelage.studies.study import result_of

    job = one.job
    row = {
        "recipe": job.recipe.name,
        "recipe_sha256": job.recipe_hash,
        "seed": job.recipe.seed,
        "state": one.state,
        "text": one.text,
        "attempts": one.attempts,
        "path": str(job.out),
    }
    return {**row, "scores": result_of(job)["scores"] if one.finished else None}


def _table(ran: Sequence[Ran]) -> str:
    from tutelage.cli.output import table

    rows = []
    for row in map(_row, ran):
        scores = row["scores"] or {}
        named = ", ".join(
            f"{name.removeprefix('student.')} {score['value']:.4g}"
            for name, score in scores.items()
            if name.startswith("student.")
        )
        rows.append([row["recipe"], row["seed"], row["state"], named or row["text"], row["path"]])
    return table(rows, ["recipe", "seed", "state", "student", "folder"])
