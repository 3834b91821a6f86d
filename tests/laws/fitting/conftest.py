"""The public tables of runs, where their folder is given."""

from __future__ import annotations

import csv
import json
import os
from collections.abc import Callable
from pathlib import Path

import pytest

from tutelage.laws.table import RunTable


@pytest.fixture(scope="session")
def reference_table() -> Callable[[str, dict[str, str]], RunTable]:
    """Reads a public table by file name and the columns for each letter."""
    folder = os.environ.get("TUTELAGE_REFERENCE_DATA")
    if not folder:
        pytest.skip("TUTELAGE_REFERENCE_DATA is not set")

    def read(name: str, columns: dict[str, str]) -> RunTable:
        text = (Path(folder) / name).read_text("utf-8").splitlines()
        rows = [json.loads(line) for line in text] if name.endswith(".jsonl") else list(csv.DictReader(text))
        return RunTable({letter: [float(row[cell]) for row in rows] for letter, cell in columns.items()}, source=name)

    return read
