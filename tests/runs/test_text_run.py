"""Runs on text from recipe to result, in this process: every layout, resuming, refusals, what is kept."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors import safe_open

from run_folders import read_log
from tiny_text import CHAT, LAYOUTS, shared_tiny_text, tiny_text, tiny_tokenizer
from tiny_text_run import write_text_run
from tutelage.config import dump_recipe, load_recipe
from tutelage.errors import InputError, InterruptedRunError, PreflightError
from tutelage.records.ledger import Ledger
from tutelage.runs.attempt import Attempt
from tutelage.runs.distil import distil
from tutelage.runs.systems import Systems
from tutelage.runs.tasks import forecast, gather_materials
from tutelage.runs.text.evaluate import TextExamination, evaluate_text
from tutelage.tasks.text.forward import attention_bias
from tutelage.training.step import Stepper

ADAPTED = "layers: 2\n  lora: {rank: 2, targets: [q_proj, v_proj]}\n  budget_share: 0.5"
ZERO = 1e-6  # nats, of a divergence at equality
SAME = 1e-9  # the same sums, written to JSON and read back
CONTINUE = """
import sys
sys.modules["tutelage"] = None
from transformers import AutoModelForCausalLM, AutoTokenizer
model, told = AutoModelForCausalLM.from_pretrained(sys.argv[1], output_loading_info=True)
assert not any(told[kind] for kind in ("missing_keys", "unexpected_keys", "mismatched_keys")), told
tokenizer = AutoTokenizer.from_pretrained(sys.argv[1])
inputs = tokenizer("<|endoftext|>the dog", return_tensors="pt", return_token_type_ids=False)
print(tokenizer.decode(model.generate(**inputs, max_new_tokens=4, do_sample=False)[0]))
assert tokenizer.apply_chat_template([{"role": "user", "content": "x"}], tokenize=False)
"""


def run(recipe: Path, out: str = "run", **settings: Any) -> dict[str, Any]:
    loaded = load_recipe(recipe)
    attempt = Attempt(recipe.parent / out, dump_recipe(loaded), device="cpu", **settings)
    document: dict[str, Any] = json.loads(distil(gather_materials(loaded), attempt).read_text(encoding="utf-8"))
    return document


def first_step(folder: Path) -> dict[str, Any]:
    return read_log(folder)[0]


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, Any]]:
    folder = tmp_path_factory.mktemp("finished")
    recipe = write_text_run(folder, steps=4, student=ADAPTED)
    return folder, run(recipe, ledger=folder / "ledger.db")


def test_a_result_has_every_system_with_its_intervals(finished: tuple[Path, dict[str, Any]]) -> None:
    _, result = finished
    assert [row["name"] for row in result["systems"]] == ["teacher", "student, before", "student, distilled"]
    for row in result["systems"]:
        metrics = row["metrics"]
        assert metrics["nats_per_token"]["low"] < metrics["nats_per_token"]["value"] < metrics["nats_per_token"]["high"]
        nats = metrics["nats_per_token"]["value"] * row["tokens"]
        assert metrics["bits_per_byte"]["value"] == pytest.approx(nats / 0.6931471805599453 / row["bytes"], rel=SAME)
    assert [row["baseline_name"] for row in result["comparisons"]] == ["teacher", "student, before"]
    assert result["trainable"]["share"] < 0.5
    assert result["samples"][0]["student"]
    assert result["data"]["held_out"]["isolated"]


def test_the_ledger_has_what_a_law_needs(finished: tuple[Path, dict[str, Any]]) -> None:
    folder, result = finished
    (row,) = Ledger(folder / "ledger.db").runs()
    assert row.task == "text"
    student = result["systems"][-1]["metrics"]["nats_per_token"]["value"]
    teacher = result["systems"][0]["metrics"]["nats_per_token"]["value"]
    assert student == row.law.L_S
    assert teacher == row.law.L_T
    assert result["training"]["supervised_tokens"] == row.law.D_S
    assert row.law.N_T is not None
    assert row.law.N_S is not None
    assert row.law.N_S < row.law.N_T
    logged = [line["positions"] for line in read_log(folder / "run")]
    assert sum(logged) == row.law.D_S
    assert "student.nats_per_token" in row.scores


def test_lines_by_document_add_up_to_the_rows(finished: tuple[Path, dict[str, Any]]) -> None:
    folder, result = finished
    lines = [json.loads(line) for line in (folder / "run" / "documents.jsonl").read_text().splitlines()]
    for row in result["systems"]:
        mine = [line for line in lines if line["system"] == row["name"]]
        loss = sum(line["nats"] for line in mine) / sum(line["tokens"] for line in mine)
        assert loss == pytest.approx(row["metrics"]["nats_per_token"]["value"], rel=SAME)


def test_nothing_of_the_teacher_or_of_training_is_in_a_saved_file(finished: tuple[Path, dict[str, Any]]) -> None:
    folder, _ = finished
    trained = set()
    for file in (folder / "run").rglob("*.safetensors"):
        with safe_open(file, "pt") as weights:
            names = set(weights.keys())
        assert not any("teacher" in name for name in names)
        if file.parent.name == "student":
            assert not any(part in name for name in names for part in ("lora_", "projector", "base_layer"))
        if file.name == "weights.safetensors":
            trained = names
    assert trained
    assert all("lora_" in name for name in trained)
    texts = [file.read_text() for file in (folder / "run" / "student").glob("*.json")]
    assert not any(str(folder) in text or str(shared_tiny_text()) in text for text in texts)


@pytest.mark.slow
def test_a_process_that_imports_transformers_alone_continues_a_text(finished: tuple[Path, dict[str, Any]]) -> None:
    folder, _ = finished
    command = [sys.executable, "-c", CONTINUE, str(folder / "run" / "student")]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    assert "the dog" in done.stdout


def examination(models: tuple[str, ...], documents: Path) -> TextExamination:
    return TextExamination(
        systems=Systems.of(*models), documents=documents, length=24, device="cpu", batch_size=4, speed_items=0
    )


def test_evaluate_finds_the_loss_of_the_run(finished: tuple[Path, dict[str, Any]]) -> None:
    folder, result = finished
    models = (str(shared_tiny_text()), str(folder / "run" / "student"))
    body = evaluate_text(examination(models, folder / "held_out.jsonl")).body
    assert body["comparisons"][0]["metric"] == "nats_per_token"
    for found, row in zip(body["models"], (result["systems"][0], result["systems"][-1]), strict=True):
        here = found["metrics"]["nats_per_token"]["value"]
        assert here == pytest.approx(row["metrics"]["nats_per_token"]["value"], rel=1e-5)  # merged weights, float32


def test_models_of_two_tokenizers_are_compared_in_bits_per_byte(tmp_path: Path) -> None:
    write_text_run(tmp_path)
    other = tiny_text(tmp_path / "other")
    settings = json.loads((other / "tokenizer.json").read_text(encoding="utf-8"))
    settings["model"]["merges"] = settings["model"]["merges"][:10]
    (other / "tokenizer.json").write_text(json.dumps(settings), encoding="utf-8")
    models = (str(shared_tiny_text()), str(other))
    body = evaluate_text(examination(models, tmp_path / "held_out.jsonl")).body
    assert body["comparisons"][0]["metric"] == "bits_per_byte"
    assert body["models"][0]["tokens"] < body["models"][1]["tokens"]
    assert body["models"][0]["bytes"] == body["models"][1]["bytes"]


@pytest.mark.slow
@pytest.mark.parametrize("layout", [layout for layout in LAYOUTS if layout != "llama"])
def test_every_layout_runs(tmp_path: Path, layout: str) -> None:
    result = run(write_text_run(tmp_path, layout=layout, objective="- {kind: kl}\n  - {kind: angle}"))
    assert result["systems"][-1]["metrics"]["nats_per_token"]["value"] > 0
    assert result["trainable"]["params"] == result["student"]["params"] + result["trainable"]["projector_params"]


def test_a_student_that_is_its_teacher_has_nothing_to_learn_from_it(tmp_path: Path) -> None:
    result = run(write_text_run(tmp_path, student="layers: null", objective="- {kind: kl, temperature: 2.0}"))
    assert abs(first_step(tmp_path / "run")["terms"]["kl"]) < ZERO
    before, teacher = result["systems"][1]["metrics"], result["systems"][0]["metrics"]
    assert before["agreement"]["value"] == 1
    assert before["nats_per_token"]["value"] == teacher["nats_per_token"]["value"]


def test_a_model_of_random_weights_learns_alone(tmp_path: Path) -> None:
    shape = tiny_text(tmp_path / "shape", weights=False)
    student = f"config: {shape}"
    recipe = write_text_run(
        tmp_path, steps=12, student=student, objective="", teacher=False, data=f"tokenizer: {shape}\n  packing: stream"
    )
    result = run(recipe)
    assert [row["name"] for row in result["systems"]] == ["student, before", "student, trained"]
    assert result["comparisons"][0]["difference"]["high"] < 0
    assert (result["teacher"], result["law"]["N_T"], result["law"]["L_T"]) == (None, None, None)
    assert not (tmp_path / "run" / "adapter").exists()


def test_a_baseline_beside_a_teacher_is_compared_with_it_and_did_not_learn_from_it(tmp_path: Path) -> None:
    result = run(write_text_run(tmp_path, objective=""))
    assert result["systems"][-1]["metrics"]["agreement"]["value"] is not None
    assert (result["law"]["N_T"], result["law"]["L_T"]) == (None, None)
    assert result["training"]["flops"]["teacher"] == 0


@pytest.mark.slow
def test_an_interrupted_run_resumes_to_the_same_numbers(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    recipe = write_text_run(tmp_path, steps=6, student=ADAPTED.replace("rank: 2", "rank: 2, dropout: 0.2"))
    straight = run(recipe, "straight")
    take = Stepper.take

    def stop_at_three(self: Any, step: int, *rest: Any) -> Any:
        if step == 3:
            os.kill(os.getpid(), signal.SIGINT)
        return take(self, step, *rest)

    with monkeypatch.context() as patch:
        patch.setattr(Stepper, "take", stop_at_three)
        with pytest.raises(InterruptedRunError, match="Stopped after step 3 of 6"):
            run(recipe, "stopped")
    resumed = run(recipe, "stopped", resume=True)
    assert resumed["systems"] == straight["systems"]
    for name in ("student/model.safetensors", "documents.jsonl"):
        assert (tmp_path / "stopped" / name).read_bytes() == (tmp_path / "straight" / name).read_bytes()


def test_documents_that_are_not_kept_apart_are_refused_before_training(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(
        "tutelage.tasks.text.forward.attention_bias",
        lambda pieces_BT, dtype: attention_bias(torch.ones_like(pieces_BT), dtype),
    )
    recipe = write_text_run(tmp_path)  # its first rows hold one document each
    with pytest.raises(PreflightError, match="positions attend across documents"):
        run(recipe)
    assert not (tmp_path / "run").exists()


def test_another_tokenizer_is_refused_by_the_tokens_that_differ(tmp_path: Path) -> None:
    other = tiny_text(tmp_path / "other")
    tokenizer = tiny_tokenizer()
    settings = json.loads(tokenizer.backend_tokenizer.to_str())
    vocabulary = settings["model"]["vocab"]
    vocabulary["a"], vocabulary["b"] = vocabulary["b"], vocabulary["a"]
    file = other / "tokenizer.json"
    file.write_text(json.dumps(settings), encoding="utf-8")
    with pytest.raises(PreflightError, match="token ids that the tokenizers disagree on"):
        run(write_text_run(tmp_path, student=f"model: {other}"))


def test_conversations_must_fit_their_rows(tmp_path: Path) -> None:
    recipe = write_text_run(tmp_path)
    turns = [{"role": "user", "content": "who?"}, {"role": "assistant", "content": "the dog runs " * 20}]
    short = [turns[0], {"role": "assistant", "content": "me"}]
    lines = [{"id": "long", "messages": turns}, {"id": "short", "messages": short}]
    (tmp_path / "train.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    recipe.write_text(recipe.read_text().replace("length: 24", "length: 40"))
    with pytest.raises(
        InputError, match=r"1 conversations of data\.train are longer than data\.length 40, such as long"
    ):
        run(recipe)
    recipe.write_text(recipe.read_text().replace("length: 40", "length: 40\n  overlong: drop"))
    assert run(recipe)["data"]["train"]["dropped"] == ["long"]
    recipe.write_text(recipe.read_text().replace("length: 40", "length: 40\n  packing: stream"))
    with pytest.raises(InputError, match="choose packing: documents"):
        run(recipe, "stream")


def test_a_smaller_model_learns_conversations_written_by_a_template_of_the_recipe(tmp_path: Path) -> None:
    bare, smaller = (
        tiny_text(tmp_path / "bare", chat=None),
        tiny_text(tmp_path / "smaller", "qwen2", width=16, chat=None),
    )
    (tmp_path / "chat.jinja").write_text(CHAT, encoding="utf-8")
    recipe = write_text_run(
        tmp_path,
        student=f"model: {smaller}\n  layers: 2\n  keep: first\n  layer_map: uniform",
        objective="- {kind: kl}\n  - {kind: cosine}",
        data="chat_template: chat.jinja",
    )
    recipe.write_text(recipe.read_text().replace(f"model: {shared_tiny_text()}", f"model: {bare}"))
    for part, names in (("train", "abc"), ("held_out", "de")):
        turns = [[{"role": "user", "content": name}, {"role": "assistant", "content": f"{name} dog"}] for name in names]
        lines = "".join(
            json.dumps({"id": name, "messages": turn}) + "\n" for name, turn in zip(names, turns, strict=True)
        )
        (tmp_path / f"{part}.jsonl").write_text(lines, encoding="utf-8")
    result = run(recipe)
    assert result["data"]["train"]["conversations"] == 3
    assert result["data"]["train"]["supervised"] < result["data"]["train"]["tokens"]
    assert result["student"]["layers"] == [0, 1]
    assert [(pair["student"], pair["teacher"]) for pair in result["layer_map"]] == [(1, 2), (2, 4)]
    assert {*result["alignment"]} == {"1-2", "2-4"}
    exported = tmp_path / "run" / "student"
    assert json.loads((exported / "tokenizer_config.json").read_text())["chat_template"] == CHAT
    assert json.loads((exported / "config.json").read_text())["model_type"] == "qwen2"


def test_a_dry_run_counts_what_the_run_does(tmp_path: Path) -> None:
    recipe = write_text_run(tmp_path, student=ADAPTED)
    document, human = forecast(gather_materials(load_recipe(recipe)))
    result = run(recipe)
    assert document.body["expected"]["supervised_tokens"] == result["training"]["supervised_tokens"]
    assert document.body["expected"]["flops"] == result["training"]["flops"]
    assert document.body["trained_params"] == result["trainable"]["params"]
    assert "no position attends across documents" in human
