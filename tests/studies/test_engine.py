"""Engines: every piece answers, a process that dies takes no other with it, nothing goes on unasked."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from pieces_of_work import double_or_die, raise_what_is_given, sleep_and_tell
from tutelage.errors import InputError
from tutelage.studies.engine import Engine, LokyEngine
from tutelage.studies.ray_engine import RayEngine

pytestmark = pytest.mark.slow  # processes start

TESTS = str(Path(__file__).parents[1])


@pytest.fixture(scope="module")
def cluster() -> Iterator[str]:
    """The address of a Ray cluster of two nodes on this machine, one core each."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("RAY_USAGE_STATS_ENABLED", "0")
        patch.setenv("PYTHONPATH", TESTS)
        from ray.cluster_utils import Cluster

        both = Cluster(initialize_head=True, head_node_args={"num_cpus": 1, "include_dashboard": False})
        both.add_node(num_cpus=1)
        yield both.address
        both.shutdown()


@pytest.fixture(params=["loky", "ray"])
def engine(request: pytest.FixtureRequest) -> Engine:
    if request.param == "loky":
        return LokyEngine(2)
    return RayEngine(request.getfixturevalue("cluster"))


def test_every_piece_answers_and_the_dead_one_is_named(engine: Engine) -> None:
    outcomes = {outcome.job: outcome for outcome in engine.run(double_or_die, [1, 13, 2, 3])}
    assert {job: outcome.result for job, outcome in outcomes.items()} == {1: 2, 13: None, 2: 4, 3: 6}
    assert outcomes[13].died
    assert not any(outcomes[job].died for job in (1, 2, 3))
    assert list(engine.run(double_or_die, [])) == []


def test_outcomes_come_as_they_are_ready_and_pieces_run_side_by_side(engine: Engine, tmp_path: Path) -> None:
    jobs = [(str(tmp_path / "slow"), 4.0), (str(tmp_path / "quick"), 0.0)]
    outcomes = list(engine.run(sleep_and_tell, jobs))
    assert [outcome.job for outcome in outcomes] == [jobs[1], jobs[0]]
    assert outcomes[0].result != outcomes[1].result
    assert os.getpid() not in {outcome.result for outcome in outcomes}


def test_a_fault_of_the_work_itself_is_not_swallowed(engine: Engine) -> None:
    with pytest.raises(ZeroDivisionError, match="mine"):
        list(engine.run(raise_what_is_given, [ZeroDivisionError("mine")]))


def test_what_is_not_asked_for_any_more_is_stopped(tmp_path: Path) -> None:
    jobs = [(str(tmp_path / "quick"), 0.0), (str(tmp_path / "long"), 600.0)]
    outcomes = LokyEngine(2).run(sleep_and_tell, jobs)
    next(outcomes)
    while not (tmp_path / "long").exists() or not (tmp_path / "long").read_text():
        time.sleep(0.05)
    outcomes.close()
    process = Path("/proc") / (tmp_path / "long").read_text()
    deadline = time.monotonic() + 10
    while process.exists() and time.monotonic() < deadline:
        time.sleep(0.05)
    assert not process.exists()


def test_engines_that_cannot_be(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(InputError, match="at least one worker, not 0"):
        LokyEngine(0)
    with pytest.raises(InputError, match="not 0"):
        RayEngine(workers=0)
    with pytest.raises(InputError, match=r"No Ray cluster answers at 127\.0\.0\.1:1 "):
        list(RayEngine("127.0.0.1:1").run(double_or_die, [1]))
    for name, make in (("loky", lambda: LokyEngine(1)), ("ray", RayEngine)):
        monkeypatch.setitem(__import__("sys").modules, name, None)
        with pytest.raises(InputError, match=rf"{name} is not installed; .*tutelage\["):
            make()
