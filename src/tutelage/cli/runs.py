"""List the runs that the ledger holds, newest first.

The table shows each run's word error rate where it has one; --json and --csv give every column, score and interval.
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

SHOWN_SCORES = ("student.wer", "wer")
"""The first of these that a run has is the word error rate of the table."""


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
        [each.created[:19].replace("T", " "), each.name, each.task, each.seed, _word_error_rate(each), each.folder]
        for each in runs
    ]
    return table(rows, ["created (UTC)", "name", "task", "seed", "WER % [95 %]", "folder"])


def _word_error_rate(run: Run) -> str:
    estimate = next((run.scores[name] for name in SHOWN_SCORES if name in run.scores), None)
    if estimate is None:
        return ""
    if estimate.low is None or estimate.high is None:
        return f"{100 * estimate.value:.1f}"
    return f"{100 * estimate.value:.1f} [{100 * estimate.low:.1f}, {100 * estimate.high:.1f}]"
