"""Preflight on a tiny Whisper: teacher, shrunk student with adapters, projectors, and the forward pass of training."""

from __future__ import annotations

import copy
from collections.abc import Callable
from dataclasses import dataclass, replace

import pytest
import torch

from tiny import shared_tiny_whisper
from tutelage.errors import PreflightError
from tutelage.models.load import SpeechModel, count_params, load_speech_model
from tutelage.objectives.objective import Objective
from tutelage.objectives.terms import Term
from tutelage.students.design import Lora, Projector
from tutelage.students.layer_map import map_layers
from tutelage.students.lora import add_lora, expected_modules, target_modules, trainable_parameters
from tutelage.students.projection import make_projectors
from tutelage.students.shrink import shrink_speech_model
from tutelage.tasks.speech.batch import SpeechBatch
from tutelage.tasks.speech.forward import decode
from tutelage.teachers.live import LiveTeacher
from tutelage.training.checks import Check, check_budget, check_settings, check_targets, check_tokens, shared_settings
from tutelage.training.preflight import PreflightReport, garble_padding, preflight
from tutelage.training.step import Lesson

TERMS = (Term("cross_entropy"), Term("kl", 0.8, 2.0), Term("angle"))


@dataclass
class Setting:
    source: SpeechModel
    teacher: LiveTeacher[SpeechBatch]
    lesson: Lesson[SpeechBatch]
    batch: SpeechBatch
    declared: list[Check]

    def check(self) -> PreflightReport:
        vocabulary = self.source.model.config.vocab_size
        ids_BT = garble_padding(self.batch.decoder_input_ids_BT, self.batch.keep_BT, vocabulary)
        return preflight(
            self.lesson,
            self.batch,
            self.declared,
            teacher=self.source.model,
            garbled=replace(self.batch, decoder_input_ids_BT=ids_BT),
        )


def make_batch(source: SpeechModel) -> SpeechBatch:
    generator = torch.Generator().manual_seed(0)
    sequence = torch.randint(300, (3, 12), generator=generator)
    positions = torch.arange(11)
    keep_BT = (positions >= 3) & (positions < torch.tensor([11, 5, 8])[:, None])
    frames = source.model.config.max_source_positions
    encoder_BSH = torch.randn(3, frames, source.model.config.d_model, generator=generator)
    return SpeechBatch(("a", "b", "c"), encoder_BSH, sequence[:, :-1], sequence[:, 1:], keep_BT)


def make_setting(lora: Lora, spoil: Callable[[torch.nn.Module], None] = lambda student: None) -> Setting:
    source = load_speech_model(shared_tiny_whisper())
    shrunk = shrink_speech_model(source, decoder_layers=2)
    pairs = map_layers("origin", 2, 4, shrunk.origins)
    objective = Objective(TERMS, pairs)
    matched = target_modules(shrunk.model, lora)
    expected = expected_modules(shrunk.model.config, lora)
    student = add_lora(shrunk.model, lora, rank=2, seed=0)
    spoil(student)
    width = source.model.config.d_model
    projectors = make_projectors(Projector("linear"), pairs, width, width, seed=0)
    teacher = LiveTeacher(source.model, objective.teacher_layers, decode)
    batch = make_batch(source)
    trained = sum(parameter.numel() for _, parameter in trainable_parameters(student))
    tokenizer = source.processor.tokenizer
    declared = [
        check_targets(matched, expected),
        check_budget(trained, count_params(source.model), 0.05),
        check_tokens(
            batch.decoder_input_ids_BT.flatten().tolist(),
            tokenizer.convert_ids_to_tokens,
            tokenizer.convert_ids_to_tokens,
        ),
        *check_settings(shared_settings(student.config), shared_settings(source.model.config)),
    ]
    lesson = Lesson(
        student,
        projectors,
        objective,
        lambda one: decode(student, one, objective.student_layers),
        teacher.signal,
    )
    return Setting(source, teacher, lesson, batch, declared)


def test_a_shrunk_student_with_decoder_adapters_passes() -> None:
    report = make_setting(Lora(dropout=0.1)).check()
    measured = {check.name: check.measured for check in report.checks}
    details = {check.name: check.detail for check in report.checks}
    assert measured["LoRA targets matched"] == 8
    assert measured["effect of garbage at dropped positions"] == 0
    assert measured["angle at student 2 -> teacher 4 on (teacher, teacher)"] < 2e-6
    # Block 1 is the teacher's own until the adapters move, so only a random target can show that its path is alive.
    assert measured["gradient of angle at student 1 -> teacher 1 on the student"] > 1e-3
    assert "random target" in details["gradient of angle at student 1 -> teacher 1 on the student"]
    assert details["gradient of angle at student 2 -> teacher 4 on the student"] == ""


@pytest.mark.parametrize("reentrant", [False, True])
def test_checkpointing_that_cuts_the_adapters_off_is_refused(reentrant: bool) -> None:
    def checkpoint(student: torch.nn.Module) -> None:
        student.train()
        student.gradient_checkpointing_enable(gradient_checkpointing_kwargs={"use_reentrant": reentrant})

    setting = make_setting(Lora(), checkpoint)
    if not reentrant:
        assert all(check.passed for check in setting.check().checks)
        return
    # Nothing that enters the first block requires a gradient, so the reentrant kind records no graph (and says so).
    with pytest.warns(UserWarning, match="None of the inputs have requires_grad"):  # noqa: SIM117
        with pytest.raises(PreflightError, match="depends on no trainable parameter"):
            setting.check()


def test_adapters_above_the_aligned_block_are_a_dead_term() -> None:
    def freeze_first_block(student: torch.nn.Module) -> None:
        for name, parameter in student.named_parameters():
            if "decoder.layers.0." in name:
                parameter.requires_grad_(False)

    with pytest.raises(PreflightError) as caught:
        make_setting(Lora(), freeze_first_block).check()
    (line,) = str(caught.value).splitlines()
    assert "angle at student 1 -> teacher 1" in line
    assert "depends on no trainable parameter" in line
    assert "decoder.layers.1" in line


def test_student_equal_to_teacher_is_zero_at_every_mapped_pair() -> None:
    source = load_speech_model(shared_tiny_whisper())
    pairs = map_layers("uniform", 4, 4)
    objective = Objective((Term("kl", 1.0, 2.0), Term("cosine")), pairs)
    batch = make_batch(source)
    teacher = LiveTeacher(source.model, objective.teacher_layers, decode)
    twin = copy.deepcopy(source.model)
    signal = decode(twin, batch, objective.student_layers)
    width = source.model.config.d_model
    for pair in pairs:
        alone = Objective((Term("kl", 1.0, 2.0), Term("cosine")), (pair,))
        projectors = make_projectors(Projector("linear"), (pair,), width, width, seed=0)
        reduced = alone.evaluate(signal, teacher.signal(batch), batch.labels_BT, batch.keep_BT, projectors)
        assert {name: part.total.item() for name, part in reduced.items()} == {"kl": 0.0, "cosine": 0.0}
    assert pairs[-1].teacher == len(source.model.model.decoder.layers)
