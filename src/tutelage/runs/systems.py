"""What `evaluate` judges: systems, each one model or several runs of one recipe under different seeds.

Covers names, which folder a run's name stands for, who is compared with whom, and every fault of these at once. Does
not cover judging (the tasks' `evaluate`) or numbers (`scoreboard`). Nothing here imports torch.
"""

from __future__ import annotations

import itertools
import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from tutelage.errors import InputError
from tutelage.evaluation.bootstrap import Resampling
from tutelage.models.architectures import Task
from tutelage.models.resolve import ResolvedModel, resolve_model
from tutelage.progress import Talk, say_nothing
from tutelage.records.document import Caution
from tutelage.runs.finished import read_finished
from tutelage.runs.folder import RunFolder
from tutelage.runs.member_folder import resolve_trained


@dataclass(frozen=True)
class System:
    """One system as the user names it.

    Args:
        name: What tables call it.
        models: Folders, runs' folders or hub names; several are runs of one recipe under different seeds.
    """

    name: str
    models: tuple[str, ...]


@dataclass(frozen=True)
class Systems:
    """Everything that is judged, and who is compared with whom.

    Args:
        systems: At least one.
        baseline: Whom all others are compared with; None takes the first.
        all_pairs: Compare every two systems instead.
        teacher: Whose answers agreement is measured with; None takes the first system, if it is one model.

    Raises:
        InputError: All faults of the names.
    """

    systems: tuple[System, ...]
    baseline: str | None = None
    all_pairs: bool = False
    teacher: str | None = None

    def __post_init__(self) -> None:
        if not self.systems:
            raise InputError("There is no model to evaluate; name a folder, a run's folder or a hub name.")
        faults = [*self._name_faults(), *self._seed_faults()]
        if faults:
            raise InputError(faults)

    @classmethod
    def of(cls, *models: str) -> Systems:
        """Every model a system of its own."""
        return cls(tuple(System(model, (model,)) for model in models))

    @property
    def names(self) -> list[str]:
        """Of every system, in order."""
        return [system.name for system in self.systems]

    @property
    def taught_by(self) -> str | None:
        """The system that agreement is measured with; None where there is none."""
        if self.teacher is not None:
            return self.teacher
        return self.systems[0].name if len(self.systems[0].models) == 1 else None

    @property
    def first_baseline(self) -> str:
        """Whose time the others' are shares of."""
        return self.baseline or self.names[0]

    def pairs(self) -> list[tuple[str, str]]:
        """(baseline, candidate) of every comparison."""
        if self.all_pairs:
            return list(itertools.combinations(self.names, 2))
        return [(self.first_baseline, name) for name in self.names if name != self.first_baseline]

    def _name_faults(self) -> Iterator[str]:
        names = self.names
        models = [model for system in self.systems for model in system.models]
        for name in sorted({name for name in names if names.count(name) > 1}):
            yield f"{name} is named more than once; each system has a name of its own."
        for model in sorted({model for model in models if models.count(model) > 1} - set(names)):
            yield f"{model} is named more than once; each model is judged once."
        for option, chosen in (("baseline", self.baseline), ("teacher", self.teacher)):
            if chosen is not None and chosen not in names:
                yield f"The {option} {chosen} is none of the systems {', '.join(names)}."
        if self.baseline is not None and self.all_pairs:
            yield f"The baseline {self.baseline} and all pairs exclude each other; give one of them."
        for system in self.systems:
            if system.name == self.teacher and len(system.models) > 1:
                yield f"The teacher {system.name} is {len(system.models)} models; agreement needs one."

    def _seed_faults(self) -> Iterator[str]:
        counts = {system.name: len(system.models) for system in self.systems}
        if not self.all_pairs and self.first_baseline not in counts:
            return
        for one, other in self.pairs():
            if 1 not in (counts[one], counts[other]) and counts[one] != counts[other]:
                yield (
                    f"{one} has {counts[one]} seeds and {other} {counts[other]}, so they cannot be paired by seed. "
                    "Give both the same seeds in the same order."
                )


@dataclass(frozen=True, kw_only=True)
class Conditions:
    """Under what systems are judged, in every task.

    Args:
        systems: Who, and who is compared with whom.
        device: torch device; "auto" takes a GPU where there is one.
        seed: Of the bootstrap.
        draws: Resamples behind each interval.
        batch_size: Clips or rows at once.
        speed_items: Clips or documents that are timed, and that memory is measured on; 0 measures neither.
        speed_rounds: Timed passes over them.

    Raises:
        InputError: All numbers that are out of range.
    """

    systems: Systems
    device: str = "auto"
    seed: int = 0
    draws: int = 2000
    batch_size: int = 16
    speed_items: int = 8
    speed_rounds: int = 3

    def __post_init__(self) -> None:
        least = {"seed": 0, "draws": 100, "batch_size": 1, "speed_items": 0, "speed_rounds": 1}
        faults = [
            f"{name.replace('_', ' ')} is {getattr(self, name)}; it must be a whole number from {low}."
            for name, low in least.items()
            if getattr(self, name) < low
        ]
        if faults:
            raise InputError(faults)

    @property
    def resampling(self) -> Resampling:
        """How intervals are made."""
        return Resampling(draws=self.draws, seed=self.seed)


@dataclass(frozen=True)
class FoundSystem:
    """A system whose folders were found.

    Args:
        name: The system.
        models: Its folders.
        seeds: The recipe's seed of each run; None for a model that is no run's.
    """

    name: str
    models: tuple[ResolvedModel, ...]
    seeds: tuple[int | None, ...]


def find_systems(systems: Systems, task: Task, talk: Talk = say_nothing) -> tuple[list[FoundSystem], list[Caution]]:
    """Find and check every model; a run's folder stands for its student, whose files must be those that it wrote.

    Returns:
        The systems in order, and cautions about runs that are no seeds of one recipe.

    Raises:
        InputError: All faults of all models.
        TutelageError: A model could not be fetched.
    """
    found: list[FoundSystem] = []
    cautions: list[Caution] = []
    faults: list[str] = []
    folders: dict[Path, str] = {}
    for system in systems.systems:
        models, abouts = [], []
        for reference in system.models:
            try:
                model, about = _find(reference, task, talk)
            except InputError as error:
                faults += error.faults
                continue
            twin = folders.setdefault(model.path.resolve(), reference)
            if twin != reference:
                faults.append(f"{reference} and {twin} are one folder, {model.path}; each model is judged once.")
            models.append(model)
            abouts.append(about)
        found.append(FoundSystem(system.name, tuple(models), tuple(about.seed for about in abouts)))
        cautions += _doubts(system.name, abouts)
    if faults:
        raise InputError(faults)
    return found, cautions


@dataclass(frozen=True)
class _About:
    """What a run's folder says of it; nothing for a model that is no run's."""

    recipe_hash: str | None = None
    seed: int | None = None


def _find(reference: str, task: Task, talk: Talk) -> tuple[ResolvedModel, _About]:
    folder = Path(reference).expanduser()
    if not RunFolder(folder).begun:
        return resolve_trained(reference, talk=talk, task=task), _about(folder.parent)
    run = read_finished(folder)
    if run.task != task:
        raise InputError(
            f"The run in {reference} is on {run.task}, and {task} models are evaluated; give --task {run.task}."
        )
    student, _ = run.student()
    return resolve_model(str(student), talk=talk, task=task), _about(folder)


def _about(folder: Path) -> _About:
    try:
        about = json.loads((folder / "run.json").read_bytes())
        return _About(about["recipe_hash"], int(about["seed"]))
    except (OSError, ValueError, KeyError, TypeError):
        return _About()


def _doubts(name: str, abouts: Sequence[_About]) -> Iterator[Caution]:
    hashes = {about.recipe_hash for about in abouts} - {None}
    seeds = [about.seed for about in abouts if about.seed is not None]
    if len(hashes) > 1:
        text = f"the runs of {name} are of {len(hashes)} recipes (or data), so their spread is not the seeds' alone."
        yield Caution("mixed-recipes", name, float(len(hashes)), None, text)
    twice = sorted({seed for seed in seeds if seeds.count(seed) > 1})
    if twice:
        text = f"the runs of {name} share the seed {twice[0]}: their spread says too little of other seeds."
        yield Caution("repeated-seed", name, float(twice[0]), None, text)
