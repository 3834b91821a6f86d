"""A cache in the place of a live teacher: it answers batches with the signal that objectives compare.

Covers batches that carry ids and token hashes. Does not cover files, or which recipe reads which cache.

Shape letters: B batch, T positions.
"""

from __future__ import annotations

from typing import Any, Protocol

from torch import Tensor

from tutelage.errors import InputError, PreflightError
from tutelage.objectives.logits import DeferredLogits, Head
from tutelage.objectives.signal import Signal
from tutelage.teachers.target_cache.cache import TargetCache
from tutelage.teachers.target_cache.contents import SampleKey


class KeyedBatch(Protocol):
    """A batch whose samples can be found again (`tasks.text.batch.TextBatch`)."""

    @property
    def ids(self) -> tuple[str, ...]:
        """Of the samples."""

    @property
    def token_hashes(self) -> tuple[str, ...]:
        """See `SampleKey.token_hash`."""

    @property
    def keep_BT(self) -> Tensor:  # noqa: N802  (shape letters)
        """True where a position is supervised."""


class CachedTeacher:
    """Answers like `LiveTeacher.signal`, from a cache.

    Args:
        cache: Open.
        head: The teacher's frozen head, on the student's device; for a cache of final states.
        rest: For top-k: see `TargetCache.targets`.

    Raises:
        InputError: The cache keeps final states, and there is no head or one of another vocabulary.
        PreflightError: The head would be trained.
    """

    def __init__(self, cache: TargetCache, head: Head | None = None, rest: bool = True) -> None:
        if cache.kind == "hidden":
            if head is None:
                raise InputError(f"the cache {cache.folder} keeps final states; the teacher's head is needed with it.")
            if head.vocabulary != cache.manifest.vocabulary:
                raise InputError(
                    f"the head has {head.vocabulary} entries, and the teacher of the cache {cache.folder} "
                    f"{cache.manifest.vocabulary}; give the head of that teacher."
                )
            if head.trained:
                raise PreflightError("the teacher's head requires a gradient and would be trained; freeze it.")
        self._cache, self._head, self._rest = cache, head, rest

    @property
    def layers(self) -> tuple[int, ...]:
        """The blocks whose states every signal carries, ascending."""
        return self._cache.layers

    def describe(self) -> dict[str, Any]:
        """What is read, as JSON values."""
        contents = self._cache.manifest.contents
        names = ("kind", "size", "layers", "seed")
        return {**{name: contents[name] for name in names}, "positions": self._cache.positions}

    def signal(self, batch: KeyedBatch) -> Signal:
        """The teacher's signal on one batch, at kept positions; zeros elsewhere.

        Raises:
            InputError: A sample is not in the cache, or has other tokens than when it was cached.
        """
        keys = [SampleKey(*key) for key in zip(batch.ids, batch.token_hashes, strict=True)]
        keep_BT = batch.keep_BT
        states = {layer: self._cache.states(keys, keep_BT, layer) for layer in self.layers}
        if self._head is None or self._cache.kind != "hidden":
            return Signal(self._cache.targets(keys, keep_BT, self._rest), states)
        return Signal(DeferredLogits(self._cache.states(keys, keep_BT), self._head), states)
