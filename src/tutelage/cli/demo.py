"""Distil a real speech model and prove it: Whisper base teaches a smaller copy of itself on recorded Spanish captions.

Plans, distils, judges on held-out clips and keeps the student, in minutes on two CPU cores. The last line of stdout is
the path of result.json.
"""

from __future__ import annotations

import argparse
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, cast

from tutelage.cli.options import add_options

if TYPE_CHECKING:
    from tutelage.planning.plan import Plan
    from tutelage.runs.speech.materials import SpeechMaterials


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The arguments of `tutelage demo`."""
    add_options(parser, "--out", "--seed", "--set", "--ledger", "--resume", "--force", "--dry-run", "--device")


def run(arguments: argparse.Namespace) -> int:
    """Run the demo; returns the exit code."""
    from tutelage.cli.distill import forecast_recipe, gather_for, prepare_attempt, print_result
    from tutelage.config import load_recipe
    from tutelage.runs.demo import add_to, find_recipe, plan_own_sizes, plan_realistic

    recipe = load_recipe(find_recipe(), arguments.overrides, arguments.seed)
    if arguments.dry_run:
        return forecast_recipe(recipe, arguments)
    out = arguments.out or Path("runs") / f"demo-{datetime.now():%Y%m%d-%H%M%S}"
    words = ["demo", *(word for override in arguments.overrides for word in ("--set", override))]
    attempt = prepare_attempt(recipe, arguments, out, words)
    plans = {"realistic": plan_realistic()}
    attempt.talk("plan: what the published law says for a 1B student, a 7B teacher of loss 2.02 and 1e21 FLOPs")
    attempt.talk(_plan_text(plans["realistic"]))
    materials = gather_for(recipe, attempt)
    plans["demo"] = plan_own_sizes(cast("SpeechMaterials", materials))
    attempt.talk("plan: what it says for this demo's own sizes")
    attempt.talk(_plan_text(plans["demo"]))
    from tutelage.runs.distil import distil  # loads torch: only after data, recipe and folders were checked

    path = distil(materials, attempt, add=lambda findings: add_to(findings, plans))
    return print_result(path, arguments)


def _plan_text(answer: Plan) -> str:
    from tutelage.cli.output import table
    from tutelage.planning.words import HEADERS, in_words, rows

    body = rows(answer)
    # Without numbers there is one sentence to say: that, and why, there are none.
    return f"{table(body, HEADERS)}\n\n{in_words(answer)}\n" if body else in_words(answer).partition("\n\n")[0]
