"""A classroom for speech: Whisper teaches Whisper over encoder outputs that are computed once.

Covers preparing (encoder outputs, adapters), the checks, judging before and after, the export. Does not cover the order
(`runs.distil`), loading and cutting (`assembly`) or the statistics (`judge`).
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from accelerate import Accelerator

from tutelage.evaluation.bootstrap import Resampling
from tutelage.objectives.signal import Signal
from tutelage.progress import Progress, no_progress
from tutelage.runs.attempt import Attempt
from tutelage.runs.classroom import Course
from tutelage.runs.folder import RunFolder
from tutelage.runs.speech.assembly import Assembly, Outline, assemble, load_outline
from tutelage.runs.speech.cost import count_training
from tutelage.runs.speech.findings import SpeechFindings
from tutelage.runs.speech.judge import Bench, Corners, Verdict, judge, measure_speed
from tutelage.runs.speech.materials import SpeechMaterials
from tutelage.runs.speech.recipe import SpeechRecipe
from tutelage.students.export import AdapterBase, ExportedStudent, export_student, merged_model, save_adapter
from tutelage.students.layer_map import describe
from tutelage.students.lora import expected_modules
from tutelage.students.shrink import shrink_speech_model
from tutelage.tasks.sampler import EpochSampler
from tutelage.tasks.speech.batch import SpeechBatch, SpeechExamples
from tutelage.tasks.speech.features import FrozenEncoder
from tutelage.tasks.speech.forward import decode
from tutelage.tasks.speech.generate import from_audio, from_outputs
from tutelage.tasks.speech.labels import LabelCodec, require_language
from tutelage.teachers.live import LiveTeacher
from tutelage.teachers.prefix_cache import EncoderOutputs, PrefixCache
from tutelage.training.checks import check_budget, check_settings, check_targets, check_tokens, shared_settings
from tutelage.training.loop import Stream
from tutelage.training.preflight import PreflightReport, garble_padding, preflight
from tutelage.training.step import Lesson

ALIGNMENT_CLIPS = 32  # held-out clips that the reported angles are measured on
RESAMPLING_SEED = 0  # of the bootstrap alone; the recipe's seed must not move an interval


@dataclass(frozen=True)
class SpeechClassroom:
    """Everything alive during a run on speech.

    Args:
        materials: Recipe, data and model folders.
        assembly: Teacher, student, projectors and objective.
        accelerator: The device.
        codec: Prompt and end-of-text.
        train: Training clips as batches.
        held_out: Held-out clips as batches.
        outputs: Encoder outputs of both sets at the student's window.
        teacher: The teacher that is run beside the student; None where no term needs one.
        lesson: Who learns what from whom.
        progress: Opens bars.
    """

    materials: SpeechMaterials
    assembly: Assembly
    accelerator: Accelerator
    codec: LabelCodec
    train: SpeechExamples
    held_out: SpeechExamples
    outputs: EncoderOutputs
    teacher: LiveTeacher[SpeechBatch] | None
    lesson: Lesson[SpeechBatch] = field(repr=False)
    progress: Progress = no_progress

    @property
    def recipe(self) -> SpeechRecipe:
        """The recipe."""
        return self.materials.recipe

    def rehearse(self) -> PreflightReport:
        """Every check before the first step, on one real batch and the ids of all transcripts."""
        recipe, outline = self.recipe, self.assembly.outline
        batch = self.train.batch(range(min(recipe.training.batch_size, len(self.train))))
        garbled = dataclasses.replace(
            batch,
            decoder_input_ids_BT=garble_padding(
                batch.decoder_input_ids_BT, batch.keep_BT, outline.student.model.config.vocab_size, recipe.seed
            ),
        )
        tokenizers = [speech.processor.tokenizer for speech in (outline.student.speech, outline.stock)]
        emitted = {token for part in (self.train, self.held_out) for ids in part.text_ids.values() for token in ids}
        emitted |= {*self.codec.prompt, self.codec.end_of_text}
        budget = outline.budget
        declared = [
            check_targets(self._adapted(), expected_modules(outline.student.model.config, recipe.student.lora)),
            check_budget(
                budget.lora_params + budget.projector_params,
                budget.teacher_params,
                budget.limit,
                allow_over=recipe.student.allow_over_budget,
            ),
            check_tokens(emitted, *(tokenizer.convert_ids_to_tokens for tokenizer in tokenizers)),
            *check_settings(
                shared_settings(outline.student.model.config), shared_settings(outline.teacher.model.config)
            ),
        ]
        device = self.accelerator.device
        return preflight(
            self.lesson,
            batch.to(device),
            declared,
            teacher=None if self.teacher is None else outline.teacher.model,
            garbled=garbled.to(device),
            seed=recipe.seed,
        )

    def judge_untrained(self) -> Sequence[Verdict]:
        """The teacher with its own window on some clips, then teacher and untrained student at the student's window."""
        outline, outputs, bench = self.assembly.outline, from_outputs(self.outputs), self._bench()
        window = outline.teacher.window_seconds
        verdicts = []
        some = self.materials.held_out.spread(self.recipe.evaluation.stock_clips)
        if some:
            stock = outline.stock
            encode = from_audio(FrozenEncoder(stock.model, stock.processor.feature_extractor))
            name = f"teacher, {stock.window_seconds:g} s window"
            verdicts.append(judge(name, stock, encode, bench, utterances=some))
        verdicts.append(judge(f"teacher, {window:g} s window", outline.teacher, outputs, bench, examples=self.held_out))
        verdicts.append(judge("student, before", self.assembly.student, outputs, bench, examples=self.held_out))
        return verdicts

    def stream(self) -> Stream[SpeechBatch]:
        """The training clips."""
        device = self.accelerator.device
        return Stream(self._sampler(), lambda indices: self.train.batch(indices).to(device))

    def conclude(self, folder: RunFolder, course: Course[SpeechBatch]) -> SpeechFindings:
        """Judge, count, export, time."""
        bench, recipe = self._bench(), self.recipe
        taught = "distilled" if self.teacher is not None else "trained"
        name, encode = f"student, {taught}", from_outputs(self.outputs)
        trained_student = judge(name, self.assembly.student, encode, bench, examples=self.held_out)
        lengths = self._lengths_seen()
        return SpeechFindings(
            materials=self.materials,
            outline=self.assembly.outline,
            pairs=self.assembly.outline.pairs,
            preflight=course.rehearsal,
            trained=course.trained,
            tokens=sum(lengths),
            cost=count_training(
                self.assembly.outline,
                [len(self.codec.prompt) - 1 + length for length in lengths],
                len(self.materials.train.utterances),
                live_teacher=self.teacher is not None,
                passes=recipe.training.steps * recipe.training.accumulate,
            ),
            verdicts=(*course.untrained, trained_student),
            alignment=self._measure_alignment(),
            exported=self._export(folder),
            speed=self._measure_speed(bench),
        )

    def _adapted(self) -> list[str]:
        return [name for name, module in self.assembly.peft_model.named_modules() if hasattr(module, "lora_A")]

    def _bench(self) -> Bench:
        settings = self.recipe.evaluation
        return Bench(
            self.materials.held_out.utterances,
            self.codec,
            self.materials.normaliser,
            Resampling(draws=settings.bootstrap_draws, seed=RESAMPLING_SEED),
            settings.batch_size,
            progress=self.progress,
        )

    def _sampler(self) -> EpochSampler:
        return EpochSampler(len(self.train), self.recipe.training.batch_size, self.recipe.seed)

    def _lengths_seen(self) -> list[int]:
        """Text tokens, end-of-text among them, of every clip in every step, by drawing the batches again."""
        training, sampler = self.recipe.training, self._sampler()
        lengths = [len(ids) + 1 for ids in self.train.text_ids.values()]
        return [lengths[index] for _ in range(training.steps * training.accumulate) for index in sampler.next_batch()]

    def _measure_alignment(self) -> dict[str, dict[str, float]]:
        """Each pair's mean angle on held-out clips, beside mean-vector and shuffled baselines; none without pairs."""
        if self.teacher is None or not self.assembly.objective.pairs:
            return {}
        batch = self.held_out.batch(range(min(ALIGNMENT_CLIPS, len(self.held_out)))).to(self.accelerator.device)
        with torch.no_grad():
            student: Signal = self.lesson.student_forward(batch)
        found = self.assembly.objective.baselines(
            student, self.teacher.signal(batch), batch.keep_BT, self.assembly.projectors, RESAMPLING_SEED
        )
        return {name: numbers._asdict() for name, numbers in found.items()}

    def _export(self, folder: RunFolder) -> ExportedStudent:
        """The merged student and its adapter; a resumed run writes them anew."""
        recipe, outline = self.recipe, self.assembly.outline
        source = self.materials.student or self.materials.teacher
        folder.clear_exports()
        save_adapter(
            self.assembly.peft_model,
            folder.adapter,
            AdapterBase(
                source.reference, source.revision, outline.student.origins, outline.student.speech.window_seconds
            ),
        )
        return export_student(
            self.assembly.peft_model, outline.student.processor, folder.student, recipe.data.language, recipe.data.task
        )

    def _measure_speed(self, bench: Bench) -> dict[str, Any] | None:
        settings, outline = self.recipe.evaluation, self.assembly.outline
        clips = self.materials.held_out.spread(settings.speed_clips)
        if not clips:
            return None
        plain = merged_model(self.assembly.peft_model)
        # The trained decoder under the teacher's window, so that all four corners write about as much text.
        deep_window = shrink_speech_model(outline.stock, outline.student.origins, None)
        deep_window.model.model.decoder.load_state_dict(plain.model.decoder.state_dict())
        student = dataclasses.replace(outline.student.speech, model=plain)
        corners = Corners(outline.stock, outline.teacher, deep_window.speech, student)
        return measure_speed(corners, clips, settings.speed_repeats, bench)


def open_speech_classroom(materials: SpeechMaterials, accelerator: Accelerator, attempt: Attempt) -> SpeechClassroom:
    """Load the models, encode the clips (or find their encoder outputs), and build what is trained.

    Raises:
        InputError: The design does not fit the models, or the model does not know the language.
    """
    recipe = materials.recipe
    outline = load_outline(materials, str(accelerator.device))
    if outline.pairs:
        layers = (outline.student.model.config.decoder_layers, outline.teacher.model.config.decoder_layers)
        attempt.talk(describe(outline.pairs, *layers))
    attempt.talk(outline.budget.describe())
    student = outline.student
    require_language(student.model.generation_config, recipe.data.language)
    codec = LabelCodec(student.processor.tokenizer, recipe.data.language, recipe.data.task)
    outputs = _encode(materials, outline, attempt)
    assembly = assemble(recipe, outline)
    positions = min(speech.model.config.max_target_positions for speech in (outline.teacher, outline.student.speech))
    train, held_out = (
        SpeechExamples(manifest.utterances, outputs, codec, positions)
        for manifest in (materials.train, materials.held_out)
    )
    teacher = None
    if assembly.objective.needs_teacher:
        teacher = LiveTeacher(outline.teacher.model, assembly.objective.teacher_layers, decode)
    lesson = _lesson(assembly, teacher)
    return SpeechClassroom(
        materials, assembly, accelerator, codec, train, held_out, outputs, teacher, lesson, attempt.progress
    )


def _encode(materials: SpeechMaterials, outline: Outline, attempt: Attempt) -> EncoderOutputs:
    encoder = FrozenEncoder(outline.student.model, outline.student.processor.feature_extractor)
    clips = (*materials.train.utterances, *materials.held_out.utterances)
    outputs = PrefixCache(encoder, talk=attempt.talk).get_or_compute(clips, progress=attempt.progress)
    attempt.talk(f"encoder outputs: {outputs.use.hits} found in the cache, {outputs.use.misses} computed")
    return outputs


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
