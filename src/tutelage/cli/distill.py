"""Train a student as a recipe says, judge it on held-out data, and keep it with its proof.

Writes a run's folder: the merged student (an ordinary Hugging Face folder), the PEFT adapter, the resolved recipe,
result.json and a model card. The last line of stdout is the path of result.json.
"""

from __future__ import annotations

import argparse
import shlex
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from tutelage.cli.options import add_options
from tutelage.cli.ranks import launcher, rank

if TYPE_CHECKING:
    from tutelage.runs.attempt import Attempt
    from tutelage.runs.materials import Materials
    from tutelage.runs.recipe import Recipe


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The arguments of `tutelage distill`."""
    parser.add_argument("recipe", type=Path, metavar="RECIPE", help="recipe file (YAML)")
    add_options(parser, "--out", "--seed", "--set", "--ledger", "--resume", "--force", "--dry-run", "--device")


def run(arguments: argparse.Namespace) -> int:
    """Run the recipe; returns the exit code."""
    from tutelage.config import load_recipe

    recipe = load_recipe(arguments.recipe, arguments.overrides, arguments.seed)
    if arguments.dry_run:
        return forecast_recipe(recipe, arguments)
    out = arguments.out or Path("runs") / f"{recipe.name}-seed{recipe.seed}"
    words = ["distill", str(arguments.recipe)]
    words += [word for override in arguments.overrides for word in ("--set", override)]
    attempt = prepare_attempt(recipe, arguments, out, words)
    materials = gather_for(recipe, attempt)
    from tutelage.runs.distil import distil  # loads torch: only after data, recipe and folders were checked

    return print_result(distil(materials, attempt), arguments)


def prepare_attempt(recipe: Recipe, arguments: argparse.Namespace, out: Path, words: list[str]) -> Attempt:
    """Check folder and ledger, which must be usable at the end, and say how to resume."""
    from tutelage.cli.output import progress, talk
    from tutelage.config import dump_recipe
    from tutelage.records.ledger import Ledger
    from tutelage.records.locations import ledger_path
    from tutelage.runs.attempt import Attempt
    from tutelage.runs.folder import check_folder

    quiet = arguments.quiet or rank() > 0
    check_folder(out, resume=arguments.resume, force=arguments.force)
    ledger = ledger_path(arguments.ledger)
    Ledger(ledger).check_writable()
    again = [] if arguments.seed is None else ["--seed", str(arguments.seed)]
    for option in ("ledger", "device"):
        value = getattr(arguments, option)
        again += [] if value is None else [f"--{option}", str(value)]
    return Attempt(
        out,
        dump_recipe(recipe),
        resume=arguments.resume,
        device=arguments.device or "auto",
        ledger=ledger,
        progress=progress(quiet),
        talk=talk(quiet),
        resume_command=shlex.join([*launcher(), _program(), *words, *again, "--out", str(out), "--resume"]),
    )


def _program() -> str:
    """The command as it was called, which may not be on the search path (`make demo` calls .venv/bin/tutelage)."""
    called = sys.argv[0]
    return called if Path(called).name == "tutelage" and not launcher() else "tutelage"


def gather_for(recipe: Recipe, attempt: Attempt) -> Materials:
    """The recipe's data and models; a run that is resumed must be the one that was interrupted."""
    from tutelage.runs.folder import require_same_run
    from tutelage.runs.tasks import gather_materials

    materials = gather_materials(recipe, progress=attempt.progress, talk=attempt.talk)
    if attempt.resume:
        require_same_run(attempt.out, materials.identity, recipe.seed)
    return materials


def forecast_recipe(recipe: Recipe, arguments: argparse.Namespace) -> int:
    """Check everything that can be checked and print what the run would cost."""
    from tutelage.cli.output import print_document, talk
    from tutelage.runs.tasks import gather_materials

    materials = gather_materials(recipe, talk=talk(arguments.quiet), require_weights=False)
    from tutelage.runs.tasks import forecast  # loads torch when called

    document, human = forecast(materials)
    print_document(document, as_json=arguments.json, human=human)
    return 0


def print_result(path: Path, arguments: argparse.Namespace) -> int:
    """The result document, or its tables and, last, its path."""
    import json

    if rank() > 0:
        return 0
    document = json.loads(path.read_text(encoding="utf-8"))
    if arguments.json:
        print(json.dumps(document, indent=2, ensure_ascii=False))
        return 0
    from tutelage.cli.run_tables import result_lines

    print("\n".join([*result_lines(document), str(path)]))
    return 0
