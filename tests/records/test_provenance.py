from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from tutelage.records.document import jsonable
from tutelage.records.locations import cache_folder, ledger_path
from tutelage.records.provenance import PACKAGES, collect_provenance, command_line, commit_of_checkout, threads, utc_now


def git(folder: Path, *words: str) -> str:
    name = ["-c", "user.name=a", "-c", "user.email=a@b", "-c", "commit.gpgsign=false"]
    answer = subprocess.run(["git", "-C", str(folder), *name, *words], check=True, capture_output=True, text=True)
    return answer.stdout.strip()


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    package = tmp_path / "src" / "tutelage"
    package.mkdir(parents=True)
    (package / "a.py").write_text("1\n")
    git(tmp_path, "init", "-q")
    git(tmp_path, "add", ".")
    git(tmp_path, "commit", "-qm", "one")
    return tmp_path


def test_every_field_is_known_here() -> None:
    found = collect_provenance()
    assert set(found.packages) == set(PACKAGES)
    assert found.packages["numpy"]
    assert found.cpu
    assert found.cpus >= 1
    assert json.loads(json.dumps(jsonable(found)))["python"] == found.python


def test_nothing_is_imported_for_its_version() -> None:
    program = (
        "import sys; from tutelage.records.provenance import collect_provenance; collect_provenance();"
        "print(sorted({'numpy', 'torch', 'transformers', 'peft', 'scipy', 'jiwer'} & set(sys.modules)))"
    )
    answer = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert answer.stdout.strip() == "[]"


def test_the_commit_and_whether_files_differ(checkout: Path) -> None:
    commit = git(checkout, "rev-parse", "HEAD")
    assert commit_of_checkout(checkout / "src" / "tutelage") == commit
    (checkout / "untracked").write_text("")
    assert commit_of_checkout(checkout / "src" / "tutelage") == commit
    (checkout / "src" / "tutelage" / "a.py").write_text("2\n")
    assert commit_of_checkout(checkout / "src" / "tutelage") == commit + "+changes"


def test_an_environment_inside_somebodys_repository_has_no_commit(checkout: Path) -> None:
    installed = checkout / "venv" / "lib" / "site-packages" / "tutelage"
    installed.mkdir(parents=True)
    assert commit_of_checkout(installed) is None


def test_without_git_there_is_no_commit(checkout: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("PATH", str(tmp_path / "nothing"))
    assert commit_of_checkout(checkout / "src" / "tutelage") is None


def test_the_command_can_be_typed_again() -> None:
    assert command_line(["/home/me/.venv/bin/tutelage", "demo", "--out", "my run"]) == "tutelage demo --out 'my run'"


def test_text_order_is_time_order() -> None:
    times = [utc_now() for _ in range(50)]
    assert times == sorted(times)
    assert {len(time) for time in times} == {len("2026-01-31T12:00:00.000000+00:00")}


def test_threads_without_torch(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delitem(sys.modules, "torch", raising=False)
    monkeypatch.setenv("OMP_NUM_THREADS", "3")
    assert threads() == 3
    monkeypatch.setenv("OMP_NUM_THREADS", "")
    assert threads() is None


def test_where_things_are(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("TUTELAGE_LEDGER", str(tmp_path / "l"))
    monkeypatch.setenv("TUTELAGE_CACHE", str(tmp_path / "c"))
    assert ledger_path(tmp_path / "chosen") == tmp_path / "chosen"
    assert ledger_path() == tmp_path / "l"
    assert cache_folder() == tmp_path / "c"
    monkeypatch.setenv("TUTELAGE_LEDGER", "")
    monkeypatch.setenv("TUTELAGE_CACHE", "")
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path / "data"))
    assert ledger_path().name == "ledger.sqlite3"
    assert "tutelage" in ledger_path().parts
    assert "tutelage" in cache_folder().parts
