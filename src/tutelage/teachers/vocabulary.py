"""The classes that a student and a teacher share, matched by the strings of their tokens, never by their number.

Two differences inside a family are met: rows of padding behind the tokens (Qwen, Pythia pad to different sizes), and
added tokens that one model has and the other lacks, which shift the ids of all that follow (Whisper large-v3 has one
language more than the models before it). The teacher is asked in its own ids; a divergence compares the distributions
over the shared classes, each renormalised over them: a padded row has no teacher, and padding the smaller model's
logits with 0 could take most of the mass. Cross-entropy with labels keeps all of the student's classes.

Covers finding the shared classes and translating. Does not cover tokenizers that split text differently: their ordinary
tokens differ, and they are refused.

Shape letters: B batch, T positions, V vocabulary of the student, W vocabulary of the teacher, S shared classes.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from tutelage.errors import InputError
from tutelage.objectives.signal import Signal

NOBODY = 0
"""What a student's id that the teacher lacks becomes: anything, since data that holds one is refused."""


@dataclass(frozen=True)
class Words:
    """A model's tokens.

    Args:
        ids: Id of every token string, added ones included.
        added: The strings of added tokens (special ones, timestamps), which a family's models differ in.
        size: Classes that the model scores, padding included.
    """

    ids: Mapping[str, int]
    added: frozenset[str]
    size: int

    @classmethod
    def of(cls, tokenizer: Any, size: int) -> Words:
        """Of a tokenizer of transformers, and the number of classes of its model."""
        return cls(tokenizer.get_vocab(), frozenset(tokenizer.get_added_vocab()), size)


@dataclass(frozen=True)
class SharedVocabulary:
    """From the student's ids to a teacher's, and the classes that both have.

    Args:
        student_S: The student's ids of the shared tokens, rising.
        teacher_S: The teacher's ids of the same tokens.
        translated_V: The teacher's id of each of the student's; -1 where it has none.
        sizes: Classes of the student and of the teacher.
    """

    student_S: Tensor
    teacher_S: Tensor
    translated_V: Tensor
    sizes: tuple[int, int]

    def translate(self, ids: Tensor) -> Tensor:
        """The teacher's ids of inputs in the student's."""
        return self.translated_V.to(ids.device).clamp_min(NOBODY)[ids]

    def token_of(self, student_id: int) -> int | None:
        """The teacher's id of one of the student's; None where it has none."""
        if not 0 <= student_id < len(self.translated_V):
            return None
        found = int(self.translated_V[student_id])
        return found if found >= 0 else None

    def cut(self, signal: Signal) -> Signal:
        """A teacher's signal over the shared classes, in the student's order."""
        logits_BTW = signal.logits_BTV
        shared_BTS = logits_BTW.index_select(-1, self.teacher_S.to(logits_BTW.device))
        return replace(signal, scores=shared_BTS, classes=self.student_S.to(logits_BTW.device))

    def spread(self, logits_BTW: Tensor) -> Tensor:
        """A teacher's logits as the student numbers them, (B, T, V); a class that it lacks is masked with -inf."""
        full = logits_BTW.new_full((*logits_BTW.shape[:-1], self.sizes[0]), -torch.inf)
        full[..., self.student_S.to(full.device)] = logits_BTW.index_select(-1, self.teacher_S.to(full.device))
        return full

    @property
    def same(self) -> bool:
        """Whether ids mean the same: what is cut is cut for another member's sake."""
        return self.sizes[0] == self.sizes[1] and torch.equal(self.student_S, self.teacher_S)

    def describe(self) -> str:
        """The difference in words."""
        student, teacher = self.sizes
        moved = int((self.teacher_S != self.student_S).sum())
        return (
            f"{len(self.student_S):,} classes shared by token (the teacher scores {teacher:,}, the student "
            f"{student:,}; {moved:,} have another id)"
        )

    def to_dict(self) -> dict[str, int]:
        """For `result.json`."""
        student, teacher = self.sizes
        moved = int((self.teacher_S != self.student_S).sum())
        return {"student": student, "teacher": teacher, "shared": len(self.student_S), "other_id": moved}


def share_vocabulary(student: Words, teacher: Words, name: str = "teacher") -> SharedVocabulary | None:
    """The classes that both have; None where every class is the same to both, padding included.

    None too where only ordinary tokens are named differently and the sizes agree: then preflight asks whether the data
    holds any of them.

    Args:
        student: The student's tokens.
        teacher: The teacher's.
        name: The teacher's name in messages.

    Raises:
        InputError: Ordinary tokens differ and the sizes do too, so that ids cannot stand for each other.
    """
    mine, theirs = _scored(student), _scored(teacher)
    if mine == theirs and student.size == teacher.size:
        return None
    added = student.added | teacher.added
    differing = sorted(
        token for token in mine.keys() | theirs.keys() if token not in added and mine.get(token) != theirs.get(token)
    )
    if differing:
        if student.size == teacher.size:
            return None
        token = differing[0]
        raise InputError(
            f"{name} has another tokenizer than the student: {token!r} has id {theirs.get(token)} there and "
            f"{mine.get(token)} here ({len(differing)} ordinary tokens differ). Added tokens and padding may differ, "
            "ordinary tokens may not: choose models of one tokenizer."
        )
    pairs = sorted((index, theirs[token]) for token, index in mine.items() if token in theirs)
    student_S = torch.tensor([index for index, _ in pairs])
    teacher_S = torch.tensor([other for _, other in pairs])
    translated_V = torch.full((student.size,), -1, dtype=torch.long)
    translated_V[student_S] = teacher_S
    return SharedVocabulary(student_S, teacher_S, translated_V, (student.size, teacher.size))


def in_common(shared: Mapping[str, SharedVocabulary | None], size: int) -> dict[str, SharedVocabulary | None]:
    """The same for every member of a committee: classes that any of them lacks are cut for all.

    Args:
        shared: By member, each against the same student.
        size: The student's classes.
    """
    known = [found for found in shared.values() if found is not None]
    if not known:
        return dict(shared)
    keep_V = torch.ones(size, dtype=torch.bool)
    for found in known:
        keep_V &= found.translated_V >= 0
    student_S = keep_V.nonzero()[:, 0]
    whole = SharedVocabulary(student_S, student_S, torch.arange(size), (size, size))
    return {
        name: whole
        if found is None
        else SharedVocabulary(student_S, found.translated_V[student_S], found.translated_V, found.sizes)
        for name, found in shared.items()
    }


def describe_shared(shared: Mapping[str, SharedVocabulary | None]) -> list[str]:
    """A line for every teacher whose classes are not the student's."""
    return [f"{name}: {found.describe()}" for name, found in shared.items() if found is not None and not found.same]


def describe_sizes(teachers: Mapping[str, int], student: int) -> list[str]:
    """The same from the numbers of classes alone."""
    return [
        f"{name}: {size:,} classes, the student {student:,}: divergences compare those that both have, matched by token"
        for name, size in teachers.items()
        if size != student
    ]


def _scored(words: Words) -> dict[str, int]:
    """Tokens that the model has a class for; a tokenizer may know more (it is then smaller than its tokenizer)."""
    return {token: index for token, index in words.ids.items() if index < words.size}
