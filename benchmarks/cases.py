"""A benchmark of cases: each is measured in a process of its own, and all of them make one JSON document.

Covers the command line, a case's process and its answer, and medians over rounds. Does not cover what is measured: a
script gives `run_benchmark` what one case measures and how cases make a table, and is run again for every case.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from tutelage.records.files import write_json
from tutelage.records.provenance import collect_provenance

Case = dict[str, Any]
"""What is to be measured, and what was; plain JSON values."""


class CaseError(RuntimeError):
    """A case's process failed; its text is what that wrote."""


def run_benchmark(
    name: str, description: str | None, run_case: Callable[[Case], Case], tabulate: Callable[[int], Case]
) -> None:
    """Run the whole table, or, in a process that `start_case` began, one case of it; prints one JSON document.

    Args:
        name: Of the benchmark.
        description: The script's docstring.
        run_case: One measurement, in this process.
        tabulate: From the number of rounds to the document's own part.
    """
    parser = argparse.ArgumentParser(description=description.splitlines()[0] if description else None)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--out", type=Path)
    parser.add_argument("--case", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.case:
        print(json.dumps(run_case(json.loads(arguments.case))))
        return
    start = time.monotonic()
    document = {"benchmark": name, **tabulate(arguments.rounds)}
    document |= {"cost_seconds": round(time.monotonic() - start, 1), "provenance": collect_provenance().to_dict()}
    if arguments.out:
        write_json(arguments.out, document)
    print(json.dumps(document, indent=2))


def start_case(case: Case, **settings: str) -> subprocess.Popen[str]:
    """A process on one thread that measures a case.

    Args:
        case: For the script's `run_case`.
        settings: Further environment variables.
    """
    words = [sys.executable, sys.argv[0], "--case", json.dumps(case)]
    environment, pipe = {**os.environ, "OMP_NUM_THREADS": "1", **settings}, subprocess.PIPE
    return subprocess.Popen(words, env=environment, text=True, stdin=pipe, stdout=pipe, stderr=pipe)


def finish_case(process: subprocess.Popen[str]) -> Case:
    """What it measured: the last line that it writes.

    Raises:
        CaseError: It failed.
    """
    said, complaint = process.communicate()
    if process.returncode != 0:
        raise CaseError(complaint)
    found: Case = json.loads(said.splitlines()[-1])
    return found


def measure_case(case: Case, **settings: str) -> Case:
    """Start a case and wait; arguments as of `start_case`."""
    return finish_case(start_case(case, **settings))


def spread(values: list[float]) -> dict[str, Any]:
    """Median and range over rounds."""
    return {
        "value": statistics.median(values),
        "low": min(values),
        "high": max(values),
        "level": None,
        "method": f"median and range of {len(values)} rounds",
    }
