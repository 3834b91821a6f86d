"""Runs whose teacher is a committee, is adapted first, or differs from its student: from recipe to result."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch

from tiny import tiny_whisper
from tiny_run import write_run
from tiny_text import WIDTH, tiny_config, tiny_text, tiny_tokenizer
from tiny_text_run import write_text_run
from tutelage.config import dump_recipe, load_recipe
from tutelage.errors import InputError
from tutelage.models.load import count_params
from tutelage.runs.attempt import Attempt
from tutelage.runs.distil import distil
from tutelage.runs.tasks import forecast, gather_materials
from tutelage.runs.teacher_folders import answer_sha256, describe_average
from tutelage.runs.text.assembly import load_outline

SAME = 1e-6  # float32 sums in another order
NEAR = 0.03  # nats: what bfloat16 weights of a tiny teacher move its loss by, at most
MEMBERS = "[{name: plain, model: plain}, {name: large, model: large}]"
WHISPER = ("student.model=plain", "student.layer_map=uniform", "evaluation.speed_clips=1", "evaluation.stock_clips=1")
LORA = "layers: null\n  lora: {rank: 2, targets: [q_proj, v_proj]}\n  budget_share: 0.5"


@pytest.fixture(autouse=True)
def own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TUTELAGE_CACHE", str(tmp_path / "cache"))


def run(recipe: Path, out: str, *overrides: str, said: list[str] | None = None) -> dict[str, Any]:
    loaded = load_recipe(recipe, overrides)
    talk = [] if said is None else said
    attempt = Attempt(recipe.parent / out, dump_recipe(loaded), device="cpu", talk=talk.append)
    found: dict[str, Any] = json.loads(distil(gather_materials(loaded), attempt).read_text(encoding="utf-8"))
    return found


def rows(result: dict[str, Any]) -> dict[str, dict[str, Any]]:
    return {row["name"]: row for row in result["systems"]}


def loss(row: dict[str, Any]) -> float:
    return float(row["metrics"]["nats_per_token"]["value"])


def padded_text(folder: Path, rows_behind: int, seed: int, layout: str = "llama") -> Path:
    """A tiny language model with rows of padding behind its tokens."""
    from transformers import AutoModelForCausalLM

    config = tiny_config(layout)
    config.vocab_size += rows_behind
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        AutoModelForCausalLM.from_config(config).save_pretrained(folder)
    tiny_tokenizer().save_pretrained(folder)
    return folder


def committee(space: str = "probability-average", states_from: str = "large", members: str = MEMBERS) -> list[str]:
    settings = ("teacher.model=null", f"teacher.members={members}", f"teacher.space={space}")
    return [*settings, f"teacher.states_from={states_from}"]


@pytest.fixture(scope="module")
def speech(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A recipe for speech beside a plain model and one as large-v3 is to it: a language and 48 mel bins more."""
    folder = tmp_path_factory.mktemp("speech")
    tiny_whisper(folder / "plain", seed=1)
    tiny_whisper(folder / "large", seed=2, d_model=48, mel_bins=128, extra_languages=1)
    return write_run(folder, steps=2)


@pytest.mark.slow
def test_a_committee_of_different_whispers_is_taught_judged_counted_and_named(speech: Path) -> None:
    said: list[str] = []
    result = run(speech, "committee", *committee(), *WHISPER, said=said)
    found = rows(result)
    names = [
        "member large",
        "member plain",
        "teacher, committee of 2 (probability-average, uniform weights)",
        "student, before",
        "student, distilled",
    ]
    assert list(found) == names
    for row in found.values():
        assert row["metrics"]["wer"]["value"] is not None
        assert row["metrics"]["nats_per_token"]["low"] < loss(row)
    large, plain, both = (loss(found[name]) for name in names[:3])
    assert both < max(large, plain)  # an average of probabilities is never worse than its worst member
    assert found[names[2]]["params"] == found[names[0]]["params"] + found[names[1]]["params"]
    teachers = result["teachers"]
    assert (teachers["space"], teachers["weights"], teachers["states_from"]) == (
        "probability-average",
        "uniform",
        "large",
    )
    by_name = {member["name"]: member for member in teachers["members"]}
    assert by_name["large"]["own_encoder"]
    assert not by_name["plain"]["own_encoder"]
    assert by_name["large"]["vocabulary"] == {"student": 520, "teacher": 521, "shared": 520, "other_id": 207}
    assert result["trainable"]["teacher_params"] == max(member["params"] for member in teachers["members"])
    assert result["law"]["N_T"] is None
    assert result["law"]["L_T"] == pytest.approx(both)
    assert sum("found in the cache" in line for line in said) == 2  # one pass an encoder
    assert any("large: an encoder of its own (128 mel bins" in line for line in said)
    card = (speech.parent / "committee" / "README.md").read_text(encoding="utf-8")
    assert "a committee (probability-average, uniform weights) of `" in card


@pytest.mark.slow
def test_the_flops_of_every_member_and_every_encoder_are_counted(speech: Path) -> None:
    costs = {}
    for name, overrides in (
        ("plain", ["teacher.model=plain"]),
        ("large", ["teacher.model=large"]),
        ("both", committee()),
    ):
        materials = gather_materials(load_recipe(speech, [*overrides, *WHISPER]))
        document, text = forecast(materials)
        body = document.to_dict()
        costs[name] = body["expected"]["flops"]
        assert ("521 classes" in text) == (name != "plain")
        assert [one["name"] for one in body["teachers"]] == (["large", "plain"] if name == "both" else ["teacher"])
    assert costs["both"]["teacher"] == pytest.approx(costs["plain"]["teacher"] + costs["large"]["teacher"], rel=SAME)
    assert costs["both"]["encoder"] == pytest.approx(costs["large"]["encoder"], rel=SAME)
    assert costs["large"]["encoder"] > 2 * costs["plain"]["encoder"]  # it is wider
    assert costs["both"]["student"] == pytest.approx(costs["large"]["student"], rel=SAME)


@pytest.mark.slow
def test_one_larger_teacher_with_another_encoder_and_a_language_more_teaches(speech: Path) -> None:
    result = run(speech, "large", "teacher.model=large", *WHISPER)
    (member,) = result["teachers"]["members"]
    assert member["own_encoder"]
    assert member["vocabulary"]["other_id"] == 207
    assert list(rows(result)) == [
        "teacher, 4 s window",
        "teacher, 2 s window",
        "student, before",
        "student, distilled",
    ]
    assert result["speed"]["share_of_stock_time"]["both"]["value"] > 0
    assert result["law"]["N_T"] is not None


def test_members_of_one_encoder_share_one_pass_and_the_student_may_be_a_copy_of_one(speech: Path) -> None:
    folder = speech.parent
    if not (folder / "tuned").exists():
        shutil.copytree(folder / "plain", folder / "tuned")
    members = "[{name: a, model: plain, weight: 3}, {name: b, model: tuned, weight: 1}]"
    said: list[str] = []
    overrides = ["evaluation.speed_clips=0", "training.steps=1"]
    result = run(speech, "copy", *committee("logit-average", "b", members), *overrides, said=said)
    assert sum("found in the cache" in line for line in said) == 1
    assert result["teachers"]["weights"] == {"a": 3.0, "b": 1.0}
    found = rows(result)
    # Identical members: the average is each of them.
    one, both = loss(found["member b"]), loss(found["teacher, committee of 2 (logit-average, given weights)"])
    assert both == pytest.approx(one, rel=1e-5)
    assert result["layer_map"] == [
        {"student": 1, "teacher": 1, "side": "decoder"},
        {"student": 2, "teacher": 4, "side": "decoder"},
    ]
    assert Path(result["student"]["started_from"]["reference"]).name == "tuned"


def test_a_text_committee_with_padding_is_averaged_over_the_shared_classes(tmp_path: Path) -> None:
    recipe = write_text_run(tmp_path, steps=2, student="model: qwen")
    padded_text(tmp_path / "padded", 20, seed=1)
    padded_text(tmp_path / "qwen", 0, seed=2, layout="qwen3")
    members = "[{name: padded, model: padded}, {name: qwen, model: qwen}]"
    teacher = [*committee(states_from="padded", members=members), "teacher.weights=entropy"]
    terms = "objective=[{kind: cross_entropy}, {kind: kl}, {kind: angle, weight: 0.1}]"
    result = run(recipe, "run", *teacher, terms)
    found = rows(result)
    names = ["teacher, committee of 2 (probability-average, entropy weights)", "member padded", "member qwen"]
    assert list(found) == [*names, "student, before", "student, distilled"]
    both, padded, qwen = (loss(found[name]) for name in names)
    assert both < max(padded, qwen)
    by_name = {one["name"]: one for one in result["teachers"]["members"]}
    assert by_name["padded"]["vocabulary"] == {"student": 300, "teacher": 320, "shared": 300, "other_id": 0}
    assert result["law"]["N_T"] is None
    assert result["trainable"]["teacher_params"] == by_name["padded"]["params"]
    costs = [
        forecast(gather_materials(load_recipe(recipe, [*one, terms])))[0].to_dict()["expected"]["flops"]["teacher"]
        for one in (teacher, ["teacher.model=padded"], ["teacher.model=qwen"])
    ]
    assert costs[0] == pytest.approx(costs[1] + costs[2], rel=SAME)


def test_a_padded_teacher_that_puts_its_mass_on_padding_teaches_the_same(tmp_path: Path) -> None:
    """The loss on the shared vocabulary does not see rows that no token has."""
    from safetensors.torch import load_file, save_file

    recipe = write_text_run(tmp_path, steps=1, student="model: small")
    padded_text(tmp_path / "small", 0, seed=2)
    padded_text(tmp_path / "padded", 20, seed=1)
    shutil.copytree(tmp_path / "padded", tmp_path / "plain")
    for name, kept in (("padded", 320), ("plain", 300)):
        file = tmp_path / name / "model.safetensors"
        weights = load_file(file)
        embedding = weights["model.embed_tokens.weight"]
        if name == "padded":
            embedding[300:] = 3.0  # logits of up to 3 * WIDTH
            assert embedding.shape == (320, WIDTH)
        weights["model.embed_tokens.weight"] = embedding[:kept].contiguous()
        save_file(weights, file, metadata={"format": "pt"})
        config = json.loads((tmp_path / name / "config.json").read_text(encoding="utf-8"))
        (tmp_path / name / "config.json").write_text(json.dumps({**config, "vocab_size": kept}), encoding="utf-8")
    padded, plain = (run(recipe, f"run-{name}", f"teacher.model={name}") for name in ("padded", "plain"))
    for one, other in zip(padded["systems"], plain["systems"], strict=True):
        assert loss(one) == pytest.approx(loss(other), rel=1e-5)
    terms = [one["training"]["last_step"]["terms"]["kl"] for one in (padded, plain)]
    assert terms[0] == pytest.approx(terms[1], rel=1e-5)


@pytest.mark.parametrize("task", ["text", "speech"])
def test_a_teacher_is_adapted_by_a_student_of_the_same_size_and_then_teaches(task: str, tmp_path: Path) -> None:
    """The pair of recipes: the whole model with LoRA on cross-entropy alone, then a student of it with its adapter."""
    if task == "text":
        recipe = write_text_run(tmp_path, steps=3, objective="")
        small = ["student.layers=2", "objective=[{kind: cross_entropy}, {kind: kl}]"]
        whole = ["student.layers=null", "student.lora={rank: 2, targets: [q_proj, v_proj]}", "student.budget_share=0.5"]
    else:
        recipe = write_run(tmp_path, steps=3)
        small = ["evaluation.speed_clips=0"]
        whole = ["student.decoder_layers=null", "objective=[{kind: cross_entropy}]", "evaluation.speed_clips=0"]
    adapted = run(recipe, "adapted", *whole)
    assert adapted["student"]["share_of_teacher_params"] == pytest.approx(1.0, abs=0.1)  # the window may be shorter
    taught = run(recipe, "taught", *small, "teacher.adapter=adapted/adapter")
    teacher = "teacher" if task == "text" else "teacher, 2 s window"
    assert loss(rows(taught)[teacher]) == pytest.approx(loss(rows(adapted)["student, trained"]), rel=1e-4)
    assert abs(loss(rows(taught)[teacher]) - loss(rows(adapted)[teacher])) > 1e-3
    (member,) = taught["teachers"]["members"]
    assert set(member["adapter"]["sha256"]) == {"adapter_config.json", "adapter_model.safetensors"}
    # What is left of the student is not an adapter of the stock model, and says so.
    if task == "speech":
        base = json.loads((tmp_path / "taught" / "adapter" / "base.json").read_text(encoding="utf-8"))
        assert base["adapter"] == str(tmp_path / "adapted" / "adapter")
        with pytest.raises(InputError, match="another adapter"):
            gather_materials(load_recipe(recipe, ["teacher.adapter=taught/adapter"]))


def identity(recipe: Path, *overrides: str) -> dict[str, Any]:
    return gather_materials(load_recipe(recipe, overrides)).identity


def test_what_identifies_a_run(tmp_path: Path) -> None:
    recipe = write_text_run(tmp_path)
    for name, seed in (("a", 1), ("b", 2)):
        tiny_text(tmp_path / name, seed=seed)
    shutil.copytree(tmp_path / "a", tmp_path / "c")
    plain = identity(recipe)
    assert set(plain["teacher"]) == {"model", "revision"}  # as before there was more to say
    assert identity(recipe, "teacher.device=cpu") == plain
    assert identity(recipe, "teacher.dtype=bfloat16") != plain

    def of(members: str, *more: str) -> dict[str, Any]:
        return identity(recipe, "teacher.model=null", f"teacher.members={members}", *more)

    both = of("[{name: x, model: a}, {name: y, model: b}]")
    assert of("[{name: x, model: c}, {name: y, model: b}]") == both  # the same weights in another folder
    assert of("[{name: x, model: b}, {name: y, model: b}]") != both
    assert of("[{name: x, model: a}, {name: y, model: b}]", "teacher.space=logit-average") != both
    assert of("[{name: x, model: a, weight: 2}, {name: y, model: b, weight: 1}]") != both

    def answers(*overrides: str) -> str:
        materials = gather_materials(load_recipe(recipe, overrides))
        who = materials.recipe.teacher, materials.teachers
        return json.dumps([answer_sha256(*who), describe_average(*who)])

    caches = [
        answers("teacher.model=a"),
        answers("teacher.model=b"),
        answers("teacher.model=a", "teacher.dtype=bfloat16"),
    ]
    for more in ([], ["teacher.weights=entropy"], ["teacher.space=logit-average"]):
        caches.append(
            answers("teacher.model=null", "teacher.members=[{name: x, model: a}, {name: y, model: b}]", *more)
        )
    assert len(set(caches)) == len(caches)
    assert answers("teacher.model=c") == caches[0]


def test_a_committee_can_be_cached_as_the_likeliest_tokens_of_its_average(tmp_path: Path) -> None:
    from tutelage.runs.text.caching import build_text_cache, plan_text_cache
    from tutelage.teachers.target_cache.contents import CacheSettings

    recipe = write_text_run(tmp_path, steps=2, objective="- {kind: kl, weight: 1.0}")
    for name, seed in (("a", 1), ("b", 2)):
        tiny_text(tmp_path / name, seed=seed)
    overrides = ["teacher.model=null", "teacher.members=[{name: a, model: a}, {name: b, model: b}]"]
    materials = gather_materials(load_recipe(recipe, overrides))
    attempt = Attempt(tmp_path / "cache-of-two", "", device="cpu")
    plan = plan_text_cache(materials, CacheSettings("topk", 300), attempt)
    build_text_cache(plan, attempt)
    live = run(recipe, "live", *overrides)
    cached = run(recipe, "cached", *overrides, "teacher.cache=cache-of-two")
    terms = [one["training"]["last_step"]["terms"]["kl"] for one in (live, cached)]
    assert terms[0] == pytest.approx(terms[1], rel=1e-3)
    assert terms[0] > 0.01
    with pytest.raises(
        InputError, match=r"averages \(space\) is probability-aver.* in the cache and logit-average here"
    ):
        run(recipe, "other", *overrides, "teacher.space=logit-average", "teacher.cache=cache-of-two")


def test_a_cache_is_refused_where_classes_differ(tmp_path: Path) -> None:
    from tutelage.runs.text.caching import build_text_cache, plan_text_cache
    from tutelage.teachers.target_cache.contents import CacheSettings

    recipe = write_text_run(tmp_path, steps=2, student="model: small")
    tiny_text(tmp_path / "small", seed=2)
    padded_text(tmp_path / "padded", 20, seed=1)
    materials = gather_materials(load_recipe(recipe, ["teacher.model=padded"]))
    attempt = Attempt(tmp_path / "kept", "", device="cpu")
    build_text_cache(plan_text_cache(materials, CacheSettings("hidden"), attempt), attempt)
    with pytest.raises(InputError, match=r"300 classes shared by token .*: a cache holds the teacher's own classes"):
        run(recipe, "run", "teacher.model=padded", "teacher.cache=kept")


def test_a_teacher_in_bfloat16_leaves_its_student_exact(tmp_path: Path) -> None:
    recipe = write_text_run(tmp_path, steps=2)
    exact, half = run(recipe, "exact"), run(recipe, "half", "teacher.dtype=bfloat16", "teacher.device=cpu")
    teacher = [loss(rows(one)["teacher"]) for one in (exact, half)]
    assert 0 < abs(teacher[0] - teacher[1]) < NEAR
    before = [loss(rows(one)["student, before"]) for one in (exact, half)]
    assert before[0] == before[1]  # the copy is of the float32 weights
    loaded = gather_materials(load_recipe(recipe, ["teacher.dtype=bfloat16"]))
    outline = load_outline(loaded, tiny_tokenizer())
    assert next(outline.teacher.model.parameters()).dtype == torch.bfloat16
    assert next(outline.student.model.parameters()).dtype == torch.float32


@pytest.mark.parametrize(
    ("overrides", "faults"),
    [
        (
            [
                "teacher.members=[{name: a, model: nowhere}, {name: b, model: good, adapter: none}]",
                "teacher.model=null",
            ],
            ["Member a: The model ", "Member b: There is no folder "],
        ),
        (
            ["teacher.members=[{name: a, model: good}, {name: b, model: other}]", "teacher.model=null"],
            ["member b has another tokenizer than the student"],
        ),
        (["teacher.device=nonsense"], ["teacher.device is 'nonsense'"]),
        (["teacher.dtype=float16"], ["float16"]),
    ],
)
def test_faults_of_every_member_are_told_at_once(tmp_path: Path, overrides: list[str], faults: list[str]) -> None:
    recipe = write_text_run(tmp_path, student="model: good")
    tiny_text(tmp_path / "good")
    tiny_text(tmp_path / "other")
    document = json.loads((tmp_path / "other" / "tokenizer.json").read_text(encoding="utf-8"))
    vocabulary = document["model"]["vocab"]
    vocabulary["a"], vocabulary["o"] = vocabulary["o"], vocabulary["a"]
    (tmp_path / "other" / "tokenizer.json").write_text(json.dumps(document), encoding="utf-8")
    if "other" in overrides[0]:
        padded = padded_text(tmp_path / "padded", 20, seed=1)
        shutil.copy(padded / "model.safetensors", tmp_path / "other")
        shutil.copy(padded / "config.json", tmp_path / "other")
    with pytest.raises(InputError) as caught:
        run(recipe, "run", *overrides)
    for fault in faults:
        assert fault in str(caught.value)
    assert not (tmp_path / "run").exists()


def test_the_largest_member_is_what_a_budget_is_a_share_of(tmp_path: Path) -> None:
    recipe = write_text_run(tmp_path, student=LORA)
    tiny_text(tmp_path / "a", blocks=4)
    tiny_text(tmp_path / "b", blocks=6)
    members = "teacher.members=[{name: a, model: a}, {name: b, model: b}]"
    outline = load_outline(gather_materials(load_recipe(recipe, ["teacher.model=null", members])), tiny_tokenizer())
    assert outline.budget is not None
    assert outline.budget.teacher_params == count_params(outline.teachers["b"].model)
    assert outline.budget.teacher_params > count_params(outline.teachers["a"].model)
    assert outline.teacher is outline.teachers["a"]
