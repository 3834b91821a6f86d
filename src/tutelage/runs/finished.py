"""A finished run, read again: its recipe's data and its exported folders, checked against the hashes it wrote.

Covers `result.json`, `student/` and `adapter/`. Does not cover making them (`runs.result`, `students.export`).
Nothing here imports torch.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tutelage.errors import InputError, MissingExtraError
from tutelage.models.verify import verify_model_folder
from tutelage.records.hashing import sha256_file
from tutelage.runs.folder import RunFolder
from tutelage.tasks.sources import AudioSource, DatasetSource, require_source

_CARD = "README.md"
"""Written into the student's folder after the hashes were taken, since it shows the result."""


@dataclass(frozen=True)
class FinishedRun:
    """What a run's folder says of it.

    Args:
        path: The folder.
        name: The recipe's name.
        task: "speech" or "text".
        data: The recipe's `data`.
        held_out_sha256: Hash of the held-out data it was judged on.
        hashes: SHA-256 of the files of `student` and, where the run wrote them, `adapter`.
    """

    path: Path
    name: str
    task: str
    data: Mapping[str, Any]
    held_out_sha256: str | None
    hashes: Mapping[str, Mapping[str, str]]

    @property
    def spoken(self) -> tuple[str | None, str]:
        """Language and task of a run on speech."""
        return self.data.get("language"), str(self.data.get("task", "transcribe"))

    @property
    def held_out(self) -> Path | DatasetSource:
        """What it was judged on: a file, or a split of a dataset, which of a run on speech holds recordings."""
        named = self.data["held_out"]
        if isinstance(named, Mapping):
            return DatasetSource(**named) if self.task == "text" else AudioSource(**named)
        return Path(str(named))

    def find_held_out(self, given: Path | DatasetSource | None) -> Path | DatasetSource | None:
        """`given`, else the run's own data; None where that is not there any more.

        Raises:
            InputError: `given` is not there.
            MissingExtraError: The data is a dataset, and `datasets` is not installed.
        """
        source = given or self.held_out
        try:
            require_source(source)
        except MissingExtraError:
            raise
        except InputError:
            if given is not None:
                raise
            return None
        return source

    def student(self) -> tuple[Path, dict[str, str]]:
        """The student's folder and the hashes of its files.

        Raises:
            InputError: A file is missing, changed or not of the run, or the folder is no model.
        """
        folder = RunFolder(self.path).student
        files = verify_files(folder, self.hashes["student"])
        verify_model_folder(folder, task="text" if self.task == "text" else "speech")
        return folder, files

    def adapter(self) -> tuple[Path, dict[str, str]]:
        """The adapter's folder and the hashes of its files.

        Raises:
            InputError: There is none, or a file is missing, changed or not of the run.
        """
        folder = RunFolder(self.path).adapter
        if not folder.is_dir() and not self.hashes.get("adapter"):
            raise InputError(
                f"The run in {self.path} has no adapter that is all of it: its student was trained "
                "whole, or hears its own projection (student.feedback). Use --to hf."
            )
        if not self.hashes.get("adapter"):
            raise InputError(
                f"{self.path / 'result.json'} holds no hashes of the adapter, so it cannot be checked: the run was "
                f"made by an earlier version. Copy {folder} by hand, or use --to hf."
            )
        return folder, verify_files(folder, self.hashes["adapter"])


def read_finished(path: Path) -> FinishedRun:
    """What a finished run's folder holds.

    Raises:
        InputError: There is no run, it is not finished, or its result cannot be read.
    """
    folder = RunFolder(path)
    if not folder.result.is_file():
        if folder.begun:
            raise InputError(f"The run in {path} is not finished: it has no result.json. Go on with --resume first.")
        raise InputError(f"{path} holds no run (there is no run.json in it). Name the folder of a finished run.")
    try:
        result = json.loads(folder.result.read_bytes())
        resolved = result["recipe"]["resolved"]
        hashes = {
            "student": dict(result["student"]["sha256"]),
            "adapter": dict((result.get("adapter") or {}).get("sha256", {})),
        }
        return FinishedRun(
            path,
            str(result["recipe"]["name"]),
            str(resolved.get("task", "speech")),
            dict(resolved["data"]),
            result["data"]["held_out"].get("sha256"),
            hashes,
        )
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise InputError(f"{folder.result} is not the result of a run: {error!r}.") from error


def verify_files(folder: Path, expected: Mapping[str, str]) -> dict[str, str]:
    """The hashes of a folder's files, all of them as the run wrote them, and its card, which nobody hashed.

    Raises:
        InputError: A file is missing, changed or not of the run.
    """
    actual = (
        {file.name: sha256_file(file) for file in sorted(folder.iterdir()) if file.is_file()} if folder.is_dir() else {}
    )
    faults = [f"{folder / name} is missing." for name in expected if name not in actual]
    faults += [
        f"{folder / name} is not the file that the run wrote: SHA-256 {actual[name][:12]}..., not {digest[:12]}..."
        for name, digest in expected.items()
        if name in actual and actual[name] != digest
    ]
    faults += [f"{folder / name} is not of the run." for name in actual if name not in expected and name != _CARD]
    if faults:
        raise InputError([*faults, "Put the files back as they were, or run the recipe again."])
    return actual
