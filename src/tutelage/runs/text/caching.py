"""The targets of a text recipe's teacher: built once over its training rows, and opened by runs that learn from them.

Covers whom targets belong to, what a build would take, building, and opening with every check. Does not cover files or
encodings (`teachers.target_cache`).
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from tutelage.errors import InputError
from tutelage.models.causal import TextModel, load_tokenizer
from tutelage.objectives.logits import Head
from tutelage.objectives.objective import Objective
from tutelage.records.document import Document
from tutelage.records.hashing import sha256_file
from tutelage.runs.attempt import Attempt
from tutelage.runs.caching import CacheCount, final_states, open_targets, require_kept
from tutelage.runs.teacher_folders import answer_sha256
from tutelage.runs.text.assembly import load_meta_outline
from tutelage.runs.text.corpus import TokenSet, tokenise
from tutelage.runs.text.materials import TextMaterials
from tutelage.runs.text.teachers import load_teachers
from tutelage.tasks.text.batch import TextBatch
from tutelage.tasks.text.codec import TextCodec
from tutelage.tasks.text.forward import read
from tutelage.teachers.committee import Committee, Member
from tutelage.teachers.live import LiveTeacher
from tutelage.teachers.target_cache.cached import CachedTeacher
from tutelage.teachers.target_cache.contents import CacheIdentity, CacheSettings, SampleKey, hash_keys
from tutelage.teachers.target_cache.rows import Answer
from tutelage.teachers.translated import translated
from tutelage.training.device import limit_threads, open_accelerator


@dataclass(frozen=True)
class TextCachePlan:
    """A cache that could be built.

    Args:
        materials: The recipe with its data and models; it names a teacher.
        train: The rows.
        count: Rows as samples, identity, settings and sizes.
    """

    materials: TextMaterials
    train: TokenSet
    count: CacheCount

    @property
    def settings(self) -> CacheSettings:
        """What is kept, blocks among it."""
        return self.count.settings

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
    outline = load_meta_outline(materials)
    if outline.teacher is None:
        raise InputError("The recipe names no teacher, so there is nothing to cache.")
    codec = TextCodec(load_tokenizer(materials.tokenizer), materials.template)
    positions = min(outline.teacher.positions, outline.student.positions)
    train = tokenise(materials.train, "train", codec, recipe.data, positions, attempt.talk)
    layers = Objective(recipe.objective, outline.pairs).teacher_layers
    vocabulary = int(outline.teacher.model.config.vocab_size)
    require_kept(settings, vocabulary, committee=recipe.teacher is not None and recipe.teacher.is_committee)
    keys = _keys(train)
    count = CacheCount(
        recipe.name,
        keys,
        _identity(materials, keys),
        train.examples.packed.supervised,
        dataclasses.replace(settings, layers=layers),
        outline.teacher.width,
        vocabulary,
    )
    return TextCachePlan(materials, train, count)


def build_text_cache(plan: TextCachePlan, attempt: Attempt) -> Document:
    """Run the teacher over every training row once; `attempt.out` may hold what an earlier build finished.

    Raises:
        InputError: The folder holds a cache of something else, or cannot be written.
        InterruptedRunError: Ctrl-C; finished shards stay.
    """
    materials, settings = plan.materials, plan.settings
    device = open_accelerator(attempt.device).device
    teacher = _answering(materials, settings, str(device))

    def forward(places: Sequence[int]) -> Answer:
        batch = plan.train.examples.batch(places).to(device)
        return Answer(teacher.signal(batch), batch.labels_BT, batch.keep_BT)

    with limit_threads(materials.recipe.training.threads):
        return plan.count.build(forward, attempt)


def _answering(
    materials: TextMaterials, settings: CacheSettings, device: str
) -> LiveTeacher[TextBatch] | Committee[TextBatch]:
    """The teacher as its answers are kept: final states with their head, or logits; a committee's are its average's."""
    who = materials.recipe.teacher
    if who is None:
        raise InputError("The recipe names no teacher, so there is nothing to cache.")
    teachers = load_teachers(materials.teachers, who, device)
    if who.is_committee:
        members = {
            name: Member(
                LiveTeacher(
                    text.model,
                    settings.layers if name == who.states_from else (),
                    translated(read, None, "input_ids_BT"),
                ),
                text.tokenizer.get_vocab(),
            )
            for name, text in teachers.items()
        }
        return Committee(members, who.space, who.shares, settings.layers, who.states_from)
    text = next(iter(teachers.values()))
    final = final_states(read, _head(text), text.blocks)
    return LiveTeacher(text.model, settings.layers, final if settings.kind == "hidden" else read)


def open_cached_teacher(
    materials: TextMaterials, train: TokenSet, text: TextModel, objective: Objective, attempt: Attempt
) -> CachedTeacher:
    """The cache that the recipe names, in the place of its teacher.

    Args:
        materials: The recipe with its data and models.
        train: The rows, all of which must be there.
        text: The teacher, frozen: its head replays final states.
        objective: What is compared.
        attempt: Told of shards.

    Raises:
        InputError: The cache is of something else (every field that differs is named), damaged, or lacks blocks.
    """
    if materials.cache is None:
        raise ValueError("the recipe names no cache")
    keys = _keys(train)
    return open_targets(materials.cache, keys, _identity(materials, keys), lambda: _head(text), objective, attempt)


def _keys(train: TokenSet) -> list[SampleKey]:
    return [SampleKey(row.id, row.token_hash) for row in train.examples.packed.rows]


def _identity(materials: TextMaterials, keys: Sequence[SampleKey]) -> CacheIdentity:
    template, teacher = materials.recipe.data.chat_template, materials.recipe.teacher
    return CacheIdentity(
        model="" if teacher is None else answer_sha256(teacher, materials.teachers),
        tokenizer=materials.tokenizer_hash,
        data=hash_keys(keys),
        template=None if template is None else sha256_file(template),
    )


def _head(text: TextModel) -> Head:
    """Frozen with its model (`LiveTeacher`); none of the architectures that are read scales or caps its logits."""
    return Head.of(text.model.get_output_embeddings(), int(text.model.config.vocab_size))
