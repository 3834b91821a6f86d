"""Every clip once an epoch, in an order that a saved place brings back."""

from __future__ import annotations

import json
import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tutelage.tasks.sampler import EpochSampler

SIZES = st.integers(1, 20)


@given(SIZES, st.integers(1, 25), st.integers(0, 3))
def test_each_epoch_is_a_permutation(size: int, batch_size: int, seed: int) -> None:
    sampler = EpochSampler(size, batch_size, seed)
    batches = [sampler.next_batch() for _ in range(3 * size // batch_size + 3)]
    assert {len(batch) for batch in batches} == {batch_size}
    stream = [index for batch in batches for index in batch]
    for epoch in range(len(stream) // size):
        assert sorted(stream[epoch * size : (epoch + 1) * size]) == list(range(size))


@given(SIZES, st.integers(1, 25), st.integers(0, 12))
def test_a_restored_sampler_goes_on_alike(size: int, batch_size: int, steps: int) -> None:
    straight, stopped = EpochSampler(size, batch_size, 5), EpochSampler(size, batch_size, 5)
    for _ in range(steps):
        straight.next_batch()
        stopped.next_batch()
    resumed = EpochSampler(size, batch_size, 5)
    resumed.load_state_dict(json.loads(json.dumps(stopped.state_dict())))
    assert resumed.epoch == straight.epoch
    assert [resumed.next_batch() for _ in range(9)] == [straight.next_batch() for _ in range(9)]


def test_seeds_and_epochs_differ_and_global_state_is_left_alone() -> None:
    before = random.getstate()
    sampler = EpochSampler(50, 50, seed=1)
    first, second = sampler.next_batch(), sampler.next_batch()
    assert first != second
    assert first != EpochSampler(50, 50, seed=2).next_batch()
    assert random.getstate() == before


def test_the_order_is_pinned() -> None:
    """A change here changes every published run."""
    assert EpochSampler(8, 8, seed=0).next_batch() == (0, 2, 1, 4, 6, 7, 3, 5)


def test_foreign_places_are_refused() -> None:
    state = EpochSampler(5, 2, seed=1).state_dict()
    with pytest.raises(ValueError, match="has size 5, this one 6"):
        EpochSampler(6, 2, seed=1).load_state_dict(state)
    with pytest.raises(ValueError, match="has seed 1, this one 2"):
        EpochSampler(5, 2, seed=2).load_state_dict(state)
    with pytest.raises(ValueError, match="index 5 is no place"):
        EpochSampler(5, 2, seed=1).load_state_dict({**state, "index": 5})
    with pytest.raises(ValueError, match="at least 1"):
        EpochSampler(0, 2, seed=1)
