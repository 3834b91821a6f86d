"""Systems: who is judged, who is compared with whom, which folder a run's name stands for."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from tiny_finished import finished_text
from tutelage.errors import InputError
from tutelage.runs.systems import Conditions, System, Systems, find_systems


def seeds(name: str, count: int) -> System:
    return System(name, tuple(f"{name}{number}" for number in range(count)))


def test_all_others_are_compared_with_the_baseline_or_every_two() -> None:
    three = (seeds("a", 1), seeds("b", 1), seeds("c", 1))
    assert Systems(three).pairs() == [("a", "b"), ("a", "c")]
    assert Systems(three, baseline="b").pairs() == [("b", "a"), ("b", "c")]
    assert Systems(three, all_pairs=True).pairs() == [("a", "b"), ("a", "c"), ("b", "c")]
    assert Systems.of("one").pairs() == []


def test_the_teacher_is_the_first_system_if_it_is_one_model() -> None:
    assert Systems((seeds("a", 1), seeds("b", 2))).taught_by == "a"
    assert Systems((seeds("b", 2), seeds("a", 1))).taught_by is None
    assert Systems((seeds("b", 2), seeds("a", 1)), teacher="a").taught_by == "a"


def test_every_fault_of_the_names_is_said_at_once() -> None:
    given = (System("a", ("x", "y")), System("a", ("x",)), System("b", ("z",)))
    with pytest.raises(InputError) as raised:
        Systems(given, baseline="c", all_pairs=True, teacher="a")
    faults = raised.value.faults
    for part in (
        "a is named more than once",
        "x is named more than once",
        "The baseline c is none of the systems a, a, b",
        "exclude each other",
        "The teacher a is 2 models",
    ):
        assert sum(part in fault for fault in faults) == 1, (part, faults)
    with pytest.raises(InputError, match="no model to evaluate"):
        Systems(())


def test_unequal_numbers_of_seeds_cannot_be_paired_and_one_model_can() -> None:
    with pytest.raises(InputError, match="a has 2 seeds and b 3"):
        Systems((seeds("a", 2), seeds("b", 3)))
    with pytest.raises(InputError, match="b has 3 seeds and c 2"):
        Systems((seeds("a", 1), seeds("b", 3), seeds("c", 2)), all_pairs=True)
    assert Systems((seeds("a", 1), seeds("b", 3), seeds("c", 2))).pairs() == [("a", "b"), ("a", "c")]


def test_conditions_name_every_number_that_is_out_of_range() -> None:
    with pytest.raises(InputError) as raised:
        Conditions(systems=Systems.of("a"), draws=5, batch_size=0, speed_items=-1)
    assert len(raised.value.faults) == 3
    assert "speed items is -1; it must be a whole number from 0." in raised.value.faults


def copy_run(run: Path, name: str, seed: int, recipe_hash: str) -> Path:
    other = run.parent / name
    shutil.copytree(run, other)
    (other / "run.json").write_text(json.dumps({"recipe_hash": recipe_hash, "seed": seed}))
    return other


def test_a_runs_folder_stands_for_its_student_and_its_seed(tmp_path: Path) -> None:
    run = finished_text(tmp_path)
    one, two = copy_run(run, "one", 3, "h"), copy_run(run, "two", 4, "h")
    ((found,), cautions) = find_systems(Systems((System("s", (str(one), str(two / "student"))),)), "text")
    assert [model.path for model in found.models] == [one / "student", two / "student"]
    assert found.seeds == (3, 4)
    assert cautions == []
    (plain,), _ = find_systems(Systems.of(str(run / "student")), "text")
    assert plain.seeds == (None,)


def test_runs_that_are_no_seeds_of_one_recipe_are_doubted(tmp_path: Path) -> None:
    run = finished_text(tmp_path)
    runs = tuple(str(copy_run(run, name, 3, name)) for name in ("one", "two"))
    _, cautions = find_systems(Systems((System("s", runs),)), "text")
    assert [caution.code for caution in cautions] == ["mixed-recipes", "repeated-seed"]
    assert "2 recipes" in cautions[0].text
    assert "share the seed 3" in cautions[1].text


def test_faults_of_all_models_are_said_together(tmp_path: Path) -> None:
    run = finished_text(tmp_path)
    changed = copy_run(run, "changed", 0, "h")
    (changed / "student" / "config.json").write_text("{}")
    begun = tmp_path / "begun"
    begun.mkdir()
    (begun / "run.json").write_text("{}")
    names = (str(run), str(run / "student"), str(changed), str(begun), "no model")
    with pytest.raises(InputError) as raised:
        find_systems(Systems.of(*names), "text")
    text = str(raised.value)
    assert "are one folder" in text
    assert "not the file that the run wrote" in text
    assert "not finished" in text
    assert "neither a folder nor a hub name" in text
    with pytest.raises(InputError, match="give --task text"):
        find_systems(Systems.of(str(run)), "speech")
