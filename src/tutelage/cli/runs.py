"""List the runs that the ledger holds, newest first.

The table shows each run's word error rate (speech) or loss (text); --json and --csv give every column and interval.
A recipe that was run again with the same seed replaced its older row.
"""

from __future__ import annotations

import argparse
import sys

from tutelage.cli.options import add_options
from tutelage.cli.output import print_document, table
from tutelage.errors import InputError
from tutelage.records.document import Document, Status
from tutelage.records.ledger import Ledger, runs_to_csv
from tutelage.records.locations import ledger_path
from tutelage.records.run import Run

SHOWN_SCORES = (
    ("student.wer", 100.0, 1, "% WER"),
    ("wer", 100.0, 1, "% WER"),
    ("student.nats_per_token", 1.0, 3, "nats/token"),
)
"""Name, scale, digits, unit: the first of these that a run has is the score of the table."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The verb's own arguments."""
    add_options(parser, "--ledger")
    parser.add_argument("--csv", action="store_true", help="print comma-separated values on stdout")


def run(arguments: argparse.Namespace) -> int:
    """Print the rows; an empty ledger is no error."""
    if arguments.csv and arguments.json:
        raise InputError("--csv and --json both claim stdout; give one of them")
    path = ledger_path(arguments.ledger)
    runs = Ledger(path).runs()
    if arguments.csv:
        sys.stdout.write(runs_to_csv(runs))
        return 0
    status = Status() if runs else Status("empty", f"{path} holds no runs yet.", "`tutelage demo` makes the first.")
    document = Document(
        "runs", {"ledger": str(path), "exists": path.exists(), "runs": [each.to_dict() for each in runs]}, status=status
    )
    print_document(document, as_json=arguments.json, human=_render(runs))
    return 0


def _render(runs: tuple[Run, ...]) -> str:
    if not runs:
        return "no runs"
    rows = [
        [each.created[:19].replace("T", " "), each.name, each.task, each.seed, _score(each), each.folder]
        for each in runs
    ]
    return table(rows, ["created (UTC)", "name", "task", "seed", "score [95 %]", "folder"])


def _score(run: Run) -> str:
    for name, scale, digits, unit in SHOWN_SCORES:
        estimate = run.scores.get(name)
        if estimate is None:
            continue
        value = f"{scale * estimate.value:.{digits}f}"
        if estimate.low is None or estimate.high is None:
            return f"{value} {unit}"
        return f"{value} [{scale * estimate.low:.{digits}f}, {scale * estimate.high:.{digits}f}] {unit}"
    return ""
