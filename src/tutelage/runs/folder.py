"""A run's folder: opened new, replaced, or continued; never half-written over something else.

Covers the files that say what a run is (`recipe.yaml`, `run.json`) and whether it is finished (`result.json`). Does not
cover checkpoints (`training.checkpoint`) or exports (`students.export`). Nothing here imports torch.

    RUN/
      recipe.yaml      the resolved recipe
      run.json         the recipe's identity and hash, the seed
      log.jsonl        one line a training step
      dev.jsonl        one line a check on the dev split, where there is one
      tensorboard/     the same for TensorBoard, where the recipe asks for it
      checkpoints/     the newest complete checkpoint
      student/         the merged student, an ordinary Hugging Face folder
      adapter/         the PEFT adapter by itself
      README.md        the model card
      transcripts.jsonl  what every system wrote, clip by clip (speech)
      documents.jsonl  what every system's loss is, document by document (text)
      result.json      every number; it is written last, so a folder that holds it is finished
"""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tutelage.errors import InputError
from tutelage.records.changes import compare_recipes
from tutelage.records.document import jsonable
from tutelage.records.files import explain_write_failure, write_atomically, write_json
from tutelage.records.hashing import sha256_json


@dataclass(frozen=True)
class RunFolder:
    """Where a run keeps what it makes."""

    path: Path

    @property
    def begun(self) -> bool:
        """Whether a run was started here."""
        return (self.path / "run.json").is_file()

    @property
    def result(self) -> Path:
        """The document with every number; its presence means that the run is finished."""
        return self.path / "result.json"

    @property
    def student(self) -> Path:
        """The merged student."""
        return self.path / "student"

    @property
    def adapter(self) -> Path:
        """The PEFT adapter."""
        return self.path / "adapter"

    @property
    def card(self) -> Path:
        """The model card."""
        return self.path / "README.md"

    def clear_exports(self) -> None:
        """Remove what an interrupted run exported before it was finished."""
        for export in (self.student, self.adapter):
            if export.exists():
                shutil.rmtree(export)


def check_folder(path: Path, *, resume: bool = False, force: bool = False) -> None:
    """Refuse a folder that the run may not use; asked before anything is fetched, loaded or written.

    Args:
        path: The folder.
        resume: It must hold an unfinished run.
        force: A run's folder may be replaced; any other folder is left alone.

    Raises:
        InputError: What is there, and what to do.
    """
    folder = RunFolder(path)
    if resume and force:
        raise InputError("--resume continues a run and --force throws it away; give one of them.")
    if resume:
        if not folder.begun:
            raise InputError(f"{path} holds no run to resume (there is no run.json in it). Start one without --resume.")
        if folder.result.is_file():
            raise InputError(f"The run in {path} is finished: see {folder.result}. There is nothing to resume.")
    elif path.exists():
        ours = folder.begun
        if force and not ours:
            raise InputError(f"{path} exists and is not a run's folder, so --force does not replace it.")
        if not force:
            way = "Continue it with --resume, replace it with --force, or choose" if ours else "Choose"
            raise InputError(f"{path} exists. {way} another --out.")
    _refuse_unwritable(path)


def require_same_run(path: Path, identity: Mapping[str, Any], seed: int) -> None:
    """Refuse to resume a run whose recipe or data changed since it was interrupted.

    Args:
        path: The folder of the interrupted run.
        identity: From `Recipe.identity`.
        seed: The run's seed.

    Raises:
        InputError: One fault for each setting that differs.
    """
    try:
        about = json.loads((path / "run.json").read_text(encoding="utf-8"))
        before = {**about["identity"], "seed": about["seed"]}
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise InputError(f"{path / 'run.json'} cannot be read, so the run cannot be resumed: {error}") from error
    changes = compare_recipes(before, jsonable({**identity, "seed": seed}))
    if changes:
        raise InputError(
            [
                *(f"The recipe changed since the run in {path} was interrupted: {change}" for change in changes),
                "Resume with the recipe as it was, or start a new run in another folder.",
            ]
        )


def make_folder(path: Path, identity: Mapping[str, Any], seed: int, recipe_yaml: str) -> None:
    """Make the folder of a new run, in place of an old one.

    Args:
        path: The folder, which passed `check_folder`.
        identity: From `Recipe.identity`.
        seed: The run's seed.
        recipe_yaml: The resolved recipe as a file.

    Raises:
        TutelageError: The folder cannot be written.
    """
    try:
        if path.exists():
            shutil.rmtree(path)
        path.mkdir(parents=True)
    except OSError as error:
        raise explain_write_failure(error, path) from error
    write_atomically(path / "recipe.yaml", recipe_yaml)
    write_json(path / "run.json", {"identity": identity, "recipe_hash": sha256_json(identity), "seed": seed})


def _refuse_unwritable(path: Path) -> None:
    """Find out now whether the folder can be made, not after the work."""
    existing = next(parent for parent in (path, *path.absolute().parents) if parent.exists())
    if not existing.is_dir() or not os.access(existing, os.W_OK):
        why = "is not a folder" if not existing.is_dir() else "cannot be written"
        raise InputError(f"{path} cannot be made: {existing} {why}. Choose another --out.")
