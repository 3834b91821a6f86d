"""The targets of a text recipe's teacher: built once over its training rows, and opened by runs that learn from them.

Covers whom targets belong to, what a build would take, building, and opening with every check. Does not cover files or
encodings (`teachers.target_cache`).
"""

from __future__ import annotations

import dataclasses
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import nn

from tutelage.errors import InputError
from tutelage.models.causal import TextModel, load_tokenizer
from tutelage.objectives.logits import DeferredLogits, Head
from tutelage.objectives.objective import Objective
from tutelage.objectives.signal import Signal
from tutelage.planning.storage import TeacherCache
from tutelage.records.document import Document
from tutelage.records.hashing import sha256_file
from tutelage.runs.attempt import Attempt
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
from tutelage.teachers.target_cache.build import build_targets
from tutelage.teachers.target_cache.cache import TargetCache
from tutelage.teachers.target_cache.cached import CachedTeacher
from tutelage.teachers.target_cache.contents import CacheIdentity, CacheSettings, SampleKey, hash_keys
from tutelage.teachers.target_cache.rows import Answer
from tutelage.teachers.translated import translated
from tutelage.training.device import limit_threads, open_accelerator

_HALF = 2  # bytes of a float16
_ROW = 240  # bytes of a row's id, hash and Arrow's own


@dataclass(frozen=True)
class TextCachePlan:
    """A cache that could be built.

    Args:
        materials: The recipe with its data and models; it names a teacher.
        train: The rows.
        settings: What is kept, blocks among it.
        width: Of the teacher's states.
        vocabulary: Of the teacher.
    """

    materials: TextMaterials
    train: TokenSet
    settings: CacheSettings
    width: int
    vocabulary: int

    @property
    def keys(self) -> list[SampleKey]:
        """Every row."""
        return _keys(self.train)

    @property
    def bytes_per_token(self) -> float:
        """Of the numbers alone; for sampled targets at most this, since equal draws are kept once."""
        settings = self.settings
        kind = "sampled" if settings.sampled else settings.kind
        targets = TeacherCache(kind, settings.size or self.width, self.vocabulary)
        return targets.bytes_per_token(self.vocabulary) + _HALF * self.width * len(settings.layers)

    def document(self, name: str, folder: Path, **more: Any) -> Document:
        """The plan, and what was made of it."""
        rows, positions = len(self.keys), self.train.examples.packed.supervised
        recipe = self.materials.recipe
        expected = {
            "rows": rows,
            "positions": positions,
            "bytes_per_token": self.bytes_per_token,
            "bytes": round(self.bytes_per_token * positions + _ROW * rows),
        }
        body = {
            "recipe": recipe.name,
            "path": str(folder),
            "contents": {**dataclasses.asdict(_identity(self.materials, self.keys)), **self.settings.contents()},
            "expected": expected,
            **more,
        }
        return Document(name, body)


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
    if settings.kind == "hidden" and recipe.teacher is not None and recipe.teacher.is_committee:
        raise InputError(
            "A committee has no final state of its own, so --kind hidden cannot keep its answers; use topk, systematic "
            "or multinomial."
        )
    layers = Objective(recipe.objective, outline.pairs).teacher_layers
    vocabulary = int(outline.teacher.model.config.vocab_size)
    if settings.kind == "topk" and settings.size > vocabulary:
        raise InputError(f"--size is {settings.size}; the teacher has {vocabulary} tokens.")
    settings = dataclasses.replace(settings, layers=layers)
    return TextCachePlan(materials, train, settings, outline.teacher.width, vocabulary)


def build_text_cache(plan: TextCachePlan, attempt: Attempt) -> Document:
    """Run the teacher over every training row once; `attempt.out` may hold what an earlier build finished.

    Raises:
        InputError: The folder holds a cache of something else, or cannot be written.
        InterruptedRunError: Ctrl-C; finished shards stay.
    """
    materials, settings, keys = plan.materials, plan.settings, plan.keys
    device = open_accelerator(attempt.device).device
    teacher = _answering(materials, settings, str(device))

    def forward(places: Sequence[int]) -> Answer:
        batch = plan.train.examples.batch(places).to(device)
        return Answer(teacher.signal(batch), batch.labels_BT, batch.keep_BT)

    with limit_threads(materials.recipe.training.threads):
        identity = _identity(materials, keys)
        built = build_targets(keys, forward, identity, settings, attempt.out, attempt.progress)
    found = {name: getattr(built, name) for name in ("bytes", "kept", "computed")}
    return plan.document("cache", attempt.out, built={**found, "damaged": list(built.damaged)})


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
    head, last = _head(text), text.blocks

    def final(model: nn.Module, batch: TextBatch, layers: Collection[int]) -> Signal:
        states = read(model, batch, {*layers, last}).states
        return Signal(DeferredLogits(states[last], head), {layer: states[layer] for layer in layers})

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
    cache = TargetCache.open(materials.cache, _identity(materials, keys), progress=attempt.progress)
    cache.require(keys)
    lacking = sorted(set(objective.teacher_layers) - set(cache.layers))
    if lacking:
        raise InputError(
            f"teacher.cache {materials.cache} keeps the states of blocks {list(cache.layers)}, and the objective "
            f"compares those of {lacking} too (layers); build it for this recipe in another folder."
        )
    attempt.talk(f"teacher: cached ({cache.kind}, {cache.positions:,} positions); it is not run in training")
    return CachedTeacher(cache, _head(text) if cache.kind == "hidden" else None)


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
