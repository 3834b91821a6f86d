"""A classroom for speech: Whisper teaches Whisper over encoder outputs that are computed once.

Covers preparing (encoder outputs, adapters), the checks, judging before and after, the export. Does not cover the order
(`runs.distil`), loading and cutting (`assembly`) or the statistics (`judge`).
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import torch
from accelerate import Accelerator
from torch import Tensor

from tutelage.evaluation.bootstrap import Resampling
from tutelage.objectives.signal import Signal
from tutelage.progress import Progress, no_progress
from tutelage.records.estimate import Estimate
from tutelage.runs.attempt import Attempt
from tutelage.runs.caching import require_blocks
from tutelage.runs.classroom import Course
from tutelage.runs.folder import RunFolder
from tutelage.runs.speech.assembly import Assembly, assemble, load_outline
from tutelage.runs.speech.augment import TrainingClips, hear_training
from tutelage.runs.speech.caching import open_cached_teacher
from tutelage.runs.speech.cost import count_training
from tutelage.runs.speech.findings import SpeechFindings
from tutelage.runs.speech.judge import Bench, Corners, Verdict, judge, measure_loss, measure_speed
from tutelage.runs.speech.lesson import make_lesson
from tutelage.runs.speech.materials import SpeechMaterials
from tutelage.runs.speech.pseudo_labels import label_by_teacher
from tutelage.runs.speech.recipe import SpeechRecipe
from tutelage.runs.speech.sensitivity import choose_decoder_layers
from tutelage.runs.speech.teachers import Hearing, SideBySide, encoders_of, hear
from tutelage.runs.teacher_folders import merged_before
from tutelage.students.export import AdapterBase, ExportedStudent, export_student, merged_model, save_adapter
from tutelage.students.layer_map import describe
from tutelage.students.lora import expected_modules
from tutelage.students.shrink import shrink_speech_model
from tutelage.tasks.speech.batch import SpeechBatch, SpeechExamples
from tutelage.tasks.speech.features import FrozenEncoder
from tutelage.tasks.speech.forward import decode
from tutelage.tasks.speech.generate import from_audio, from_outputs
from tutelage.tasks.speech.labels import LabelCodec, require_language
from tutelage.tasks.speech.live import ClipFeatures, CurrentOutputs
from tutelage.tasks.speech.manifest import Utterance
from tutelage.teachers.committee import Committee
from tutelage.teachers.live import LiveTeacher
from tutelage.teachers.settings import ALONE
from tutelage.teachers.target_cache.cached import CachedTeacher
from tutelage.training.checks import check_budget, check_targets
from tutelage.training.loop import Sampler, Stream
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
        hearing: Who teaches, and how each is asked.
        teacher: The teacher (or committee) that is run beside the student; None where no term needs one.
        lesson: Who learns what from whom.
        progress: Opens bars.
        dev: The dev split's clips as batches; None without one.
        training: What `train` is made of, and its order.
        cached: The teacher's targets on the disk; None where it is run.
    """

    materials: SpeechMaterials
    assembly: Assembly
    accelerator: Accelerator
    codec: LabelCodec
    train: SpeechExamples
    held_out: SpeechExamples
    outputs: Mapping[str, Tensor]
    hearing: Hearing
    teacher: LiveTeacher[SpeechBatch] | Committee[SpeechBatch] | None
    lesson: Lesson[SpeechBatch] = field(repr=False)
    progress: Progress = no_progress
    dev: SpeechExamples | None = None
    training: TrainingClips | None = None
    cached: CachedTeacher | None = None

    @property
    def recipe(self) -> SpeechRecipe:
        """The recipe."""
        return self.materials.recipe

    @property
    def choices(self) -> Mapping[str, Any]:
        """The decoder layers that were chosen by measuring."""
        choice = self.assembly.outline.choice
        return {} if choice is None else {"chosen_layers": list(choice.layers)}

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
            *self.hearing.checks(emitted),
        ]
        device = self.accelerator.device
        return preflight(
            self.lesson,
            batch.to(device),
            declared,
            teacher=None if self.teacher is None else self.hearing.models,
            garbled=garbled.to(device),
            seed=recipe.seed,
        )

    def judge_untrained(self) -> Sequence[Verdict]:
        """A single teacher with its own window on some clips, then who teaches and the untrained student at its window.

        Of a committee every member is judged, then the committee.
        """
        hearing, bench, settings = self.hearing, self._bench(), self.recipe.teacher
        window = self.assembly.outline.teacher.window_seconds
        heard = from_outputs(self.held_out.encoder_outputs)
        verdicts = []
        some = () if settings.is_committee else self.materials.held_out.spread(self.recipe.evaluation.stock_clips)
        if some:
            stock = hearing.alone(ALONE, self.assembly.outline.stock)
            encode = from_audio(FrozenEncoder(stock.model, stock.processor.feature_extractor))
            name = f"teacher, {stock.window_seconds:g} s window"
            verdicts.append(judge(name, stock, encode, bench, utterances=some))
        for one in hearing.teachers:
            name = f"member {one.name}" if settings.is_committee else f"teacher, {window:g} s window"
            verdicts.append(judge(name, hearing.judged(one), heard, bench, examples=self.held_out))
        if settings.is_committee:
            name = f"teacher, committee of {len(hearing.teachers)} ({settings.described})"
            verdicts.append(judge(name, hearing.committee(settings), heard, bench, examples=self.held_out))
        return [*verdicts, self._judge_student("student, before", verdicts[-1])]

    def stream(self) -> Stream[SpeechBatch]:
        """The training clips."""
        device = self.accelerator.device
        return Stream(self._sampler(), lambda indices: self.train.batch(indices).to(device))

    def judge_dev(self, metric: str) -> Estimate:
        """The student on the dev split: "loss" (nats per token) or "wer" (greedy, new tokens capped by duration)."""
        if self.dev is None or self.materials.dev is None:
            raise ValueError("the recipe names no data.dev")
        student, clips, dev = self.assembly.student, self.materials.dev.utterances, self.dev
        bench = dataclasses.replace(self._bench(), utterances=clips, progress=no_progress)
        own = self._own_outputs(clips)
        if metric != "loss":
            return judge("student", student, from_outputs(own), bench).score.metrics()[metric]
        if own is not self.outputs:
            dev = SpeechExamples(clips, own, self.codec, student.model.config.max_target_positions)
        return measure_loss(student.model, clips, dev, bench)

    def judge_trained(self, name: str, untrained: Sequence[Verdict]) -> Verdict:
        """The student's row after training, beside its teacher's of before."""
        return self._judge_student(name, untrained[-2])

    def conclude(self, folder: RunFolder, course: Course[SpeechBatch]) -> SpeechFindings:
        """Judge, count, export, time."""
        bench, steps = self._bench(), course.trained.steps
        taught = "distilled" if self.teacher is not None else "trained"
        trained_student = course.verdict or self.judge_trained(f"student, {taught}", course.untrained)
        lengths = self._lengths_seen(course.trained.steps)
        return SpeechFindings(
            materials=self.materials,
            outline=self.assembly.outline,
            hearing=self.hearing,
            pairs=self.assembly.outline.pairs,
            preflight=course.rehearsal,
            trained=course.trained,
            tokens=sum(lengths),
            kept_tokens=sum(self._lengths_seen(course.trained.kept_step or course.trained.steps)),
            cost=count_training(
                self.assembly.outline,
                [len(self.codec.prompt) - 1 + length for length in lengths],
                len(self.train),
                live_teacher=self.teacher is not None and self.cached is None,
                passes=steps * self.recipe.training.accumulate,
            ),
            verdicts=(*course.untrained, trained_student),
            alignment=self._measure_alignment(),
            exported=self._export(folder),
            speed=self._measure_speed(bench),
            targets=None if self.cached is None else self.cached.describe(),
        )

    def _adapted(self) -> list[str]:
        return [name for name, module in self.assembly.peft_model.named_modules() if hasattr(module, "lora_A")]

    def _judge_student(self, name: str, teacher: Verdict) -> Verdict:
        """The student by its own encoder's outputs alone."""
        clips, positions = self.materials.held_out.utterances, self.assembly.outline.student.model.config
        alone, own = self.held_out, self._own_outputs(clips)
        if self.held_out.encoder_outputs is not own:
            alone = SpeechExamples(clips, own, self.codec, positions.max_target_positions)
        return judge(name, self.assembly.student, from_outputs(own), self._bench(), examples=alone, teacher=teacher)

    def _own_outputs(self, clips: Sequence[Utterance]) -> Mapping[str, Tensor]:
        """What the student's encoder says of clips: made once, or by the encoder as it is now where it is trained."""
        if not self.assembly.outline.trains_encoder:
            return self.outputs
        student = self.assembly.student
        return CurrentOutputs(clips, FrozenEncoder(student.model, student.processor.feature_extractor))

    def _bench(self) -> Bench:
        settings = self.recipe.evaluation
        return Bench(
            self.materials.held_out.utterances,
            self.codec,
            self.materials.normaliser,
            Resampling(draws=settings.bootstrap_draws, seed=RESAMPLING_SEED),
            settings.batch_size,
            progress=self.progress,
            beams=settings.beams,
        )

    def _sampler(self) -> Sampler:
        return (self.training or hear_training(self.materials)).sampler()

    def _lengths_seen(self, steps: int) -> list[int]:
        """Text tokens, end-of-text among them, of every clip in these steps, by drawing the batches again."""
        training, sampler = self.recipe.training, self._sampler()
        lengths = [len(ids) + 1 for ids in self.train.text_ids.values()]
        return [lengths[index] for _ in range(steps * training.accumulate) for index in sampler.next_batch()]

    def _measure_alignment(self) -> dict[str, dict[str, float]]:
        """Each pair's mean angle on held-out clips, beside mean-vector and shuffled baselines; none without pairs."""
        if self.teacher is None or self.lesson.teacher_forward is None or not self.assembly.objective.pairs:
            return {}
        ask = self.lesson.teacher_forward if self.cached is None else self.teacher.signal  # no cache has these clips
        batch = self.held_out.batch(range(min(ALIGNMENT_CLIPS, len(self.held_out)))).to(self.accelerator.device)
        with torch.no_grad():
            student: Signal = self.lesson.student_forward(batch)
        found = self.assembly.objective.baselines(
            student, ask(batch), batch.keep_BT, self.assembly.projectors, RESAMPLING_SEED
        )
        return {name: numbers._asdict() for name, numbers in found.items()}

    def _export(self, folder: RunFolder) -> ExportedStudent:
        """The merged student and its adapter, if that is all that was trained; a resumed run writes them anew."""
        recipe, outline = self.recipe, self.assembly.outline
        source = self.materials.student or self.materials.teacher
        folder.clear_exports()
        base = AdapterBase(
            source.reference,
            source.revision,
            outline.student.origins,
            outline.student.speech.window_seconds,
            merged_before(self.materials.teachers, self.materials.student),
        )
        if not recipe.student.feedback:  # what is fed back is no low-rank update
            save_adapter(self.assembly.peft_model, folder.adapter, base)
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
        deep_window = shrink_speech_model(outline.source or outline.stock, outline.student.origins, None)
        deep_window.model.model.decoder.load_state_dict(plain.model.decoder.state_dict())
        deep_window.model.model.encoder.layers.load_state_dict(plain.model.encoder.layers.state_dict())
        student = dataclasses.replace(outline.student.speech, model=plain)
        lead = outline.teachers[0].name
        stock, teacher = (self.hearing.alone(lead, speech) for speech in (outline.stock, outline.teacher))
        corners = Corners(stock, teacher, deep_window.speech, student)
        return measure_speed(corners, clips, settings.speed_repeats, bench)


def open_speech_classroom(materials: SpeechMaterials, accelerator: Accelerator, attempt: Attempt) -> SpeechClassroom:
    """Load the models, encode the clips (or find their encoder outputs), and build what is trained.

    Raises:
        InputError: The design does not fit the models, or the model does not know the language.
    """
    recipe = materials.recipe
    with accelerator.local_main_process_first():  # the others find in the cache what it transcribed
        materials = label_by_teacher(materials, attempt, str(accelerator.device))
    training = hear_training(materials)
    outline = load_outline(
        materials, str(accelerator.device), lambda source: choose_decoder_layers(materials, source, attempt)
    )
    if outline.pairs:
        layers = (outline.student.model.config.decoder_layers, outline.teacher.model.config.decoder_layers)
        attempt.talk(describe(outline.pairs, *layers))
    attempt.talk(outline.budget.describe())
    student = outline.student
    require_language(student.model.generation_config, recipe.data.language)
    codec = LabelCodec(student.processor.tokenizer, recipe.data.language, recipe.data.task)
    hearing = hear(outline.teachers, student.speech, committee=recipe.teacher.is_committee)
    for line in hearing.differences():
        attempt.talk(line)
    outputs = training.encode_all(student.speech, attempt, accelerator)  # before adapters change what the encoder is
    assembly = assemble(recipe, outline)
    teacher = None
    if assembly.objective.needs_teacher:
        # A cohort's members read the same logits, so those are made once.
        passes = None if recipe.is_cohort else dict.fromkeys(hearing.shared, partial(decode, defer=True))
        teacher = hearing.teach(recipe.teacher, assembly.objective, passes)
    others = [training.encode_all(one.cut, attempt, accelerator) for one in encoders_of(outline.teachers).values()]
    heard: Mapping[str, Tensor] = SideBySide([outputs, *others]) if others else outputs
    everyone = (student.speech, *(one.cut for one in outline.teachers))
    positions = min(speech.model.config.max_target_positions for speech in everyone)
    listened = (student.processor.feature_extractor, student.speech.window_seconds)
    train, held_out = (
        SpeechExamples(clips, heard, codec, positions, features(*listened) if outline.trains_encoder else None)
        for clips, features in (
            (training.clips, training.features),
            (materials.held_out.utterances, partial(ClipFeatures, materials.held_out.utterances)),
        )
    )
    clips = () if materials.dev is None else materials.dev.utterances
    dev = SpeechExamples(clips, outputs, codec, positions) if clips else None
    cached = open_cached_teacher(materials, train, hearing, attempt)
    if cached is not None and not recipe.is_cohort:  # its members are asked one by one
        require_blocks(cached, assembly.objective, recipe)
    lesson = make_lesson(assembly, cached or teacher, hearing.heard[outline.teachers[0].name])
    return SpeechClassroom(
        materials,
        assembly,
        accelerator,
        codec,
        train,
        held_out,
        outputs,
        hearing,
        teacher,
        lesson,
        attempt.progress,
        dev,
        training,
        cached,
    )
