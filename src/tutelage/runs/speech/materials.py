"""What a run on speech needs before anything heavy is loaded: data that was checked and models that were found.

Covers reading both manifests, refusing data that leaks from training into judging, finding the models, and the hash of
the recipe. Does not cover loading a model (`assembly`); nothing here imports torch.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tutelage.errors import InputError
from tutelage.evaluation.normalisers import whisper_normaliser
from tutelage.evaluation.wer import Normaliser
from tutelage.models.layout import window_seconds
from tutelage.models.resolve import ResolvedModel, resolve_model
from tutelage.models.verify import read_config
from tutelage.progress import Progress, Talk, no_progress, say_nothing
from tutelage.records.document import Caution
from tutelage.records.hashing import sha256_file, sha256_json
from tutelage.runs.cache_needs import require_cache
from tutelage.runs.speech.recipe import SpeechRecipe
from tutelage.runs.teacher_folders import TeacherFolder, find_teachers, identify_teacher
from tutelage.tasks.speech.manifest import Manifest, read_manifest
from tutelage.teachers.target_cache.manifest import MANIFEST

_NAMED = 5  # examples written out in one line


@dataclass(frozen=True)
class SpeechMaterials:
    """A recipe with everything that it names, found and checked.

    Args:
        recipe: The recipe.
        train: Clips to learn from.
        held_out: Clips to be judged on.
        teacher: The teacher's folder; of a committee the leading member's.
        student: The folder that the student starts from; None for a copy of the teacher.
        normaliser: How transcripts are normalised before scoring.
        cautions: Soft faults of the data.
        teachers: Everyone who teaches, with adapters; the leading member first.
        dev: Clips that training looks at to end and to choose its step; None without.
        labelling: What came of the teacher's transcripts, where they are the labels; None before, and without.
    """

    recipe: SpeechRecipe
    train: Manifest
    held_out: Manifest
    teacher: ResolvedModel
    student: ResolvedModel | None
    normaliser: Normaliser
    cautions: tuple[Caution, ...] = ()
    teachers: tuple[TeacherFolder, ...] = ()
    dev: Manifest | None = None
    labelling: Mapping[str, Any] | None = None

    @property
    def identity(self) -> dict[str, Any]:
        """What makes two runs the same but for their seed."""
        dev = None if self.dev is None else self.dev.sha256
        found = self.recipe.identity(self.train.sha256, self.held_out.sha256, dev)
        found["teacher"] = identify_teacher(found["teacher"], self.recipe.teacher, self.teachers, by_content=False)
        if self.cache is not None:
            found["teacher"]["cache"] = sha256_file(self.cache / MANIFEST)
        return found

    @property
    def cache(self) -> Path | None:
        """The folder of the teacher's targets; None where the teacher is run."""
        return self.recipe.teacher.cache

    @property
    def recipe_hash(self) -> str:
        """SHA-256 of the identity."""
        return sha256_json(self.identity)


def gather_speech(
    recipe: SpeechRecipe, *, progress: Progress = no_progress, talk: Talk = say_nothing, require_weights: bool = True
) -> SpeechMaterials:
    """Check the recipe's data, then find its models (the data first: it is here, and the models may be far away).

    Args:
        recipe: The recipe.
        progress: Told of manifests.
        talk: Told where models were found and what was dropped.
        require_weights: False accepts folders of configuration alone, for counting.

    Raises:
        InputError: Faults of the data or of a model folder, all of one input together.
        TutelageError: A model could not be fetched.
    """
    train, held_out, dev, normaliser, cautions = _read_data(recipe, progress, talk)
    if recipe.teacher.cache is not None:
        require_cache(recipe, recipe.teacher.cache)  # before a model is fetched
    teachers, student = find_models(recipe, talk, require_weights=require_weights)
    teacher = teachers[0].model
    _refuse_longer_window(recipe, read_config((student or teacher).path))
    return SpeechMaterials(recipe, train, held_out, teacher, student, normaliser, cautions, teachers, dev)


def find_models(
    recipe: SpeechRecipe, talk: Talk, *, require_weights: bool
) -> tuple[tuple[TeacherFolder, ...], ResolvedModel | None]:
    """The folders of everyone who teaches, and of the student (None for a copy of the leading teacher)."""
    teachers = find_teachers(recipe.teacher, "speech", talk=talk, require_weights=require_weights)
    if recipe.student.model is None:
        return teachers, None
    return teachers, resolve_model(
        recipe.student.model, recipe.student.revision, talk=talk, require_weights=require_weights
    )


def _read_data(
    recipe: SpeechRecipe, progress: Progress, talk: Talk
) -> tuple[Manifest, Manifest, Manifest | None, Normaliser, tuple[Caution, ...]]:
    data = recipe.data
    normaliser = whisper_normaliser(data.language or "en")
    faults: list[str] = []
    manifests: list[Manifest] = []
    paths = [data.train, data.held_out, *([] if data.dev is None else [data.dev])]
    for path in paths:
        learned = path is data.train
        try:
            manifests.append(
                read_manifest(
                    path,
                    slowest=data.augment.slowest if learned and data.augment else 1.0,
                    needs_text=not learned or data.pseudo_labels is None,
                    window_seconds=recipe.student.window_seconds,
                    overlong=data.overlong,
                    normalise=normaliser,
                    progress=progress,
                )
            )
        except InputError as error:
            faults += error.faults
    if faults:
        raise InputError(faults)
    train, held_out, *devs = manifests
    for path, manifest in zip(paths, manifests, strict=True):
        if manifest.dropped:
            talk(f"{path.name}: {len(manifest.dropped)} clips dropped: {manifest.dropped[0].reason}")
    for dev in devs:
        _refuse_leaks_of_dev(dev, train, held_out)
    return train, held_out, devs[0] if devs else None, normaliser, _find_leaks(train, held_out, normaliser)


def _refuse_leaks_of_dev(dev: Manifest, train: Manifest, held_out: Manifest) -> None:
    """Recordings of the dev split that are in another set: one fault a set."""
    digests = {utterance.sha256: utterance.id for utterance in dev.utterances}
    faults = []
    for name, other, why in (
        ("training", train, "what was learned by heart would say when to stop"),
        ("held-out", held_out, "the result would be chosen on what it is judged on"),
    ):
        found = {utterance.sha256: utterance.id for utterance in other.utterances}
        leaked = [f"{digests[digest]} (also {found[digest]})" for digest in digests if digest in found]
        if leaked:
            faults.append(
                f"{len(leaked)} recordings of data.dev are among the {name} recordings, so {why}: "
                f"{', '.join(leaked[:_NAMED])}. Split by recording."
            )
    if faults:
        raise InputError(faults)


def _find_leaks(train: Manifest, held_out: Manifest, normaliser: Normaliser) -> tuple[Caution, ...]:
    """Recordings that are in both sets are refused; transcripts that are in both are worth a warning."""
    learned = {utterance.sha256: utterance.id for utterance in train.utterances}
    leaked = [
        f"{utterance.id} (also {learned[digest]})"
        for utterance in held_out.utterances
        if (digest := utterance.sha256) in learned
    ]
    if leaked:
        raise InputError(
            f"{len(leaked)} held-out recordings are among the training recordings, so the result would prove nothing: "
            f"{', '.join(leaked[:_NAMED])}. Split by recording."
        )
    said = {normaliser(utterance.text) for utterance in train.utterances if utterance.text}
    shared = [utterance.id for utterance in held_out.utterances if normaliser(utterance.text) in said]
    if not shared:
        return ()
    share = len(shared) / len(held_out.utterances)
    return (
        Caution(
            "transcripts-in-both-sets",
            "data.held_out",
            share,
            (0.0, 0.0),
            f"{len(shared)} held-out transcripts ({share:.0%}) also occur in training, such as {shared[0]}; scores on "
            "them say little about new sentences.",
        ),
    )


def _refuse_longer_window(recipe: SpeechRecipe, config: Mapping[str, Any]) -> None:
    own = window_seconds(config)
    wanted = recipe.student.window_seconds
    if wanted is not None and wanted > own:
        raise InputError(f"student.window_seconds is {wanted:g}, longer than the model's own window of {own:g} s.")
