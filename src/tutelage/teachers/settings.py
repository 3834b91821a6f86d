"""Who teaches, as settings: one model, or the members of a committee and how they are averaged.

Covers the frozen values that a recipe is parsed into. Does not cover finding folders (`runs.teacher_folders`), running
models (`live`) or averaging them (`committee`); nothing here imports torch.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

Space = Literal["probability-average", "logit-average"]
Weights = Literal["uniform", "entropy"]
TeacherDtype = Literal["float32", "float16", "bfloat16"]

ALONE = "teacher"
"""Name of the one member where the recipe names a model and no committee."""


def require_states(teacher: Teacher, aligned: list[str]) -> None:
    """Refuse alignments with a committee that has no states.

    Raises:
        ValueError: Terms align states, and the committee does not say whose.
    """
    if aligned and teacher.is_committee and teacher.states_from is None:
        names = ", ".join(member.name for member in teacher.everyone)
        raise ValueError(
            f"Term {', '.join(aligned)} compares states, and a committee has none of its own: set teacher.states_from "
            f"to the member to take them from ({names}), or drop the term."
        )


@dataclass(frozen=True, kw_only=True)
class MemberSettings:
    """One member of a committee.

    Args:
        name: What rows and messages call it.
        model: Folder, relative to the recipe, or hub name.
        revision: Commit on the hub; None takes the revision pinned by this package, if there is one, else "main".
        adapter: Folder of a PEFT LoRA adapter that is merged into the model: `RUN/adapter`, or any other.
        weight: Its share beside the others', above 0; given for every member or for none.
    """

    name: str
    model: str
    revision: str | None = None
    adapter: Path | None = None
    weight: float | None = None

    def __post_init__(self) -> None:
        if not self.name.strip() or not self.model.strip():
            raise ValueError("A member has a name, and a model that is a folder or a hub name.")
        if self.weight is not None and not 0 < self.weight < math.inf:
            raise ValueError(f"A weight is a finite number above 0, not {self.weight!r}; leave a member out instead.")


@dataclass(frozen=True)
class Teacher:
    """The model that is learned from, or a committee of several.

    Args:
        model: Folder, relative to the recipe, or hub name; None for a committee.
        revision: Commit on the hub; None takes the revision pinned by this package, if there is one, else "main".
        adapter: Folder of a PEFT LoRA adapter that is merged into the model: `RUN/adapter`, or any other.
        members: The committee.
        space: What of its members a committee averages; its other two settings are as in `committee.Committee`.
        weights: "uniform" or, per position, "entropy"; with `weight` on every member they are given instead.
        states_from: The member that alignments read states from, and that a student without a beginning of its own is
            a copy of. None: nothing can be aligned, and the copy is of the first.
        device: torch device of the teacher, or of every member; None is the student's.
        dtype: Type of its weights; adapters are merged in float32 before.
        cache: Folder that `tutelage cache` made of this recipe: training reads the teacher from there. None runs it
            beside the student.
    """

    model: str | None = None
    revision: str | None = None
    adapter: Path | None = None
    members: tuple[MemberSettings, ...] | None = None
    space: Space = "probability-average"
    weights: Weights = "uniform"
    states_from: str | None = None
    device: str | None = None
    dtype: TeacherDtype = "float32"
    cache: Path | None = None

    def __post_init__(self) -> None:
        faults = [*self._faults()]
        if faults:
            raise ValueError(" ".join(faults))

    def _faults(self) -> list[str]:
        if self.members is None:
            if self.model is None or not self.model.strip():
                return ["Name a model (a folder or a hub name), or the members of a committee."]
            ours = {"space": self.space != "probability-average", "weights": self.weights != "uniform"}
            ours["states_from"] = self.states_from is not None
            return [
                f"{name} is for a committee; name its members, or leave it out."
                for name, is_set in ours.items()
                if is_set
            ]
        names = [member.name for member in self.members]
        faults = [] if names else ["A committee has at least one member."]
        faults += [
            f"{name} is each member's own; say it there."
            for name in ("model", "revision", "adapter")
            if getattr(self, name) is not None
        ]
        twice = sorted({name for name in names if names.count(name) > 1})
        if twice:
            faults.append(f"More than one member is called {', '.join(twice)}.")
        if self.states_from is not None and self.states_from not in names:
            faults.append(f"states_from is {self.states_from!r}, which is no member ({', '.join(names)}).")
        lacking = [member.name for member in self.members if member.weight is None]
        if lacking and len(lacking) < len(names):
            faults.append(f"Member {', '.join(lacking)} has no weight; give every member one, or none.")
        if names and not lacking and self.weights != "uniform":
            faults.append("weights is entropy, and the members have weights of their own; choose one.")
        return faults

    @property
    def is_committee(self) -> bool:
        """Whether several models, or one of several, are averaged."""
        return self.members is not None

    @property
    def described(self) -> str:
        """How a committee is averaged, in words."""
        weights = "given" if isinstance(self.shares, dict) else self.shares
        return f"{self.space}, {weights} weights"

    @property
    def everyone(self) -> tuple[MemberSettings, ...]:
        """Every model that teaches, the one that states are taken from first; a single teacher is called `ALONE`."""
        if self.members is None:
            return (MemberSettings(name=ALONE, model=self.model or "", revision=self.revision, adapter=self.adapter),)
        return tuple(sorted(self.members, key=lambda member: member.name != self.states_from))

    @property
    def shares(self) -> str | dict[str, float]:
        """The weights as `committee.Committee` takes them."""
        given = {member.name: member.weight for member in self.everyone if member.weight is not None}
        return given or self.weights
