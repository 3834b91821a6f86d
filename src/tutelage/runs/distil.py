"""The main job: from a recipe to a student with its proof.

The order: materials -> assembly -> encoder outputs (once, cached) -> preflight -> training -> judging -> export ->
result. Covers the order and what is kept. Does not cover how any of it is done (the packages below), counting without
running (`forecast`), or what the demo adds (`demo`).
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from accelerate import Accelerator

from tutelage.errors import InterruptedRunError
from tutelage.evaluation.bootstrap import Resampling
from tutelage.objectives.signal import Signal
from tutelage.progress import Progress
from tutelage.runs.assembly import Assembly, Outline, assemble, load_outline
from tutelage.runs.attempt import Attempt
from tutelage.runs.cost import count_training
from tutelage.runs.folder import RunFolder, make_folder
from tutelage.runs.judge import Bench, Corners, Verdict, judge, measure_speed
from tutelage.runs.materials import Materials
from tutelage.runs.recipe import Recipe
from tutelage.runs.result import Findings, keep_result
from tutelage.students.export import AdapterBase, ExportedStudent, export_student, merged_model, save_adapter
from tutelage.students.layer_map import describe
from tutelage.students.lora import expected_modules
from tutelage.students.shrink import shrink_speech_model
from tutelage.tasks.speech.batch import SpeechBatch, SpeechExamples
from tutelage.tasks.speech.features import FrozenEncoder
from tutelage.tasks.speech.forward import decode
from tutelage.tasks.speech.generate import from_audio, from_outputs
from tutelage.tasks.speech.labels import LabelCodec, require_language
from tutelage.tasks.sampler import EpochSampler
from tutelage.teachers.live import LiveTeacher
from tutelage.teachers.prefix_cache import EncoderOutputs, PrefixCache
from tutelage.training.checks import check_budget, check_settings, check_targets, check_tokens, shared_settings
from tutelage.training.device import limit_threads, open_accelerator
from tutelage.training.loop import Keeping, Stream, Trained, Watch, train
from tutelage.training.preflight import PreflightReport, garble_padding, preflight
from tutelage.training.step import Lesson

ALIGNMENT_CLIPS = 32  # held-out clips that the reported angles are measured on
RESAMPLING_SEED = 0  # of the bootstrap alone; the recipe's seed must not move an interval


@dataclass(frozen=True)
class Classroom:
    """Everything alive during a run.

    Args:
        materials: Recipe, data and model folders.
        assembly: Teacher, student, projectors and objective.
        accelerator: The device.
        codec: Prompt and end-of-text.
        train: Training clips as batches.
        held_out: Held-out clips as batches.
        outputs: Encoder outputs of both sets at the student's window.
        teacher: The teacher that is run beside the student; None where no term needs one.
    """

    materials: Materials
    assembly: Assembly
    accelerator: Accelerator
    codec: LabelCodec
    train: SpeechExamples
    held_out: SpeechExamples
    outputs: EncoderOutputs
    teacher: LiveTeacher[SpeechBatch] | None
    lesson: Lesson[SpeechBatch] = field(repr=False)

    @property
    def recipe(self) -> Recipe:
        """The recipe."""
        return self.materials.recipe


def distil(materials: Materials, attempt: Attempt, add: Callable[[Findings], None] | None = None) -> Path:
    """Run a recipe.

    Args:
        materials: The recipe with its data and models.
        attempt: How it is run.
        add: Called with the findings before they are written; for what the demo adds.

    Returns:
        Path of `result.json`.

    Raises:
        InputError: The design does not fit the models, or the run cannot be resumed.
        PreflightError: A check before the first step failed.
        InterruptedRunError: The user stopped the run; it can be resumed.
        TutelageError: The work failed.
    """
    recipe = materials.recipe
    accelerator = open_accelerator(attempt.device)
    with limit_threads(recipe.training.threads):
        outline = load_outline(materials, str(accelerator.device))
        try:
            findings = _learn(materials, outline, accelerator, attempt)
        except KeyboardInterrupt:
            raise InterruptedRunError(_how_to_go_on(attempt)) from None
    if add is not None:
        add(findings)
    return keep_result(findings, RunFolder(attempt.out), attempt.ledger)


def _how_to_go_on(attempt: Attempt) -> str:
    if RunFolder(attempt.out).begun:
        return f"Stopped. What was done is kept; continue with: {attempt.resume_command}"
    return "Stopped before training; encoder outputs that were computed are kept. Give the same command again."


def _learn(materials: Materials, outline: Outline, accelerator: Accelerator, attempt: Attempt) -> Findings:
    """Prepare, check, train, judge, export, time."""
    room = prepare(materials, outline, accelerator, attempt)
    checked = rehearse(room)
    attempt.talk(f"preflight: {len(checked.checks)} checks passed")
    folder = RunFolder(attempt.out)
    if not attempt.resume:  # only now: what preflight refuses leaves nothing behind
        make_folder(attempt.out, materials.identity, materials.recipe.seed, attempt.recipe_yaml)
    bench = _bench(room, attempt.progress)
    untrained = _judge_untrained(room, bench)
    trained = _train(room, folder, attempt)
    taught = "distilled" if room.teacher is not None else "trained"
    trained_student = judge(
        f"student, {taught}", room.assembly.student, from_outputs(room.outputs), bench, examples=room.held_out
    )
    lengths = _lengths_seen(room)
    return Findings(
        materials=materials,
        outline=outline,
        preflight=checked,
        trained=trained,
        tokens=sum(lengths),
        cost=count_training(
            outline,
            [len(room.codec.prompt) - 1 + length for length in lengths],
            len(materials.train.utterances),
            live_teacher=room.teacher is not None,
        ),
        verdicts=(*untrained, trained_student),
        alignment=_measure_alignment(room),
        exported=_export(room, folder),
        speed=_measure_speed(room, bench),
    )


def prepare(materials: Materials, outline: Outline, accelerator: Accelerator, attempt: Attempt) -> Classroom:
    """Encode the clips (or find their encoder outputs), and build what is trained."""
    recipe = materials.recipe
    if outline.pairs:
        layers = (outline.student.model.config.decoder_layers, outline.teacher.model.config.decoder_layers)
        attempt.talk(describe(outline.pairs, *layers))
    attempt.talk(outline.budget.describe())
    student = outline.student
    require_language(student.model.generation_config, recipe.data.language)
    codec = LabelCodec(student.processor.tokenizer, recipe.data.language, recipe.data.task)
    encoder = FrozenEncoder(student.model, student.processor.feature_extractor)
    clips = (*materials.train.utterances, *materials.held_out.utterances)
    outputs = PrefixCache(encoder, talk=attempt.talk).get_or_compute(clips, progress=attempt.progress)
    attempt.talk(f"encoder outputs: {outputs.use.hits} found in the cache, {outputs.use.misses} computed")
    assembly = assemble(recipe, outline)
    positions = min(speech.model.config.max_target_positions for speech in (outline.teacher, outline.student.speech))
    examples = [
        SpeechExamples(manifest.utterances, outputs, codec, positions)
        for manifest in (materials.train, materials.held_out)
    ]
    teacher = None
    if assembly.objective.needs_teacher:
        teacher = LiveTeacher(outline.teacher.model, assembly.objective.teacher_layers, decode)
    lesson = _lesson(assembly, teacher)
    return Classroom(materials, assembly, accelerator, codec, examples[0], examples[1], outputs, teacher, lesson)


def _lesson(assembly: Assembly, teacher: LiveTeacher[SpeechBatch] | None) -> Lesson[SpeechBatch]:
    layers = assembly.objective.student_layers

    def student_forward(batch: SpeechBatch) -> Signal:
        return decode(assembly.peft_model, batch, layers)

    return Lesson(
        assembly.peft_model,
        assembly.projectors,
        assembly.objective,
        student_forward,
        None if teacher is None else teacher.signal,
    )


def rehearse(room: Classroom) -> PreflightReport:
    """Every check before the first step, on one real batch and the ids of all transcripts."""
    recipe, outline, lesson = room.recipe, room.assembly.outline, room.lesson
    batch = room.train.batch(range(min(recipe.training.batch_size, len(room.train))))
    garbled = dataclasses.replace(
        batch,
        decoder_input_ids_BT=garble_padding(
            batch.decoder_input_ids_BT, batch.keep_BT, outline.student.model.config.vocab_size, recipe.seed
        ),
    )
    tokenizers = [speech.processor.tokenizer for speech in (outline.student.speech, outline.stock)]
    emitted = {token for examples in (room.train, room.held_out) for ids in examples.text_ids.values() for token in ids}
    emitted |= {*room.codec.prompt, room.codec.end_of_text}
    budget = outline.budget
    declared = [
        check_targets(_adapted(room), expected_modules(outline.student.model.config, recipe.student.lora)),
        check_budget(
            budget.lora_params + budget.projector_params,
            budget.teacher_params,
            budget.limit,
            allow_over=recipe.student.allow_over_budget,
        ),
        check_tokens(emitted, *(tokenizer.convert_ids_to_tokens for tokenizer in tokenizers)),
        *check_settings(shared_settings(outline.student.model.config), shared_settings(outline.teacher.model.config)),
    ]
    device = room.accelerator.device
    return preflight(
        lesson,
        batch.to(device),
        declared,
        teacher=None if room.teacher is None else outline.teacher.model,
        garbled=garbled.to(device),
        seed=recipe.seed,
    )


def _adapted(room: Classroom) -> list[str]:
    return [name for name, module in room.assembly.peft_model.named_modules() if hasattr(module, "lora_A")]


def _bench(room: Classroom, progress: Progress) -> Bench:
    settings = room.recipe.evaluation
    return Bench(
        room.materials.held_out.utterances,
        room.codec,
        room.materials.normaliser,
        Resampling(draws=settings.bootstrap_draws, seed=RESAMPLING_SEED),
        settings.batch_size,
        progress=progress,
    )


def _judge_untrained(room: Classroom, bench: Bench) -> list[Verdict]:
    """The teacher with its own window on some clips, then teacher and untrained student at the student's window."""
    outline, outputs = room.assembly.outline, from_outputs(room.outputs)
    window = outline.teacher.window_seconds
    verdicts = []
    some = room.materials.held_out.spread(room.recipe.evaluation.stock_clips)
    if some:
        stock = outline.stock
        encode = from_audio(FrozenEncoder(stock.model, stock.processor.feature_extractor))
        verdicts.append(judge(f"teacher, {stock.window_seconds:g} s window", stock, encode, bench, utterances=some))
    verdicts.append(judge(f"teacher, {window:g} s window", outline.teacher, outputs, bench, examples=room.held_out))
    verdicts.append(judge("student, before", room.assembly.student, outputs, bench, examples=room.held_out))
    return verdicts


def _train(room: Classroom, folder: RunFolder, attempt: Attempt) -> Trained:
    recipe, device = room.recipe, room.accelerator.device
    sampler = EpochSampler(len(room.train), recipe.training.batch_size, recipe.seed)
    return train(
        room.lesson,
        Stream(sampler, lambda indices: room.train.batch(indices).to(device)),
        recipe.training,
        Keeping(
            folder.path,
            {**room.materials.identity, "seed": recipe.seed},
            resume=attempt.resume,
            resume_command=attempt.resume_command,
        ),
        room.accelerator,
        recipe.seed,
        Watch(progress=attempt.progress, talk=attempt.talk),
    )


def _lengths_seen(room: Classroom) -> list[int]:
    """Text tokens, end-of-text among them, of every clip in every step, by drawing the batches again."""
    training = room.recipe.training
    sampler = EpochSampler(len(room.train), training.batch_size, room.recipe.seed)
    lengths = [len(ids) + 1 for ids in room.train.text_ids.values()]
    return [lengths[index] for _ in range(training.steps * training.accumulate) for index in sampler.next_batch()]


def _measure_alignment(room: Classroom) -> dict[str, dict[str, float]]:
    """Each pair's mean angle on held-out clips, beside its mean-vector and shuffled baselines; none without pairs."""
    if room.teacher is None or not room.assembly.objective.pairs:
        return {}
    batch = room.held_out.batch(range(min(ALIGNMENT_CLIPS, len(room.held_out)))).to(room.accelerator.device)
    with torch.no_grad():
        student = room.lesson.student_forward(batch)
    found = room.assembly.objective.baselines(
        student, room.teacher.signal(batch), batch.keep_BT, room.assembly.projectors, RESAMPLING_SEED
    )
    return {name: numbers._asdict() for name, numbers in found.items()}


def _export(room: Classroom, folder: RunFolder) -> ExportedStudent:
    """The merged student and its adapter; a resumed run writes them anew."""
    recipe, outline = room.recipe, room.assembly.outline
    source = room.materials.student or room.materials.teacher
    folder.clear_exports()
    save_adapter(
        room.assembly.peft_model,
        folder.adapter,
        AdapterBase(source.reference, source.revision, outline.student.origins, outline.student.speech.window_seconds),
    )
    return export_student(
        room.assembly.peft_model, outline.student.processor, folder.student, recipe.data.language, recipe.data.task
    )


def _measure_speed(room: Classroom, bench: Bench) -> dict[str, Any] | None:
    settings, outline = room.recipe.evaluation, room.assembly.outline
    clips = room.materials.held_out.spread(settings.speed_clips)
    if not clips:
        return None
    plain = merged_model(room.assembly.peft_model)
    # The trained decoder under the teacher's window, so that all four corners write about as much text.
    deep_window = shrink_speech_model(outline.stock, outline.student.origins, None)
    deep_window.model.model.decoder.load_state_dict(plain.model.decoder.state_dict())
    student = dataclasses.replace(outline.student.speech, model=plain)
    corners = Corners(outline.stock, outline.teacher, deep_window.speech, student)
    return measure_speed(corners, clips, settings.speed_repeats, bench)
