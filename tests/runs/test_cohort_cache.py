"""Cohorts that learn from a cache: one read a batch for all, members as alone, bags and slices, refusals by name."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from safetensors.numpy import load_file

from run_folders import read_log
from tiny import tiny_whisper
from tiny_run import write_run
from tiny_text_run import write_text_run
from tutelage.cli.main import main
from tutelage.config import load_recipe
from tutelage.errors import InputError
from tutelage.runs.attempt import Attempt
from tutelage.runs.cache_needs import require_served
from tutelage.runs.distil import distil
from tutelage.runs.tasks import forecast, gather_materials
from tutelage.teachers.target_cache.cached import CachedTeacher

STATES = 1e-3  # relative, of a term's loss: states are rounded to float16 (2^-11), and the student follows
SPARSE = 1e-2  # relative: |ln p| 2^-11, here |ln p| up to 7, and the student follows
ONE_PASS = 1e-4  # relative: members that are stacked have float32 sums in another order, and Adam follows
QUICK = ("evaluation.speed_clips=0", "evaluation.stock_clips=0")
ADAPTED = "layers: 3\n  lora: {rank: 2, targets: [q_proj, v_proj], dropout: 0.3, first_block: 1}\n  budget_share: 0.5"
MEMBERS = """
students: 4
seed: 7
members:
  - {name: low, lora: {rank: 1, use_dora: true}, training: {learning_rate: 3e-3}}
  - {name: bag, seed: 11, bagging: true}
  - {name: plain, objective: [{kind: cross_entropy}]}
"""
CLASSES = "520"  # of the tiny Whisper: top-k of all keeps everything
HARD = "objective=[{kind: cross_entropy}, {kind: kl, weight: 0.8}]"


def cache(recipe: Path, *words: str) -> int:
    return main(["cache", str(recipe), "--out", str(recipe.parent / "kept"), "--quiet", *words])


def run(recipe: Path, out: str, *overrides: str) -> dict[str, Any]:
    quick = QUICK if "task: text" not in recipe.read_text() else ()
    loaded = load_recipe(recipe, [*quick, *overrides])
    document: dict[str, Any] = json.loads(
        distil(gather_materials(loaded), Attempt(recipe.parent / out, "", device="cpu")).read_text()
    )
    return document


def adapter(folder: Path) -> dict[str, bytes]:
    return {name: value.tobytes() for name, value in load_file(folder / "adapter_model.safetensors").items()}


def terms(folder: Path) -> list[dict[str, float]]:
    return [line["terms"] for line in read_log(folder)]


def write(task: str, folder: Path) -> Path:
    """A recipe of four members; speech's students are no copies, so that no aligned layer begins at an angle of 0."""
    if task == "text":
        return write_text_run(
            folder, steps=3, student=ADAPTED, objective="- {kind: kl, temperature: 2.0}", extra=MEMBERS
        )
    student = f"model: {tiny_whisper(folder / 'stranger', seed=9)}\n  layer_map: uniform"
    return write_run(folder, steps=3, student=student, extra=MEMBERS)


@pytest.mark.parametrize("task", ["speech", "text"])
def test_members_are_what_they_are_alone_on_the_same_cache(tmp_path: Path, task: str) -> None:
    recipe = write(task, tmp_path)
    assert cache(recipe) == 0
    document = run(recipe, "run", "teacher.cache=kept")
    assert document["cached_targets"]["kind"] == "hidden"
    assert document["training"]["flops"]["teacher"] == 0
    expected, _ = forecast(gather_materials(load_recipe(recipe, ["teacher.cache=kept"])))
    assert expected.body["cohort"]["expected"]["flops"]["teacher"] == 0
    for seed, name, changed in (
        (7 * 4 + 3, "seed31", ()),
        (7 * 4, "low", ("student.lora.rank=1", "student.lora.use_dora=true", "training.learning_rate=3e-3")),
    ):
        alone = recipe.with_name("alone.yaml")
        alone.write_text(recipe.read_text().replace(MEMBERS, f"seed: {seed}\ndata_seed: 7\n"))
        run(alone, f"alone-{name}", *changed, "teacher.cache=kept")
        member = tmp_path / "run" / "members" / name
        assert adapter(tmp_path / f"alone-{name}" / "adapter") == adapter(member / "adapter"), name
        assert (tmp_path / f"alone-{name}" / "log.jsonl").read_bytes() == (member / "log.jsonl").read_bytes()
    one = recipe.with_name("one.yaml")
    one.write_text(recipe.read_text().replace(MEMBERS, "seed: 7\nmembers: [{name: bag, seed: 11, bagging: true}]\n"))
    run(one, "one", "teacher.cache=kept")
    assert adapter(tmp_path / "one" / "members" / "bag" / "adapter") == adapter(
        tmp_path / "run" / "members" / "bag" / "adapter"
    )


def write_slices(folder: Path) -> None:
    """A column `place` in the training manifest: the first four clips are by the sea."""
    path = folder / "data" / "train.jsonl"
    lines = [json.loads(line) for line in path.read_text().splitlines()]
    changed = [{**line, "place": "sea" if number < 4 else "hills"} for number, line in enumerate(lines)]
    path.write_text("".join(json.dumps(line) + "\n" for line in changed))


@pytest.mark.parametrize(
    ("kind", "words", "objective", "bound"),
    [("hidden", (), (), STATES), ("topk", ("--kind", "topk", "--size", CLASSES), (HARD,), SPARSE)],
)
def test_bags_and_slices_get_their_own_samples_targets(
    tmp_path: Path, kind: str, words: tuple[str, ...], objective: tuple[str, ...], bound: float
) -> None:
    """As the live teacher, which answers for what is in front of it."""
    recipe = write("speech", tmp_path)
    members = "members:\n  - {name: bag, seed: 1, bagging: true}\n  - {name: sea, only: {place: sea}}\n"
    recipe.write_text(recipe.read_text().replace(MEMBERS, members))
    write_slices(tmp_path)
    assert cache(recipe, *words, *(part for word in objective for part in ("--set", word))) == 0
    run(recipe, "live", *objective)
    document = run(recipe, "run", *objective, "teacher.cache=kept")
    assert document["cached_targets"]["kind"] == kind
    assert (
        document["cohort"]["members"][0]["samples"]["distinct"] < document["cohort"]["members"][0]["samples"]["drawn"]
    )
    for name in ("bag", "sea"):
        live, cached = (terms(tmp_path / out / "members" / name) for out in ("live", "run"))
        assert live != cached  # rounded: it was read
        for one, other in zip(live, cached, strict=True):
            assert other == pytest.approx(one, rel=bound)


@pytest.mark.parametrize("task", ["speech", "text"])
def test_the_cache_is_read_once_a_batch_whoever_learns(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, task: str
) -> None:
    recipe = write_text_run(tmp_path, student=ADAPTED) if task == "text" else write_run(tmp_path)
    assert cache(recipe) == 0
    reads: list[tuple[str, ...]] = []
    signal = CachedTeacher.signal

    def noted(self: CachedTeacher, batch: Any) -> Any:
        reads.append(batch.ids)
        return signal(self, batch)

    monkeypatch.setattr(CachedTeacher, "signal", noted)
    counts = []
    for students, steps in ((1, 3), (4, 3), (4, 5)):
        reads.clear()
        run(recipe, f"run{len(counts)}", f"students={students}", f"training.steps={steps}", "teacher.cache=kept")
        counts.append(len(reads))
    assert counts == [counts[0], counts[0], counts[0] + 2]
    assert counts[0] > 3  # preflight checks what is learned from


@pytest.mark.parametrize("task", ["speech", "text"])
def test_the_cache_of_a_cohort_keeps_what_any_member_asks(tmp_path: Path, task: str) -> None:
    """The recipe's own objective asks the teacher for nothing."""
    answers = "{name: answers, objective: [{kind: kl}]}"
    asking = "{name: asks, objective: [{kind: cross_entropy}, {kind: kl}, {kind: mse, weight: 0.1}]}"
    recipe = write(task, tmp_path)
    recipe.write_text(recipe.read_text().replace(MEMBERS, f"members: [{{name: silent}}, {answers}, {asking}]\n"))
    plain = "objective=[{kind: cross_entropy}]"
    assert cache(recipe, "--set", plain) == 0
    run(recipe, "live", plain)
    document = run(recipe, "run", plain, "teacher.cache=kept")
    assert document["cached_targets"]["layers"]
    live, cached = (terms(tmp_path / out / "members" / "asks") for out in ("live", "run"))
    for one, other in zip(live, cached, strict=True):
        assert other == pytest.approx(one, rel=STATES)


@pytest.mark.parametrize("task", ["speech", "text"])
def test_members_that_ask_for_more_than_is_kept_are_named_before_a_model_is_found(tmp_path: Path, task: str) -> None:
    recipe = write(task, tmp_path)
    states = "{name: states, objective: [{kind: kl}, {kind: angle}]}"
    soft = "{name: soft, objective: [{kind: kl, temperature: 4.0}]}"
    whole = "{name: whole, objective: [{kind: reverse_kl}]}"
    recipe.write_text(recipe.read_text().replace(MEMBERS, f"members: [{{name: fine}}, {states}, {soft}, {whole}]\n"))
    own = (HARD, "members=[{name: fine}, {name: other}]")
    assert cache(recipe, "--kind", "topk", "--size", "5", *(part for word in own for part in ("--set", word))) == 0
    with pytest.raises(InputError) as refused:
        gather_materials(load_recipe(recipe, [HARD, "teacher.cache=kept", "teacher.model=nowhere"]))
    assert [line.split(",")[0] for line in refused.value.faults] == [
        "Member soft: Term kl has temperature 4",
        "Member whole: Term reverse_kl compares the teacher's whole distribution",
    ]
    with pytest.raises(InputError) as refused:
        gather_materials(
            load_recipe(recipe, [HARD, f"members=[{states}]", "teacher.cache=kept", "teacher.model=nowhere"])
        )
    assert "Member states: Term angle compares states, and teacher.cache" in str(refused.value)
    with pytest.raises(InputError, match="Member soft: Term kl has temperature 4, and systematic"):
        require_served(load_recipe(recipe, [HARD]), "systematic")  # what a build asks


def test_a_member_that_compares_other_blocks_is_named(tmp_path: Path) -> None:
    recipe = write_text_run(tmp_path, student=ADAPTED, objective="- {kind: mse}", extra="students: 2\n")
    assert cache(recipe) == 0
    with pytest.raises(InputError, match=r"tiny-text-seed0: teacher\.cache keeps the states of blocks"):
        run(recipe, "run", "teacher.cache=kept", "student.layer_map=[[1, 1], [2, 2], [3, 4]]")
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("kind", [("hidden",), ("systematic", "--size", "7")], ids=str)
def test_members_that_step_in_one_pass_read_the_same_targets(tmp_path: Path, kind: tuple[str, ...]) -> None:
    plain = ADAPTED.replace("dropout: 0.3, ", "")
    recipe = write_text_run(tmp_path, student=plain, objective="- {kind: kl}", extra="students: 3\n")
    assert cache(recipe, "--kind", *kind) == 0
    for way in ("in_turn", "stacked"):
        run(recipe, way, "teacher.cache=kept", f"members_step={way}")
    for name in ("seed0", "seed1", "seed2"):
        turns, stacked = (terms(tmp_path / way / "members" / name) for way in ("in_turn", "stacked"))
        for one, other in zip(turns, stacked, strict=True):
            assert other == pytest.approx(one, rel=ONE_PASS)
