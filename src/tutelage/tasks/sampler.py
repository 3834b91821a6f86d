"""The order in which training samples come, with a place that can be saved.

Covers: one seeded shuffle an epoch, batches of one size. Does not cover: sharing batches among processes (the loop).

Torch-free.
"""

from __future__ import annotations

import random
from collections.abc import Mapping


class EpochSampler:
    """Shuffles `size` samples anew in every epoch and hands out batches of one size for ever.

    A batch that reaches the end of an epoch goes on with the next, so every step sees as many samples and each is
    seen once an epoch. The order depends on size, seed and epoch alone, and no global random state is touched, so the
    state dictionary is all there is to save.

    Args:
        size: Samples: clips, or rows of text.
        batch_size: Samples a batch; may exceed `size`.
        seed: Any integer.

    Raises:
        ValueError: `size` or `batch_size` is not positive.

    Example:
        >>> sampler = EpochSampler(4, batch_size=3, seed=0)
        >>> first, second = sampler.next_batch(), sampler.next_batch()
        >>> sorted(first + second[:1])
        [0, 1, 2, 3]
        >>> sampler.state_dict()
        {'size': 4, 'seed': 0, 'epoch': 1, 'index': 2}
    """

    def __init__(self, size: int, batch_size: int, seed: int) -> None:
        if size < 1 or batch_size < 1:
            raise ValueError(f"size {size} and batch size {batch_size} must both be at least 1.")
        self._size, self._batch_size, self._seed = size, batch_size, seed
        self._epoch = self._index = 0
        self._order = self._shuffle(0)

    @property
    def epoch(self) -> int:
        """The epoch that the next batch starts in, from 0."""
        return self._epoch

    def next_batch(self) -> tuple[int, ...]:
        """Positions of the next `batch_size` samples, into the next epoch where this one ends."""
        taken: list[int] = []
        while len(taken) < self._batch_size:
            part = self._order[self._index : self._index + self._batch_size - len(taken)]
            taken += part
            self._index += len(part)
            if self._index == self._size:
                self._epoch, self._index = self._epoch + 1, 0
                self._order = self._shuffle(self._epoch)
        return tuple(taken)

    def state_dict(self) -> dict[str, int]:
        """Where the sampler stands: `index` samples of epoch `epoch` have been handed out. Plain JSON."""
        return {"size": self._size, "seed": self._seed, "epoch": self._epoch, "index": self._index}

    def load_state_dict(self, state: Mapping[str, int]) -> None:
        """Go to where a sampler of the same size and seed stood; the batch size may differ.

        Raises:
            ValueError: The state is of a sampler with another size or seed, or no place in its epochs.
        """
        for name, mine in (("size", self._size), ("seed", self._seed)):
            if state[name] != mine:
                raise ValueError(
                    f"the saved sampler has {name} {state[name]}, this one {mine}: not the same data order."
                )
        epoch, index = int(state["epoch"]), int(state["index"])
        if epoch < 0 or not 0 <= index < self._size:
            raise ValueError(f"epoch {epoch}, index {index} is no place in epochs of {self._size} samples.")
        self._epoch, self._index = epoch, index
        self._order = self._shuffle(epoch)

    def _shuffle(self, epoch: int) -> list[int]:
        order = list(range(self._size))
        # A text seed goes through SHA-512 in Python, so neighbouring seeds and epochs share nothing.
        random.Random(f"{self._seed}/{epoch}").shuffle(order)
        return order
