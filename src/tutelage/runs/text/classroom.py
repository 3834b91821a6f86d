"""A classroom for text: a causal language model learns from rows of text, with a live teacher or without one.

Covers preparing (tokens, adapters), the checks, judging before and after, the export. Does not cover the order
(`runs.distil`), loading and cutting (`assembly`), rows (`corpus`) or the statistics (`judge`).
"""

from __future__ import annotations

import dataclasses
from collections import Counter
from collections.abc import Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import torch
from accelerate import Accelerator

from tutelage.evaluation.bootstrap import Resampling, group_interval
from tutelage.models.causal import TextModel, load_tokenizer
from tutelage.objectives.signal import Signal
from tutelage.progress import Progress, no_progress, say_nothing
from tutelage.records.estimate import Estimate
from tutelage.runs.attempt import Attempt
from tutelage.runs.caching import require_blocks
from tutelage.runs.classroom import Course
from tutelage.runs.folder import RunFolder
from tutelage.runs.teacher_folders import merged_before
from tutelage.runs.text.assembly import TextAssembly, assemble, load_outline
from tutelage.runs.text.caching import open_cached_teacher
from tutelage.runs.text.corpus import TokenSet, tokenise
from tutelage.runs.text.cost import count_training
from tutelage.runs.text.findings import TextFindings, TextSample
from tutelage.runs.text.frozen_blocks import open_block_cache
from tutelage.runs.text.judge import TextBench, TextVerdict, judge
from tutelage.runs.text.materials import TextMaterials
from tutelage.runs.text.recipe import TextRecipe
from tutelage.runs.text.sensitivity import choose_blocks
from tutelage.runs.text.teachers import Classes, share_classes
from tutelage.students.export import ExportedStudent, TextAdapterBase, export_text_student, merged_model, save_adapter
from tutelage.students.layer_map import describe
from tutelage.students.sensitivity import LayerChoice
from tutelage.tasks.sampler import EpochSampler
from tutelage.tasks.text.batch import TextBatch
from tutelage.tasks.text.codec import TextCodec
from tutelage.tasks.text.forward import read
from tutelage.tasks.text.generate import continue_text, split_document
from tutelage.tasks.text.isolation import leak_between_pieces
from tutelage.teachers.block_cache import BlockCache
from tutelage.teachers.committee import Committee
from tutelage.teachers.live import LiveTeacher
from tutelage.teachers.settings import ALONE
from tutelage.teachers.target_cache.cached import CachedTeacher
from tutelage.training.checks import Check, check_budget, check_targets, check_tokens
from tutelage.training.loop import Stream
from tutelage.training.preflight import PreflightReport, garble_padding, preflight
from tutelage.training.step import Lesson

ALIGNMENT_ROWS = 16  # held-out rows that the reported angles are measured on
RESAMPLING_SEED = 0  # of the bootstrap alone; the recipe's seed must not move an interval
LEAK = 1e-5  # relative: other kernels and orders of sums, never another document


@dataclass(frozen=True)
class TextClassroom:
    """Everything alive during a run on text.

    Args:
        materials: Recipe, data and model folders.
        assembly: Teacher, student, projectors and objective.
        accelerator: The device.
        codec: The tokenizer of the data.
        train: Training rows.
        held_out: Held-out rows.
        classes: Who teaches, and how each is asked.
        teacher: The teacher or committee, where a term needs one; run beside the student unless its targets are cached.
        lesson: Who learns what from whom.
        progress: Opens bars.
        cached: The teacher's targets on the disk; None where it is run.
        dev: The dev split's rows; None without one.
    """

    materials: TextMaterials
    assembly: TextAssembly
    accelerator: Accelerator
    codec: TextCodec
    train: TokenSet
    held_out: TokenSet
    classes: Classes
    teacher: LiveTeacher[TextBatch] | Committee[TextBatch] | None
    lesson: Lesson[TextBatch] = field(repr=False)
    progress: Progress = no_progress
    cached: CachedTeacher | None = None
    dev: TokenSet | None = None

    @property
    def recipe(self) -> TextRecipe:
        """The recipe."""
        return self.materials.recipe

    @property
    def choices(self) -> Mapping[str, Any]:
        """The blocks that were chosen by measuring."""
        choice = self.assembly.outline.choice
        return {} if choice is None else {"chosen_layers": list(choice.layers)}

    def rehearse(self) -> PreflightReport:
        """Every check before the first step, on one real batch and all ids of the data."""
        recipe, outline = self.recipe, self.assembly.outline
        examples, device = self.train.examples, self.accelerator.device
        batch = examples.batch(_spread(len(examples), recipe.training.batch_size))
        vocabulary = int(outline.student.model.config.vocab_size)
        garbled_BT = garble_padding(batch.input_ids_BT, batch.keep_BT, vocabulary, recipe.seed)
        garbled = dataclasses.replace(batch, input_ids_BT=garbled_BT)
        # Frozen blocks are run: what is kept of them is found by a row's real tokens, whatever its padding holds.
        live = make_lesson(self.assembly, None).student_forward
        return preflight(
            dataclasses.replace(self.lesson, student_forward=live),
            batch.to(device),
            self._declared(),
            teacher=None if self.teacher is None else self.classes.models,
            garbled=garbled.to(device),
            seed=recipe.seed,
        )

    def judge_untrained(self) -> Sequence[TextVerdict]:
        """The teacher, where there is one (the committee, then its members), and the student before training."""
        settings, classes = self.recipe.teacher, self.classes
        asked = {}
        if settings is not None and settings.is_committee:
            asked[f"teacher, committee of {len(classes.teachers)} ({settings.described})"] = classes.committee(settings)
        for name in classes.teachers:
            asked["teacher" if name == ALONE else f"member {name}"] = classes.judged(name)
        verdicts = [judge(name, model, self._bench()) for name, model in asked.items()]
        row = verdicts[0] if verdicts else None
        return [*verdicts, judge("student, before", self.assembly.model, self._bench(), row)]

    def stream(self) -> Stream[TextBatch]:
        """The training rows."""
        device = self.accelerator.device
        return Stream(self._sampler(), lambda indices: self.train.examples.batch(indices).to(device))

    def judge_dev(self, metric: str) -> Estimate:
        """The student's loss on the dev split, nats per token."""
        if self.dev is None or metric != "loss":
            raise ValueError(f"there is no {metric} to measure, or no data.dev to measure it on")
        bench = dataclasses.replace(self._bench(), examples=self.dev.examples, progress=no_progress)
        return group_interval(judge("student", self.assembly.model, bench).by_group("nats_per_token"), bench.resampling)

    def judge_trained(self, name: str, untrained: Sequence[TextVerdict]) -> TextVerdict:
        """The student's row after training, beside its teacher's of before."""
        row = untrained[0] if self.assembly.outline.teacher is not None else None
        return judge(name, self.assembly.model, self._bench(), row)

    def conclude(self, folder: RunFolder, course: Course[TextBatch]) -> TextFindings:
        """Judge, count, export, let every model write."""
        outline = self.assembly.outline
        taught = "distilled" if self.teacher is not None else "trained"
        student = course.verdict or self.judge_trained(f"student, {taught}", course.untrained)
        trained = course.trained
        seen, kept = self._rows_seen(trained.steps), self._rows_seen(trained.kept_step or trained.steps)
        rows = self.train.examples.packed.rows
        return TextFindings(
            materials=self.materials,
            outline=outline,
            classes=self.classes,
            train=self.train,
            held_out=self.held_out,
            identity=dict(self.codec.identity),
            pairs=outline.pairs,
            preflight=course.rehearsal,
            trained=trained,
            tokens=sum(int(rows[index].keep.sum()) * times for index, times in seen.items()),
            kept_tokens=sum(int(rows[index].keep.sum()) * times for index, times in kept.items()),
            cost=count_training(
                outline,
                self._lengths(seen),
                live_teacher=self.teacher is not None and self.cached is None,
                passes=trained.steps * self.recipe.training.accumulate,
            ),
            targets=None if self.cached is None else self.cached.describe(),
            verdicts=(*course.untrained, student),
            alignment=self._measure_alignment(),
            exported=self._export(folder),
            samples=self._samples(),
        )

    def _declared(self) -> list[Check]:
        """The checks that need names, counts and the models' own passes."""
        outline, recipe = self.assembly.outline, self.recipe
        checks = []
        if outline.budget is not None:
            adapted = [name for name, module in self.assembly.model.named_modules() if hasattr(module, "lora_A")]
            budget = outline.budget
            trained, allowed = budget.lora_params + budget.projector_params, recipe.student.allow_over_budget
            checks.append(check_targets(adapted, len(outline.adapted)))
            checks.append(check_budget(trained, budget.teacher_params, budget.limit, allow_over=allowed))
        emitted = self.train.token_ids | self.held_out.token_ids
        mine = self.codec.tokenizer.convert_ids_to_tokens
        checks.append(check_tokens(emitted, mine, outline.student.tokenizer.convert_ids_to_tokens))
        checks += self.classes.checks(emitted, mine)
        models = [outline.student.model, *(self.classes.judged(name) for name in self.classes.teachers)]
        rows = self.train.examples.packed.rows
        shared = [index for index, row in enumerate(rows) if len(row.owners) > 1][: recipe.training.batch_size]
        if self.train.examples.packed.isolated and shared:
            batch = self.train.examples.batch(shared)
            leaks = [leak_between_pieces(model, batch.to(model.device), recipe.seed) for model in models]
            detail = "" if max(leaks) < LEAK else "positions attend across documents; choose packing: stream"
            checks.append(Check("effect of other documents in a row", max(leaks), LEAK, max(leaks) < LEAK, detail))
        return checks

    def _bench(self) -> TextBench:
        settings = self.recipe.evaluation
        resampling = Resampling(draws=settings.bootstrap_draws, seed=RESAMPLING_SEED)
        return TextBench(self.held_out.examples, resampling, settings.batch_size, self.progress)

    def _sampler(self) -> EpochSampler:
        return EpochSampler(len(self.train.examples), self.recipe.training.batch_size, self.recipe.order_seed)

    def _rows_seen(self, steps: int) -> Counter[int]:
        """How often every row was in these steps, by drawing the batches again."""
        training, sampler = self.recipe.training, self._sampler()
        return Counter(index for _ in range(steps * training.accumulate) for index in sampler.next_batch())

    def _lengths(self, seen: Counter[int]) -> Counter[int]:
        """How many rows of each length were trained on."""
        lengths: Counter[int] = Counter()
        for index, times in seen.items():
            lengths[len(self.train.examples.packed.rows[index])] += times
        return lengths

    def _measure_alignment(self) -> dict[str, dict[str, float]]:
        """Each pair's mean angle on held-out rows, beside mean-vector and shuffled baselines; none without pairs."""
        if self.teacher is None or not self.assembly.objective.pairs:
            return {}
        examples = self.held_out.examples
        batch = examples.batch(range(min(ALIGNMENT_ROWS, len(examples)))).to(self.accelerator.device)
        with torch.no_grad():
            student: Signal = self.lesson.student_forward(batch)
        found = self.assembly.objective.baselines(
            student, self.teacher.signal(batch), batch.keep_BT, self.assembly.projectors, RESAMPLING_SEED
        )
        return {name: numbers._asdict() for name, numbers in found.items()}

    def _export(self, folder: RunFolder) -> ExportedStudent:
        """The student, merged, and its adapter where it has one; a resumed run writes them anew."""
        outline, source = self.assembly.outline, self.materials.student or self.materials.teacher
        folder.clear_exports()
        if outline.budget is not None and source is not None:
            merged = merged_before(self.materials.teachers, self.materials.student)
            base = TextAdapterBase(source.reference, source.revision, outline.origins or (), merged)
            save_adapter(self.assembly.model, folder.adapter, base)
        return export_text_student(self.assembly.model, self.codec.tokenizer, folder.student, self.materials.template)

    def _samples(self) -> list[TextSample]:
        """How teacher and student continue a few held-out documents: evenly spread, not the best ones."""
        settings, teacher = self.recipe.evaluation, self.classes.writer()
        documents = self.held_out.examples.documents
        wanted = min(settings.show_documents, len(documents))
        student = merged_model(self.assembly.model)
        samples = []
        for document in [documents[index * len(documents) // wanted] for index in range(wanted)]:
            prompt, rest = split_document(document, settings.prompt_tokens)
            prompt = prompt[-max(1, self.recipe.data.length - settings.new_tokens) :]
            written = [
                None if model is None else continue_text(model, self.codec, prompt, settings.new_tokens)
                for model in (teacher, student)
            ]
            reference = self.codec.decode(rest[: settings.new_tokens])
            samples.append(TextSample(document.id, self.codec.decode(prompt), reference, *written))
        return samples


def open_text_classroom(materials: TextMaterials, accelerator: Accelerator, attempt: Attempt) -> TextClassroom:
    """Load the models, encode and pack the documents, and build what is trained.

    Raises:
        InputError: The design does not fit the models, or the data does not fit the rows.
    """
    recipe = materials.recipe
    codec = TextCodec(load_tokenizer(materials.tokenizer), materials.template)

    def choose(beginning: TextModel) -> LayerChoice:
        rows = tokenise(materials.train, "train", codec, recipe.data, beginning.positions, say_nothing)
        return choose_blocks(recipe, beginning.model, rows.examples)

    outline = load_outline(materials, codec.tokenizer, str(accelerator.device), choose)
    if outline.choice is not None:
        attempt.talk(outline.choice.describe())
    classes = share_classes(outline.teachers, outline.student, committee=_is_committee(recipe))
    positions = min(text.positions for text in (*outline.teachers.values(), outline.student))
    named = {"train": materials.train, "held_out": materials.held_out}
    named |= {} if materials.dev is None else {"dev": materials.dev}
    sets = {name: tokenise(corpus, name, codec, recipe.data, positions, attempt.talk) for name, corpus in named.items()}
    train, held_out, dev = sets["train"], sets["held_out"], sets.get("dev")
    if outline.pairs and outline.teacher is not None:
        attempt.talk(describe(outline.pairs, outline.student.blocks, outline.teacher.blocks))
    for line in (outline.describe(), *classes.differences()):
        attempt.talk(line)
    assembly = assemble(recipe, outline)
    teacher = None
    if assembly.objective.needs_teacher and recipe.teacher is not None and outline.teacher is not None:
        # A cohort's members read the same logits, so those are made once.
        passes = None if recipe.is_cohort else dict.fromkeys(classes.teachers, partial(read, defer=True))
        teacher = classes.teach(recipe.teacher, assembly.objective, passes)
    cached = open_cached_teacher(materials, train, classes, attempt)
    if cached is not None and not recipe.is_cohort:  # its members are asked one by one
        require_blocks(cached, assembly.objective, recipe)
    blocks = None
    if recipe.student.cache_prefix and not recipe.is_cohort:
        blocks = open_block_cache(recipe, [assembly], train, accelerator, attempt)
    lesson = make_lesson(assembly, cached or teacher, blocks)
    return TextClassroom(
        materials,
        assembly,
        accelerator,
        codec,
        train,
        held_out,
        classes,
        teacher,
        lesson,
        attempt.progress,
        cached,
        dev,
    )


def _is_committee(recipe: TextRecipe) -> bool:
    return recipe.teacher is not None and recipe.teacher.is_committee


def _spread(total: int, wanted: int) -> list[int]:
    """Places of a batch, evenly spread, the last among them: full rows come first, rows with padding last."""
    count = min(wanted, total)
    return [total - 1] if count == 1 else [place * (total - 1) // (count - 1) for place in range(count)]


def make_lesson(
    assembly: TextAssembly,
    teacher: LiveTeacher[TextBatch] | Committee[TextBatch] | CachedTeacher | None,
    blocks: BlockCache | None = None,
) -> Lesson[TextBatch]:
    """The student as it is trained, with what its frozen blocks answer where that is kept, and its teacher's signal."""
    layers = assembly.objective.student_layers

    def student_forward(batch: TextBatch) -> Signal:
        with nullcontext() if blocks is None else blocks.replay(assembly.model, batch):
            return read(assembly.model, batch, layers, defer=True)

    signal: Any = None if teacher is None else teacher.signal
    return Lesson(assembly.model, assembly.projectors, assembly.objective, student_forward, signal)
