"""A cache of a real causal language model over packed rows answers a run's batches like the model itself."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from tiny_text import VOCABULARY, shared_tiny_text
from tutelage.errors import InputError
from tutelage.objectives.logits import DeferredLogits, Head
from tutelage.objectives.position_terms import divergence
from tutelage.objectives.signal import Signal
from tutelage.objectives.terms import Term
from tutelage.tasks.text.batch import TextBatch, collate
from tutelage.tasks.text.codec import Encoded
from tutelage.tasks.text.forward import read
from tutelage.tasks.text.packing import Packed, pack
from tutelage.teachers.live import LiveTeacher
from tutelage.teachers.target_cache.build import build_targets
from tutelage.teachers.target_cache.cache import TargetCache
from tutelage.teachers.target_cache.cached import CachedTeacher
from tutelage.teachers.target_cache.contents import CacheIdentity, CacheSettings, SampleKey, hash_keys
from tutelage.teachers.target_cache.rows import Answer

HALF = 2.0**-11  # relative rounding of a float16
BATCHED = 1e-4  # of a logit: padding to another length changes the order of sums
LENGTH, BLOCKS = 24, 4


def packed_rows(seed: int, length: int = LENGTH) -> Packed:
    draw = np.random.default_rng(seed)
    documents = []
    for number, size in enumerate((30, 11, 17, 9, 24, 5, 40, 13)):
        ids = draw.integers(3, VOCABULARY, size + 1).astype(np.int32)
        keep = np.ones(size, dtype=bool)
        keep[: size // 3] = False  # a prompt
        documents.append(Encoded(f"doc-{number}", f"doc-{number}", ids[:-1], ids[1:], keep, size))
    return pack(documents, length, "documents")


def text_teacher() -> tuple[LiveTeacher[TextBatch], Head]:
    from transformers import AutoModelForCausalLM

    model = AutoModelForCausalLM.from_pretrained(shared_tiny_text("qwen3"))
    head = Head.of(model.lm_head, VOCABULARY)

    def forward(model: nn.Module, batch: TextBatch, layers: Collection[int]) -> Signal:
        states = read(model, batch, {*layers, BLOCKS}).states
        return Signal(DeferredLogits(states[BLOCKS], head), {layer: states[layer] for layer in layers})

    return LiveTeacher(model, (2,), forward), head


@pytest.mark.parametrize("settings", [CacheSettings("hidden", layers=(2,)), CacheSettings("topk", VOCABULARY)], ids=str)
def test_rows_in_any_batch_get_what_the_model_says(tmp_path: Path, settings: CacheSettings) -> None:
    packed, (live, head) = packed_rows(0), text_teacher()
    rows = packed.rows
    keys = [SampleKey(row.id, row.token_hash) for row in rows]

    def forward(places: Sequence[int]) -> Answer:
        batch = collate([rows[place] for place in places], packed.isolated, 0)
        return Answer(live.signal(batch), batch.labels_BT, batch.keep_BT)

    identity = CacheIdentity("model", "tokenizer", hash_keys(keys))
    build_targets(keys, forward, identity, settings, tmp_path / "cache")
    cache = TargetCache.open(tmp_path / "cache", identity, settings)
    cached = CachedTeacher(cache, head)
    assert cache.positions == packed.supervised
    for places in ([3, 0, 5], [1], list(reversed(range(len(rows))))):
        batch = collate([rows[place] for place in places], packed.isolated, 0)
        wanted, found = live.signal(batch), cached.signal(batch)
        student = torch.randn(*batch.keep_BT.shape, VOCABULARY, generator=torch.Generator().manual_seed(1))
        one, other = (divergence(Term("kl"), student, signal.scores, batch.keep_BT).total for signal in (wanted, found))
        assert other.item() == pytest.approx(one.item(), rel=4 * HALF)
        if settings.kind == "hidden":
            scores = wanted.scores
            assert isinstance(scores, DeferredLogits)
            bound = HALF * (scores.states_BTH.abs() @ head.parameters[0].abs().T) + BATCHED
            assert ((found.logits_BTV - wanted.logits_BTV).abs() <= bound)[batch.keep_BT].all()
            apart = (found.states[2].float() - wanted.states[2]).abs()
            assert (apart <= HALF * wanted.states[2].abs() + BATCHED)[batch.keep_BT].all()
    for other_rows in (packed_rows(1), packed_rows(0, LENGTH - 4)):
        with pytest.raises(InputError, match=r"not as cached|not in the cache"):
            cached.signal(collate(other_rows.rows[:2], True, 0))
