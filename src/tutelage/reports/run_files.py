"""What a run left behind, read for a report: its folder, or its result.json alone.

Covers: the files of a finished and of an unfinished run, each of which may be absent but for one; lines that a kill cut
off. Does not cover: what a report says of them. Numbers are checked when they are used (`plan_document.Part`).
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tutelage.errors import InputError
from tutelage.reports.plan_document import Part

SCHEMA = {"name": "tutelage.distill", "version": 1}
Lines = tuple[Mapping[str, Any], ...]


@dataclass(frozen=True)
class RunFiles:
    """A run as far as it got.

    Args:
        name: The recipe's name, else the folder's.
        recipe: The resolved recipe; empty where there is none.
        result: The document of a finished run; None for an unfinished one.
        steps: The lines of log.jsonl; of a cohort those of one member.
        member: Whose they are; empty where the run is no cohort.
        checks: The lines of dev.jsonl.
        transcripts: The lines of transcripts.jsonl.
        sha256: Of everything that was read.
    """

    name: str
    recipe: Part
    result: Part | None
    steps: Lines
    member: str
    checks: Lines
    transcripts: Lines
    sha256: str

    @property
    def task(self) -> str:
        """The kind of models, "speech" or "text"."""
        return self.recipe.text("task") or "speech"


def is_run(path: Path) -> bool:
    """Whether the folder is one that a run began."""
    return any((path / name).is_file() for name in ("result.json", "run.json"))


def read_run(path: Path) -> RunFiles:
    """Read a run.

    Args:
        path: Its folder, or a result.json; what stands beside a result.json of this name is read too.

    Raises:
        InputError: The folder holds no run, or a file of it is broken.
    """
    if path.is_dir() and not is_run(path):
        raise InputError(
            f"{path} cannot be read as a run: it holds neither result.json nor run.json; name RUN's folder"
        )
    folder = path if path.is_dir() else path.parent if path.name == "result.json" else None
    reader = _Reader(folder)
    result = None
    document = path if path.is_file() else path / "result.json"
    if document.is_file():
        result = Part(_json(reader.text(document), document), "")
        if result.value.get("schema") != SCHEMA:
            raise InputError(f"{document} is no result of a run; its schema must be {json.dumps(SCHEMA)}")
    recipe = _recipe(reader, result)
    member = _member(folder, result)
    return RunFiles(
        recipe.text("name") or (folder or path).name,
        recipe,
        result,
        tuple(
            line for line in reader.lines(f"members/{member}/log.jsonl" if member else "log.jsonl") if _is_step(line)
        ),
        member,
        tuple(line for line in reader.lines("dev.jsonl") if _are_numbers(line, "step", "value")),
        reader.lines("transcripts.jsonl"),
        reader.sha256,
    )


class _Reader:
    """Reads files of a folder, which may be absent, and remembers what it read."""

    def __init__(self, folder: Path | None) -> None:
        self._folder, self._hash = folder, hashlib.sha256()

    @property
    def sha256(self) -> str:
        return self._hash.hexdigest()

    def text(self, path: Path) -> str:
        try:
            content = path.read_bytes()
        except OSError as error:
            raise InputError(f"{path} cannot be read: {error.strerror}") from error
        self._hash.update(content)
        return content.decode("utf-8", errors="replace")

    def lines(self, name: str) -> Lines:
        """The objects of a file of JSON lines up to the first that is not one; none where it is absent."""
        if self._folder is None or not (self._folder / name).is_file():
            return ()
        found: list[Mapping[str, Any]] = []
        for text in self.text(self._folder / name).splitlines():
            try:
                line = json.loads(text)
            except (ValueError, RecursionError):
                break
            if not isinstance(line, dict):
                break
            found.append(line)
        return tuple(found)

    def recipe(self) -> str | None:
        path = None if self._folder is None else self._folder / "recipe.yaml"
        return None if path is None or not path.is_file() else self.text(path)


def _json(text: str, path: Path) -> Any:
    try:
        return json.loads(text)
    except (ValueError, RecursionError) as error:
        raise InputError(f"{path} is not JSON ({error}); was the run's folder copied whole?") from error


def _recipe(reader: _Reader, result: Part | None) -> Part:
    """The resolved recipe, from the result or from recipe.yaml."""
    if result is not None:
        return result.part("recipe").part("resolved")
    text = reader.recipe()
    if text is None:
        return Part({}, "recipe")
    from ruamel.yaml import YAML
    from ruamel.yaml.error import YAMLError

    try:
        return Part(YAML(typ="safe", pure=True).load(text), "recipe.yaml")
    except YAMLError as error:
        raise InputError(f"recipe.yaml is not YAML: {str(error).splitlines()[0]}") from error


def _member(folder: Path | None, result: Part | None) -> str:
    """Whose log is shown: of a cohort the exported member's, or the first one's of an unfinished run."""
    if folder is None or (folder / "log.jsonl").is_file():
        return ""
    if result is not None and result.has("cohort"):
        return result.part("cohort").text("best")
    logs = sorted(path.parent.name for path in folder.glob("members/*/log.jsonl"))
    return logs[0] if logs else ""


def _is_step(line: Mapping[str, Any]) -> bool:
    return _are_numbers(line, "step", "total", "learning_rate", "gradient_norm") and isinstance(line.get("terms"), dict)


def _are_numbers(line: Mapping[str, Any], *names: str) -> bool:
    found = [line.get(name) for name in names]
    return all(isinstance(value, int | float) and math.isfinite(value) for value in found)
