"""The files that docs/howto/add-an-objective.md adds are found, and inherit the contract tests."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
PAGE = ROOT / "docs" / "howto" / "add-an-objective.md"
HOMES = {"hellinger": "divergences", "absolute": "alignments"}
# Puts the folder of a new file beside the package's own, before anything lists the kinds.
PLUGIN = "".join(
    f"import tutelage.objectives.{home} as {home}\n{home}.__path__.append({{folder!r}} + '/{home}')\n"
    for home in HOMES.values()
)


@pytest.fixture
def environment(tmp_path: Path) -> dict[str, str]:
    """Every Python block of the page in a file of its own, in a folder for its package."""
    blocks = re.findall(r"^```python quick\n(.*?)^```", PAGE.read_text(encoding="utf-8"), re.MULTILINE | re.DOTALL)
    for block in blocks:
        (kind,) = re.findall(r'^MEMBERS = \(\w+\("(\w+)"', block, re.MULTILINE)
        folder = tmp_path / HOMES[kind]
        folder.mkdir()
        (folder / f"{kind}.py").write_text(block, encoding="utf-8")
    (tmp_path / "added_members.py").write_text(PLUGIN.format(folder=str(tmp_path)), encoding="utf-8")
    path = os.pathsep.join([str(tmp_path), str(ROOT / "tests"), os.environ.get("PYTHONPATH", "")])
    return {**os.environ, "PYTHONPATH": path, "OMP_NUM_THREADS": "1"}


def test_a_recipe_may_name_what_a_file_adds_without_torch(environment: dict[str, str]) -> None:
    code = (
        "import added_members, sys\n"
        "from tutelage.objectives.terms import TERM_FAMILIES, Term\n"
        "print(Term('hellinger', temperature=2.0).family, Term('absolute', centre=True).family, 'torch' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["divergence", "alignment", "False"]


@pytest.mark.slow
def test_what_a_file_adds_inherits_the_contract_tests(environment: dict[str, str]) -> None:
    words = [sys.executable, "-m", "pytest", "-q", "-p", "added_members", "-p", "no:cacheprovider"]
    words += ["-k", "hellinger or absolute", "tests/objectives", "tests/training/test_preflight.py"]
    done = subprocess.run(words, cwd=ROOT, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout[-4000:]
    (passed,) = re.findall(r"(\d+) passed", done.stdout)
    assert int(passed) > 200  # measured 232
