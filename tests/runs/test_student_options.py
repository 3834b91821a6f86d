"""Runs with each way of adapting and of cutting a student: resumed, exported, counted; layers chosen by their loss."""

from __future__ import annotations

import json
import os
import signal
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from tiny import shared_tiny_whisper
from tiny_run import write_run
from tiny_text import shared_tiny_text
from tiny_text_run import write_text_run
from tutelage.config import dump_recipe, load_recipe
from tutelage.errors import InputError, InterruptedRunError
from tutelage.models.causal import load_text_model
from tutelage.models.load import load_speech_model
from tutelage.objectives.likelihood import cross_entropy
from tutelage.runs.attempt import Attempt
from tutelage.runs.distil import distil
from tutelage.runs.export import ExportOrder, export_run, plan_export
from tutelage.runs.speech.assembly import load_meta_outline as load_speech_outline
from tutelage.runs.speech.cost import count_training as count_speech_training
from tutelage.runs.tasks import forecast, gather_materials
from tutelage.runs.text.assembly import load_meta_outline
from tutelage.runs.text.cost import count_training
from tutelage.students.depth import shrink_text_model
from tutelage.students.sensitivity import LayerChoice
from tutelage.students.shrink import shrink_speech_model
from tutelage.tasks.speech.batch import SpeechExamples
from tutelage.tasks.speech.features import FrozenEncoder
from tutelage.tasks.speech.forward import decode
from tutelage.tasks.speech.labels import LabelCodec
from tutelage.tasks.speech.live import CurrentOutputs
from tutelage.tasks.speech.manifest import read_manifest
from tutelage.training.step import Stepper

SAME = 2e-5  # float32 sums in another order, of the largest logit
LORAS = {
    "dora": "{rank: 2, targets: [q_proj, v_proj], use_dora: true}",
    "pissa": "{rank: 2, targets: [q_proj, v_proj], init: pissa}",
    "pissa-dora-ranks": "{targets: [q_proj, down_proj], ranks: {down_proj: 3}, use_dora: true, init: pissa}",
    "ranks": "{rank: 2, targets: [q_proj, down_proj], ranks: {q_proj: 4}, use_rslora: true}",
}
INPUTS = torch.tensor([[0, 80, 90, 100, 110]])


def run(recipe: Path, out: str = "run", **settings: Any) -> dict[str, Any]:
    loaded = load_recipe(recipe)
    attempt = Attempt(recipe.parent / out, dump_recipe(loaded), device="cpu", **settings)
    document: dict[str, Any] = json.loads(distil(gather_materials(loaded), attempt).read_text(encoding="utf-8"))
    return document


def loss_of(student: Path, folder: Path) -> float:
    """Nats per token of an exported Whisper student, by its own encoder, on a run's held-out clips."""
    speech = load_speech_model(student)
    held_out = read_manifest(folder / "data" / "held_out.jsonl").utterances
    outputs = CurrentOutputs(held_out, FrozenEncoder(speech.model, speech.processor.feature_extractor))
    examples = SpeechExamples(held_out, outputs, LabelCodec(speech.processor.tokenizer, "es"), 64)
    batch = examples.batch(range(len(held_out)))
    with torch.no_grad():
        reduced = cross_entropy(decode(speech.model, batch).logits_BTV, batch.labels_BT, batch.keep_BT)
    return float(reduced.total) / float(reduced.count)


def stop_and_resume(recipe: Path, monkeypatch: pytest.MonkeyPatch, **settings: Any) -> dict[str, Any]:
    """The run, stopped before its third step and resumed."""
    take = Stepper.take

    def stop_at_three(self: Any, step: int, *rest: Any) -> Any:
        if step == 3:
            os.kill(os.getpid(), signal.SIGINT)
        return take(self, step, *rest)

    with monkeypatch.context() as patch:
        patch.setattr(Stepper, "take", stop_at_three)
        with pytest.raises(InterruptedRunError, match="Stopped after step 3"):
            run(recipe, "stopped")
    return run(recipe, "stopped", resume=True, **settings)


@pytest.mark.slow
@pytest.mark.parametrize("variant", LORAS)
def test_every_adapter_is_resumed_counted_and_exported(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, variant: str
) -> None:
    from peft import PeftModel

    student = f"layers: [0, 3]\n  lora: {LORAS[variant]}\n  budget_share: 0.5"
    recipe = write_text_run(tmp_path, steps=5, student=student, objective="- {kind: kl}\n  - {kind: angle}")
    document, human = forecast(gather_materials(load_recipe(recipe)))
    result = run(recipe)
    assert document.body["expected"]["flops"] == result["training"]["flops"]
    assert document.body["trained_params"] == result["trainable"]["params"]
    assert result["trainable"]["own_ranks"] == dict(load_recipe(recipe).student.lora.ranks)
    assert f"{result['trainable']['lora_params']:,} adapter" in human
    outline = load_meta_outline(gather_materials(load_recipe(recipe)))
    once, thrice = (count_training(outline, {24: 1}, live_teacher=False, passes=times).student for times in (1, 3))
    assert thrice - once == 2 * outline.pass_flops
    assert (outline.pass_flops > 0) == ("dora" in variant)
    assert stop_and_resume(recipe, monkeypatch)["systems"] == result["systems"]
    files = ("student/model.safetensors", "adapter/adapter_model.safetensors")
    assert all((tmp_path / "run" / name).read_bytes() == (tmp_path / "stopped" / name).read_bytes() for name in files)

    export_run(plan_export(ExportOrder(tmp_path / "run", "adapter", tmp_path / "adapter")))
    base = shrink_text_model(load_text_model(shared_tiny_text()), (0, 3)).text.model
    with torch.no_grad():
        merged = load_text_model(tmp_path / "run" / "student").model(INPUTS).logits
        before = base(INPUTS).logits
        adapted = PeftModel.from_pretrained(base, tmp_path / "adapter").eval()(INPUTS).logits
    assert (adapted - merged).abs().max() < SAME * merged.abs().max()
    assert (before - merged).abs().max() > 100 * SAME * merged.abs().max()


@pytest.mark.slow
def test_a_pissa_and_dora_adapter_of_whisper_gives_the_student_on_the_teacher_cut_again(tmp_path: Path) -> None:
    from peft import PeftModel

    lora = "lora: {rank: 2, targets: [q_proj, fc1], ranks: {fc1: 3}, init: pissa, use_dora: true}"
    recipe = write_run(tmp_path, student="projector: {kind: ensemble, width: 4, members: 2}")
    text = recipe.read_text()
    recipe.write_text(
        text.replace("lora: {rank: 2, targets: [q_proj, v_proj]}", lora).replace("projector: {kind: linear}", "")
    )
    document, _ = forecast(gather_materials(load_recipe(recipe)))
    result = run(recipe)
    assert document.body["budget"]["params"] == result["trainable"]["params"]
    about = json.loads((tmp_path / "run" / "adapter" / "base.json").read_bytes())
    teacher = load_speech_model(shared_tiny_whisper())
    base = shrink_speech_model(teacher, tuple(about["decoder_layers"]), about["window_seconds"]).model
    encoded = torch.randn(1, 100, 32, generator=torch.Generator().manual_seed(0))
    given = {"encoder_outputs": (encoded,), "decoder_input_ids": torch.tensor([[305, 309, 314, 318, 10, 20]])}
    with torch.no_grad():
        merged = load_speech_model(tmp_path / "run" / "student").model(**given).logits
        adapted = PeftModel.from_pretrained(base, tmp_path / "run" / "adapter").eval()(**given).logits
    assert (adapted - merged).abs().max() < SAME * merged.abs().max()


@pytest.mark.slow
def test_layers_of_text_are_chosen_by_sensitivity_said_kept_and_resumed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    student = "layers: 2\n  keep: sensitivity\n  sensitivity_batches: 2\n  layer_map: origin"
    recipe = write_text_run(tmp_path, steps=5, student=student, objective="- {kind: angle}")
    document, human = forecast(gather_materials(load_recipe(recipe)))
    assert document.body["layer_map"] is None
    assert "layers kept: chosen by sensitivity when the weights are read" in human
    said: list[str] = []
    result = run(recipe, talk=said.append)
    found = result["student"]["sensitivity"]
    assert (found["batches"], len(found["without"]), found["unit"]) == (2, 4, "nats per token")
    missed = sorted(range(4), key=lambda layer: -found["without"][layer])
    assert result["student"]["layers"] == found["layers"] == sorted(missed[:2])
    assert [pair["teacher"] - 1 for pair in result["layer_map"]] == found["layers"]
    assert any(line.startswith("layers kept by sensitivity") for line in said)
    assert result["recipe"]["resolved"]["student"]["layers"] == 2
    assert stop_and_resume(recipe, monkeypatch)["student"]["layers"] == found["layers"]
    other = LayerChoice((1, 2), 1.0, (1.0,) * 4, 1, 1)
    with monkeypatch.context() as patch:
        patch.setattr("tutelage.runs.text.classroom.choose_blocks", lambda *_: other)
        assert run(recipe, "other")["student"]["layers"] == [1, 2]
    fixed = recipe.read_text().replace("layers: 2", f"layers: {found['layers']}").replace("  keep: sensitivity\n", "")
    recipe.write_text(fixed)
    assert run(recipe, "fixed")["systems"] == result["systems"]


@pytest.mark.slow
def test_a_run_is_not_resumed_with_other_layers(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    recipe = write_text_run(tmp_path, steps=5, student="layers: 2\n  keep: sensitivity")
    choose = "tutelage.runs.text.classroom.choose_blocks"
    choices = iter([(0, 1), (0, 2)])
    monkeypatch.setattr(choose, lambda *_: LayerChoice(next(choices), 1.0, (1.0,) * 4, 1, 1))
    with pytest.raises(InputError, match=r"chosen_layers"):
        stop_and_resume(recipe, monkeypatch)


@pytest.mark.slow
def test_decoder_layers_of_whisper_are_chosen_by_sensitivity(tmp_path: Path) -> None:
    recipe = write_run(tmp_path, student="keep: sensitivity\n  sensitivity_batches: 2")
    said: list[str] = []
    result = run(recipe, talk=said.append)
    found = result["student"]["sensitivity"]
    missed = sorted(range(4), key=lambda layer: -found["without"][layer])
    assert result["student"]["decoder_layers"] == found["layers"] == sorted(missed[:2])
    assert [pair["teacher"] - 1 for pair in result["layer_map"]] == found["layers"]
    assert any(line.startswith("layers kept by sensitivity") for line in said)
    document, human = forecast(gather_materials(load_recipe(recipe)))
    assert document.body["layer_map"] is None
    assert "chosen by sensitivity" in human


@pytest.mark.slow
@pytest.mark.parametrize("scope", ["encoder", "both"])
def test_an_encoder_with_adapters_is_run_trained_judged_and_exported(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, scope: str
) -> None:
    recipe = write_run(tmp_path, steps=5)
    recipe.write_text(
        recipe.read_text().replace("targets: [q_proj, v_proj]", f"targets: [q_proj, fc1], scope: {scope}")
    )
    document, _ = forecast(gather_materials(load_recipe(recipe)))
    result = run(recipe)
    assert result["training"]["flops"]["student"] > 2 * result["training"]["flops"]["teacher"]
    assert document.body["budget"]["params"] == result["trainable"]["params"]
    assert stop_and_resume(recipe, monkeypatch)["systems"] == result["systems"]
    losses = [row["metrics"]["nats_per_token"]["value"] for row in result["systems"][-2:]]
    assert losses[1] < losses[0]
    teacher = shrink_speech_model(load_speech_model(shared_tiny_whisper()), (0, 3), 2.0).model
    student = load_speech_model(tmp_path / "run" / "student")
    moved = [
        name
        for name, weight in student.model.state_dict().items()
        if not torch.equal(weight, teacher.state_dict()[name])
    ]
    halves = {name.split(".")[1] for name in moved}
    assert halves == ({"encoder", "decoder"} if scope == "both" else {"encoder"})
    assert loss_of(tmp_path / "run" / "student", tmp_path) == pytest.approx(losses[1], rel=SAME)


@pytest.mark.slow
def test_a_frozen_encoders_projection_is_fed_back_resumed_counted_and_folded(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    recipe = write_run(tmp_path, steps=5, student="align: encoder\n  feedback: true")
    document, _ = forecast(gather_materials(load_recipe(recipe)))
    result = run(recipe)
    assert list(result["alignment"]) == ["encoder-2-2"]
    assert document.body["budget"]["params"] == result["trainable"]["params"]
    outline = load_speech_outline(gather_materials(load_recipe(recipe)))
    fed, plain = (
        count_speech_training(one, [5, 6], 0, live_teacher=False).student
        for one in (outline, replace(outline, fed_params=0))
    )
    assert fed - plain == 2 * 6 * 2 * 32 * 32 * outline.student.model.config.max_source_positions
    assert stop_and_resume(recipe, monkeypatch)["systems"] == result["systems"]
    assert (tmp_path / "run/student/model.safetensors").read_bytes() == (
        tmp_path / "stopped/student/model.safetensors"
    ).read_bytes()
    losses = [row["metrics"]["nats_per_token"]["value"] for row in result["systems"][-2:]]
    assert losses[1] < losses[0]
    assert loss_of(tmp_path / "run" / "student", tmp_path) == pytest.approx(losses[1], rel=SAME)
    assert result["adapter"] is None
    assert not (tmp_path / "run" / "adapter").exists()
    with pytest.raises(InputError, match="hears its own projection"):
        plan_export(ExportOrder(tmp_path / "run", "adapter", tmp_path / "adapter"))


@pytest.mark.parametrize(
    ("wrong", "extra"), [("align: encoder\n  feedback: true", "students: 2"), ("align: both\n  feedback: true", "")]
)
def test_feedback_without_what_it_needs_is_refused(tmp_path: Path, wrong: str, extra: str) -> None:
    recipe = write_run(tmp_path, student=wrong, extra=extra)
    if not extra:
        recipe.write_text(recipe.read_text().replace("- {kind: angle, weight: 0.5}", ""))
    with pytest.raises(InputError, match=r"student\.feedback needs an alignment that projects"):
        load_recipe(recipe)


@pytest.mark.slow
@pytest.mark.parametrize(("align", "pairs"), [("encoder", ["encoder-2-2"]), ("both", ["1-1", "2-4", "encoder-2-2"])])
def test_encoder_states_are_aligned_where_sound_is_heard(tmp_path: Path, align: str, pairs: list[str]) -> None:
    recipe = write_run(tmp_path, steps=4, student=f"align: {align}")
    recipe.write_text(recipe.read_text().replace("[q_proj, v_proj]", "[q_proj, v_proj], scope: both"))
    document, human = forecast(gather_materials(load_recipe(recipe)))
    assert "encoder: student 2 -> teacher 2, last to last" in human
    result = run(recipe)
    assert list(result["alignment"]) == pairs
    assert all(found["angle"] < found["shuffled"] for found in result["alignment"].values())
    assert document.body["budget"]["params"] == result["trainable"]["params"]
    checked = " ".join(check["name"] for check in result["preflight"]["checks"])
    assert "gradient of angle at encoder student 2 -> teacher 2 on the student" in checked
