"""A run's folder: opened new, replaced, or continued; never half-written over something else.

Covers the files that say what a run is (`recipe.yaml`, `run.json`) and whether it is finished (`result.json`). Does not
cover checkpoints (`training.checkpoint`) or exports (`students.export`). Nothing here imports torch.

    RUN/
      recipe.yaml      the resolved recipe
      run.json         the recipe's identity and hash, the seed
      log.jsonl        one line a training step
      checkpoints/     the newest complete checkpoint
      student/         the merged student, an ordinary Hugging Face folder
      adapter/         the PEFT adapter by itself
      README.md        the model card
      transcripts.jsonl  what every system wrote, clip by clip
      result.json      every number; it is written last, so a folder that holds it is finished
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tutelage.errors import InputError
from tutelage.records.files import explain_write_failure, write_atomically, write_json
from tutelage.records.hashing import sha256_json


@dataclass(frozen=True)
class RunFolder:
    """Where a run keeps what it makes."""

    path: Path

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

    @property
    def transcripts(self) -> Path:
        """What every system wrote, clip by clip."""
        return self.path / "transcripts.jsonl"

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
    if resume and force:
        raise InputError("--resume continues a run and --force throws it away; give one of them.")
    if resume:
        if not (path / "run.json").is_file():
            raise InputError(f"{path} holds no run to resume (there is no run.json in it). Start one without --resume.")
        if (path / "result.json").is_file():
            raise InputError(f"The run in {path} is finished: see {path / 'result.json'}. There is nothing to resume.")
    elif path.exists():
        ours = (path / "run.json").is_file()
        if force and not ours:
            raise InputError(f"{path} exists and is not a run's folder, so --force does not replace it.")
        if not force:
            way = "Continue it with --resume, replace it with --force, or choose" if ours else "Choose"
            raise InputError(f"{path} exists. {way} another --out.")


def open_folder(
    path: Path,
    identity: dict[str, Any],
    seed: int,
    recipe_yaml: str,
    compare: Callable[[dict[str, Any], dict[str, Any]], list[str]],
    *,
    resume: bool = False,
) -> RunFolder:
    """Make the folder of a new run (replacing an old one), or check that the run in it is the same.

    Args:
        path: The folder, which passed `check_folder`.
        identity: From `Recipe.identity`.
        seed: The run's seed.
        recipe_yaml: The resolved recipe as a file.
        compare: Lines that say what differs between two identities.
        resume: Continue what is there.

    Raises:
        InputError: The recipe or the data changed since the run was interrupted, or the folder cannot be written.
    """
    about = {"identity": identity, "recipe_hash": sha256_json(identity), "seed": seed}
    if resume:
        before = json.loads((path / "run.json").read_text(encoding="utf-8"))
        changes = compare(
            {**before["identity"], "seed": before["seed"]}, {**json.loads(json.dumps(identity)), "seed": seed}
        )
        if changes:
            raise InputError(
                [
                    *(f"The recipe changed since the run in {path} was interrupted: {change}" for change in changes),
                    "Resume with the recipe as it was, or start a new run in another folder.",
                ]
            )
        return RunFolder(path)
    try:
        if path.exists():
            shutil.rmtree(path)
        path.mkdir(parents=True)
        write_atomically(path / "recipe.yaml", recipe_yaml)
        write_json(path / "run.json", about)
    except OSError as error:
        raise explain_write_failure(error, path) from error
    return RunFolder(path)
