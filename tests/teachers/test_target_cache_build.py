"""A build of a cache: killed anywhere and resumed, interrupted, on a full disk, in a place that cannot be written."""

from __future__ import annotations

import random
import resource
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import pytest

from toy_cache import IDENTITY, KEYS, SAMPLES, build_toy, toy_forward, toy_settings
from tutelage.errors import InputError, InterruptedRunError
from tutelage.progress import Advance
from tutelage.teachers.target_cache.build import build_targets
from tutelage.teachers.target_cache.cache import TargetCache
from tutelage.teachers.target_cache.contents import SampleKey, hash_keys
from tutelage.teachers.target_cache.manifest import MANIFEST
from tutelage.teachers.target_cache.rows import Answer

PROGRAM = Path(__file__).parents[1] / "toy_cache.py"
EVENTS = 29  # passes, writes, flushes, renames and removals of one build of three shards
SECONDS = 120
KILLS = 20


def run_program(folder: Path, *words: str, kind: str = "systematic") -> subprocess.CompletedProcess[str]:
    command = [sys.executable, str(PROGRAM), str(folder), kind, *words]
    return subprocess.run(command, capture_output=True, text=True, timeout=SECONDS, check=False)


def contents_of(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in sorted(folder.iterdir())}


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    """Every file of a build that nothing disturbed."""
    folder = tmp_path_factory.mktemp("whole") / "cache"
    build_toy(folder)
    return contents_of(folder)


def resume_killed(folder: Path, kill_at: int) -> int:
    """Build in a process that kills itself, then here; returns the shards that were kept."""
    done = run_program(folder, "--kill-at", str(kill_at))
    assert done.returncode == -signal.SIGKILL, done.stderr
    if (folder / MANIFEST).exists():  # killed while tidying up: the cache is finished
        assert len(TargetCache.open(folder, IDENTITY)) == SAMPLES
    else:
        with pytest.raises(InputError, match="build it"):
            TargetCache.open(folder, IDENTITY)
    return build_toy(folder).kept


def test_a_killed_build_keeps_finished_shards_and_resumes_to_the_same_bytes(
    tmp_path: Path, whole: dict[str, bytes]
) -> None:
    assert resume_killed(tmp_path / "cache", 18) >= 1
    assert contents_of(tmp_path / "cache") == whole


@pytest.mark.slow
@pytest.mark.parametrize("kill_at", random.Random(0).sample(range(1, EVENTS), KILLS))
def test_a_build_killed_anywhere_resumes_to_the_same_bytes(
    tmp_path: Path, whole: dict[str, bytes], kill_at: int
) -> None:
    resume_killed(tmp_path / "cache", kill_at)
    assert contents_of(tmp_path / "cache") == whole


@pytest.mark.slow
def test_the_kills_cover_a_whole_build(tmp_path: Path, whole: dict[str, bytes]) -> None:
    done = run_program(tmp_path / "cache")
    assert done.returncode == 0, done.stderr
    assert int(done.stdout) == EVENTS
    assert contents_of(tmp_path / "cache") == whole


def test_ctrl_c_keeps_finished_shards_says_how_far_it_was_and_the_rest_follows(
    tmp_path: Path, whole: dict[str, bytes]
) -> None:
    passes: list[list[int]] = []
    forward = toy_forward()

    def interrupted(indices: list[int]) -> Answer:
        if len(passes) == 5:
            raise KeyboardInterrupt
        passes.append(indices)
        return forward(indices)

    with pytest.raises(InterruptedRunError, match=r"1 of 3 shards of the cache .* are finished and stay; run the same"):
        build_targets(KEYS, interrupted, IDENTITY, toy_settings("systematic"), tmp_path / "cache")
    assert [path.name[:11] for path in (tmp_path / "cache").iterdir()] == ["shard-00000"]
    told: list[tuple[int, int]] = []
    advanced: list[int] = []

    @contextmanager
    def progress(title: str, total: int, unit: str, done: int = 0) -> Iterator[Advance]:
        told.append((total, done))
        yield lambda count=1, note="": advanced.append(count)

    again: list[list[int]] = []

    def counting(indices: list[int]) -> Answer:
        again.append(indices)
        return forward(indices)

    built = build_targets(KEYS, counting, IDENTITY, toy_settings("systematic"), tmp_path / "cache", progress)
    assert (built.kept, built.computed, built.samples) == (1, 2, SAMPLES)
    assert told == [(SAMPLES, 5)]
    assert sum(advanced) == SAMPLES - 5 == sum(len(indices) for indices in again)
    assert contents_of(tmp_path / "cache") == whole


def test_a_finished_cache_is_not_computed_again(tmp_path: Path) -> None:
    build_toy(tmp_path / "cache")
    built = build_toy(tmp_path / "cache")
    assert (built.kept, built.computed, built.damaged) == (3, 0, ())
    cache = TargetCache.open(tmp_path / "cache", IDENTITY)
    assert built.positions == cache.positions
    assert built.bytes == sum(record.bytes for record in cache.manifest.shards)


@pytest.mark.parametrize("kind", ["systematic", "topk"])
def test_the_order_of_the_data_plays_no_part(tmp_path: Path, kind: str) -> None:
    build_toy(tmp_path / "one", kind)
    order = random.Random(1).sample(range(SAMPLES), SAMPLES)
    forward = toy_forward()
    shuffled = [KEYS[place] for place in order]
    settings = toy_settings(kind)
    build_targets(
        shuffled, lambda places: forward([order[place] for place in places]), IDENTITY, settings, tmp_path / "two"
    )
    assert contents_of(tmp_path / "one") == contents_of(tmp_path / "two")
    assert hash_keys(shuffled) == hash_keys(KEYS)


def test_another_cache_is_never_overwritten(tmp_path: Path) -> None:
    folder = tmp_path / "cache"
    build_toy(folder)
    before = contents_of(folder)
    with pytest.raises(InputError) as caught:
        build_targets(KEYS, toy_forward(), replace(IDENTITY, model="other"), toy_settings("systematic", size=9), folder)
    assert "holds a cache of something else" in str(caught.value)
    assert "(model)" in str(caught.value)
    assert "(size)" in str(caught.value)
    with pytest.raises(InputError, match=r"\(batch_size\) is 2 in the cache and 3 here"):
        build_toy(folder, batch_size=3)
    assert contents_of(folder) == before


def test_samples_need_a_name_of_their_own(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="1 sample ids come more than once, 'clip-05' first"):
        build_targets([*KEYS, KEYS[1]], toy_forward(), IDENTITY, toy_settings("topk"), tmp_path)
    with pytest.raises(InputError, match="there is no sample"):
        build_targets([], toy_forward(), IDENTITY, toy_settings("topk"), tmp_path)
    with pytest.raises(ValueError, match="answered 1 samples of 2"):
        build_targets(
            KEYS, lambda places: toy_forward()(places[:1]), IDENTITY, toy_settings("topk"), tmp_path / "cache"
        )


@contextmanager
def files_end_at(count: int) -> Iterator[None]:
    """A limit on the size of files, which acts like a full disk."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (count, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


@pytest.mark.parametrize("room", [0, 1000, 2500, 5000])
def test_a_full_disk_is_one_line_and_leaves_no_part_behind(tmp_path: Path, whole: dict[str, bytes], room: int) -> None:
    folder = tmp_path / "cache"
    with files_end_at(room), pytest.raises(InputError) as caught:
        build_toy(folder)
    assert len(str(caught.value).splitlines()) == 1
    assert "the disk is full" in str(caught.value)
    assert not list(folder.iterdir())
    build_toy(folder)
    assert contents_of(folder) == whole


def test_a_place_that_cannot_be_written_is_one_line(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    for folder in (tmp_path / "file", tmp_path / "file" / "cache"):
        with pytest.raises(InputError) as caught:
            build_toy(folder)
        assert len(str(caught.value).splitlines()) == 1
        assert "cannot write" in str(caught.value)


def test_a_cache_that_is_not_there_or_not_finished_says_so(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"holds no manifest.json; build it"):
        TargetCache.open(tmp_path / "nowhere", IDENTITY)
    build_toy(tmp_path / "cache")
    (tmp_path / "cache" / "manifest.json").unlink()
    with pytest.raises(InputError, match=r"is not finished \(3 shards and no manifest.json\)"):
        TargetCache.open(tmp_path / "cache", IDENTITY)


def test_an_error_of_the_teacher_passes_through_and_leaves_no_part_behind(tmp_path: Path) -> None:
    def broken(places: list[int]) -> Answer:
        if KEYS[places[0]] == SampleKey("clip-02", KEYS[places[0]].token_hash):
            raise OSError(5, "a recording cannot be read")
        return toy_forward()(places)

    with pytest.raises(OSError, match="a recording cannot be read"):
        build_targets(KEYS, broken, IDENTITY, toy_settings("topk"), tmp_path / "cache")
    assert not list((tmp_path / "cache").iterdir())
