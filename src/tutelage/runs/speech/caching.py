"""The targets of a speech recipe's teacher: built once over its training clips, and opened by runs that learn of them.

Covers whom targets belong to, the clips as samples, building, and opening. Does not cover what is free of the task
(`runs.caching`), files or encodings (`teachers.target_cache`).
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from tutelage.errors import InputError
from tutelage.models.load import SpeechModel, load_processor
from tutelage.models.manifest import hash_folder
from tutelage.objectives.logits import Head
from tutelage.objectives.objective import Objective
from tutelage.objectives.signal import Signal
from tutelage.records.document import Document
from tutelage.records.hashing import sha256_json
from tutelage.runs.attempt import Attempt
from tutelage.runs.cache_needs import require_served
from tutelage.runs.caching import CacheCount, final_states, open_targets, replaying, require_kept
from tutelage.runs.cohort.settings import ask_most, compares
from tutelage.runs.speech.assembly import load_meta_outline, load_outline
from tutelage.runs.speech.augment import hear_training
from tutelage.runs.speech.materials import SpeechMaterials
from tutelage.runs.speech.recipe import cache_faults
from tutelage.runs.speech.sensitivity import choose_decoder_layers
from tutelage.runs.speech.teachers import Hearing, SideBySide, encoders_of, hear
from tutelage.runs.teacher_folders import answer_sha256, describe_average
from tutelage.tasks.speech.batch import SpeechBatch, SpeechExamples, token_hash
from tutelage.tasks.speech.forward import decode
from tutelage.tasks.speech.labels import LabelCodec
from tutelage.teachers.committee import Committee
from tutelage.teachers.target_cache.cached import CachedTeacher
from tutelage.teachers.target_cache.contents import CacheIdentity, CacheSettings, SampleKey, hash_keys
from tutelage.teachers.vocabulary import describe_shared
from tutelage.training.device import limit_threads, open_accelerator

_TOKENIZER_FILES = ("tokenizer.json", "tokenizer_config.json", "vocab.json", "merges.txt", "added_tokens.json")


@dataclass(frozen=True)
class SpeechCachePlan:
    """A cache that could be built.

    Args:
        materials: The recipe with its data and models.
        objective: What is compared.
        count: Samples, identity, settings and sizes.
    """

    materials: SpeechMaterials
    objective: Objective
    count: CacheCount

    def document(self, name: str, folder: Path) -> Document:
        """The plan."""
        return self.count.document(name, folder)


def plan_speech_cache(materials: SpeechMaterials, settings: CacheSettings, attempt: Attempt) -> SpeechCachePlan:
    """Encode the transcripts and find the decoder layers that the recipe's objective compares; no weights are loaded.

    Raises:
        InputError: The design does not fit the models, the recipe cannot learn from a cache, or more classes are asked
            for than there are.
    """
    recipe = materials.recipe
    faults = cache_faults(recipe)
    if faults:
        raise InputError(faults)
    require_served(recipe, settings.kind)
    asking = ask_most(recipe)
    outline = load_meta_outline(dataclasses.replace(materials, recipe=asking))
    objective = Objective(asking.objective, outline.pairs)
    vocabulary = int(outline.teacher.model.config.vocab_size)
    require_kept(settings, vocabulary)
    source = (materials.student or materials.teacher).path
    codec = LabelCodec(load_processor(source).tokenizer, recipe.data.language, recipe.data.task)
    everyone = (outline.student.speech, *(one.cut for one in outline.teachers))
    clips = materials.train.utterances
    text_ids = codec.encode_all(clips, min(one.model.config.max_target_positions for one in everyone))
    keys = [SampleKey(clip.id, token_hash(codec, text_ids[clip.id], clip.sha256)) for clip in clips]
    attempt.talk(f"train: {len(clips):,} clips")
    count = CacheCount(
        recipe.name,
        keys,
        _identity(materials, codec, keys, outline.student.speech.window_seconds),
        sum(len(ids) + 1 for ids in text_ids.values()),
        dataclasses.replace(settings, layers=objective.teacher_layers),
        int(outline.teacher.model.config.d_model),
        vocabulary,
        sum(int(one.cut.model.config.d_model) for one in outline.teachers),
    )
    return SpeechCachePlan(materials, objective, count)


def build_speech_cache(plan: SpeechCachePlan, attempt: Attempt) -> Document:
    """Run the teacher over every training clip once; `attempt.out` may hold what an earlier build finished.

    Raises:
        InputError: The folder holds a cache of something else, or cannot be written; the vocabularies differ.
        InterruptedRunError: Ctrl-C; finished shards stay.
    """
    from tutelage.teachers.target_cache.rows import Answer

    materials, recipe = plan.materials, plan.materials.recipe
    accelerator = open_accelerator(attempt.device)
    device = accelerator.device
    with limit_threads(recipe.training.threads):
        outline = load_outline(materials, str(device), lambda source: choose_decoder_layers(materials, source, attempt))
        hearing = hear(outline.teachers, outline.student.speech, committee=recipe.teacher.is_committee)
        _refuse_translation(hearing)
        training = hear_training(materials)
        speeches = (outline.student.speech, *(one.cut for one in encoders_of(outline.teachers).values()))
        outputs = [training.encode_all(speech, attempt, accelerator) for speech in speeches]
        processor = outline.student.processor
        codec = LabelCodec(processor.tokenizer, recipe.data.language, recipe.data.task)
        everyone = (outline.student.speech, *(one.cut for one in outline.teachers))
        positions = min(one.model.config.max_target_positions for one in everyone)
        heard = SideBySide(outputs) if len(outputs) > 1 else outputs[0]
        examples = SpeechExamples(training.clips, heard, codec, positions)
        answer = _answering(plan, hearing)

        def forward(places: object) -> Answer:
            batch = examples.batch(places).to(device)  # type: ignore[arg-type]  # a sequence of places
            return Answer(answer(batch), batch.labels_BT, batch.keep_BT)

        return plan.count.build(forward, attempt)


def open_cached_teacher(
    materials: SpeechMaterials, train: SpeechExamples, hearing: Hearing, attempt: Attempt
) -> CachedTeacher | None:
    """The cache that the recipe names, in the place of its teacher; None where it names none, or nobody compares.

    Args:
        materials: The recipe with its data and models.
        train: The clips, all of which must be there.
        hearing: The teachers: their heads replay final states.
        attempt: Told of shards.

    Raises:
        InputError: The cache is of something else (every field that differs is named), or damaged.
    """
    teacher = materials.recipe.teacher
    if materials.cache is None or not compares(ask_most(materials.recipe)):
        return None
    _refuse_translation(hearing)
    keys = [SampleKey(name, train.token_hash(name)) for name in train.text_ids]
    identity = _identity(materials, train.codec, keys, hearing.student.window_seconds)
    heads = {one.name: _head(one.cut) for one in hearing.teachers}
    return open_targets(materials.cache, keys, identity, lambda: replaying(heads, teacher), attempt)


def _answering(plan: SpeechCachePlan, hearing: Hearing) -> Callable[[SpeechBatch], Signal]:
    """The teacher as its answers are kept: final states with their heads, or (a committee's mean) logits."""
    settings, objective = plan.materials.recipe.teacher, plan.objective
    if plan.count.settings.kind != "hidden":
        return hearing.teach(settings, objective).signal
    finals = {
        one.name: final_states(decode, _head(one.cut), int(one.cut.model.config.decoder_layers))
        for one in hearing.teachers
    }
    teacher = hearing.teach(settings, objective, finals)
    return teacher.deferred if isinstance(teacher, Committee) else teacher.signal


def _identity(
    materials: SpeechMaterials, codec: LabelCodec, keys: list[SampleKey], window_seconds: float
) -> CacheIdentity:
    files = hash_folder((materials.student or materials.teacher).path)
    teacher, folders = materials.recipe.teacher, materials.teachers
    return CacheIdentity(
        model=answer_sha256(teacher, folders),
        tokenizer=sha256_json({name: found for name, found in files.items() if name in _TOKENIZER_FILES}),
        data=hash_keys(keys),
        template=sha256_json(list(codec.prompt)),
        window_seconds=float(window_seconds),
        committee=describe_average(teacher, folders),
    )


def _refuse_translation(hearing: Hearing) -> None:
    lines = describe_shared(hearing.shared)
    if lines:
        raise InputError(
            [
                f"{line}: a cache holds the teacher's own classes. Leave teacher.cache out to run it live."
                for line in lines
            ]
        )


def _head(speech: SpeechModel) -> Head:
    speech.model.requires_grad_(False)
    return Head.of(speech.model.get_output_embeddings(), int(speech.model.config.vocab_size))
