"""`tutelage cache`: what it prints, going on after Ctrl-C, and what it refuses."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from tiny_text_run import write_text_run
from tutelage.cli.main import main
from tutelage.teachers.live import LiveTeacher
from tutelage.teachers.target_cache.contents import CacheSettings

HARD = "- {kind: kl}"  # sparse targets serve no temperature
ONE_A_SHARD = 1  # rows


def built(capsys: pytest.CaptureFixture[str], *words: object) -> dict[str, Any]:
    assert main(["cache", *map(str, words), "--json", "--quiet"]) == 0
    document: dict[str, Any] = json.loads(capsys.readouterr().out)
    return document


def contents(folder: Path) -> dict[str, bytes]:
    return {file.name: file.read_bytes() for file in folder.iterdir()}


@pytest.mark.parametrize(
    "kind", [(), ("--kind", "topk", "--size", "4"), ("--kind", "systematic", "--size", "3")], ids=str
)
def test_a_dry_run_expects_the_bytes_that_a_build_takes(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], kind: tuple[str, ...]
) -> None:
    recipe, out = write_text_run(tmp_path, objective=HARD), tmp_path / "cache"
    expected = built(capsys, recipe, "--out", out, *kind, "--dry-run")["expected"]
    assert not out.exists()
    found = built(capsys, recipe, "--out", out, *kind)
    assert found["schema"]["name"] == "tutelage.cache"
    numbers = expected["bytes_per_token"] * expected["positions"]
    header = 4096  # of one shard: its schema and what it says of itself take about 3 kB
    least = 0.5 * numbers if kind[1:2] == ("systematic",) else numbers  # equal draws are kept once
    assert least < found["built"]["bytes"] <= expected["bytes"] + header
    assert found["expected"] == expected
    assert main(["cache", str(recipe), "--out", str(out), *kind, "--quiet", "--dry-run"]) == 0
    assert f"{expected['bytes']:,} bytes expected" in capsys.readouterr().out


def test_a_build_that_was_stopped_goes_on(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    recipe = write_text_run(tmp_path)

    def small(*rest: Any, **settings: Any) -> CacheSettings:
        return CacheSettings(*rest, **{**settings, "batch_size": 1, "shard_samples": ONE_A_SHARD})

    monkeypatch.setattr("tutelage.teachers.target_cache.contents.CacheSettings", small)
    straight = built(capsys, recipe, "--out", tmp_path / "straight")["built"]
    answer, asked = LiveTeacher.signal, []

    def stop_at_three(self: Any, batch: Any) -> Any:
        asked.append(batch)
        if len(asked) == 3:
            raise KeyboardInterrupt
        return answer(self, batch)

    with monkeypatch.context() as patch:
        patch.setattr(LiveTeacher, "signal", stop_at_three)
        assert main(["cache", str(recipe), "--out", str(tmp_path / "stopped"), "--quiet"]) == 130
    assert "2 of" in capsys.readouterr().err
    resumed = built(capsys, recipe, "--out", tmp_path / "stopped")["built"]
    assert (resumed["kept"], resumed["computed"]) == (2, straight["computed"] - 2)
    assert contents(tmp_path / "stopped") == contents(tmp_path / "straight")


def test_another_kind_needs_another_folder_or_force(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    recipe, out = write_text_run(tmp_path, objective=HARD), tmp_path / "cache"
    built(capsys, recipe, "--out", out)
    words = (recipe, "--out", out, "--kind", "topk", "--size", "2")
    assert main(["cache", *map(str, words), "--quiet"]) == 2
    assert "(kind) is hidden in the cache and topk here" in capsys.readouterr().err
    assert built(capsys, *words, "--force")["built"]["computed"] == 1
    (out / "notes.txt").touch()
    assert main(["cache", *map(str, words), "--quiet", "--force"]) == 2
    assert "notes.txt, which is not of a cache" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("words", "reason"),
    [
        (("--kind", "topk"), "topk needs at least 1"),
        (("--size", "4"), "hidden keeps whole states"),
        (("--kind", "topk", "--size", "99999"), "the teacher has"),
    ],
    ids=str,
)
def test_sizes_that_mean_nothing_are_refused(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], words: tuple[str, ...], reason: str
) -> None:
    recipe = write_text_run(tmp_path, objective=HARD)
    assert main(["cache", str(recipe), "--out", str(tmp_path / "cache"), "--quiet", *words]) == 2
    assert reason in capsys.readouterr().err
    assert not (tmp_path / "cache").exists()
