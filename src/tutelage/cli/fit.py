"""Fit a law to training runs, with intervals of what the runs determine.

RUNS is a file of runs (CSV, Parquet, JSON lines or a ledger); without it the ledger is read. Families: gamma, hoffmann
and data-constrained for ordinary training; distillation (and distillation-eq8, its printed form) on a frozen supervised
law, which is fitted first. Letters: N, D, U and loss; N_S, D_S, L_T and loss for distillation. A law that the runs do
not determine is written all the same, with its status: what uses it refuses it without --accept-unidentified.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tutelage.cli.options import add_options

if TYPE_CHECKING:
    from tutelage.cli.quantities import Faults
    from tutelage.laws.family import Family
    from tutelage.laws.law import Law
    from tutelage.laws.table import RunTable


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The arguments of `tutelage fit`."""
    parser.add_argument("runs", nargs="?", type=Path, metavar="RUNS", help="a file of runs (default: the ledger)")
    parser.add_argument("--law", required=True, metavar="FAMILY", help="the family of laws (see above)")
    parser.add_argument(
        "--supervised", metavar="NAME|FILE", help="the supervised law inside a distillation law: a name or a law file"
    )
    parser.add_argument(
        "--columns",
        action="append",
        default=[],
        metavar="N=params,D=tokens,loss=final_loss",
        help="the column of each letter (default: the one that is called so)",
    )
    parser.add_argument(
        "--units",
        action="append",
        default=[],
        metavar="N=millions,D=billions",
        help="thousands, millions, billions, trillions; nats or bits for a loss; or a number to multiply by (default: "
        "parameters, tokens, nats)",
    )
    parser.add_argument(
        "--counting",
        action="append",
        default=[],
        metavar="params=non-embedding,tokens=with repeats",
        help="what was counted as parameters and tokens, in your words; kept with the law",
    )
    parser.add_argument("--held-out", metavar="SHA256", help="which held-out set, where the losses are of several")
    parser.add_argument("--fixed", action="append", default=[], metavar="gamma=1", help="constants that are not fitted")
    parser.add_argument("--bootstrap", default="4096", metavar="N", help="resamples for the intervals (default: 4096)")
    parser.add_argument("--starts", metavar="N", help="starting points (default: the family's)")
    parser.add_argument("--delta", default="1e-3", metavar="D", help="Huber's delta on log losses (default: 1e-3)")
    parser.add_argument("--level", default="0.9", metavar="P", help="coverage of the intervals (default: 0.9)")
    parser.add_argument(
        "--compute", metavar="C", help="FLOPs at which the optimal size is reported (default: the largest of the runs)"
    )
    parser.add_argument("--modality", default="text", metavar="NAME", help="what the models read (default: text)")
    parser.add_argument("--name", help="what the law is called (default: the name of --out)")
    parser.add_argument("--out", type=Path, required=True, metavar="FILE", help="the law file; must not exist yet")
    add_options(parser, "--ledger", "--accept-unidentified", "--seed", "--force", "--dry-run")


def run(arguments: argparse.Namespace) -> int:
    """Fit, write the law and print it; returns the exit code."""
    from tutelage.cli.quantities import Faults

    faults = Faults()
    family, table, supervised = _inputs(arguments, faults)
    settings = _settings(arguments, faults, family)
    faults.not_there(arguments.out, arguments.force)
    faults.raise_if_any()
    # What was read without a fault is there; the checker cannot know.
    assert family is not None and table is not None  # noqa: PT018
    if arguments.dry_run:
        return _forecast(arguments, table, family, settings)
    from tutelage.cli.output import progress
    from tutelage.laws.files import write_law
    from tutelage.laws.fitting import FitSettings, fit

    found = fit(table, family, FitSettings(**settings), supervised, progress(arguments.quiet))
    write_law(found.law, arguments.out)
    return _print(found.document(), found.law, arguments)


def _inputs(arguments: argparse.Namespace, faults: Faults) -> tuple[Family | None, RunTable | None, Law | None]:
    """The family, the runs and the supervised law, each None where it is at fault."""
    from tutelage.laws.families import find_family
    from tutelage.laws.law import supervised_part
    from tutelage.laws.reading import Reading, read_runs
    from tutelage.records.locations import ledger_path

    if arguments.runs is not None and arguments.ledger is not None:
        faults.add(f"runs are given as {arguments.runs} and as --ledger {arguments.ledger}; give one of them")
    reading = Reading(
        faults.mapping(arguments.columns, "--columns", "N=params,D=tokens,loss=final_loss"),
        faults.mapping(arguments.units, "--units", "N=millions,D=billions"),
        faults.mapping(arguments.counting, "--counting", "params=non-embedding,tokens=all"),
        arguments.held_out,
    )
    family = faults.attempt(lambda: find_family(arguments.law))
    supervised = faults.law(arguments.supervised, arguments.accept_unidentified) if arguments.supervised else None
    supervised = supervised and supervised_part(supervised)
    if family is None:
        return None, None, supervised
    if family.frozen and not arguments.supervised:
        faults.add(
            f"family {family.name} needs --supervised: the law of the same models without a teacher, which is fitted "
            "first (tutelage fit SUPERVISED_RUNS --law gamma) and then frozen inside it"
        )
    elif arguments.supervised and not family.frozen:
        faults.add(
            f"--supervised {arguments.supervised}: family {family.name} has no supervised law inside; leave it out"
        )
    path = arguments.runs or ledger_path(arguments.ledger)
    return family, faults.attempt(lambda: read_runs(path, family, reading)), supervised


def _settings(arguments: argparse.Namespace, faults: Faults, family: Family | None) -> dict[str, Any]:
    """The arguments of `FitSettings`."""
    settings: dict[str, Any] = {
        "seed": faults.seed(arguments.seed),
        "name": arguments.name or arguments.out.stem,
        "modality": arguments.modality,
        "delta": faults.quantity(arguments.delta, "--delta"),
        "compute": faults.quantity(arguments.compute, "--compute"),
    }
    level = faults.not_negative(arguments.level, "--level")
    if level is not None and not 0 < level < 1:
        faults.add(f"--level is {arguments.level}; it is the coverage of an interval, between 0 and 1, such as 0.9")
    settings["level"] = level
    resamples = faults.not_negative(arguments.bootstrap, "--bootstrap")
    if resamples is not None and (resamples != int(resamples) or resamples == 1):
        faults.add(f"--bootstrap is {arguments.bootstrap}; it must be a whole number, 0 (no intervals) or 2 and more")
    settings["bootstrap"] = int(resamples or 0)
    if arguments.starts is not None:
        settings["starts"] = faults.count(arguments.starts, "--starts")
    fixed = faults.mapping(arguments.fixed, "--fixed", "gamma=1")
    settings["fixed"] = {name: faults.quantity(text, f"--fixed {name}") for name, text in fixed.items()}
    fitted = [parameter.name for parameter in family.parameters] if family else list(fixed)
    unknown = [name for name in fixed if name not in fitted]
    if unknown and family:
        faults.add(f"--fixed names {', '.join(unknown)}; family {family.name} fits {', '.join(fitted)}")
    return settings


def _forecast(arguments: argparse.Namespace, table: RunTable, family: Family, settings: dict[str, Any]) -> int:
    """Print what would be fitted."""
    from tutelage.cli.output import print_document
    from tutelage.records.document import Document

    body = {
        "out": str(arguments.out),
        "family": family.name,
        "formula": family.formula,
        "runs": len(table),
        "source": table.source,
        "sha256": table.sha256,
        "settings": settings,
    }
    human = (
        f"would fit {family.formula}\nto {table.source}\nwith {settings['bootstrap']} resamples, and write "
        f"{arguments.out}; nothing was done"
    )
    print_document(Document("fit-dry-run", body), as_json=arguments.json, human=human)
    return 0


def _print(document: Any, law: Law, arguments: argparse.Namespace) -> int:
    from dataclasses import replace

    from tutelage.cli.output import print_document, table
    from tutelage.laws.words import COEFFICIENT_HEADERS, coefficient_rows, diagnosis, identified_rows, verdict
    from tutelage.records.document import Status

    if arguments.json:
        print_document(document, as_json=True, human="")
        return 0
    parts = [verdict(law), table(coefficient_rows(law), COEFFICIENT_HEADERS)]
    if identified := identified_rows(law):
        parts.append(table(identified, ("identified", *COEFFICIENT_HEADERS[1:])))
    parts += ["\n".join(diagnosis(law)), f"written to {arguments.out}"]
    # The status comes first on stdout, where the table is; once is enough.
    print_document(replace(document, status=Status()), as_json=False, human="\n\n".join(parts))
    return 0
