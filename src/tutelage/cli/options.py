"""The options that mean the same in every verb, each added by name so that a verb offers only those it obeys."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from tutelage.tasks.sources import DatasetSource

_OPTIONS: dict[str, dict[str, object]] = {
    "--out": {"type": Path, "metavar": "DIR", "help": "where the result is written; must not exist yet"},
    "--seed": {"type": int, "metavar": "INT", "help": "seed of every random draw (default: the recipe's, or 0)"},
    "--set": {
        "action": "append",
        "default": [],
        "metavar": "A.B=VALUE",
        "dest": "overrides",
        "help": "override one value of the recipe; may be repeated",
    },
    "--law": {
        "default": "busbridge2025",
        "metavar": "NAME|FILE",
        "help": "a published law by name or a law file (default: %(default)s)",
    },
    "--accept-unidentified": {
        "action": "store_true",
        "help": "use a law although its fit says that the runs did not determine it; its status is shown",
    },
    "--ledger": {
        "type": Path,
        "metavar": "FILE",
        "help": "the ledger of runs (default: $TUTELAGE_LEDGER, else the platform's data folder)",
    },
    "--force": {"action": "store_true", "help": "replace what --out names"},
    "--resume": {"action": "store_true", "help": "continue the interrupted run that --out holds"},
    "--data": {
        "metavar": "DATA",
        "help": "other held-out data: a file, or a dataset as in recipes, '{dataset: FOLDER, split: test}'",
    },
    "--dry-run": {"action": "store_true", "help": "check everything and print what would be done, without doing it"},
    "--device": {"metavar": "NAME", "help": "cpu, cuda or mps (default: what is there)"},
}


def add_options(parser: argparse.ArgumentParser, *names: str) -> None:
    """Add the shared options `names` (such as "--out") to a verb's parser, after the three that every verb has."""
    parser.add_argument("--json", action="store_true", help="print exactly one JSON document on stdout")
    parser.add_argument("--quiet", action="store_true", help="no progress and no talk on stderr")
    parser.add_argument("--debug", action="store_true", help="show the traceback of an error")
    for name in names:
        parser.add_argument(name, **_OPTIONS[name])  # type: ignore[arg-type]


def data_for(arguments: argparse.Namespace) -> Path | DatasetSource | None:
    """What `--data` names beside a finished run; None without it.

    Raises:
        InputError: Faults of the dataset's mapping, or there is no finished run to say of which kind it is.
    """
    from tutelage.config import load_source
    from tutelage.runs.finished import read_finished

    return None if arguments.data is None else load_source(arguments.data, read_finished(arguments.run).task)
