"""A member of a cohort as a model: `RUN/members/NAME` may be named wherever a model's folder may.

Covers finding out that a folder is a member's, and its student, which is put together once and kept in the cache: a
cohort exports one student and its members' adapters, not as many students. Does not cover the arithmetic
(`students.merge`) or other folders (`models.resolve`). Nothing here imports torch before a member is put together.
"""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

from tutelage.errors import InputError, TutelageError
from tutelage.models.architectures import Task
from tutelage.models.resolve import ResolvedModel, resolve_model
from tutelage.progress import Talk, say_nothing
from tutelage.records.hashing import sha256_json
from tutelage.records.locations import cache_folder
from tutelage.runs.finished import read_finished, verify_files
from tutelage.runs.folder import RunFolder


def resolve_trained(
    reference: str,
    revision: str | None = None,
    *,
    talk: Talk = say_nothing,
    task: Task = "speech",
    require_weights: bool = True,
) -> ResolvedModel:
    """As `resolve_model`, where a member's folder stands for the member's student.

    Args:
        reference: A folder, a member's folder in a run of a cohort, or a hub name.
        revision: Commit on the hub.
        talk: Told where the model was found.
        task: What the model is for.
        require_weights: False accepts a folder of configuration alone.

    Raises:
        InputError: As `resolve_model`; or the run is not finished, a file of it is not what it wrote, or the member has
            no adapter.
        TutelageError: The model could not be fetched.
    """
    folder = Path(reference).expanduser()
    run = folder.parent.parent
    if folder.parent.name != "members" or not RunFolder(run).begun:
        return resolve_model(reference, revision, talk=talk, task=task, require_weights=require_weights)
    student = _student_of(run, folder.name, talk)
    return replace(resolve_model(str(student), task=task), reference=reference)


def _student_of(run: Path, name: str, talk: Talk) -> Path:
    """The member's student in the cache, put there where it is not."""
    finished = read_finished(run)
    cohort = json.loads(RunFolder(run).result.read_bytes()).get("cohort") or {"members": []}
    adapters = {member["name"]: member["adapter"] for member in cohort["members"]}
    if adapters.get(name) is None:
        there = ", ".join(one for one, adapter in adapters.items() if adapter is not None)
        raise InputError(f"The run in {run} has no finished member {name}; it has {there or 'none'}.")
    exported, student_files = finished.student()
    if name == cohort["best"]:  # the one that the cohort exported
        return exported
    folders = {one: run / adapters[one]["path"] for one in (cohort["best"], name)}
    hashes = {one: verify_files(folder, adapters[one]["sha256"]) for one, folder in folders.items()}
    key = sha256_json({"student": student_files, "old": hashes[cohort["best"]], "new": hashes[name]})
    out = cache_folder() / "members" / key
    if not out.is_dir():
        from tutelage.students.merge import exchange_update, read_adapter

        talk(f"member {name}: put together in {out}")
        try:
            exchange_update(exported, out, read_adapter(folders[cohort["best"]]), read_adapter(folders[name]))
        except TutelageError:
            if not out.is_dir():  # else another process put the same there meanwhile: whole, by a rename
                raise
    return out
