"""A recipe: everything that decides a run, as one frozen value. What every task's recipe has.

Covers the shared parts and what identifies a run. Does not cover the tasks' own parts (`speech.recipe`, `text.recipe`),
reading recipe files (`config`) or doing what they say (`distil`). The settings of each part stand beside the code that
obeys them; nothing here imports torch.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from tutelage.objectives.terms import Term
from tutelage.records.document import jsonable
from tutelage.runs.cohort.settings import MemberSettings, require_cohort
from tutelage.runs.later_keys import drop_later
from tutelage.training.optimisation import MembersStep, Optimisation

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*")


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """One run, as far as every task has it.

    Args:
        name: Letters, digits, dot, dash and underscore; names the run folder.
        objective: The weighted terms.
        training: How.
        task: The kind of model.
        seed: Of every random draw.
        data_seed: Of the order of the training samples; None is `seed`. With it a student can be trained alone on the
            stream of a cohort.
        students: How many students learn together on one backbone; None is one, or as many as there are `members`.
        members: What tells them apart; those that are not listed differ by their seeds.
        members_step: How members take their steps: "in_turn"; "stacked", in one pass, where every member takes every
            sample and has plain LoRA without dropout; "auto", stacked on a CUDA GPU and in turn elsewhere.
        law: A distillation law, by file or published name, whose predicted loss is held against the achieved one. It
            changes nothing of the student, so it does not count towards what identifies the run.
    """

    name: str
    objective: tuple[Term, ...]
    training: Optimisation
    task: str
    seed: int = 0
    data_seed: int | None = None
    students: int | None = None
    members: tuple[MemberSettings, ...] = ()
    members_step: MembersStep = "auto"
    law: Path | None = None

    def __post_init__(self) -> None:
        if not _NAME.fullmatch(self.name):
            raise ValueError(
                f"The name {self.name!r} must begin with a letter or digit; the rest may be those and '.', '-', '_'."
            )
        if not self.objective:
            raise ValueError("The objective needs at least one term, for example {kind: cross_entropy}.")
        kinds = [term.kind for term in self.objective]
        twice = sorted({kind for kind in kinds if kinds.count(kind) > 1})
        if twice:
            raise ValueError(f"The objective lists {', '.join(twice)} more than once; give it one weight.")
        if not any(term.weight > 0 for term in self.objective):
            raise ValueError("Every term of the objective has weight 0, so nothing would be learned.")
        if not 0 <= self.seed < 2**32:
            raise ValueError(f"The seed must be a whole number from 0 and below 2**32, not {self.seed!r}.")
        if self.is_cohort:
            require_cohort(self)
        elif self.members_step != "auto":
            raise ValueError(
                f"members_step is {self.members_step}, and one student alone has no members; leave it out."
            )

    @property
    def is_cohort(self) -> bool:
        """Whether several students learn together (or one, as a member)."""
        return self.students is not None or bool(self.members)

    @property
    def order_seed(self) -> int:
        """Of the order of the training samples."""
        return self.seed if self.data_seed is None else self.data_seed

    @property
    def aligns(self) -> bool:
        """Whether any term compares hidden states, so that a layer map is needed."""
        return any(term.compares_states for term in self.objective)

    @property
    def projects(self) -> bool:
        """Whether any term compares states through projectors."""
        return any(term.projected for term in self.objective)

    def to_dict(self) -> dict[str, Any]:
        """The resolved recipe as plain JSON values, every default written out."""
        plain: dict[str, Any] = jsonable(asdict(self))
        return plain

    def identify(self, contents: Mapping[str, Mapping[str, str | None]]) -> dict[str, Any]:
        """What makes two runs the same but for their seed: the resolved recipe with content hashes for what it names.

        Args:
            contents: Hashes by part ("data") and key ("train"); each takes the place of a path.
        """
        plain = self.to_dict()
        del plain["seed"], plain["name"], plain["law"]
        drop_later(plain)
        plain["training"] = jsonable(self.training.identity())
        for part, hashes in contents.items():
            plain[part] = {**(plain[part] or {}), **hashes}
        if plain["data"].get("dev") is None:
            plain["data"].pop("dev", None)  # as before there were dev splits: runs without one stay comparable
        for name, unset in (("data_seed", None), ("students", None), ("members", [])):
            if plain[name] == unset:
                del plain[name]
        return plain

    def _require_dev(self, dev: object, metrics: Sequence[str]) -> None:
        """Refuse checks without a dev split, a dev split that nothing looks at, and a metric that the task has not."""
        checks = self.training.dev_checks
        if checks is not None and dev is None:
            raise ValueError(
                "training.early_stop and training.keep_best judge the student while it trains, and the recipe names no "
                "data.dev to judge it on (held-out data decide nothing in training). Name data.dev, or leave them out."
            )
        if checks is None and dev is not None:
            raise ValueError(
                "data.dev is named and nothing looks at it: add training.early_stop or training.keep_best, or leave it "
                "out. (early_stop with patience: null watches without stopping.)"
            )
        if checks is not None and checks.metric not in metrics:
            raise ValueError(
                f'training.early_stop.metric is "{checks.metric}", which a run on {self.task} does not measure; '
                f"choose {' or '.join(metrics)}."
            )
