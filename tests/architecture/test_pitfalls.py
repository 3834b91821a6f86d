"""Every known way in which distillation code goes wrong has a test here, or says where it is planned."""

from __future__ import annotations

import ast
from functools import cache
from pathlib import Path
from typing import Any

import pytest
from ruamel.yaml import YAML

ROOT = Path(__file__).resolve().parents[2]
ROWS: dict[str, list[dict[str, Any]]] = YAML(typ="safe").load((ROOT / "tests" / "pitfalls.yaml").read_text("utf-8"))
SECTIONS = ["objectives", "teachers and caches", "students", "training", "evaluation"]
CASES = [pytest.param(row, id=f"{section}-{n}") for section, rows in ROWS.items() for n, row in enumerate(rows, 1)]


@cache
def names_in(file: Path) -> frozenset[str]:
    """The names of a file's tests: `test_x`, and `TestY::test_z`."""
    names = set()
    for node in ast.parse(file.read_text(encoding="utf-8")).body:
        if isinstance(node, ast.ClassDef):
            names |= {f"{node.name}::{inner.name}" for inner in node.body if isinstance(inner, ast.FunctionDef)}
        elif isinstance(node, ast.FunctionDef):
            names.add(node.name)
    return frozenset(names)


def exists(name: str) -> bool:
    """Whether `tests/folder/file.py::test` names a test that is there (a whole file will not do)."""
    path, _, test = name.partition("::")
    file = ROOT / path
    return file.is_file() and test.split("::")[-1].startswith("test_") and test in names_in(file)


@pytest.mark.parametrize("row", CASES)
def test_every_row_is_covered_or_planned(row: dict[str, Any]) -> None:
    assert set(row) <= {"fault", "shown_by", "tests", "later"}
    assert row["fault"]
    assert row["shown_by"]
    assert row.get("tests") or row.get("later"), "a row names its tests, or says where they are planned"
    assert not [name for name in row.get("tests", []) if not exists(name)]


def test_every_section_is_there() -> None:
    assert list(ROWS) == SECTIONS


def test_a_dangling_name_is_seen() -> None:
    here = "tests/architecture/test_pitfalls.py"
    assert exists(f"{here}::test_a_dangling_name_is_seen")
    assert not exists(f"{here}::test_that_is_not_there")
    assert not exists("tests/no_such_file.py::test_x")
    assert not exists(here)
