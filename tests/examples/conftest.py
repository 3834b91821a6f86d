"""The scripts of examples/capacity_gap as modules and as commands."""

from __future__ import annotations

import importlib
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType

import pytest

MODULES = ("outputs", "networks", "kernel_regression", "mapping_problem")


@pytest.fixture(scope="session")
def example(root: Path) -> Path:
    """The folder of the demonstrations."""
    return root / "examples" / "capacity_gap"


@pytest.fixture
def load(example: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[str], ModuleType]:
    """Import one of the scripts by name, as running it would find its neighbours."""
    monkeypatch.syspath_prepend(str(example))
    for name in MODULES:
        monkeypatch.delitem(sys.modules, name, raising=False)
    return importlib.import_module


@pytest.fixture
def call(example: Path, tmp_path: Path) -> Callable[..., subprocess.CompletedProcess[str]]:
    """Run one of the scripts in a folder of its own."""

    def run(script: str, *words: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, example / script, *words],
            cwd=tmp_path,
            env={**os.environ, "PYTHONDONTWRITEBYTECODE": "1"},
            capture_output=True,
            text=True,
            timeout=120,
        )

    return run
