"""The folders of those who teach: models and adapters, found, hashed and checked before anything heavy is loaded.

Covers one teacher and the members of a committee, what of them identifies a run, and refusing a device or a dtype that
cannot be. Does not cover loading (`speech.teachers`, `text.teachers`); nothing here imports torch.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from tutelage.errors import InputError
from tutelage.models.adapters import AdapterFolder, resolve_adapter
from tutelage.models.architectures import Task
from tutelage.models.resolve import ResolvedModel
from tutelage.models.verify import read_config
from tutelage.progress import Talk, say_nothing
from tutelage.records.hashing import sha256_json
from tutelage.runs.member_folder import resolve_trained
from tutelage.teachers.settings import MemberSettings, Teacher


@dataclass(frozen=True)
class TeacherFolder:
    """One who teaches.

    Args:
        settings: As the recipe has it.
        model: The model's folder.
        adapter: The adapter's, where there is one.
    """

    settings: MemberSettings
    model: ResolvedModel
    adapter: AdapterFolder | None = None

    @property
    def name(self) -> str:
        """What rows and messages call it."""
        return self.settings.name

    @property
    def sha256(self) -> str:
        """Of the model, and of its adapter where it has one."""
        model = sha256_json(dict(self.model.sha256))
        return model if self.adapter is None else sha256_json({"model": model, "adapter": dict(self.adapter.sha256)})

    def describe(self) -> dict[str, Any]:
        """For `result.json`."""
        adapter = (
            None if self.adapter is None else {"path": str(self.adapter.path), "sha256": dict(self.adapter.sha256)}
        )
        return {"name": self.name, "model": asdict(self.model), "adapter": adapter, "weight": self.settings.weight}


def find_teachers(
    teacher: Teacher, task: Task, *, talk: Talk = say_nothing, require_weights: bool = True
) -> tuple[TeacherFolder, ...]:
    """Every folder, the leading member first (`Teacher.everyone`).

    Raises:
        InputError: The faults of all of them together.
        TutelageError: A model could not be fetched.
    """
    found: list[TeacherFolder] = []
    faults: list[str] = []
    for member in teacher.everyone:
        try:
            found.append(_find(member, task, talk, require_weights=require_weights))
        except InputError as error:
            lone = teacher.members is None
            faults += error.faults if lone else [f"Member {member.name}: {fault}" for fault in error.faults]
    if faults:
        raise InputError(faults)
    return tuple(found)


def merged_before(folders: Sequence[TeacherFolder], student: ResolvedModel | None) -> str | None:
    """The adapter that is part of what the student began as: the leading teacher's, where it is a copy of it."""
    adapter = folders[0].adapter if folders and student is None else None
    return None if adapter is None else str(adapter.path)


def _find(member: MemberSettings, task: Task, talk: Talk, *, require_weights: bool) -> TeacherFolder:
    adapter = None if member.adapter is None else resolve_adapter(member.adapter)
    model = resolve_trained(member.model, member.revision, talk=talk, task=task, require_weights=require_weights)
    if member.adapter is not None:
        config = read_config(model.path, task)
        layers = (
            config.get("decoder_layers") if task == "speech" else config.get("num_hidden_layers", config.get("n_layer"))
        )
        adapter = resolve_adapter(member.adapter, None if layers is None else int(layers))
        talk(f"adapter {member.adapter}: merged into {member.model}")
    return TeacherFolder(member, model, adapter)


def identify_teacher(
    plain: Mapping[str, Any], teacher: Teacher, folders: Sequence[TeacherFolder], *, by_content: bool
) -> dict[str, Any]:
    """The recipe's part `teacher` with content hashes for what it names.

    Args:
        plain: The part as plain values.
        teacher: The settings.
        folders: What was found.
        by_content: Whether a single model counts by its content too (an adapter and a committee always do).
    """
    part = dict(plain)
    part.pop("device", None)  # where a teacher runs is not what it says
    if not folders:
        return part
    if teacher.members is not None:
        return {**part, "members": [{**asdict(one.settings), **_hashes(one)} for one in folders]}
    hashes = _hashes(folders[0])
    if not by_content:
        del hashes["model"]
    if hashes["adapter"] is None:
        del hashes["adapter"]
    return {**part, **hashes}


def answer_sha256(teacher: Teacher, folders: Sequence[TeacherFolder]) -> str:
    """Whose answers a cache holds: the weights of all who teach, with their adapters and dtype."""
    hashes = {one.name: one.sha256 for one in folders}
    weights = folders[0].sha256 if teacher.members is None else sha256_json(hashes)
    return weights if teacher.dtype == "float32" else sha256_json({"model": weights, "dtype": teacher.dtype})


def describe_average(teacher: Teacher, folders: Sequence[TeacherFolder]) -> dict[str, Any] | None:
    """How a committee's answers are averaged, and every member's own hash, which errors name; None for one teacher."""
    if teacher.members is None:
        return None
    average = {"space": teacher.space, "weights": teacher.shares, "states_from": teacher.states_from}
    return {**average, "member": {one.name: one.sha256 for one in folders}}


def describe_teachers(
    teacher: Teacher, folders: Sequence[TeacherFolder], asked: Mapping[str, Mapping[str, Any]]
) -> dict[str, Any]:
    """Who taught, for `result.json`; the space of an average is named where there is one.

    Args:
        teacher: The settings.
        folders: What was found.
        asked: How each was asked, by name.
    """
    average = (
        {"space": teacher.space, "weights": teacher.shares, "states_from": teacher.states_from}
        if teacher.is_committee
        else {"space": None, "weights": None, "states_from": None}
    )
    return {**average, "dtype": teacher.dtype, "members": [{**one.describe(), **asked[one.name]} for one in folders]}


def _hashes(one: TeacherFolder) -> dict[str, Any]:
    adapter = None if one.adapter is None else sha256_json(dict(one.adapter.sha256))
    return {"model": sha256_json(dict(one.model.sha256)), "adapter": adapter}
