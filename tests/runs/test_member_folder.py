"""A member of a cohort put together by two at once: the second takes what the first made."""

from __future__ import annotations

import shutil
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from tiny_text_run import write_text_run
from tutelage.cli.main import main
from tutelage.errors import InputError
from tutelage.runs.member_folder import resolve_trained
from tutelage.students import merge

LORA = "layers: 2\n  lora: {rank: 2, targets: [q_proj]}\n  budget_share: 0.5"
WAIT_SECONDS = 60


@pytest.fixture(scope="module")
def member(tmp_path_factory: pytest.TempPathFactory) -> str:
    """A member's folder that is not the one whose student the cohort exported."""
    folder = tmp_path_factory.mktemp("cohort")
    recipe = write_text_run(folder, student=LORA, extra="students: 2")
    words = ["--ledger", str(folder / "l.db"), "--device", "cpu", "--quiet"]
    assert main(["distill", str(recipe), "--out", str(folder / "run"), *words]) == 0
    best = (folder / "run" / "result.json").read_text().split('"best": "')[1].split('"')[0]
    return str(folder / "run" / "members" / ({"seed0", "seed1"} - {best}).pop())


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("TUTELAGE_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache" / "members"


def test_two_who_put_a_member_together_at_once_get_one_folder(
    member: str, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Both are past the question whether it is there before either has written it."""
    together, copytree = threading.Barrier(2, timeout=WAIT_SECONDS), shutil.copytree

    def copy_after_the_other(*where: Any, **how: Any) -> Any:
        together.wait()
        return copytree(*where, **how)

    monkeypatch.setattr(merge.shutil, "copytree", copy_after_the_other)
    with ThreadPoolExecutor(2) as pool:
        found = [one.result() for one in [pool.submit(resolve_trained, member, task="text") for _ in range(2)]]
    assert found[0] == found[1]
    assert list(cache.iterdir()) == [found[0].path]  # nothing of the second's is left


def test_a_member_that_is_there_before_the_work_begins_is_taken(
    member: str, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    exchange = merge.exchange_update

    def after_another(*parts: Any) -> Path:
        exchange(*parts)
        return exchange(*parts)

    monkeypatch.setattr(merge, "exchange_update", after_another)
    assert resolve_trained(member, task="text").path.parent == cache


def test_what_fails_by_itself_stays_an_error(member: str, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: Any) -> Path:
        raise InputError("the disk is full")

    monkeypatch.setattr(merge, "exchange_update", fail)
    with pytest.raises(InputError, match="the disk is full"):
        resolve_trained(member, task="text")
