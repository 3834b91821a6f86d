"""Re-distilling a cohort from its members' cached signals: the live run's losses, and what is named when it changed."""

from __future__ import annotations

import functools
import json
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from run_folders import read_log
from tiny import shared_tiny_whisper, tiny_whisper
from tiny_run import TRAINED, write_run
from tiny_text import WIDTH, shared_tiny_text, tiny_text
from tiny_text_run import write_text_run
from tutelage.cli.main import main
from tutelage.config import load_recipe
from tutelage.errors import InputError
from tutelage.runs.attempt import Attempt
from tutelage.runs.distil import distil
from tutelage.runs.tasks import gather_materials

STATES = 1e-3  # relative, of a term's loss: states are rounded to float16 (2^-11), and the student follows for 2 epochs
HALF = 2  # bytes
NAMES = ("seed0", "seed1", "seed2")
WHOLE = "layers: null\n  lora: {rank: 2, targets: [q_proj, v_proj]}\n  budget_share: 0.5"
TERMS = "objective=[{kind: cross_entropy}, {kind: kl, weight: 0.8, temperature: 2.0}]"
ALIGNED = "objective=[{kind: cross_entropy}, {kind: kl, temperature: 2.0}, {kind: mse, weight: 0.1}]"
QUICK = ("evaluation.speed_clips=0", "evaluation.stock_clips=0")


@dataclass(frozen=True)
class Redistil:
    """A finished cohort's recipe, whose members teach.

    Args:
        recipe: The file.
        teachers: Overrides that name the members.
        other: Another model of the same kind.
    """

    recipe: Path
    teachers: tuple[str, ...]
    other: Path

    def cache(self, out: str, *words: str) -> int:
        sets = (part for word in self.teachers for part in ("--set", word))
        return main(["cache", str(self.recipe), "--out", str(self.recipe.parent / out), "--quiet", *sets, *words])

    def run(self, out: str, *overrides: str) -> tuple[dict[str, Any], list[dict[str, Any]]]:
        folder = self.recipe.parent / out
        loaded = load_recipe(self.recipe, [*self.teachers, *overrides])
        document = json.loads(distil(gather_materials(loaded), Attempt(folder, "", device="cpu")).read_text())
        return document, read_log(folder)


@pytest.fixture(scope="module")
def make(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Redistil]:
    """By task: a cohort of three, trained, and the recipe of a student that begins as they did."""

    @functools.cache
    def made(task: str) -> Redistil:
        folder, quick = tmp_path_factory.mktemp(task), QUICK if task == "speech" else ()
        if task == "speech":
            recipe, start, other = write_run(folder, steps=TRAINED), shared_tiny_whisper(), tiny_whisper
        else:
            recipe, start, other = write_text_run(folder, steps=12, student=WHOLE), shared_tiny_text(), tiny_text
        cohort = load_recipe(recipe, ["students=3", "training.steps=3", *quick])
        distil(gather_materials(cohort), Attempt(folder / "cohort", "", device="cpu"))
        start_as = (f"student.model={start}", "student.layer_map=uniform")
        start_as += () if task == "speech" else (f"data.tokenizer={start}",)
        teachers = ("teacher.model=null", f"teacher.members={committee(NAMES)}", *start_as, TERMS, *quick)
        return Redistil(recipe, teachers, other(folder / "other", seed=5))

    return made


def committee(names: Iterable[str]) -> str:
    return "[" + ", ".join(f"{{name: {name}, model: cohort/members/{name}}}" for name in names) + "]"


@pytest.fixture(params=["speech", "text"])
def redistil(request: pytest.FixtureRequest, make: Callable[[str], Redistil]) -> Redistil:
    return make(request.param)


def test_a_student_of_the_members_cached_signals_has_the_losses_of_the_live_one(
    redistil: Redistil, capsys: pytest.CaptureFixture[str]
) -> None:
    live, wanted = redistil.run("live")
    assert redistil.cache("kept", "--json") == 0
    built = json.loads(capsys.readouterr().out)
    assert built["expected"]["bytes_per_token"] == len(NAMES) * HALF * WIDTH  # every member's final state
    cached, found = redistil.run("cached", "teacher.cache=kept")
    for one, other in zip(wanted, found, strict=True):
        assert other["terms"] == pytest.approx(one["terms"], rel=STATES)
    assert found[-1]["terms"] != wanted[-1]["terms"]  # rounded: it was read from the cache
    assert cached["cached_targets"]["kind"] == "hidden"
    assert cached["training"]["flops"]["teacher"] == 0 < live["training"]["flops"]["teacher"]
    rows = [row["name"] for row in cached["systems"]]
    assert rows == [row["name"] for row in live["systems"]]  # members and committee are judged all the same
    assert any("committee of 3" in name for name in rows)


def test_aligned_states_are_those_of_the_named_member(redistil: Redistil) -> None:
    settings = ("teacher.states_from=seed1", ALIGNED)
    _, wanted = redistil.run("aligned", *settings)
    assert redistil.cache("kept-aligned", *(part for word in settings for part in ("--set", word))) == 0
    _, found = redistil.run("aligned-cached", *settings, "teacher.cache=kept-aligned")
    for one, other in zip(wanted, found, strict=True):
        assert other["terms"] == pytest.approx(one["terms"], rel=STATES)
    with pytest.raises(InputError, match=r"the member whose states are kept \(states_from\) is seed1 in the cache"):
        redistil.run("other", *settings, "teacher.states_from=seed2", "teacher.cache=kept-aligned")


def differing(redistil: Redistil, *overrides: str) -> list[str]:
    """The fields that a refusal names."""
    if not (redistil.recipe.parent / "kept").exists():
        assert redistil.cache("kept") == 0
    with pytest.raises(InputError) as refused:
        redistil.run("refused", *overrides, "teacher.cache=kept")
    assert not (redistil.recipe.parent / "refused").exists()
    return [line.split(" is ")[0] for line in refused.value.faults if " in the cache and " in line]


@pytest.mark.parametrize("place", range(len(NAMES)))
def test_a_member_that_changed_is_named(redistil: Redistil, place: int) -> None:
    fields = differing(redistil, f"teacher.members.{place}.model={redistil.other}")
    assert fields == ["the teacher's weights (model)", f"committee.member.{NAMES[place]}"]


def test_the_average_and_who_is_in_it_are_named(redistil: Redistil) -> None:
    assert differing(redistil, "teacher.space=logit-average") == ["what the committee averages (space)"]
    assert differing(redistil, "teacher.weights=entropy") == ["the members' shares (weights)"]
    fields = differing(redistil, f"teacher.members={committee(NAMES[:2])}")
    assert fields == ["the teacher's weights (model)", "committee.member.seed2"]
    redistil.run("reversed", "training.steps=1", f"teacher.members={committee(NAMES[::-1])}", "teacher.cache=kept")


def test_an_adapter_of_a_member_is_part_of_it(make: Callable[[str], Redistil]) -> None:
    """Text's cohort is not cut, so its adapters fit the whole model."""
    redistil, start = make("text"), shared_tiny_text()
    first, second = (f"cohort/members/{name}/adapter" for name in NAMES[:2])

    def members(adapter: str) -> str:
        return f"teacher.members=[{{name: a, model: {start}, adapter: {adapter}}}, {{name: b, model: {start}}}]"

    assert redistil.cache("kept-adapters", "--set", members(first)) == 0
    _, found = redistil.run("adapters", members(first), "teacher.cache=kept-adapters")
    _, wanted = redistil.run("adapters-live", members(first))
    assert found[-1]["terms"] == pytest.approx(wanted[-1]["terms"], rel=STATES)
    with pytest.raises(InputError, match=r"committee\.member\.a is"):
        redistil.run("refused", members(second), "teacher.cache=kept-adapters")


def test_members_of_other_widths_and_encoders_lie_side_by_side(tmp_path: Path) -> None:
    start = shared_tiny_whisper()
    tiny_whisper(tmp_path / "wide", seed=3, d_model=48)
    members = f"teacher.members=[{{name: wide, model: wide, weight: 2}}, {{name: plain, model: {start}, weight: 1}}]"
    teachers = ("teacher.model=null", members, f"student.model={start}", "student.layer_map=uniform", TERMS, *QUICK)
    two = Redistil(write_run(tmp_path), teachers, tmp_path / "wide")
    assert two.cache("kept") == 0
    assert json.loads((tmp_path / "kept" / "manifest.json").read_text())["widths"] == {"final": 48 + WIDTH}
    (_, wanted), (_, found) = two.run("live"), two.run("cached", "teacher.cache=kept")
    for one, other in zip(wanted, found, strict=True):
        assert other["terms"] == pytest.approx(one["terms"], rel=STATES)
