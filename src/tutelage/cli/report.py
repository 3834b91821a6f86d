"""Show a run, a law or a plan as one HTML file: figures with their findings, and the numbers behind them.

The source is a run's folder (or its result.json), a law file, a published law by name, or a file with what `tutelage
plan --json` printed. A run that is not finished gives a page of what there is. The page needs nothing else: no script,
no font and no picture from elsewhere. The same source gives the same bytes.
"""

from __future__ import annotations

import argparse
from pathlib import Path

from tutelage.cli.options import add_options
from tutelage.errors import InputError


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The arguments of `tutelage report`."""
    parser.add_argument(
        "source",
        metavar="RUN|law.json|plan.json",
        help="a run's folder, a law file, a published law, or a plan's document",
    )
    parser.add_argument("--out", type=Path, required=True, metavar="FILE", help="the HTML file; must not exist yet")
    add_options(parser, "--force")


def run(arguments: argparse.Namespace) -> int:
    """Write the page and say what its figures found; returns the exit code."""
    from tutelage.cli.output import print_document
    from tutelage.records.document import Document
    from tutelage.records.files import write_atomically
    from tutelage.reports.report import report

    _check_place(arguments.source, arguments.out, arguments.force)
    made = report(arguments.source)
    write_atomically(arguments.out, made.html)
    body = {"path": str(arguments.out), "sha256": made.sha256, "figures": made.figures}
    human = "\n".join([str(arguments.out), *(f"  {figure.id}: {figure.finding}" for figure in made.figures)])
    print_document(Document("report", body, warnings=made.warnings), as_json=arguments.json, human=human)
    return 0


def _check_place(source: str, out: Path, force: bool) -> None:
    """Before the work: a page never takes the place of its source, nor of another file unasked."""
    if out.exists() and Path(source).exists() and out.samefile(source):
        raise InputError(f"--out {out} is the source itself; name another file")
    if out.is_dir():
        raise InputError(f"--out {out} is a folder; name a file in it, such as {out / 'report.html'}")
    if out.exists() and not force:
        raise InputError(f"--out {out} exists; name another file, or replace it with --force")
