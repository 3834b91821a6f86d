"""Write synthetic runs of a law: what a fit should recover, and what a design would look like.

Designs of ordinary training: isoflop (sizes along lines of equal compute), grid (every size with every number of
tokens), fixed-ratio (20 tokens a parameter throughout, which does not determine a law). Designs of distillation:
student-isoflop, teacher-isoflop, capacity-gap (several ratios of tokens to parameters on both sides), distillation (a
third of each). A distillation law gives the runs of the supervised law inside it under a design of ordinary training.
Sizes and tokens stay within the range that the law was fitted on.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

from tutelage.cli.options import add_options

if TYPE_CHECKING:
    from tutelage.laws.table import RunTable


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The arguments of `tutelage simulate`."""
    parser.add_argument("--design", required=True, metavar="NAME", help="which sizes, tokens and teachers (see above)")
    parser.add_argument("--runs", required=True, metavar="N", help="how many runs")
    parser.add_argument(
        "--noise", default="0", metavar="S", help="standard deviation of the log of the loss (default: 0; reruns: 1e-3)"
    )
    parser.add_argument(
        "--out", type=Path, required=True, metavar="FILE", help="the runs, as .csv, .jsonl or .parquet; must not exist"
    )
    add_options(parser, "--law", "--accept-unidentified", "--seed", "--force")


def run(arguments: argparse.Namespace) -> int:
    """Write the runs; returns the exit code."""
    from tutelage.cli.output import print_document
    from tutelage.cli.quantities import Faults
    from tutelage.laws.designs import Design
    from tutelage.laws.run_files import check_writable_kind, write_runs
    from tutelage.laws.simulate import simulate
    from tutelage.laws.validity import status_cautions
    from tutelage.records.document import Document

    faults = Faults()
    law = faults.law(arguments.law, arguments.accept_unidentified)
    count = faults.count(arguments.runs, "--runs")
    design = faults.attempt(lambda: Design(arguments.design, count or 1))
    noise = faults.not_negative(arguments.noise, "--noise")
    seed = faults.seed(arguments.seed)
    faults.attempt(lambda: check_writable_kind(arguments.out))
    faults.not_there(arguments.out, arguments.force)
    faults.raise_if_any()
    # What was read without a fault is there; the checker cannot know.
    assert law is not None and design is not None and noise is not None  # noqa: PT018
    table = simulate(law, design, noise, seed)
    write_runs(table, arguments.out)
    body = {
        "out": str(arguments.out),
        "law": law.name,
        "family": law.family.name,
        "design": design.name,
        "runs": len(table),
        "noise": noise,
        "seed": seed,
        "columns": {letter: {"low": min(values), "high": max(values)} for letter, values in table.columns.items()},
        "sha256": table.sha256,
    }
    document = Document("simulate", body, warnings=status_cautions(law))
    print_document(document, as_json=arguments.json, human=_render(table, arguments.out))
    return 0


def _render(table: RunTable, out: Path) -> str:
    from tutelage.cli.output import table as render
    from tutelage.units import format_quantity

    rows = [
        [
            letter,
            *(f"{end:.4f}" if letter.startswith("L") else format_quantity(end) for end in (min(values), max(values))),
        ]
        for letter, values in table.columns.items()
    ]
    return f"{table.source}\n\n{render(rows, ('', 'lowest', 'highest'))}\n\nwritten to {out}"
