"""Runs on speech that learn from a cache: the live run's losses, a resumed build, damage, and what is refused."""

from __future__ import annotations

import json
import os
import signal
from pathlib import Path
from typing import Any

import pytest

from run_folders import read_log
from tiny import shared_tiny_whisper, tiny_whisper
from tiny_run import TRAINED, write_run
from tutelage.cli.main import main
from tutelage.config import load_recipe
from tutelage.errors import InputError
from tutelage.runs.attempt import Attempt
from tutelage.runs.distil import distil
from tutelage.runs.tasks import forecast, gather_materials
from tutelage.teachers.target_cache.contents import CacheSettings
from tutelage.teachers.target_cache.shards import ShardWriter

STATES = 1e-3  # relative, of a term's loss: states are rounded to float16 (2^-11), and the student follows for 2 epochs
SPARSE = 1e-2  # relative: |ln p| 2^-11, here |ln p| up to 7, and the student follows
SOFT = "objective.1.temperature=1.0"
QUICK = ("evaluation.speed_clips=0", "evaluation.stock_clips=0")


def cache(recipe: Path, *words: str) -> int:
    return main(["cache", str(recipe), "--out", str(recipe.parent / "cache"), "--quiet", *words])


def run(recipe: Path, out: str, *overrides: str) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    folder = recipe.parent / out
    loaded = load_recipe(recipe, [*QUICK, *overrides])
    document = json.loads(distil(gather_materials(loaded), Attempt(folder, "", device="cpu")).read_text())
    return document, read_log(folder)


def hard(folder: Path, **more: Any) -> Path:
    """A recipe whose terms soften nothing."""
    recipe = write_run(folder, **more)
    recipe.write_text(recipe.read_text().replace("temperature: 2.0", "temperature: 1.0"))
    return recipe


def stranger(folder: Path) -> str:
    """A student that is no copy: a copied layer's angle is 0, and Adam takes whole steps along what rounding leaves."""
    return f"model: {tiny_whisper(folder / 'stranger', seed=9)}\n  layer_map: uniform"


def test_a_cached_run_has_the_losses_of_the_live_one(tmp_path: Path) -> None:
    recipe = write_run(tmp_path, steps=TRAINED, student=stranger(tmp_path))  # steps of two clips: two epochs
    live, wanted = run(recipe, "live")
    assert cache(recipe) == 0
    cached, found = run(recipe, "cached", "teacher.cache=cache")
    for one, other in zip(wanted, found, strict=True):
        assert other["terms"] == pytest.approx(one["terms"], rel=STATES)
    assert found[-1]["terms"] != wanted[-1]["terms"]  # rounded: it was read from the cache
    assert cached["cached_targets"]["kind"] == "hidden"
    assert live["cached_targets"] is None
    assert live["training"]["flops"]["teacher"] > 0
    assert cached["training"]["flops"]["teacher"] == 0
    assert cached["alignment"].keys() == live["alignment"].keys()
    assert cached["recipe"]["sha256"] != live["recipe"]["sha256"]
    expected, _ = forecast(gather_materials(load_recipe(recipe, ["teacher.cache=cache"])))
    assert expected.body["expected"]["flops"]["teacher"] == 0


def test_every_class_kept_teaches_what_the_model_does(tmp_path: Path) -> None:
    recipe = hard(tmp_path, student=stranger(tmp_path))
    vocabulary = json.loads((Path(shared_tiny_whisper()) / "config.json").read_text())["vocab_size"]
    assert cache(recipe, "--kind", "topk", "--size", str(vocabulary)) == 0
    (_, wanted), (_, found) = run(recipe, "live"), run(recipe, "cached", "teacher.cache=cache")
    for one, other in zip(wanted, found, strict=True):
        assert other["terms"] == pytest.approx(one["terms"], rel=SPARSE)
    write_run(tmp_path, student=f"model: {tmp_path / 'stranger'}\n  layer_map: uniform")
    with pytest.raises(InputError, match="Term kl has temperature 2, and topk"):
        run(recipe, "softened", "teacher.cache=cache")


@pytest.mark.parametrize("kind", ["systematic", "multinomial"])
def test_draws_are_kept_and_read(tmp_path: Path, kind: str) -> None:
    recipe = hard(tmp_path)
    assert cache(recipe, "--kind", kind, "--size", "50") == 0
    found, _ = run(recipe, "cached", "teacher.cache=cache")
    assert found["cached_targets"]["kind"] == kind


def test_a_dry_run_counts_and_writes_nothing(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    recipe = write_run(tmp_path)
    assert cache(recipe, "--dry-run", "--json") == 0
    planned = json.loads(capsys.readouterr().out)
    assert planned["expected"]["rows"] == TRAINED
    assert planned["contents"]["window_seconds"] == 2.0
    assert not (tmp_path / "cache").exists()
    assert cache(recipe, "--json") == 0
    built = json.loads(capsys.readouterr().out)
    assert {**built["contents"], **built["expected"]} == {**planned["contents"], **planned["expected"]}


def test_a_killed_build_goes_on_and_damage_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    recipe = write_run(tmp_path)

    def stop(self: ShardWriter) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(ShardWriter, "finish", stop)
        assert cache(recipe) == 130
    with pytest.raises(InputError, match="cache"):
        run(recipe, "early", "teacher.cache=cache")
    assert cache(recipe) == 0
    (shard,) = (tmp_path / "cache").glob("shard-*.arrow")
    content = bytearray(shard.read_bytes())
    content[len(content) // 2] ^= 1
    shard.write_bytes(content)
    with pytest.raises(InputError, match=f"{shard.name}.*cut off or changed"):
        run(recipe, "run", "teacher.cache=cache")
    assert cache(recipe) == 0
    run(recipe, "run", "teacher.cache=cache")


@pytest.mark.parametrize(("where", "finished", "opened"), [("between", 2, 0), ("inside", 1, 1)])
def test_a_build_killed_between_or_inside_shards_goes_on_to_the_same_bytes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, where: str, finished: int, opened: int
) -> None:
    """A process that ends at once, as by SIGKILL, after two shards of three or amid the second."""
    recipe, straight = write_run(tmp_path), tmp_path / "straight"

    def small(*rest: Any, **settings: Any) -> CacheSettings:
        return CacheSettings(*rest, **{**settings, "batch_size": 1, "shard_samples": TRAINED // 3})

    monkeypatch.setattr("tutelage.teachers.target_cache.contents.CacheSettings", small)
    cache(recipe)
    (tmp_path / "cache").rename(straight)
    whole = {path.name: path.read_bytes() for path in straight.iterdir()}
    assert len(whole) == 3 + 1  # shards and the manifest
    method, at = {"between": ("finish", 2), "inside": ("write", 3)}[where]
    pid = os.fork()
    if pid == 0:
        die_after(ShardWriter, method, at)
        cache(recipe)
        os._exit(1)
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == -signal.SIGKILL
    left = [path.name for path in (tmp_path / "cache").iterdir()]
    assert sum(name.endswith(".arrow") for name in left) == finished
    assert sum(name.endswith(".part") for name in left) == opened
    assert len(left) == finished + opened
    written, finish = [], ShardWriter.finish
    monkeypatch.setattr(ShardWriter, "finish", lambda self: (written.append(1), finish(self))[1])
    assert cache(recipe) == 0
    assert len(written) == 3 - finished
    assert {path.name: path.read_bytes() for path in (tmp_path / "cache").iterdir()} == whole


def die_after(kind: type, method: str, times: int) -> None:
    """SIGKILL this process when the method has come back so often."""
    call, calls = getattr(kind, method), []

    def counted(*words: Any) -> Any:
        answer = call(*words)
        calls.append(1)
        if len(calls) == times:
            os.kill(os.getpid(), signal.SIGKILL)
        return answer

    setattr(kind, method, counted)


def changed(folder: Path, what: str) -> list[str]:
    """Change one thing behind the cache's back; returns overrides."""
    if what == "model":
        return [f"teacher.model={tiny_whisper(folder / 'other', seed=5)}"]
    if what == "data":
        file = folder / "data" / "train.jsonl"
        file.write_text(file.read_text().replace("verde", "roja"))
        return []
    if what == "window_seconds":
        return ["student.window_seconds=3"]
    return ["data.language=de"]


@pytest.mark.parametrize(
    ("what", "fields"),
    [
        ("model", ["model"]),
        ("data", ["data"]),
        ("window_seconds", ["window_seconds"]),
        ("language", ["data", "template"]),
    ],
)
def test_a_cache_of_something_else_is_refused_by_the_field(tmp_path: Path, what: str, fields: list[str]) -> None:
    recipe = write_run(tmp_path)
    assert cache(recipe) == 0
    overrides = [*changed(tmp_path, what), "teacher.cache=cache"]
    with pytest.raises(InputError) as refused:
        run(recipe, "run", *overrides)
    lines = [line for line in refused.value.faults if " in the cache and " in line]
    assert sorted(line.split("(")[1].split(")")[0] for line in lines) == fields
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("extra", "said"),
    [
        ("data.pseudo_labels={max_wer: 0.1}", "data.pseudo_labels takes others"),
        ("data.augment={speed: [0.9, 1.1]}", "data.augment changes them"),
        ("student.align=both student.lora.scope=both", "keeps no encoder states"),
    ],
)
def test_recipes_that_cannot_learn_from_a_cache_are_refused(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], extra: str, said: str
) -> None:
    recipe, words = write_run(tmp_path), [extra] if "{" in extra else extra.split()
    with pytest.raises(InputError, match=said):
        load_recipe(recipe, [*words, "teacher.cache=cache"])
    assert cache(recipe, *(part for word in words for part in ("--set", word))) == 2
    assert said in capsys.readouterr().err
