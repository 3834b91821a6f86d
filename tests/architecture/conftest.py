"""The checkout that the architecture tests read."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

RUN_AND_LIST_MODULES = """
import json, sys
from contextlib import redirect_stderr, redirect_stdout
code, text = 0, __import__("io").StringIO()
with redirect_stdout(text), redirect_stderr(text):
    if sys.argv[1:]:
        from tutelage.cli.main import main
        try:
            code = main(sys.argv[1:])
        except SystemExit as stop:
            code = stop.code or 0
    else:
        import tutelage
print(json.dumps({"code": code, "text": text.getvalue(), "modules": sorted(sys.modules)}))
"""


@pytest.fixture(scope="session")
def tracked(root: Path) -> list[Path]:
    """Every file of the repository that is under version control and still there."""
    listing = subprocess.run(["git", "ls-files", "-z"], cwd=root, check=True, capture_output=True, text=True).stdout
    return [root / name for name in listing.split("\0") if name and (root / name).is_file()]


@pytest.fixture(scope="session")
def source_files(root: Path) -> list[Path]:
    """Every Python file of the package."""
    return sorted((root / "src").rglob("*.py"))


@pytest.fixture
def run_listing_modules(tmp_path: Path) -> Callable[..., tuple[int, str, set[str]]]:
    """Run `tutelage WORDS` in a fresh interpreter (`import tutelage` without words).

    Yields its exit code, what it wrote, and the top-level modules that were loaded at its end.
    """

    def run(*words: str) -> tuple[int, str, set[str]]:
        done = subprocess.run(
            [sys.executable, "-c", RUN_AND_LIST_MODULES, *words],
            cwd=tmp_path,
            env={**os.environ, "PYTHONDONTWRITEBYTECODE": "1"},
            capture_output=True,
            text=True,
            timeout=120,
        )
        assert done.returncode == 0, done.stderr
        answer = json.loads(done.stdout)
        return answer["code"], answer["text"], {name.partition(".")[0] for name in answer["modules"]}

    return run
