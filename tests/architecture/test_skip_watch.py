"""A skip that nobody allowed fails the run; an allowed one, and an expected failure, do not."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ALLOWED = """
# a comment
*::test_allowed | the reason
*::test_other_reason | another reason
*::test_no_reason
"""

SUITE = """
import pytest

def test_passes():
    pass

@pytest.mark.xfail(strict=True)
def test_fails_as_expected():
    assert False

def test_allowed():
    pytest.skip("the reason")
"""

REFUSED = """
import pytest

@pytest.mark.parametrize("_", [0])
def test_unlisted(_):
    pytest.skip("the reason")

def test_other_reason():
    pytest.skip("the reason")

def test_no_reason():
    pytest.skip("the reason")
"""

SKIPPED_MODULE = "import pytest\npytest.skip('all of it', allow_module_level=True)\n"

REACH = "import socket\ndef test_reach():\n    socket.create_connection(('192.0.2.1', 80), timeout=5)\n"


@pytest.fixture
def suite(tmp_path: Path, root: Path) -> Path:
    """A small suite beside a copy of our conftest."""
    shutil.copy(root / "tests" / "conftest.py", tmp_path)
    (tmp_path / "pytest.ini").write_text("[pytest]\n")
    (tmp_path / "allowed_skips.txt").write_text(ALLOWED)
    (tmp_path / "test_good.py").write_text(SUITE)
    return tmp_path


def run(suite: Path, *words: str, strict: str = "1") -> subprocess.CompletedProcess[str]:
    """Run the suite in a process of its own, with few plugins so that it starts fast."""
    environment = {key: value for key, value in os.environ.items() if not key.startswith(("PYTEST", "CI"))}
    return subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "-p", "no:hypothesispytest", *words],
        cwd=suite,
        env={**environment, "TUTELAGE_STRICT_SKIPS": strict},
        capture_output=True,
        text=True,
        timeout=120,
    )


def test_a_listed_skip_and_an_expected_failure_are_no_fault(suite: Path) -> None:
    done = run(suite)
    assert done.returncode == pytest.ExitCode.OK, done.stdout


@pytest.mark.parametrize("words", [[], ["-n", "1"]], ids=["one process", "workers"])
def test_any_other_skip_fails_the_run_and_is_named(suite: Path, words: list[str]) -> None:
    (suite / "test_refused.py").write_text(REFUSED)
    (suite / "test_module.py").write_text(SKIPPED_MODULE)
    done = run(suite, *words)
    assert done.returncode == pytest.ExitCode.TESTS_FAILED
    summary = done.stdout.partition("skips that tests/allowed_skips.txt does not list")[2]
    named = [line.partition(":")[0] + line.partition("::")[2].partition(":")[0] for line in summary.splitlines()]
    for name in ("test_unlisted[0]", "test_other_reason", "test_no_reason"):
        assert f"test_refused.py{name}" in named
    assert "test_module.py" in named
    assert "test_allowed" not in summary
    assert "test_fails_as_expected" not in summary


def test_a_contributor_may_skip(suite: Path) -> None:
    (suite / "test_refused.py").write_text(REFUSED)
    assert run(suite, strict="0").returncode == pytest.ExitCode.OK


def test_a_connection_to_another_machine_is_refused(suite: Path) -> None:
    (suite / "test_good.py").write_text(REACH)
    done = run(suite)
    assert done.returncode == pytest.ExitCode.TESTS_FAILED
    assert "this one wanted to reach 192.0.2.1" in done.stdout
