"""Damage to a cache, anywhere and of every kind, is found when it is opened, named, and mended by a build."""

from __future__ import annotations

import json
import random
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from toy_cache import IDENTITY, build_toy
from tutelage.errors import InputError
from tutelage.records.hashing import sha256_json
from tutelage.teachers.target_cache.cache import TargetCache
from tutelage.teachers.target_cache.manifest import MANIFEST, DamagedCacheError

TRIALS = 40  # of each class; 280 in all
HEADER_BYTES = 512  # magic, schema and what a shard says of itself begin here
SHARDS = 3


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("whole") / "cache"
    build_toy(folder)
    return folder


def shards_of(folder: Path) -> list[Path]:
    return sorted(folder.glob("shard-*.arrow"))


def contents_of(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in sorted(folder.iterdir())}


def change_byte(path: Path, at: int, draw: random.Random) -> set[str]:
    content = bytearray(path.read_bytes())
    content[at] ^= draw.randrange(1, 256)
    path.write_bytes(content)
    return {path.name}


def change_header(folder: Path, draw: random.Random) -> set[str]:
    return change_byte(draw.choice(shards_of(folder)), draw.randrange(HEADER_BYTES), draw)


def change_middle(folder: Path, draw: random.Random) -> set[str]:
    path = draw.choice(shards_of(folder))
    return change_byte(path, draw.randrange(HEADER_BYTES, path.stat().st_size - HEADER_BYTES), draw)


def change_end(folder: Path, draw: random.Random) -> set[str]:
    path = draw.choice(shards_of(folder))
    return change_byte(path, path.stat().st_size - draw.randrange(1, HEADER_BYTES), draw)


def truncate(folder: Path, draw: random.Random) -> set[str]:
    path = draw.choice(shards_of(folder))
    content = path.read_bytes()
    path.write_bytes(content[: draw.randrange(len(content))])
    return {path.name}


def swap(folder: Path, draw: random.Random) -> set[str]:
    one, other = draw.sample(shards_of(folder), 2)
    first, second = one.read_bytes(), other.read_bytes()
    one.write_bytes(second)
    other.write_bytes(first)
    return {one.name, other.name}


def remove(folder: Path, draw: random.Random) -> set[str]:
    path = draw.choice(shards_of(folder))
    path.unlink()
    return {path.name}


def edit_manifest(folder: Path, draw: random.Random) -> set[str]:
    path = folder / MANIFEST
    content = path.read_bytes()
    if draw.random() < 0.25:
        path.write_bytes(content[: draw.randrange(len(content))])
        return {MANIFEST}
    return change_byte(path, draw.randrange(len(content)), draw)


CLASSES = [change_header, change_middle, change_end, truncate, swap, remove, edit_manifest]


@pytest.mark.parametrize("damage", CLASSES, ids=lambda damage: damage.__name__)
def test_damage_is_always_found_and_exactly_the_damaged_files_are_named(
    whole: Path, tmp_path: Path, damage: Callable[[Path, random.Random], set[str]]
) -> None:
    for seed in range(TRIALS):
        folder = tmp_path / str(seed)
        shutil.copytree(whole, folder)
        files = damage(folder, random.Random(f"{damage.__name__} {seed}"))
        with pytest.raises(DamagedCacheError) as caught:
            TargetCache.open(folder, IDENTITY)
        assert set(caught.value.files) == files, seed
        assert not [name for name in files if name not in str(caught.value)], seed


@pytest.mark.parametrize("damage", CLASSES, ids=lambda damage: damage.__name__)
def test_a_build_mends_what_is_damaged_and_computes_nothing_else(
    whole: Path, tmp_path: Path, damage: Callable[[Path, random.Random], set[str]]
) -> None:
    folder = tmp_path / "cache"
    shutil.copytree(whole, folder)
    files = damage(folder, random.Random(0)) - {MANIFEST}
    built = build_toy(folder)
    assert built.computed == len(files)
    assert built.kept == SHARDS - len(files)
    assert set(built.damaged) == (set() if damage is remove else files)
    assert contents_of(folder) == contents_of(whole)


def test_a_shard_of_another_cache_is_not_taken_in(whole: Path, tmp_path: Path) -> None:
    """Its bytes have the hash that its name says, so only what it says of itself tells."""
    other, folder = tmp_path / "other", tmp_path / "cache"
    build_toy(other, seed=5)
    shutil.copytree(whole, folder)
    mine, theirs = shards_of(folder)[0], shards_of(other)[0]
    mine.unlink()
    shutil.copy(theirs, folder / theirs.name)
    with pytest.raises(DamagedCacheError, match="is missing"):
        TargetCache.open(folder, IDENTITY)
    with pytest.raises(InputError, match=r"the seed of the draws \(seed\) is 5 in the cache and 0 here"):
        build_toy(folder)


def test_a_shard_under_another_number_is_computed_again_in_its_own(whole: Path, tmp_path: Path) -> None:
    folder = tmp_path / "cache"
    shutil.copytree(whole, folder)
    first = shards_of(folder)[0]
    moved = folder / f"shard-00007{first.name[11:]}"
    first.rename(moved)
    built = build_toy(folder)
    assert (built.kept, built.computed, built.damaged) == (2, 1, (moved.name,))
    assert contents_of(folder) == contents_of(whole)


EDITS = {
    "contents": lambda record: record["contents"].update(model="9" * 64),
    "widths": lambda record: record["widths"].update(block_1=4),
    "vocabulary": lambda record: record.update(vocabulary=12),
    "samples": lambda record: record["shards"][0].update(samples=6),
    "positions": lambda record: record["shards"][0].update(positions=6),
    "range": lambda record: record["shards"][0].update(last="clip-99"),
    "order": lambda record: record["shards"].reverse(),
    "hash": lambda record: record["shards"][0].update(sha256="0" * 64),
}


@pytest.mark.parametrize("edit", EDITS.values(), ids=EDITS.keys())
def test_shards_contradict_a_manifest_that_was_edited_and_hashed_anew(
    whole: Path, tmp_path: Path, edit: Callable[[dict[str, Any]], None]
) -> None:
    folder = tmp_path / "cache"
    shutil.copytree(whole, folder)
    record = json.loads((folder / MANIFEST).read_text())
    edit(record)
    record.pop("sha256")
    record["sha256"] = sha256_json(record)
    (folder / MANIFEST).write_text(json.dumps(record, indent=1, sort_keys=True) + "\n")
    with pytest.raises(DamagedCacheError, match=r"is not the shard that the manifest lists|cut off or changed"):
        TargetCache.open(folder, replace(IDENTITY, model=record["contents"]["model"]))


def test_a_manifest_of_other_fields_is_damaged_not_a_traceback(whole: Path, tmp_path: Path) -> None:
    folder = tmp_path / "cache"
    shutil.copytree(whole, folder)
    for content in ("[]", "{}", "3", '{"schema": 1}', "", "\u00e9"):
        (folder / MANIFEST).write_text(content)
        with pytest.raises(DamagedCacheError, match=r"manifest.json was cut off or changed"):
            TargetCache.open(folder, IDENTITY)
