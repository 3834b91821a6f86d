"""What a run on text needs before anything heavy is loaded: documents that were checked and models that were found.

Covers reading both corpora, refusing documents that are in both, finding the models and the tokenizer, and what
identifies the run. Does not cover tokens (`assembly` loads the tokenizer); nothing here imports torch.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from tutelage.errors import InputError
from tutelage.models.manifest import hash_folder
from tutelage.models.resolve import ResolvedModel, resolve_model
from tutelage.models.verify import read_config
from tutelage.progress import Talk, say_nothing
from tutelage.records.document import Caution
from tutelage.records.hashing import sha256_file, sha256_json
from tutelage.runs.cache_needs import require_cache
from tutelage.runs.teacher_folders import TeacherFolder, find_teachers, identify_teacher
from tutelage.runs.text.recipe import TextRecipe
from tutelage.tasks.text.documents import Corpus, read_documents, shared_documents
from tutelage.teachers.target_cache.manifest import MANIFEST

_NAMED = 5  # examples written out in one line
_TOKENIZER_FILES = ("tokenizer.json", "tokenizer_config.json", "chat_template.jinja")


@dataclass(frozen=True)
class TextMaterials:
    """A recipe with everything that it names, found and checked.

    Args:
        recipe: The recipe.
        train: Documents to learn from.
        held_out: Documents to be judged on.
        teacher: The teacher's folder, of a committee the leading member's; None where there is no teacher.
        student: The folder that the student begins as; None for random weights or a copy of the teacher.
        tokenizer: Folder of the tokenizer.
        template: The chat template that the recipe names, as text; None for the tokenizer's own.
        cautions: Soft faults of the data.
        dev: Documents that training looks at to end and to choose its step; None without.
        teachers: Everyone who teaches, with adapters; the leading member first.
    """

    recipe: TextRecipe
    train: Corpus
    held_out: Corpus
    teacher: ResolvedModel | None
    student: ResolvedModel | None
    tokenizer: Path
    template: str | None = None
    cautions: tuple[Caution, ...] = ()
    dev: Corpus | None = None
    teachers: tuple[TeacherFolder, ...] = ()

    @property
    def identity(self) -> dict[str, Any]:
        """What makes two runs the same but for their seed: models, tokenizer and data count by their content."""
        data, design = self.recipe.data, self.recipe.student
        contents: dict[str, Mapping[str, str | None]] = {
            "data": {
                "train": self.train.sha256,
                "held_out": self.held_out.sha256,
                "dev": None if self.dev is None else self.dev.sha256,
                "tokenizer": self.tokenizer_hash,
                "chat_template": None if data.chat_template is None else sha256_file(data.chat_template),
            },
            "student": {
                "model": None if self.student is None else sha256_json(dict(self.student.sha256)),
                "config": None if design.config is None else sha256_json(dict(read_config(design.config, "text"))),
            },
        }
        if self.cache is not None:
            contents["teacher"] = {"cache": sha256_file(self.cache / MANIFEST)}
        identity = self.recipe.identify(contents)
        teacher = self.recipe.teacher
        if teacher is not None:
            if self.cache is None:
                del identity["teacher"][
                    "cache"
                ]  # as before there were caches: runs with a live teacher stay comparable
            identity["teacher"] = identify_teacher(identity["teacher"], teacher, self.teachers, by_content=True)
        return identity

    @property
    def cache(self) -> Path | None:
        """The folder of the teacher's targets; None where the teacher is run."""
        return None if self.recipe.teacher is None else self.recipe.teacher.cache

    @property
    def tokenizer_hash(self) -> str:
        """Of the files that say what the tokenizer does."""
        return sha256_json(
            {name: found for name, found in hash_folder(self.tokenizer).items() if name in _TOKENIZER_FILES}
        )

    @property
    def recipe_hash(self) -> str:
        """SHA-256 of the identity."""
        return sha256_json(self.identity)


def gather_text(recipe: TextRecipe, *, talk: Talk = say_nothing, require_weights: bool = True) -> TextMaterials:
    """Check the recipe's data, then find its models.

    Raises:
        InputError: Faults of the data or of a model folder, all of one input together.
        TutelageError: A model could not be fetched.
    """
    train, held_out, dev = _read_data(recipe)
    if recipe.teacher is not None and recipe.teacher.cache is not None:
        require_cache(recipe, recipe.teacher.cache)  # before a model is fetched
    teachers: tuple[TeacherFolder, ...] = ()
    if recipe.teacher is not None:
        teachers = find_teachers(recipe.teacher, "text", talk=talk, require_weights=require_weights)
    teacher, student, design = teachers[0].model if teachers else None, None, recipe.student
    if design.model is not None:
        student = resolve_model(design.model, design.revision, talk=talk, task="text", require_weights=require_weights)
    if recipe.student.config is not None:
        read_config(recipe.student.config, "text")
    template = None
    if recipe.data.chat_template is not None:
        template = _read_template(recipe.data.chat_template)
    materials = TextMaterials(
        recipe, train, held_out, teacher, student, Path(), template, tuple(_repeats(train, held_out))
    )
    return replace(materials, tokenizer=_find_tokenizer(materials), dev=dev, teachers=teachers)


def _read_data(recipe: TextRecipe) -> tuple[Corpus, Corpus, Corpus | None]:
    faults: list[str] = []
    corpora: list[Corpus] = []
    data = recipe.data
    for path in (data.train, data.held_out, *([] if data.dev is None else [data.dev])):
        try:
            corpora.append(read_documents(path))
        except InputError as error:
            faults += error.faults
    if faults:
        raise InputError(faults)
    train, held_out, *devs = corpora
    leaked = shared_documents(train, held_out)
    if leaked:
        raise InputError(
            f"{len(leaked)} held-out documents are among the training documents, so the result would prove nothing: "
            f"{', '.join(leaked[:_NAMED])}. Split by document."
        )
    for dev in devs:
        _refuse_leaks_of_dev(dev, train, held_out)
    return train, held_out, devs[0] if devs else None


def _refuse_leaks_of_dev(dev: Corpus, train: Corpus, held_out: Corpus) -> None:
    """Documents of the dev split that are in another set: one fault a set."""
    faults = []
    for name, other, why in (
        ("training", train, "what was learned by heart would say when to stop"),
        ("held-out", held_out, "the result would be chosen on what it is judged on"),
    ):
        leaked = shared_documents(other, dev)
        if leaked:
            faults.append(
                f"{len(leaked)} documents of data.dev are among the {name} documents, so {why}: "
                f"{', '.join(leaked[:_NAMED])}. Split by document."
            )
    if faults:
        raise InputError(faults)


def _repeats(train: Corpus, held_out: Corpus) -> list[Caution]:
    return [
        Caution(
            "repeated-documents",
            f"data.{name}",
            corpus.repeated,
            (0.0, 0.0),
            f"{corpus.repeated} of {len(corpus.documents)} documents of data.{name} say what an earlier one says.",
        )
        for name, corpus in (("train", train), ("held_out", held_out))
        if corpus.repeated
    ]


def _find_tokenizer(materials: TextMaterials) -> Path:
    named = materials.recipe.data.tokenizer
    model = materials.teacher or materials.student
    folder = named if named is not None else None if model is None else model.path
    if folder is None:
        raise InputError("There is no tokenizer: name data.tokenizer, since neither a teacher nor a model brings one.")
    if not (folder / "tokenizer.json").is_file():
        raise InputError(f"The folder {folder} holds no tokenizer.json; name a folder that does in data.tokenizer.")
    return folder


def _read_template(path: Path) -> str:
    try:
        return path.read_bytes().decode("utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"The chat template {path} cannot be read: {error}.") from error
