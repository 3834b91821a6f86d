"""Who teaches a run on text: every model loaded, asked and answered in the student's terms.

Covers one teacher and committees. Does not cover finding folders (`runs.teacher_folders`), averaging
(`teachers.committee`) or a teacher whose answers lie on the disk (`caching`).
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from torch import nn

from tutelage.errors import InputError
from tutelage.models.adapters import merge_adapter
from tutelage.models.causal import TextModel, load_text_model
from tutelage.models.load import DTYPES, Dtype, count_params
from tutelage.objectives.objective import Objective
from tutelage.runs.teacher_folders import TeacherFolder
from tutelage.tasks.text.batch import TextBatch
from tutelage.tasks.text.forward import read
from tutelage.teachers.committee import Committee, Member
from tutelage.teachers.ensemble import Ensemble, Voice
from tutelage.teachers.live import Forward, LiveTeacher
from tutelage.teachers.placement import place_teacher
from tutelage.teachers.settings import ALONE, Teacher
from tutelage.teachers.translated import translated
from tutelage.teachers.vocabulary import SharedVocabulary, Words, describe_shared, in_common, share_vocabulary
from tutelage.training.checks import Check, check_tokens


@dataclass(frozen=True)
class Classes:
    """How each teacher is asked and understood.

    Args:
        teachers: Everyone by name, the leading one first.
        student: The student.
        shared: By name, the classes shared with the student; None where all are the same.
    """

    teachers: Mapping[str, TextModel]
    student: TextModel
    shared: Mapping[str, SharedVocabulary | None]

    @property
    def models(self) -> nn.ModuleList:
        """Every teacher's modules."""
        found = nn.ModuleList(one.model for one in self.teachers.values())
        found.training = False  # the list's own; each model's stays what it is, to be checked
        return found

    def differences(self) -> list[str]:
        """What of each teacher's classes is not the student's and how it is met, a line each."""
        return describe_shared(self.shared)

    def to_dict(self) -> dict[str, dict[str, Any]]:
        """By name, for `result.json`."""
        return {
            name: {
                "params": count_params(one.model),
                "vocabulary": None if (shared := self.shared[name]) is None else shared.to_dict(),
            }
            for name, one in self.teachers.items()
        }

    def checks(self, emitted: Collection[int], token: Any) -> list[Check]:
        """For preflight: every id of the data is the same token to each teacher; `token` gives the data's tokens."""
        checks = []
        for name, one in self.teachers.items():
            shared, theirs = self.shared[name], one.tokenizer.convert_ids_to_tokens

            def token_of(index: int, shared: Any = shared, theirs: Any = theirs) -> str | None:
                found = index if shared is None else shared.token_of(index)
                return None if found is None else theirs(found)

            checks.append(check_tokens(emitted, token, token_of))
        return checks

    def live(self, name: str, layers: Sequence[int], forward: Forward[TextBatch] = read) -> LiveTeacher[TextBatch]:
        """One teacher, run beside the student; `forward` is its pass."""
        return LiveTeacher(self.teachers[name].model, layers, translated(forward, self.shared[name], "input_ids_BT"))

    def teach(
        self, settings: Teacher, objective: Objective, passes: Mapping[str, Forward[TextBatch]] | None = None
    ) -> LiveTeacher[TextBatch] | Committee[TextBatch]:
        """What training asks: the one teacher, or the committee.

        Args:
            settings: The recipe's teacher.
            objective: What is compared.
            passes: By name, a pass that answers otherwise than with logits; None is `read` for all.

        Raises:
            InputError: The members cannot be averaged, or nobody's states can be compared.
        """
        layers, forward = objective.teacher_layers, passes or dict.fromkeys(self.teachers, read)
        if not settings.is_committee:
            name = next(iter(self.teachers))
            return self.live(name, layers, forward[name])
        tokens = self.student.tokenizer.get_vocab()
        members = {
            name: Member(
                self.live(name, layers if name == settings.states_from else (), forward[name]),
                one.tokenizer.get_vocab() if self.shared[name] is None else tokens,
            )
            for name, one in self.teachers.items()
        }
        return Committee(members, settings.space, settings.shares, layers, settings.states_from)

    def writer(self) -> Any | None:
        """The model that writes continuations as the teacher: None for a committee, or one with other ids."""
        name = next(iter(self.teachers), None)
        return self.teachers[name].model if name == ALONE and self.shared[name] is None else None

    def judged(self, name: str) -> Any:
        """One teacher as a model that reads the student's rows."""
        model = self.teachers[name].model
        return model if self.shared[name] is None else self._as_one([name], None)

    def committee(self, settings: Teacher) -> Any:
        """The committee as a model that reads the student's rows."""
        return self._as_one(list(self.teachers), settings)

    def _as_one(self, names: Sequence[str], settings: Teacher | None) -> Ensemble:
        voices = {name: Voice(self.teachers[name].model, self.shared[name]) for name in names}
        student = self.student.model
        average = () if settings is None else (settings.space, settings.shares)
        return Ensemble(voices, student.config, student.generation_config, *average).eval()


def share_classes(teachers: Mapping[str, TextModel], student: TextModel, *, committee: bool) -> Classes:
    """Find out which classes each teacher shares with the student.

    Raises:
        InputError: Tokenizers that differ by more than added tokens and padding; every fault together.
    """
    mine = Words.of(student.tokenizer, int(student.model.config.vocab_size))
    shared: dict[str, SharedVocabulary | None] = {}
    faults: list[str] = []
    for name, one in teachers.items():
        theirs = Words.of(one.tokenizer, int(one.model.config.vocab_size))
        try:
            shared[name] = share_vocabulary(mine, theirs, f"member {name}" if committee else "the teacher")
        except InputError as error:
            faults += error.faults
    if faults:
        raise InputError(faults)
    return Classes(teachers, student, in_common(shared, mine.size))


def refuse_translation(classes: Classes) -> None:
    """A cache holds answers in the teacher's own classes.

    Raises:
        InputError: They are not the student's.
    """
    lines = classes.differences()
    if lines:
        raise InputError(
            [
                f"{line}: a cache holds the teacher's own classes. Leave teacher.cache out to run it live."
                for line in lines
            ]
        )


def load_teachers(folders: Sequence[TeacherFolder], settings: Teacher | None, device: str) -> dict[str, TextModel]:
    """Every model by name, with its adapter merged (in float32), on the teacher's device, in its dtype."""
    if settings is None:
        return {}
    place = place_teacher(settings, device)
    return {one.name: load_teacher(one, place, settings.dtype) for one in folders}


def load_teacher(folder: TeacherFolder, device: str, dtype: Dtype) -> TextModel:
    """One model with its adapter merged.

    Raises:
        InputError: The folder cannot be loaded, or the adapter does not fit.
    """
    if folder.adapter is None:
        return load_text_model(folder.model.path, device, dtype)
    text = load_text_model(folder.model.path, device)
    return TextModel(merge_adapter(text.model, folder.adapter).to(dtype=DTYPES[dtype]), text.tokenizer)


def trains_as_is(settings: Teacher | None, device: str) -> bool:
    """Whether a student may begin as the teacher that is loaded: float32, on the device of the run."""
    return settings is None or (settings.dtype == "float32" and settings.device in (None, device))
