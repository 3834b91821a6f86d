"""The file that docs/howto/add-a-layer-map.md adds is found, and inherits the contract tests."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
PAGE = ROOT / "docs" / "howto" / "add-a-layer-map.md"


@pytest.fixture
def environment(tmp_path: Path) -> dict[str, str]:
    """The page's file in a folder beside the package's own, before anything lists the maps."""
    (block,) = re.findall(r"^```python quick\n(.*?)^```", PAGE.read_text(encoding="utf-8"), re.MULTILINE | re.DOTALL)
    home = tmp_path / "layer_maps"
    home.mkdir()
    (home / "ends.py").write_text(block, encoding="utf-8")
    plugin = f"import tutelage.students.layer_maps as layer_maps\nlayer_maps.__path__.append({str(home)!r})\n"
    (tmp_path / "added_maps.py").write_text(plugin, encoding="utf-8")
    path = os.pathsep.join([str(tmp_path), str(ROOT / "tests"), os.environ.get("PYTHONPATH", "")])
    return {**os.environ, "PYTHONPATH": path, "OMP_NUM_THREADS": "1"}


def test_a_recipe_may_name_what_a_file_adds_without_torch(environment: dict[str, str]) -> None:
    code = (
        "import added_maps, sys\n"
        "from tutelage.students.design import Design\n"
        "from tutelage.students.layer_map import map_layers\n"
        "pairs = map_layers(Design(layer_map='ends').layer_map, 3, 6)\n"
        "print([(pair.student, pair.teacher) for pair in pairs], 'torch' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[(1, 1), (3, 6)] False"


@pytest.mark.slow
def test_what_a_file_adds_inherits_the_contract_tests(environment: dict[str, str]) -> None:
    words = [sys.executable, "-m", "pytest", "-q", "-p", "added_maps", "-p", "no:cacheprovider", "-k", "ends"]
    words += ["tests/students/test_layer_map_contract.py"]
    done = subprocess.run(words, cwd=ROOT, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout[-4000:]
    (passed,) = re.findall(r"(\d+) passed", done.stdout)
    assert int(passed) == 4
