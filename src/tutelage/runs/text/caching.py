"""The targets of a text recipe's teacher: built once over its training rows, and opened by runs that learn from them.

Covers whom targets belong to, what a build would take, building, and opening with every check. Does not cover files or
encodings (`teachers.target_cache`).
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from tutelage.errors import InputError
from tutelage.models.causal import TextModel, load_tokenizer
from tutelage.objectives.logits import Head
from tutelage.objectives.objective import Objective
from tutelage.objectives.signal import Signal
from tutelage.records.document import Document
from tutelage.records.hashing import sha256_file
from tutelage.runs.attempt import Attempt
from tutelage.runs.cache_needs import require_served
from tutelage.runs.caching import CacheCount, final_states, open_targets, replaying, require_kept
from tutelage.runs.cohort.settings import ask_most, compares
from tutelage.runs.teacher_folders import answer_sha256, describe_average
from tutelage.runs.text.assembly import load_meta_outline
from tutelage.runs.text.corpus import TokenSet, tokenise
from tutelage.runs.text.materials import TextMaterials
from tutelage.runs.text.teachers import Classes, load_teachers, refuse_translation
from tutelage.tasks.text.batch import TextBatch
from tutelage.tasks.text.codec import TextCodec
from tutelage.tasks.text.forward import read
from tutelage.teachers.committee import Committee
from tutelage.teachers.target_cache.cached import CachedTeacher
from tutelage.teachers.target_cache.contents import CacheIdentity, CacheSettings, SampleKey, hash_keys
from tutelage.teachers.target_cache.rows import Answer
from tutelage.training.device import limit_threads, open_accelerator


@dataclass(frozen=True)
class TextCachePlan:
    """A cache that could be built.

    Args:
        materials: The recipe with its data and models; it names a teacher.
        train: The rows.
        objective: What is compared.
        count: Rows as samples, identity, settings and sizes.
    """

    materials: TextMaterials
    train: TokenSet
    objective: Objective
    count: CacheCount

    def document(self, name: str, folder: Path) -> Document:
        """The plan."""
        return self.count.document(name, folder)


def plan_text_cache(materials: TextMaterials, settings: CacheSettings, attempt: Attempt) -> TextCachePlan:
    """Encode the training rows and find the blocks that the recipe's objective compares; no weights are loaded.

    Raises:
        InputError: The design does not fit the models, the data does not fit the rows, or more classes are asked for
            than there are.
    """
    recipe = materials.recipe
    require_served(recipe, settings.kind)
    asking = ask_most(recipe)
    outline = load_meta_outline(dataclasses.replace(materials, recipe=asking))
    if outline.teacher is None:
        raise InputError("The recipe names no teacher, so there is nothing to cache.")
    codec = TextCodec(load_tokenizer(materials.tokenizer), materials.template)
    positions = min(outline.teacher.positions, outline.student.positions)
    train = tokenise(materials.train, "train", codec, recipe.data, positions, attempt.talk)
    objective = Objective(asking.objective, outline.pairs)
    vocabulary = int(outline.teacher.model.config.vocab_size)
    require_kept(settings, vocabulary)
    keys = _keys(train)
    count = CacheCount(
        recipe.name,
        keys,
        _identity(materials, keys),
        train.examples.packed.supervised,
        dataclasses.replace(settings, layers=objective.teacher_layers),
        outline.teacher.width,
        vocabulary,
        sum(one.width for one in outline.teachers.values()),
    )
    return TextCachePlan(materials, train, objective, count)


def build_text_cache(plan: TextCachePlan, attempt: Attempt) -> Document:
    """Run the teacher over every training row once; `attempt.out` may hold what an earlier build finished.

    Raises:
        InputError: The folder holds a cache of something else, or cannot be written.
        InterruptedRunError: Ctrl-C; finished shards stay.
    """
    device = open_accelerator(attempt.device).device
    answer = _answering(plan, str(device))

    def forward(places: Sequence[int]) -> Answer:
        batch = plan.train.examples.batch(places).to(device)
        return Answer(answer(batch), batch.labels_BT, batch.keep_BT)

    with limit_threads(plan.materials.recipe.training.threads):
        return plan.count.build(forward, attempt)


def _answering(plan: TextCachePlan, device: str) -> Callable[[TextBatch], Signal]:
    """The teacher as its answers are kept: final states with their heads, or (a committee's mean) logits."""
    who = plan.materials.recipe.teacher
    if who is None:
        raise InputError("The recipe names no teacher, so there is nothing to cache.")
    teachers = load_teachers(plan.materials.teachers, who, device)
    lead = next(iter(teachers.values()))
    classes = Classes(teachers, lead, dict.fromkeys(teachers))  # asked in their own: those who learn are checked later
    if plan.count.settings.kind != "hidden":
        return classes.teach(who, plan.objective).signal
    finals = {name: final_states(read, _head(text), text.blocks) for name, text in teachers.items()}
    teacher = classes.teach(who, plan.objective, finals)
    return teacher.deferred if isinstance(teacher, Committee) else teacher.signal


def open_cached_teacher(
    materials: TextMaterials, train: TokenSet, classes: Classes, attempt: Attempt
) -> CachedTeacher | None:
    """The cache that the recipe names, in the place of its teacher; None where it names none, or nobody compares.

    Args:
        materials: The recipe with its data and models.
        train: The rows, all of which must be there.
        classes: The teachers: their heads replay final states.
        attempt: Told of shards.

    Raises:
        InputError: The cache is of something else (every field that differs is named), or damaged; or the teachers'
            classes are not the student's.
    """
    teacher = materials.recipe.teacher
    if teacher is None or teacher.cache is None or not compares(ask_most(materials.recipe)):
        return None
    refuse_translation(classes)
    keys = _keys(train)
    heads = {name: _head(text) for name, text in classes.teachers.items()}
    return open_targets(teacher.cache, keys, _identity(materials, keys), lambda: replaying(heads, teacher), attempt)


def _keys(train: TokenSet) -> list[SampleKey]:
    return [SampleKey(row.id, row.token_hash) for row in train.examples.packed.rows]


def _identity(materials: TextMaterials, keys: Sequence[SampleKey]) -> CacheIdentity:
    template, teacher = materials.recipe.data.chat_template, materials.recipe.teacher
    return CacheIdentity(
        model="" if teacher is None else answer_sha256(teacher, materials.teachers),
        tokenizer=materials.tokenizer_hash,
        data=hash_keys(keys),
        template=None if template is None else sha256_file(template),
        committee=None if teacher is None else describe_average(teacher, materials.teachers),
    )


def _head(text: TextModel) -> Head:
    """Frozen with its model; none of the architectures that are read scales or caps its logits."""
    text.model.requires_grad_(False)
    return Head.of(text.model.get_output_embeddings(), int(text.model.config.vocab_size))
