"""Machine code: kept on disk, never that of another kernel or family, and made without a cache where none can be."""

from __future__ import annotations

import json
import math
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from tutelage.laws.families import find_family
from tutelage.laws.fitting.compilation import code_hash, compile_solver

REPORT = """
import json, sys
from tutelage.laws.families import find_family
from tutelage.laws.fitting.compilation import compile_solver
print(json.dumps({name: [c.cached, c.seconds] for name in sys.argv[1:] for c in [compile_solver(find_family(name))]}))
"""


def report(*names: str, **environment: str) -> dict[str, tuple[bool, float]]:
    words = [sys.executable, "-c", REPORT, *names]
    done = subprocess.run(
        words, capture_output=True, text=True, check=True, env={**os.environ, **environment}, timeout=300
    )
    return dict(json.loads(done.stdout))


def test_a_second_process_compiles_nothing() -> None:
    compile_solver(find_family("hoffmann"))
    cached, _ = report("hoffmann")["hoffmann"]
    assert cached


def test_a_changed_kernel_has_another_hash() -> None:
    family = find_family("hoffmann")

    def one(theta, x, slope):
        return math.exp(theta[0])

    def two(theta, x, slope):
        return math.exp(theta[1])

    def three(theta, x, slope):
        return math.exp(theta[1]) + 1.0

    hashes = {code_hash(replace(family, kernel=kernel)) for kernel in (family.kernel, one, two, three)}
    assert len(hashes) == 4
    assert code_hash(replace(family, kernel=one)) == code_hash(replace(family, kernel=one))


@pytest.mark.slow  # compiles three times, about 6 s each
def test_families_compiled_apart_do_not_share_symbols(tmp_path: Path) -> None:
    folder = {"NUMBA_CACHE_DIR": str(tmp_path)}
    for name in ("hoffmann", "gamma"):
        assert not report(name, **folder)[name][0]
    # Read together they must each be their own: `compile_solver` compares with the plain kernel, or compiles anew.
    together = report("hoffmann", "gamma", **folder)
    assert [cached for cached, _ in together.values()] == [True, True]
    assert sum(seconds for _, seconds in together.values()) < 3.0  # 0.4 s, of which most is importing numba


@pytest.mark.slow  # compiles without a cache, about 6 s
def test_without_a_writable_folder_it_compiles_all_the_same() -> None:
    script = REPORT.replace(
        "import json, sys",
        "import json, sys\nimport numba.core.caching as c\n"
        "def refuse(self): raise OSError('read-only')\n"
        "c._CacheLocator.ensure_cache_path = refuse",
    )
    words = [sys.executable, "-c", script, "hoffmann"]
    done = subprocess.run(words, capture_output=True, text=True, check=True, timeout=300)
    assert not json.loads(done.stdout)["hoffmann"][0]
