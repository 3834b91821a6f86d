"""A benchmark of cases: a process each, one document, and a failed case is an error with what its process wrote."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

SCRIPT = '''"""Halves numbers.

More.
"""
import os

from cases import CaseError, measure_case, run_benchmark, spread


def run_case(case):
    if case["number"] < 0:
        raise ValueError("below zero")
    return {"half": case["number"] / 2, "process": os.getpid(), "threads": os.environ["OMP_NUM_THREADS"]}


def tabulate(rounds):
    found = [measure_case({"number": number}) for number in range(1, rounds + 1)]
    try:
        measure_case({"number": -1})
    except CaseError as error:
        complaint = str(error)
    return {"half": spread([one["half"] for one in found]), "found": found, "complaint": complaint}


if __name__ == "__main__":
    run_benchmark("halves", __doc__, run_case, tabulate)
'''


def test_a_table_is_made_of_processes(tmp_path: Path, root: Path) -> None:
    (tmp_path / "halves.py").write_text(SCRIPT, encoding="utf-8")
    words = [sys.executable, str(tmp_path / "halves.py"), "--rounds", "2", "--out", str(tmp_path / "out.json")]
    paths = os.pathsep.join(str(root / folder) for folder in ("benchmarks", "src"))
    done = subprocess.run(
        words, capture_output=True, text=True, check=True, cwd=root, env={**os.environ, "PYTHONPATH": paths}
    )
    document = json.loads(done.stdout)
    assert document == json.loads((tmp_path / "out.json").read_text(encoding="utf-8"))
    assert document["benchmark"] == "halves"
    assert {"low", "high"} < document["half"].keys()
    assert (document["half"]["value"], document["half"]["low"], document["half"]["high"]) == (0.75, 0.5, 1.0)
    assert len({one["process"] for one in document["found"]}) == 2
    assert {one["threads"] for one in document["found"]} == {"1"}
    assert document["complaint"].rstrip().endswith("ValueError: below zero")
    assert document["provenance"]
    assert document["cost_seconds"] > 0
