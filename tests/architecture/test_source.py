"""The shape of the source: short files and functions, telling names, and calls that this package never makes."""

from __future__ import annotations

import ast
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

LONGEST_FILE = 400  # lines; past it a noun is usually missing
LONGEST_FUNCTION = 60  # lines without its docstring
VAGUE_NAMES = {"utils", "util", "helpers", "helper", "common", "core", "manager", "misc"}
UNPICKLING_MODULES = {"pickle", "cPickle", "dill", "cloudpickle", "marshal", "shelve"}
UNPICKLING_CALLS = {"torch.load", "torch.save", "joblib.load"}


def lines_of(function: ast.FunctionDef | ast.AsyncFunctionDef) -> int:
    """Lines from `def` to the end, without the docstring."""
    length = (function.end_lineno or function.lineno) - function.lineno + 1
    first = function.body[0]
    if ast.get_docstring(function, clean=False) is not None:
        length -= (first.end_lineno or first.lineno) - first.lineno + 1
    return length


def nodes(files: list[Path]) -> Iterator[tuple[str, ast.AST]]:
    """Every node of every file, with the place to name in a failure."""
    for file in files:
        for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
            yield f"{file.name}:{getattr(node, 'lineno', 0)}", node


def test_files_are_short(root: Path) -> None:
    files = [file for folder in ("src", "scripts", "benchmarks") for file in (root / folder).rglob("*.py")]
    long = {str(f.relative_to(root)): n for f in files if (n := len(f.read_text().splitlines())) >= LONGEST_FILE}
    assert not long


def test_functions_are_short(source_files: list[Path]) -> None:
    functions = [(p, n) for p, n in nodes(source_files) if isinstance(n, ast.FunctionDef | ast.AsyncFunctionDef)]
    long = {f"{place} {node.name}": lines_of(node) for place, node in functions if lines_of(node) >= LONGEST_FUNCTION}
    assert not long


def test_names_say_what_a_module_holds(source_files: list[Path], root: Path) -> None:
    parts = {part for file in source_files for part in file.relative_to(root).with_suffix("").parts}
    assert not parts & VAGUE_NAMES


def test_modules_say_what_they_cover(source_files: list[Path]) -> None:
    assert not [str(file) for file in source_files if not ast.get_docstring(ast.parse(file.read_text()))]


def test_only_the_command_line_prints(source_files: list[Path]) -> None:
    library = [file for file in source_files if file.parent.name != "cli"]
    printing = [
        place
        for place, node in nodes(library)
        if isinstance(node, ast.Call) and ast.unparse(node.func) in {"print", "sys.exit", "exit", "logging.basicConfig"}
    ]
    assert not printing


def test_the_library_never_silences_warnings(source_files: list[Path]) -> None:
    silencing = {"warnings.simplefilter", "warnings.filterwarnings", "warnings.catch_warnings"}
    library = [file for file in source_files if file.parent.name != "cli"]  # the command line may, with a reason
    assert not [p for p, n in nodes(library) if isinstance(n, ast.Call) and ast.unparse(n.func) in silencing]


def test_nothing_is_unpickled_or_evaluated(source_files: list[Path]) -> None:
    found = []
    for place, node in nodes(source_files):
        if isinstance(node, ast.Import):
            names = {alias.name.partition(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            names = {(node.module or "").partition(".")[0]}
        elif isinstance(node, ast.Call):
            called = ast.unparse(node.func)
            names = {called} & (UNPICKLING_CALLS | {"eval", "exec"})
            # a method `x.eval()` puts a model in evaluation mode; the builtin has no dot
            found += [place for name in names if name in UNPICKLING_CALLS or "." not in called]
            trusting = [word for word in node.keywords if word.arg in {"allow_pickle", "trust_remote_code"}]
            found += [place for word in trusting if ast.unparse(word.value) == "True"]
            continue
        else:
            continue
        found += [place for _ in names & UNPICKLING_MODULES]
    assert not found


def test_format_and_lint(root: Path) -> None:
    ruff = Path(sys.executable).parent / "ruff"
    for words in (["format", "--check", "."], ["check", "."]):
        done = subprocess.run([ruff, *words], cwd=root, capture_output=True, text=True, timeout=120)
        assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.slow
def test_types_hold(root: Path) -> None:
    mypy = Path(sys.executable).parent / "mypy"
    done = subprocess.run([mypy], cwd=root, capture_output=True, text=True, timeout=250)
    assert done.returncode == 0, done.stdout + done.stderr
