"""Checkpoints on disk: safetensors and JSON in one folder, renamed into place.

    checkpoints/step-000050/
        weights.safetensors    what is trained: student and projectors; no frozen weight, nothing of the teacher
        moments.safetensors    the optimiser's moments and step counters
        randomness.safetensors the states of the random generators, by rank
        best.safetensors       the trained weights of the best step so far, where the recipe keeps them
        checkpoint.json        step, dev checks, sampler position, schedule, recipe, versions, SHA-256 of every file

Covers writing so that a kill at any point leaves a usable checkpoint, finding the newest, verifying it on open, and
saying what changed in a recipe. Does not cover what the tensors mean (`state`). Nothing is pickled.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from safetensors.torch import load, save
from torch import Tensor

from tutelage.errors import InputError
from tutelage.records.changes import compare_recipes
from tutelage.records.files import explain_write_failure, write_atomically, write_json
from tutelage.records.hashing import sha256_json

SCHEMA = {"name": "tutelage.checkpoint", "version": 1}
PARTS = ("weights", "moments", "randomness")
BEST = "best"  # a part that a checkpoint may lack
RECORD = "checkpoint.json"
_NEW, _OLD = ".new-", ".old-"  # folders that are being written or removed; never read


@dataclass(frozen=True)
class Snapshot:
    """A training after `step` optimiser steps.

    Args:
        step: Optimiser steps taken.
        seconds: Wall-clock seconds of training so far, over all resumes.
        weights: Trained parameters by name.
        moments: The optimiser's state, under KIND/PARAMETER.
        randomness: States of the random generators, under RANK/GENERATOR.
        sampler: The sampler's own `state_dict()`; plain JSON values.
        schedule: The optimisation's settings.
        recipe: The resolved recipe; plain JSON values.
        environment: Versions, threads and kind of optimiser: where they differ, the last bits may.
        dev_checks: What the dev split said so far; plain JSON values.
        best: Trained parameters by name after the best step; empty where they are not kept.
    """

    step: int
    seconds: float
    weights: Mapping[str, Tensor]
    moments: Mapping[str, Tensor]
    randomness: Mapping[str, Tensor]
    sampler: Mapping[str, Any]
    schedule: Mapping[str, Any]
    recipe: Mapping[str, Any]
    environment: Mapping[str, Any] = field(default_factory=dict)
    dev_checks: Sequence[Mapping[str, Any]] = ()
    best: Mapping[str, Tensor] = field(default_factory=dict)


def save_checkpoint(folder: Path, snapshot: Snapshot) -> Path:
    """Write `folder/step-NNNNNN`, then remove older checkpoints.

    The files are written and flushed in a hidden folder that is renamed at the end, so a folder of that name is always
    complete. A checkpoint of the same step is the same training and is kept.

    Raises:
        InputError: If it cannot be written (a full disk); older checkpoints are then untouched.
    """
    target = folder / f"step-{snapshot.step:06d}"
    draft = folder / f"{_NEW}{target.name}"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        _sweep(folder)
        if not target.exists():
            _write(draft, target, snapshot)
    except OSError as error:
        raise explain_write_failure(error, target) from error
    finally:
        shutil.rmtree(draft, ignore_errors=True)
    for older in _checkpoints(folder):
        if older != target:
            _remove(older)
    return target


def find_checkpoint(folder: Path) -> Path | None:
    """The newest checkpoint in `folder`, or None."""
    found = list(_checkpoints(folder))
    return max(found, key=_step_of, default=None)


def open_checkpoint(path: Path) -> Snapshot:
    """Read and verify one checkpoint.

    Raises:
        InputError: If a file is missing, cut off or changed; every such file is named.
    """
    record = _read_record(path)
    faults, tensors = [], {}
    for part in (*PARTS, *([BEST] if f"{BEST}.safetensors" in record["files"] else [])):
        name = f"{part}.safetensors"
        content, fault = _read_verified(path / name, record["files"].get(name))
        if fault:
            faults.append(f"{path / name} {fault}.")
        else:
            tensors[part] = load(content)
    if faults:
        raise InputError([*faults, _way_out(path)])
    return Snapshot(
        step=record["step"],
        seconds=record["seconds"],
        sampler=record["sampler"],
        schedule=record["schedule"],
        recipe=record["recipe"],
        environment=record["environment"],
        dev_checks=tuple(record.get("dev_checks", ())),
        **tensors,
    )


def require_same_recipe(snapshot: Snapshot, recipe: Mapping[str, Any], schedule: Mapping[str, Any]) -> None:
    """Refuse to resume with another recipe, or with settings that differ for another reason.

    Raises:
        InputError: One fault for each setting that differs, by its dotted name.
    """
    changes = compare_recipes(snapshot.recipe, recipe) or compare_recipes(snapshot.schedule, schedule)
    if changes:
        raise InputError(
            [
                f"The recipe changed since the run was interrupted after step {snapshot.step}: {changes[0]}",
                *changes[1:],
                "Resume with the recipe as it was, or start a new run in another folder.",
            ]
        )


def _write(draft: Path, target: Path, snapshot: Snapshot) -> None:
    draft.mkdir()
    files = {}
    for part in (*PARTS, *([BEST] if snapshot.best else [])):
        content = save(dict(getattr(snapshot, part)))
        write_atomically(draft / f"{part}.safetensors", content)
        files[f"{part}.safetensors"] = {"bytes": len(content), "sha256": hashlib.sha256(content).hexdigest()}
    record = {
        "schema": SCHEMA,
        "step": snapshot.step,
        "seconds": snapshot.seconds,
        "sampler": dict(snapshot.sampler),
        "schedule": dict(snapshot.schedule),
        "recipe": dict(snapshot.recipe),
        "recipe_sha256": sha256_json(snapshot.recipe),
        "environment": dict(snapshot.environment),
        "dev_checks": list(snapshot.dev_checks),
        "files": files,
    }
    record["sha256"] = sha256_json(record)
    write_json(draft / RECORD, record)
    draft.rename(target)
    _sync_folder(target.parent)


def _read_record(path: Path) -> dict[str, Any]:
    """The verified JSON part."""
    try:
        record = json.loads((path / RECORD).read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise InputError([f"{path / RECORD} is missing.", _way_out(path)]) from None
    except ValueError:  # not JSON, or not UTF-8
        raise InputError([f"{path / RECORD} is cut off or damaged.", _way_out(path)]) from None
    if not isinstance(record, dict):
        raise InputError([f"{path / RECORD} is damaged.", _way_out(path)])
    if record.get("schema") != SCHEMA:
        raise InputError(f"{path / RECORD} has schema {record.get('schema')}; this version reads {SCHEMA}.")
    digest = record.pop("sha256", None)
    if digest != sha256_json(record):
        raise InputError([f"{path / RECORD} was changed since it was written.", _way_out(path)])
    return record


def _read_verified(path: Path, expected: Mapping[str, Any] | None) -> tuple[bytes, str]:
    """A file's bytes, and what is wrong with them ("" if nothing)."""
    try:
        content = path.read_bytes()
    except FileNotFoundError:
        return b"", "is missing"
    if expected is None:
        return b"", "is not listed in checkpoint.json"
    if len(content) != expected["bytes"]:
        return b"", f"has {len(content):,} bytes where {expected['bytes']:,} were written"
    if hashlib.sha256(content).hexdigest() != expected["sha256"]:
        return b"", "was changed since it was written"
    return content, ""


def _way_out(path: Path) -> str:
    return f"The checkpoint {path.name} cannot be used: restore it from a copy, or remove it and start the run again."


def _checkpoints(folder: Path) -> Iterator[Path]:
    return (path for path in folder.glob("step-*") if path.is_dir() and path.name[5:].isdecimal())


def _step_of(path: Path) -> int:
    return int(path.name[5:])


def _sweep(folder: Path) -> None:
    """Remove what a killed process left half-written or half-removed."""
    for prefix in (_NEW, _OLD):
        for path in folder.glob(f"{prefix}*"):
            shutil.rmtree(path)


def _remove(path: Path) -> None:
    """Out of sight in one rename first: a kill in between leaves nothing that looks like a checkpoint."""
    hidden = path.rename(path.with_name(f"{_OLD}{path.name}"))
    shutil.rmtree(hidden, ignore_errors=True)


def _sync_folder(path: Path) -> None:
    """Make the names in a folder durable, where the platform lets a folder be opened."""
    if not hasattr(os, "O_DIRECTORY"):
        return
    descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
