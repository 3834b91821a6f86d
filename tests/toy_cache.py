"""A teacher small enough that its targets are cached in a test, or in a process that kills itself.

Samples are those of `toy`, under names whose order is not theirs. As a program it builds a cache in a folder and may
kill itself at the nth event (a pass, a write, a flush, a rename):

    python tests/toy_cache.py FOLDER KIND [--kill-at 7]
"""

from __future__ import annotations

import argparse
import os
import signal
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from toy import TEACHER_WIDTH, VOCABULARY, ToyModel, make_batch
from tutelage.objectives.logits import DeferredLogits, Head
from tutelage.objectives.signal import Signal
from tutelage.records.hashing import sha256_json
from tutelage.teachers.live import LiveTeacher
from tutelage.teachers.target_cache.build import CacheBuild, build_targets
from tutelage.teachers.target_cache.contents import CacheIdentity, CacheSettings, SampleKey, hash_keys
from tutelage.teachers.target_cache.rows import Answer

SAMPLES = 14
SIZES = {"topk": 3, "systematic": 12, "multinomial": 12, "hidden": 0}


@dataclass(frozen=True)
class KeyedToyBatch:
    """A batch of `toy` that can be found again."""

    ids: tuple[str, ...]
    token_hashes: tuple[str, ...]
    inputs_BT: Tensor
    labels_BT: Tensor
    keep_BT: Tensor


def keyed_batch(indices: Sequence[int]) -> KeyedToyBatch:
    """Samples with their keys."""
    batch = make_batch(indices)
    keys = [toy_key(index) for index in indices]
    ids, hashes = tuple(key.id for key in keys), tuple(key.token_hash for key in keys)
    return KeyedToyBatch(ids, hashes, batch.inputs_BT, batch.labels_BT, batch.keep_BT)


def toy_key(index: int) -> SampleKey:
    """The key of a sample; names do not sort as the samples do."""
    batch = make_batch([index])
    shown = [values.tolist() for values in (batch.inputs_BT, batch.labels_BT, batch.keep_BT)]
    return SampleKey(f"clip-{(index * 5) % SAMPLES:02d}", sha256_json(shown))


KEYS = [toy_key(index) for index in range(SAMPLES)]
IDENTITY = CacheIdentity(model="a" * 64, tokenizer="b" * 64, data=hash_keys(KEYS), adapter="c" * 64, template="d" * 64)


def teacher(deferred: bool = True) -> tuple[LiveTeacher[Any], Head]:
    """The live teacher and its head."""
    model = ToyModel(TEACHER_WIDTH, seed=2)
    model.head.weight.data.mul_(4.0)  # otherwise nearly flat
    head = Head.of(model.head, VOCABULARY)

    def forward(model: ToyModel, batch: Any, layers: Sequence[int]) -> Signal:
        signal = model(batch.inputs_BT)
        scores = DeferredLogits(signal.states[1], head) if deferred else signal.scores
        return Signal(scores, {layer: signal.states[layer] for layer in layers})

    return LiveTeacher(model, (0, 1), forward), head


def toy_settings(kind: str, **changes: Any) -> CacheSettings:
    """Three shards of five samples, passes of two."""
    return CacheSettings(
        **{"kind": kind, "size": SIZES[kind], "layers": (1,), "batch_size": 2, "shard_samples": 5, **changes}
    )


def toy_forward(deferred: bool = True) -> Callable[[Sequence[int]], Answer]:
    """The teacher's answers by place."""
    live, _ = teacher(deferred)

    def forward(indices: Sequence[int]) -> Answer:
        batch = keyed_batch(indices)
        return Answer(live.signal(batch), batch.labels_BT, batch.keep_BT)

    return forward


def build_toy(folder: Path, kind: str = "systematic", **changes: Any) -> CacheBuild:
    """A cache of the toy."""
    return build_targets(KEYS, toy_forward(), IDENTITY, toy_settings(kind, **changes), folder)


def main() -> int:
    parser = argparse.ArgumentParser()
    parser.add_argument("folder", type=Path)
    parser.add_argument("kind")
    parser.add_argument("--kill-at", type=int, default=0)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    events = 0

    def counted(call: Callable[..., Any]) -> Callable[..., Any]:
        def wrapped(*words: Any, **more: Any) -> Any:
            nonlocal events
            events += 1
            if events == arguments.kill_at:
                os.kill(os.getpid(), signal.SIGKILL)
            return call(*words, **more)

        return wrapped

    from tutelage.teachers.target_cache.shards import ShardWriter

    forward = counted(toy_forward())
    os.fsync = counted(os.fsync)
    Path.replace = counted(Path.replace)  # type: ignore[method-assign]
    Path.unlink = counted(Path.unlink)  # type: ignore[method-assign]
    ShardWriter.write = counted(ShardWriter.write)  # type: ignore[method-assign]
    build_targets(KEYS, forward, IDENTITY, toy_settings(arguments.kind), arguments.folder)
    sys.stdout.write(f"{events}\n")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
