"""Who teaches a run on speech: every model loaded, cut to the student's window, asked and answered in its terms.

Covers one teacher and committees; members with the student's encoder share its one pass over the clips, others get
their own, side by side. Does not cover finding folders (`runs.teacher_folders`), averaging (`teachers.committee`) or
making encoder outputs (`teachers.prefix_cache`).
"""

from __future__ import annotations

import copy
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor, nn

from tutelage.errors import InputError
from tutelage.models.adapters import merge_adapter
from tutelage.models.load import DTYPES, Dtype, SpeechModel, count_params, load_speech_model
from tutelage.objectives.objective import Objective
from tutelage.runs.teacher_folders import TeacherFolder
from tutelage.students.shrink import shrink_speech_model
from tutelage.tasks.speech.batch import SpeechBatch
from tutelage.tasks.speech.features import fingerprint
from tutelage.tasks.speech.forward import decode
from tutelage.teachers.committee import Committee, Member
from tutelage.teachers.ensemble import Ensemble, Voice
from tutelage.teachers.live import Forward, LiveTeacher
from tutelage.teachers.placement import place_teacher
from tutelage.teachers.settings import Teacher
from tutelage.teachers.translated import translated
from tutelage.teachers.vocabulary import SharedVocabulary, Words, describe_shared, in_common, share_vocabulary
from tutelage.training.checks import Check, check_settings, check_tokens

SPECIAL = ("decoder_start_token_id", "bos_token_id", "eos_token_id")
"""Ids that must be the same token to student and teacher; that of padding is not read: masks are made from lengths."""


@dataclass(frozen=True)
class SpeechTeacher:
    """One who teaches.

    Args:
        name: What rows and messages call it.
        stock: As it came, its adapter merged.
        cut: With the student's window.
        encoder: What tells its encoder from others; None where it is the student's.
    """

    name: str
    stock: SpeechModel
    cut: SpeechModel
    encoder: str | None = None


@dataclass(frozen=True)
class Hearing:
    """How each of them hears the clips and is understood.

    Args:
        teachers: Everyone, the leading one first.
        student: The student.
        shared: By name, the classes shared with the student; None where all are the same.
        heard: By name, its part of the encoder outputs that lie side by side; None where there is one part only.
    """

    teachers: tuple[SpeechTeacher, ...]
    student: SpeechModel
    shared: Mapping[str, SharedVocabulary | None]
    heard: Mapping[str, slice | None]

    @property
    def models(self) -> nn.ModuleList:
        """Every teacher's modules."""
        found = nn.ModuleList(one.cut.model for one in self.teachers)
        found.training = False  # the list's own; each model's stays what it is, to be checked
        return found

    def differences(self) -> list[str]:
        """What of each teacher is not the student's and how it is met, a line each."""
        return describe_encoders(self.teachers, self.student.model.config) + describe_shared(self.shared)

    def to_dict(self) -> dict[str, dict[str, Any]]:
        """By name, for `result.json`."""
        return {
            one.name: {
                "params": count_params(one.stock.model),
                "own_encoder": one.encoder is not None,
                "vocabulary": None if (shared := self.shared[one.name]) is None else shared.to_dict(),
            }
            for one in self.teachers
        }

    def checks(self, emitted: Collection[int]) -> list[Check]:
        """For preflight: every id of the data, and every special id, is the same token to each teacher."""
        tokens, config = self.student.processor.tokenizer.convert_ids_to_tokens, self.student.model.config
        checks = []
        for one in self.teachers:
            shared, theirs = self.shared[one.name], one.cut.processor.tokenizer.convert_ids_to_tokens

            def token_of(index: int, shared: Any = shared, theirs: Any = theirs) -> str | None:
                found = index if shared is None else shared.token_of(index)
                return None if found is None else theirs(found)

            checks.append(check_tokens(emitted, tokens, token_of))
            both = ((config, tokens), (one.cut.model.config, theirs))
            checks += check_settings(*({name: read(getattr(of, name)) for name in SPECIAL} for of, read in both))
        return checks

    def live(
        self, teacher: SpeechTeacher, layers: Sequence[int], read: Forward[SpeechBatch] = decode
    ) -> LiveTeacher[SpeechBatch]:
        """The teacher, run beside the student; `read` is its pass."""
        part = self.heard[teacher.name]
        forward = translated(
            read,
            self.shared[teacher.name],
            "decoder_input_ids_BT",
            None if part is None else lambda batch: replace(batch, encoder_BSH=batch.encoder_BSH[..., part]),
        )
        return LiveTeacher(teacher.cut.model, layers, forward)

    def teach(
        self, settings: Teacher, objective: Objective, passes: Mapping[str, Forward[SpeechBatch]] | None = None
    ) -> LiveTeacher[SpeechBatch] | Committee[SpeechBatch]:
        """What training asks: the one teacher, or the committee.

        Args:
            settings: The recipe's teacher.
            objective: What is compared.
            passes: By name, a pass that answers otherwise than with logits; None is `decode` for all.

        Raises:
            InputError: The members cannot be averaged, or nobody's states can be compared.
        """
        layers, read = objective.teacher_layers, passes or dict.fromkeys(self.shared, decode)
        if not settings.is_committee:
            return self.live(self.teachers[0], layers, read[self.teachers[0].name])
        tokens = self.student.processor.tokenizer.get_vocab()
        members = {
            one.name: Member(
                self.live(one, layers if one.name == settings.states_from else (), read[one.name]),
                one.cut.processor.tokenizer.get_vocab() if self.shared[one.name] is None else tokens,
            )
            for one in self.teachers
        }
        return Committee(members, settings.space, settings.shares, layers, settings.states_from)

    def judged(self, teacher: SpeechTeacher) -> SpeechModel:
        """A teacher as a model that reads the student's batches."""
        shared, part = self.shared[teacher.name], self.heard[teacher.name]
        return teacher.cut if shared is None and part is None else self._as_one({teacher.name: teacher}, None)

    def alone(self, name: str, speech: SpeechModel) -> SpeechModel:
        """A teacher with an encoder of its own, in the student's ids.

        Args:
            name: The teacher's.
            speech: It, with any window.
        """
        shared = self.shared[name]
        if shared is None:
            return speech
        generation = self.student.model.generation_config
        ensemble = Ensemble({name: Voice(speech.model, shared)}, speech.model.config, generation)
        return SpeechModel(ensemble.eval(), speech.processor)

    def committee(self, settings: Teacher) -> SpeechModel:
        """The committee as a model that reads the student's batches."""
        return self._as_one({one.name: one for one in self.teachers}, settings)

    def _as_one(self, teachers: Mapping[str, SpeechTeacher], settings: Teacher | None) -> SpeechModel:
        voices = {name: Voice(one.cut.model, self.shared[name], self.heard[name]) for name, one in teachers.items()}
        student = self.student.model
        average = () if settings is None else (settings.space, settings.shares)
        ensemble = Ensemble(voices, student.config, student.generation_config, *average)
        return SpeechModel(ensemble.eval(), self.student.processor)


class SideBySide(Mapping[str, Tensor]):
    """Several encoders' outputs of the same clips as one, (S, H + H' + ...), read from each when asked for.

    Args:
        parts: By utterance id, one mapping an encoder; all of as many positions.
    """

    def __init__(self, parts: Sequence[Mapping[str, Tensor]]) -> None:
        self._parts = tuple(parts)

    def __getitem__(self, name: str) -> Tensor:
        """The outputs of one utterance."""
        return torch.cat([part[name].float() for part in self._parts], dim=-1)

    def __iter__(self) -> Iterator[str]:
        return iter(self._parts[0])

    def __len__(self) -> int:
        return len(self._parts[0])


def load_teachers(folders: Sequence[TeacherFolder], settings: Teacher, device: str) -> dict[str, SpeechModel]:
    """Every model by name, with its adapter merged (in float32), on the teacher's device, in its dtype."""
    place, dtype = place_teacher(settings, device), settings.dtype
    return {folder.name: load_teacher(folder, place, dtype) for folder in folders}


def load_teacher(folder: TeacherFolder, device: str, dtype: Dtype) -> SpeechModel:
    """One model with its adapter merged.

    Raises:
        InputError: The folder cannot be loaded, or the adapter does not fit.
    """
    if folder.adapter is None:
        return load_speech_model(folder.model.path, device, dtype)
    speech = load_speech_model(folder.model.path, device)
    merged = merge_adapter(speech.model, folder.adapter)
    return SpeechModel(merged.to(dtype=DTYPES[dtype]), speech.processor)


def cut_teacher(name: str, stock: SpeechModel, window_seconds: float) -> SpeechTeacher:
    """A teacher with the student's window.

    Raises:
        InputError: Its own window is shorter.
    """
    if stock.window_seconds < window_seconds:
        raise InputError(
            f"The window of {name} is {stock.window_seconds:g} s, shorter than the student's {window_seconds:g} s. Set "
            f"student.window_seconds to {stock.window_seconds:g}."
        )
    cut = stock if stock.window_seconds == window_seconds else shrink_speech_model(stock, None, window_seconds).speech
    return SpeechTeacher(name, stock, cut)


def tell_encoders(teachers: Sequence[SpeechTeacher], student: nn.Module) -> tuple[SpeechTeacher, ...]:
    """The same, each with the fingerprint of its encoder where that is not the student's.

    Weights are compared as the teacher has them: the student's are cast to the teacher's dtype.
    """
    prints: dict[torch.dtype, str] = {}
    told = []
    for teacher in teachers:
        encoder = teacher.cut.model.get_encoder()
        dtype = next(encoder.parameters()).dtype
        if dtype not in prints:
            own = student.get_encoder()  # type: ignore[operator]  # nn.Module hides what a Whisper model has
            own = own if dtype == torch.float32 else copy.deepcopy(own).to(dtype)
            prints[dtype] = fingerprint(own)
        found = fingerprint(encoder)
        told.append(replace(teacher, encoder=None if found == prints[dtype] else found))
    return tuple(told)


def hear(teachers: tuple[SpeechTeacher, ...], student: SpeechModel, *, committee: bool) -> Hearing:
    """Find out how each teacher is asked: its part of the encoder outputs, and the classes it shares.

    Raises:
        InputError: Tokenizers that differ by more than added tokens and padding; every fault together.
    """
    mine = Words.of(student.processor.tokenizer, int(student.model.config.vocab_size))
    shared: dict[str, SharedVocabulary | None] = {}
    faults: list[str] = []
    for one in teachers:
        theirs = Words.of(one.cut.processor.tokenizer, int(one.cut.model.config.vocab_size))
        try:
            shared[one.name] = share_vocabulary(mine, theirs, f"member {one.name}" if committee else "the teacher")
        except InputError as error:
            faults += error.faults
    if faults:
        raise InputError(faults)
    return Hearing(teachers, student, in_common(shared, mine.size), _parts(teachers, student))


def describe_encoders(teachers: Sequence[SpeechTeacher], student: Any) -> list[str]:
    """Encoders that are not the student's, and how they are met; `student` is its configuration."""
    lines = []
    for one in teachers:
        other = one.cut.model.config
        if one.encoder is not None:
            lines.append(
                f"{one.name}: an encoder of its own ({other.num_mel_bins} mel bins, width {other.d_model}; the "
                f"student's {student.num_mel_bins} and {student.d_model}), which gets its own pass over the clips"
            )
    return lines


def encoders_of(teachers: Sequence[SpeechTeacher]) -> dict[str, SpeechTeacher]:
    """A teacher for every encoder that is not the student's, in the order in which their outputs lie side by side."""
    found: dict[str, SpeechTeacher] = {}
    for teacher in teachers:
        if teacher.encoder is not None:
            found.setdefault(teacher.encoder, teacher)
    return found


def _parts(teachers: Sequence[SpeechTeacher], student: SpeechModel) -> dict[str, slice | None]:
    others = encoders_of(teachers)
    if not others:
        return dict.fromkeys((one.name for one in teachers), None)
    start = int(student.model.config.d_model)
    places: dict[str | None, slice] = {None: slice(0, start)}
    for encoder, teacher in others.items():
        width = int(teacher.cut.model.config.d_model)
        places[encoder] = slice(start, start + width)
        start += width
    return {one.name: places[one.encoder] for one in teachers}
