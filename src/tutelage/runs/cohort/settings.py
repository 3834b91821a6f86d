"""A cohort in a recipe: how many members, what tells them apart, and each member's own recipe.

Covers the keys `students` and `members`, their faults, and which samples a member takes. Does not cover training them
(`training.cohort`) or the order of a run (`learn`). Nothing here imports torch.
"""

from __future__ import annotations

import math
import random
import re
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import TYPE_CHECKING, Any, TypeVar

from tutelage.errors import InputError
from tutelage.objectives.terms import Term

if TYPE_CHECKING:
    from tutelage.runs.recipe import Recipe

RecipeT = TypeVar("RecipeT", bound="Recipe")
MOST_MEMBERS = 64
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*")
_TAKEN = ("stream",)  # a name in checkpoints
_NOT_OFFERED = ("early_stop", "keep_best", "trackers")


@dataclass(frozen=True)
class LoraChanges:
    """What a member's adapters have otherwise than `student.lora`; None is as there.

    Args:
        rank: As of `Lora`, a number.
        alpha: As of `Lora`.
        dropout: As of `Lora`.
        targets: As of `Lora`.
        use_rslora: As of `Lora`.
        use_dora: As of `Lora`.
        first_block: As of `Lora`; blocks below the lowest of all members are run once for all.
    """

    rank: int | None = None
    alpha: float | None = None
    dropout: float | None = None
    targets: tuple[str, ...] | None = None
    use_rslora: bool | None = None
    use_dora: bool | None = None
    first_block: int | None = None


@dataclass(frozen=True)
class TrainingChanges:
    """What a member's optimisation has otherwise than `training`; None is as there.

    Args:
        learning_rate: As of `Optimisation`.
        final_learning_rate: As of `Optimisation`.
        warmup_steps: As of `Optimisation`.
        weight_decay: As of `Optimisation`.
        clip_norm: As of `Optimisation`.
    """

    learning_rate: float | None = None
    final_learning_rate: float | None = None
    warmup_steps: int | None = None
    weight_decay: float | None = None
    clip_norm: float | None = None


@dataclass(frozen=True)
class MemberSettings:
    """One member, as far as it differs from the recipe.

    Args:
        name: Letters, digits, dot, dash and underscore; names its folder. None is called by its seed.
        seed: Of its adapters, projectors, dropout and samples; None takes the recipe's seed times the number of members
            plus its place, from 0: cohorts of other seeds have other members.
        lora: Its adapters.
        training: Its learning rate, clip and decay; steps and batches are those of the stream.
        objective: Its terms; None has the recipe's.
        sample_share: Share of its samples that it takes, in (0, 1]: drawn from its seed, without replacement.
        bagging: Draw that many with replacement instead, so that some count twice and more.
        only: Columns of the manifest with the values whose clips it takes: a specialist. Speech alone.
    """

    name: str | None = None
    seed: int | None = None
    lora: LoraChanges | None = None
    training: TrainingChanges | None = None
    objective: tuple[Term, ...] | None = None
    sample_share: float = 1.0
    bagging: bool = False
    only: Mapping[str, tuple[str, ...] | str] | None = None

    def __post_init__(self) -> None:
        if self.name is not None and (not _NAME.fullmatch(self.name) or self.name in _TAKEN):
            raise ValueError(
                f"The member's name {self.name!r} must begin with a letter or digit; the rest may be those and '.', "
                f"'-', '_'; and it may not be {', '.join(_TAKEN)}."
            )
        if self.seed is not None and not 0 <= self.seed < 2**32:
            raise ValueError(f"The member's seed must be a whole number from 0 and below 2**32, not {self.seed!r}.")
        if not (math.isfinite(self.sample_share) and 0 < self.sample_share <= 1):
            raise ValueError(f"sample_share must lie in (0, 1], not {self.sample_share!r}.")
        if self.only is not None and not self.only:
            raise ValueError("only names no column; leave it out for a member that takes every clip.")


@dataclass(frozen=True)
class Enrolled:
    """One member as it will be trained.

    Args:
        name: Its name.
        recipe: Its own recipe: that of the same student alone.
        settings: What the cohort's recipe says of it.
    """

    name: str
    recipe: Any
    settings: MemberSettings

    def draw_times(self, columns: Sequence[Mapping[str, str]]) -> list[int] | None:
        """How often it takes each sample; None takes each once.

        Args:
            columns: What the samples are selected by, in the order of the data; empty mappings where nothing is known.

        Raises:
            InputError: It would take none.
        """
        settings = self.settings
        own = [place for place, values in enumerate(columns) if _matches(values, settings.only or {})]
        if not own:
            raise InputError(list(_nothing_found(self.name, settings.only or {}, columns)))
        count = max(1, round(settings.sample_share * len(own)))
        if count == len(columns) and not settings.bagging:
            return None
        generator = random.Random(f"{self.recipe.seed}/samples")
        taken = Counter(generator.choices(own, k=count) if settings.bagging else generator.sample(own, count))
        return [taken[place] for place in range(len(columns))]


def enrol(recipe: RecipeT) -> tuple[Enrolled, ...]:
    """Every member with a recipe of its own, in order; none where the recipe has no cohort.

    Args:
        recipe: With `students` or `members`.
    """
    count = recipe.students or len(recipe.members)
    members = [*recipe.members, *[MemberSettings()] * (count - len(recipe.members))]
    found = []
    for place, member in enumerate(members):
        seed = (recipe.seed * count + place) % 2**32 if member.seed is None else member.seed
        name = member.name or f"seed{seed}"
        own: dict[str, Any] = {"objective": member.objective} if member.objective is not None else {}
        if member.training is not None:
            own["training"] = replace(recipe.training, **_set(member.training))
        student: Any = recipe.student  # type: ignore[attr-defined]  # every task's recipe has one
        if member.lora is not None and student.lora is not None:
            own["student"] = replace(student, lora=replace(student.lora, **_set(member.lora)))
        alone = replace(
            recipe,
            name=f"{recipe.name}-{name}",
            seed=seed,
            data_seed=recipe.order_seed,
            students=None,
            members=(),
            members_step="auto",
            **own,
        )
        found.append(Enrolled(name, alone, member))
    return tuple(found)


def name_learners(recipe: RecipeT) -> dict[str, RecipeT]:
    """Everyone who learns with a recipe of its own, as errors call it: every member, or the one student as ""."""
    return {f"Member {one.name}: ": one.recipe for one in enrol(recipe)} or {"": recipe}


def ask_most(recipe: RecipeT) -> RecipeT:
    """The recipe with the objective of the learner that asks its teacher for most: states, else answers, else nothing.

    Members have one layer map, so whoever compares states compares those of the same blocks.
    """
    learners = name_learners(recipe).values()
    asking = max(learners, key=lambda one: (one.aligns, compares(one)))  # the first of equals
    return replace(recipe, objective=asking.objective)


def compares(recipe: Recipe) -> bool:
    """Whether any term of its own objective compares with the teacher."""
    return any(term.family != "likelihood" for term in recipe.objective)


def require_samples(recipe: Recipe, columns: Sequence[Mapping[str, str]]) -> None:
    """Refuse members that the data has no samples for.

    Args:
        recipe: With or without a cohort.
        columns: What the training samples are selected by.

    Raises:
        InputError: All faults of all members.
    """
    faults: list[str] = []
    for one in enrol(recipe):
        try:
            one.draw_times(columns)
        except InputError as error:
            faults += error.faults
    if faults:
        raise InputError(faults)


def require_cohort(recipe: Recipe) -> None:
    """Refuse a cohort that cannot be.

    Raises:
        ValueError: All faults in one text.
    """
    faults = list(_faults(recipe))
    if faults:
        raise ValueError(" ".join(faults))


def _faults(recipe: Recipe) -> Iterator[str]:
    given, student = len(recipe.members), getattr(recipe, "student", None)
    if recipe.students is not None and not max(1, given) <= recipe.students <= MOST_MEMBERS:
        yield f"students is {recipe.students}; it must be from {max(1, given)} (members given) to {MOST_MEMBERS}."
        return
    if student is None:
        return
    if student.lora is None:
        yield "A cohort shares one frozen backbone, so its students need adapters: give student.lora."
        return
    if student.lora.init == "pissa":
        yield 'PiSSA (student.lora.init) changes the weights that a cohort shares; choose "default".'
    if student.lora.scope != "decoder":
        yield "The members of a cohort share one encoder; leave student.lora.scope at decoder."
    for name in _NOT_OFFERED:
        if getattr(recipe.training, name, None):
            yield f"A cohort does not offer training.{name}; leave it out."
    if recipe.task != "speech" and any(member.only for member in recipe.members):
        yield "only selects clips of a manifest; a row of text holds several documents, so members take rows at random."
    yield from _faults_of_members(enrol(recipe))  # a member whose own settings do not fit raises here


def _faults_of_members(enrolled: Sequence[Enrolled]) -> Iterator[str]:
    names = Counter(one.name for one in enrolled)
    twice = sorted(name for name, times in names.items() if times > 1)
    if twice:
        yield f"Members must have names of their own; {', '.join(twice)} comes twice."
    alike = Counter(repr((one.recipe.seed, {**asdict(one.settings), "name": None, "seed": None})) for one in enrolled)
    if not twice and max(alike.values()) > 1:
        yield "Two members have the same seed and the same settings, so they would be one student twice."


def _set(changes: LoraChanges | TrainingChanges) -> dict[str, Any]:
    return {name: value for name, value in asdict(changes).items() if value is not None}


def _matches(values: Mapping[str, str], only: Mapping[str, tuple[str, ...] | str]) -> bool:
    return all(values.get(column) in _wanted(wanted) for column, wanted in only.items())


def _wanted(values: tuple[str, ...] | str) -> tuple[str, ...]:
    return (values,) if isinstance(values, str) else tuple(values)


def _nothing_found(
    name: str, only: Mapping[str, tuple[str, ...] | str], columns: Sequence[Mapping[str, str]]
) -> Iterator[str]:
    for column, wanted in only.items():
        there = sorted({values[column] for values in columns if column in values})
        if not there:
            yield f"Member {name} takes only rows by their {column}, and no row of the manifest has that column."
        elif not set(there) & set(_wanted(wanted)):
            shown = ", ".join(there[:10]) + (f" and {len(there) - 10} more" if len(there) > 10 else "")
            yield f"Member {name} takes only rows whose {column} is {', '.join(_wanted(wanted))}; there are {shown}."
        else:
            yield f"Member {name}: no row has all that it asks for ({column} among it)."
