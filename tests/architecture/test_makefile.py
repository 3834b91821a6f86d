"""The Makefile and the CI entry, run on a copy with stand-ins: what they call, and what they say when they cannot."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

TARGETS = ["setup", "demo", "test", "check", "lint", "types", "bench", "docs", "acceptance", "clean"]

OLD_PYTHON = """#!/bin/sh
exec {python} -c 'import sys; sys.version_info = (3, 10, 13); exec(sys.argv[2])' "$@"
"""

RECORDING_MAKE = """#!/bin/sh
echo "make $* strict=$TUTELAGE_STRICT_SKIPS data=$TUTELAGE_REFERENCE_DATA in=$PWD"
"""


@pytest.fixture
def checkout(tmp_path: Path, root: Path) -> Path:
    """A copy of the files that set-up needs, without an environment."""
    folder = tmp_path / "checkout"
    for name in ("Makefile", "pyproject.toml", "constraints/tested.txt", ".ci/run"):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(root / name, folder / name)
    return folder


def run(words: list[str], folder: Path, **environment: str) -> subprocess.CompletedProcess[str]:
    """Run in `folder`, without what an outer make or CI handed down."""
    handed_down = ("MAKE", "MFLAGS", "PYTHON", "TORCH_INDEX", "TUTELAGE_")
    inherited = {key: value for key, value in os.environ.items() if not key.startswith(handed_down)}
    return subprocess.run(
        words, cwd=folder, env={**inherited, **environment}, capture_output=True, text=True, timeout=60
    )


def executable(path: Path, text: str) -> Path:
    """Write a command."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    path.chmod(0o755)
    return path


def test_an_old_python_is_refused_in_one_line(checkout: Path, tmp_path: Path) -> None:
    python = executable(tmp_path / "old" / "python3", OLD_PYTHON.format(python=sys.executable))
    done = run(["make", "test", f"PYTHON={python}"], checkout)
    said = [line for line in done.stderr.splitlines() if not line.startswith("make")]
    assert done.returncode != 0
    assert len(said) == 1
    assert "3.10.13" in said[0]
    assert "3.11 or newer" in said[0]
    assert not (checkout / ".venv").exists()


def test_every_target_is_there(checkout: Path) -> None:
    help_text = run(["make"], checkout).stdout
    assert [target for target in TARGETS if f"make {target} " not in help_text] == []


def test_torch_is_installed_first_and_everything_within_the_tested_set(checkout: Path) -> None:
    plan = run(["make", "-n", "setup", "TORCH_INDEX=https://example.org/cpu"], checkout).stdout
    installs = [line for line in plan.splitlines() if " -m pip " in line]
    assert installs[0].endswith(" torch")
    assert all("--constraint constraints/tested.txt" in line for line in installs)
    assert all("--extra-index-url https://example.org/cpu" in line for line in installs)
    assert "--extra-index-url" not in run(["make", "-n", "setup"], checkout).stdout


def test_the_tests_run_offline(checkout: Path) -> None:
    plan = run(["make", "-n", "test"], checkout).stdout.splitlines()[-1]
    assert "HF_HUB_OFFLINE=1" in plan
    assert "PIP_NO_INDEX=1" in plan
    assert "OMP_NUM_THREADS=1" in plan


@pytest.mark.parametrize("with_data", [True, False])
def test_the_ci_entry_calls_make_test(checkout: Path, tmp_path: Path, with_data: bool) -> None:
    make = executable(tmp_path / "stand-in" / "make", RECORDING_MAKE)
    data = tmp_path / "shared" / "data"
    if with_data:
        data.mkdir(parents=True)
    done = run(["bash", str(checkout / ".ci" / "run")], tmp_path, PATH=f"{make.parent}{os.pathsep}{os.environ['PATH']}")
    expected = data if with_data else ""
    assert done.stdout == f"make test strict=1 data={expected} in={checkout}\n"
    assert done.returncode == 0
    assert os.access(checkout / ".ci" / "run", os.X_OK)
