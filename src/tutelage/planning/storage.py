"""A teacher's signal computed once and kept: its size on disk and what it saves.

Covers: three formats (the k largest probabilities, sampled entries, the final hidden state), bytes a token by the
layout of each, the teacher's forward passes that epochs and further students do without. Does not cover: how a cache is
written and read, nor what a biased or noisy signal costs the student.
"""

from __future__ import annotations

from dataclasses import dataclass

from tutelage.errors import InputError
from tutelage.laws.compute import ForwardCost
from tutelage.laws.validity import not_positive
from tutelage.planning.parts import as_document, known
from tutelage.records.estimate import Estimate
from tutelage.units import Flops, Params, Tokens, format_quantity

HALF = 2.0
"""Bytes of a float16 value."""
SHORT_ID, LONG_ID, COUNT = 2.0, 4.0, 1.0
"""Bytes of a token id below 2^16, of any other id, and of the count of a sampled entry."""
EXTRAS = 2 * HALF
"""Bytes that a sparse entry keeps beside its list: the teacher's entropy and the gold token's log-probability."""
_SHORT_VOCABULARY = 2**16

_FORMATS = {
    "topk": "the {size:g} largest probabilities (id and float16 value), entropy and gold log-probability",
    "sampled": "{size:g} sampled entries (id and count), entropy and gold log-probability",
    "hidden": "the final hidden state of width {size:g} in float16, replayed through the frozen head",
}
_NOTES = {
    "topk": "Top-k targets are biased and hold at temperature 1 alone.",
    "sampled": "Sampled targets are unbiased and hold at temperature 1 alone.",
    "hidden": "The replay is exact at every temperature.",
}


@dataclass(frozen=True)
class TeacherCache:
    """How a teacher's signal is kept.

    Args:
        kind: "topk", "sampled" or "hidden".
        size: Entries kept a token, or the teacher's width.
        vocabulary: Entries of the vocabulary, which decide the bytes of an id; None for the law's.

    Raises:
        InputError: With every fault.
    """

    kind: str
    size: float
    vocabulary: int | None = None

    def __post_init__(self) -> None:
        faults = not_positive({f"cache: {self.kind}": self.size, "cache: vocabulary": self.vocabulary})
        if self.kind not in _FORMATS:
            faults.append(f"cache {self.kind!r} is not known; it must be one of {', '.join(_FORMATS)}")
        if not faults and self.size != int(self.size):
            faults.append(f"cache: {self.kind} is {self.size:g}; it must be a whole number")
        if not faults and self.kind != "hidden" and self.vocabulary is not None and self.size > self.vocabulary:
            faults.append(f"cache: {self.kind} is {self.size:g}; the vocabulary has {self.vocabulary} entries")
        if faults:
            raise InputError(faults)

    def bytes_per_token(self, vocabulary: int) -> float:
        """Bytes that one token takes on disk, without compression.

        Args:
            vocabulary: Entries of the vocabulary where the cache does not say; 0 where nobody knows.

        Example:
            >>> TeacherCache("sampled", 12).bytes_per_token(32768)
            40.0
        """
        if self.kind == "hidden":
            return HALF * self.size
        entries = self.vocabulary or vocabulary
        identity = SHORT_ID if 0 < entries <= _SHORT_VOCABULARY else LONG_ID
        return self.size * (identity + (HALF if self.kind == "topk" else COUNT)) + EXTRAS


@dataclass(frozen=True)
class CachePlan:
    """What keeping the teacher's signal takes and saves, for all students together.

    Args:
        kind: The format.
        bytes_per_token: Bytes a token.
        bytes: Bytes on disk.
        cached_tokens: Distinct tokens that the teacher reads once.
        logits_flops_paid_once: The teacher's forward passes over them.
        logits_flops_online: Its forward passes over every token of every student, were nothing kept.
        replay_flops: The head over every token of every student, where hidden states are replayed and the vocabulary is
            known; else 0.
        saving: Online passes less those paid once and less the replay, FLOPs.
        text: The same in a sentence.
    """

    kind: str
    bytes_per_token: Estimate
    bytes: Estimate
    cached_tokens: Estimate
    logits_flops_paid_once: Estimate
    logits_flops_online: Estimate
    replay_flops: Estimate
    saving: Estimate
    text: str

    def to_dict(self) -> dict[str, object]:
        """The JSON form."""
        return as_document(self)


@dataclass(frozen=True)
class Reading:
    """What a teacher reads for its students.

    Args:
        teacher_params: N_T.
        student_tokens: D_S, tokens of each student, repeats included.
        unique_tokens: Distinct tokens among them; None for all.
        students: How many students read the same tokens.
    """

    teacher_params: Params
    student_tokens: Tokens
    unique_tokens: Tokens | None = None
    students: int = 1

    @property
    def distinct(self) -> Tokens:
        """Distinct tokens."""
        return self.student_tokens if self.unique_tokens is None else min(self.student_tokens, self.unique_tokens)

    @property
    def total(self) -> Tokens:
        """Tokens of all students, repeats included."""
        return self.students * self.student_tokens


def plan_cache(forward: ForwardCost, cache: TeacherCache, reading: Reading) -> CachePlan:
    """What keeping a teacher's signal takes and saves.

    Epochs and further students read what the teacher computed once; a hidden state still goes through the head, 2 width
    V FLOPs a token, each time.
    """
    per_token: Flops = float(forward.per_token(reading.teacher_params))
    once, online = per_token * reading.distinct, per_token * reading.total
    vocabulary = cache.vocabulary or forward.vocabulary
    replay = 2.0 * cache.size * vocabulary * reading.total if cache.kind == "hidden" else 0.0
    each = cache.bytes_per_token(forward.vocabulary)
    passes = reading.total / reading.distinct
    head = f"; replaying the head takes {replay:.3g}" if replay else ""
    if cache.kind == "hidden" and not vocabulary:
        head = "; what replaying the head takes is not counted: give the vocabulary"
    text = (
        f"{_FORMATS[cache.kind].format(size=cache.size)}: {each:g} bytes a token, "
        f"{format_bytes(each * reading.distinct)} for {format_quantity(reading.distinct)} distinct tokens. The teacher "
        f"reads them once ({once:.3g} FLOPs) instead of {passes:.3g} times ({online:.3g})"
        f"{head}. {_NOTES[cache.kind]}"
    )
    return CachePlan(
        cache.kind,
        known(each),
        known(each * reading.distinct),
        known(reading.distinct),
        known(once),
        known(online),
        known(replay),
        known(online - once - replay),
        text,
    )


def format_bytes(count: float) -> str:
    """Bytes in units of a thousand.

    Example:
        >>> format_bytes(1.14e12)
        '1.14 TB'
    """
    for scale, unit in ((1e15, "PB"), (1e12, "TB"), (1e9, "GB"), (1e6, "MB"), (1e3, "kB")):
        if count >= scale:
            return f"{count / scale:.3g} {unit}"
    return f"{count:g} bytes"
