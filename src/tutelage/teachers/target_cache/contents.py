"""What a cache of targets holds and whom it came from: what makes two caches interchangeable, and what does not.

Covers the identity of the teacher and its data, the settings of a build, and the fields that differ, by name. Does not
cover files (`shards`, `manifest`) or how targets are made (`rows`).
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any, Literal, get_args

from tutelage.errors import InputError
from tutelage.records.hashing import sha256_json

if TYPE_CHECKING:
    import torch

FORMAT = 1
"""Raised when the meaning of a stored number changes; part of every cache's contents."""

Kind = Literal["topk", "systematic", "multinomial", "hidden"]

MOST_DRAWS = 255
"""A class that takes every draw of a position is stored as a count of one byte."""

_NAMES = {
    "format": "the format",
    "model": "the teacher's weights (model)",
    "adapter": "the teacher's adapter (adapter)",
    "tokenizer": "the tokenizer (tokenizer)",
    "template": "the prompt or chat template (template)",
    "window_seconds": "the student's window (window_seconds)",
    "committee.space": "what the committee averages (space)",
    "committee.weights": "the members' shares (weights)",
    "committee.states_from": "the member whose states are kept (states_from)",
    "data": "the data (data)",
    "kind": "the kind of targets (kind)",
    "size": "k, or the number of draws (size)",
    "temperature": "the temperature (temperature)",
    "layers": "the blocks whose states are kept (layers)",
    "seed": "the seed of the draws (seed)",
    "batch_size": "the samples of a teacher's pass (batch_size)",
    "shard_samples": "the samples of a shard (shard_samples)",
}
_SHOWN_CHARACTERS = 16  # of a hash in a message


@dataclass(frozen=True)
class SampleKey:
    """What finds a sample again.

    Args:
        id: Its name in the data; no two samples share one.
        token_hash: Hash of everything that the teacher is shown of it and that says which positions are kept: tokens,
            labels, mask, and the recording with its augmentation where there is one.
    """

    id: str
    token_hash: str


def hash_keys(keys: Iterable[SampleKey]) -> str:
    """One hash (hex) of a set of samples, whatever their order: what `CacheIdentity.data` may be."""
    return sha256_json(sorted([key.id, key.token_hash] for key in keys))


@dataclass(frozen=True)
class CacheIdentity:
    """Whom the targets came from, as hashes; None where there is no such thing.

    Args:
        model: Of the teacher's weights and configuration; of all members for a committee.
        tokenizer: Of the tokenizer's files.
        data: Of the samples (`hash_keys`, or of the files that they were read from).
        adapter: Of the teacher's own adapter.
        template: Of the chat template or prompt.
        window_seconds: Of audio that the teacher hears.
        committee: Of a committee: its space, shares and members' hashes by name, each of which an error can name.
    """

    model: str
    tokenizer: str
    data: str
    adapter: str | None = None
    template: str | None = None
    window_seconds: float | None = None
    committee: Mapping[str, Any] | None = None


@dataclass(frozen=True)
class CacheSettings:
    """What is kept of a teacher, and how it is computed.

    Args:
        kind: "topk" (biased), "systematic" or "multinomial" (unbiased draws; see `objectives.targets`), or "hidden":
            the final states, whose logits a frozen head replays at every temperature.
        size: k, or the draws a position (at most 255); 0 for "hidden".
        temperature: That the student will be taught at. Sparse targets are kept at 1 only; "hidden" serves any.
        layers: Blocks whose states are kept beside, 1-based, 0 the embedding output.
        seed: Of the draws. A sample's draws follow from this and its key alone.
        batch_size: Samples of one pass of the teacher.
        shard_samples: Samples of one file: what a kill may cost, and what damage to one byte costs.

    Raises:
        InputError: With every fault.
    """

    kind: Kind
    size: int = 0
    temperature: float = 1.0
    layers: tuple[int, ...] = ()
    seed: int = 0
    batch_size: int = 8
    shard_samples: int = 256

    def __post_init__(self) -> None:
        faults = []
        if self.kind not in get_args(Kind):
            faults.append(f"a cache keeps one of {', '.join(get_args(Kind))}, not {self.kind!r}.")
        elif self.kind == "hidden":
            if self.size != 0:
                faults.append(f"size is {self.size}; hidden keeps whole states, as wide as the teacher: leave it out.")
        elif not 1 <= self.size <= (MOST_DRAWS if self.sampled else self.size):
            most = f" and at most {MOST_DRAWS}, since a count is kept in one byte" if self.sampled else ""
            faults.append(f"size is {self.size}; {self.kind} needs at least 1{most}.")
        if self.kind != "hidden" and self.temperature != 1.0:
            faults.append(
                f"temperature is {self.temperature:g}; sparse targets are kept at 1 only, because softened targets are "
                "nearly flat (at 2, four fifths of a speech teacher's mass were outside its 128 likeliest tokens). "
                "Keep kind hidden, whose logits are replayed at every temperature."
            )
        if len(set(self.layers)) < len(self.layers) or any(layer < 0 for layer in self.layers):
            faults.append(f"layers are {list(self.layers)}; each is 0 or more, and named once.")
        faults += [
            f"{name} is {count}; it must be at least 1."
            for name, count in (("batch_size", self.batch_size), ("shard_samples", self.shard_samples))
            if count < 1
        ]
        if faults:
            raise InputError(faults)

    @property
    def sampled(self) -> bool:
        """Whether targets are drawn."""
        return self.kind in ("systematic", "multinomial")

    def contents(self) -> dict[str, Any]:
        """What decides the stored numbers, as JSON values; what plays no part is null."""
        return {
            "format": FORMAT,
            "kind": self.kind,
            "size": self.size,
            "temperature": None if self.kind == "hidden" else self.temperature,
            "layers": sorted(self.layers),
            "seed": self.seed if self.sampled else None,
        }

    def layout(self) -> dict[str, Any]:
        """What decides only how the numbers are spread over files (and their last bits), as JSON values."""
        return {"batch_size": self.batch_size, "shard_samples": self.shard_samples}


def describe_contents(identity: CacheIdentity, settings: CacheSettings | None) -> dict[str, Any]:
    """Every field that two caches must share to be interchangeable; without settings those of the identity alone."""
    of_teacher = asdict(identity)
    if identity.committee is None:
        del of_teacher["committee"]  # as before committees were cached: what a single teacher's caches say stays
    return {**of_teacher, **(settings.contents() if settings is not None else {"format": FORMAT})}


def name_differences(found: Mapping[str, Any], expected: Mapping[str, Any]) -> list[str]:
    """One line for each field of `expected` that `found` does not agree with; of a committee for each member."""
    there, here = _flat({name: found.get(name) for name in expected}), _flat(expected)
    return [
        f"{_NAMES.get(name, name)} is {_shown(there.get(name))} in the cache and {_shown(here.get(name))} here."
        for name in dict.fromkeys([*here, *there])
        if there.get(name) != here.get(name)
    ]


def sample_generator(seed: int, key: SampleKey) -> torch.Generator:
    """The random numbers of one sample: the same in any order, batch and resumed build."""
    import torch  # settings are checked before it is loaded

    digest = hashlib.sha256(f"{seed} {key.token_hash} {key.id}".encode()).digest()
    return torch.Generator().manual_seed(int.from_bytes(digest[:8], "big") >> 1)


def _flat(contents: Mapping[str, Any], before: str = "") -> dict[str, Any]:
    """Fields within fields as `outer.inner`."""
    flat: dict[str, Any] = {}
    for name, value in contents.items():
        flat |= _flat(value, f"{before}{name}.") if isinstance(value, Mapping) else {f"{before}{name}": value}
    return flat


def _shown(value: Any) -> str:
    if value is None:
        return "not set"
    text = str(value)
    return text if len(text) <= _SHOWN_CHARACTERS else f"{text[:_SHOWN_CHARACTERS]}..."
