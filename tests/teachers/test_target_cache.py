"""A cache of a teacher's targets: what it says, for whom, in any order, and what it refuses."""

from __future__ import annotations

import json
import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from toy import PAIRS, STUDENT_WIDTH, VOCABULARY, ToyModel
from toy_cache import (
    IDENTITY,
    KEYS,
    SAMPLES,
    SIZES,
    build_toy,
    keyed_batch,
    teacher,
    toy_forward,
    toy_settings,
)
from tutelage.errors import InputError, MissingExtraError, PreflightError, TutelageError
from tutelage.objectives.logits import DeferredLogits, Head
from tutelage.objectives.objective import Objective
from tutelage.objectives.position_terms import divergence
from tutelage.objectives.signal import Signal
from tutelage.objectives.targets import SparseTargets, multinomial, systematic, top_k
from tutelage.objectives.terms import Term
from tutelage.planning.storage import TeacherCache
from tutelage.records.hashing import sha256_json
from tutelage.teachers.target_cache.build import build_targets
from tutelage.teachers.target_cache.cache import TargetCache
from tutelage.teachers.target_cache.cached import CachedTeacher
from tutelage.teachers.target_cache.contents import CacheIdentity, CacheSettings, SampleKey, sample_generator
from tutelage.teachers.target_cache.manifest import MANIFEST
from tutelage.teachers.target_cache.rows import Answer, decode_targets, encode

HALF = 2.0**-11  # relative rounding of a float16
FLOAT32 = 1e-6  # of numbers around 1, after a few operations
KINDS = list(SIZES)


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """One cache a kind, for tests that only read."""
    root = tmp_path_factory.mktemp("caches")
    for kind in KINDS:
        build_toy(root / kind, kind)
    return {kind: root / kind for kind in KINDS}


def cached(folder: Path, rest: bool = True) -> CachedTeacher:
    cache = TargetCache.open(folder, IDENTITY)
    return CachedTeacher(cache, teacher()[1] if cache.kind == "hidden" else None, rest)


def live_targets(kind: str, indices: list[int], rest: bool = True) -> list[SparseTargets]:
    """The same targets from the live teacher, sample by sample."""
    live, _ = teacher(deferred=False)
    found = []
    for index in indices:
        batch = keyed_batch([index])
        logits, labels = live.signal(batch).logits_BTV[batch.keep_BT], batch.labels_BT[batch.keep_BT]
        if kind == "topk":
            found.append(top_k(logits, labels, SIZES[kind], rest=rest))
        else:
            draw = systematic if kind == "systematic" else multinomial
            found.append(draw(logits, labels, SIZES[kind], sample_generator(0, KEYS[index])))
    return found


def dense(targets: SparseTargets) -> Tensor:
    return torch.zeros(*targets.weights_NK.shape[:-1], VOCABULARY).scatter_add_(-1, targets.ids_NK, targets.weights_NK)


@pytest.mark.parametrize("kind", ["topk", "systematic", "multinomial"])
def test_cached_targets_are_the_live_ones_in_any_epoch_and_order(folders: dict[str, Path], kind: str) -> None:
    student = cached(folders[kind])
    for epoch in range(3):
        order = torch.randperm(SAMPLES, generator=torch.Generator().manual_seed(epoch)).tolist()
        for begin in range(0, SAMPLES, 4):
            indices = order[begin : begin + 4]
            batch = keyed_batch(indices)
            found = student.signal(batch).scores
            assert isinstance(found, SparseTargets)
            for row, live in enumerate(live_targets(kind, indices)):
                mine = found[(torch.full_like(live.gold_N, row).long(), batch.keep_BT[row].nonzero()[:, 0])]
                p, q = dense(live), dense(mine)
                if kind == "topk":
                    assert ((q - p).abs() <= p * p.log().abs().nan_to_num(0.0, 0.0, 0.0) * HALF + FLOAT32).all()
                    assert ((mine.rest_N - live.rest_N).abs() <= live.entropy_N * HALF + FLOAT32).all()
                    torch.testing.assert_close(q.sum(-1) + mine.rest_N, torch.ones(len(q)))
                else:
                    assert torch.equal(p, q)
                    assert torch.equal(mine.floor_N, mine.entropy_N)
                assert ((mine.entropy_N - live.entropy_N).abs() <= live.entropy_N * HALF).all()
                assert ((mine.gold_N - live.gold_N).abs() <= live.gold_N.abs() * HALF).all()
            assert not found.weights_NK[~batch.keep_BT].any()


def test_replayed_logits_and_states_are_the_live_ones_at_every_temperature(folders: dict[str, Path]) -> None:
    live, head = teacher()
    weights = head.parameters[0].abs()
    for indices in ([3, 1, 7], [7, 0], list(range(SAMPLES))):
        batch = keyed_batch(indices)
        keep = batch.keep_BT
        wanted, found = live.signal(batch), cached(folders["hidden"]).signal(batch)
        bound = HALF * (wanted.states[1].abs() @ weights.T) + FLOAT32
        assert ((found.logits_BTV - wanted.logits_BTV).abs() <= bound)[keep].all()
        assert ((found.states[1].float() - wanted.states[1]).abs() <= HALF * wanted.states[1].abs() + FLOAT32)[
            keep
        ].all()
        student = ToyModel(STUDENT_WIDTH, seed=1)(batch.inputs_BT).logits_BTV
        for temperature in (1.0, 2.0, 4.0):
            term = Term("kl", temperature=temperature)
            one, other = (divergence(term, student, signal.scores, keep).total for signal in (wanted, found))
            # a KL moves by at most the largest change of a log-probability, twice the logits'
            assert abs(float(one - other)) <= 4 * float(bound[keep].max(-1).values.sum()) / temperature


@pytest.mark.parametrize("kind", ["topk", "systematic", "multinomial"])
@pytest.mark.parametrize("rest", [True, False])
def test_losses_and_gradients_are_the_live_ones_within_rounding(
    folders: dict[str, Path], kind: str, rest: bool
) -> None:
    indices = [5, 2, 9]
    batch = keyed_batch(indices)
    logits = ToyModel(STUDENT_WIDTH, seed=1)(batch.inputs_BT).logits_BTV.requires_grad_()
    found = divergence(Term("kl"), logits, cached(folders[kind], rest).signal(batch).scores, batch.keep_BT).total
    wanted = torch.zeros(())
    for row, targets in enumerate(live_targets(kind, indices, rest)):
        chosen = logits[row][batch.keep_BT[row]]
        wanted = wanted + divergence(Term("kl"), chosen, targets, torch.ones(len(chosen), dtype=torch.bool)).total
    assert found.item() == pytest.approx(wanted.item(), rel=10 * HALF)
    one, other = (torch.autograd.grad(loss, logits)[0] for loss in (found, wanted))
    assert float((one - other).norm()) <= 4 * HALF * float(other.norm())


def test_a_student_of_the_cache_becomes_that_of_the_live_teacher(folders: dict[str, Path]) -> None:
    objective = Objective((Term("cross_entropy", 1.0), Term("kl", 0.5, temperature=2.0), Term("gram", 0.3)), PAIRS)
    weights, losses = [], []
    untrained = ToyModel(STUDENT_WIDTH, seed=1, rank=2).requires_grad_(False)
    for signal in (teacher()[0].signal, cached(folders["hidden"]).signal):
        student = ToyModel(STUDENT_WIDTH, seed=1, rank=2)
        student.requires_grad_(False).adapter.requires_grad_(True)
        optimiser = torch.optim.SGD(student.adapter.parameters(), lr=0.5)
        losses.append([])
        for step in range(14):  # two epochs of shuffled batches
            generator = torch.Generator().manual_seed(step // 7)
            indices = torch.randperm(SAMPLES, generator=generator)[2 * (step % 7) :][:2].tolist()
            batch = keyed_batch(indices)
            reduced = objective.evaluate(
                student(batch.inputs_BT), signal(batch), batch.labels_BT, batch.keep_BT, {"1-1": torch.nn.Identity()}
            )
            loss = objective.combine(reduced, objective.counts(batch.keep_BT))
            optimiser.zero_grad()
            loss.backward()
            optimiser.step()
            losses[-1].append(loss.item())
        weights.append(torch.cat([parameter.detach().flatten() for parameter in student.adapter.parameters()]))
    moved = weights[0] - torch.cat([parameter.flatten() for parameter in untrained.adapter.parameters()])
    assert float(moved.norm()) > 0.1
    assert losses[1] == pytest.approx(losses[0], rel=4 * HALF)
    assert float((weights[0] - weights[1]).norm()) <= 10 * HALF * float(weights[0].norm())


@pytest.mark.parametrize("name", ["model", "tokenizer", "data", "adapter", "template"])
def test_another_identity_is_refused_by_name(folders: dict[str, Path], name: str) -> None:
    other = replace(IDENTITY, **{name: "0123456789abcdef0123"})
    with pytest.raises(InputError) as caught:
        TargetCache.open(folders["topk"], other)
    (line,) = [fault for fault in caught.value.faults if " in the cache and " in fault]
    assert f"({name})" in line
    assert "0123456789abcdef..." in line


@pytest.mark.parametrize(
    ("kind", "changes"),
    [
        ("topk", {"size": 4}),
        ("topk", {"kind": "systematic"}),
        ("topk", {"kind": "hidden", "size": 0}),
        ("topk", {"layers": ()}),
        ("systematic", {"seed": 7}),
        ("multinomial", {"size": 13}),
    ],
)
def test_other_settings_are_refused_by_name(folders: dict[str, Path], kind: str, changes: dict[str, Any]) -> None:
    wanted = toy_settings(**{"kind": kind, **changes})
    with pytest.raises(InputError) as caught:
        TargetCache.open(folders[kind], IDENTITY, wanted)
    for name in changes:
        assert f"({name})" in str(caught.value) or (name == "size" and "kind" in changes)


def test_what_plays_no_part_is_not_compared(folders: dict[str, Path]) -> None:
    TargetCache.open(folders["topk"], IDENTITY, toy_settings("topk", seed=9, batch_size=3, shard_samples=2))
    TargetCache.open(folders["hidden"], IDENTITY, toy_settings("hidden", seed=9, temperature=2.0))


def test_all_differences_are_in_one_error_and_the_format_is_among_them(
    folders: dict[str, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tutelage.teachers.target_cache.contents.FORMAT", 2)
    other = CacheIdentity("x", "y", "z")
    with pytest.raises(InputError) as caught:
        TargetCache.open(folders["topk"], other, CacheSettings("multinomial", 5, seed=3))
    words = ["(model)", "(adapter)", "(tokenizer)", "(template)", "(data)", "(kind)", "(size)", "(layers)", "(seed)"]
    assert not [word for word in [*words, "the format is 1 in the cache and 2 here"] if word not in str(caught.value)]
    assert "not set here" in str(caught.value)


def test_a_sample_with_other_tokens_is_refused_by_name(folders: dict[str, Path]) -> None:
    cache = TargetCache.open(folders["topk"], IDENTITY)
    keys = [KEYS[3], replace(KEYS[4], token_hash="e" * 64), SampleKey("clip-99", "f"), SampleKey("clip-98", "f")]
    with pytest.raises(InputError) as caught:
        cache.require(keys)
    assert "2 samples ('clip-99', 'clip-98') are not in the cache" in str(caught.value)
    assert f"sample {KEYS[4].id!r} is not as cached" in str(caught.value)
    assert "eeeeeeeeeeee" in str(caught.value)
    batch = keyed_batch([3, 4])
    with pytest.raises(InputError, match="not as cached"):
        CachedTeacher(cache).signal(replace(batch, token_hashes=(batch.token_hashes[0], "e" * 64)))
    with pytest.raises(ValueError, match=f"{KEYS[3].id!r} has 1 kept positions and 4 in the cache"):
        cache.targets(keys[:1], torch.tensor([[True, False, False, False, False]]))
    cache.require(KEYS)
    assert len(cache) == SAMPLES


def test_bytes_of_a_token_are_those_that_a_plan_counts(folders: dict[str, Path], tmp_path: Path) -> None:
    counted = {}
    for kind, size in SIZES.items():
        build_toy(tmp_path / kind, kind, layers=())
        cache = TargetCache.open(tmp_path / kind, IDENTITY)
        counted[kind] = cache.bytes_per_position()
        if kind == "hidden":
            assert counted[kind] == TeacherCache("hidden", 8).bytes_per_token(VOCABULARY)
        elif kind == "topk":
            assert counted[kind] == TeacherCache("topk", size).bytes_per_token(VOCABULARY)
        else:
            used = sum(int((t.weights_NK > 0).sum()) for t in live_targets(kind, list(range(SAMPLES))))
            each = TeacherCache("sampled", 1).bytes_per_token(VOCABULARY) - TeacherCache.bytes_per_token(
                TeacherCache("sampled", 2), VOCABULARY
            )
            extras = TeacherCache("sampled", 1).bytes_per_token(VOCABULARY) + each
            assert counted[kind] == pytest.approx(extras - each * used / cache.positions)
    beside = TargetCache.open(folders["topk"], IDENTITY).bytes_per_position()
    assert beside == counted["topk"] + counted["hidden"]


WIDE = 70_000
SPREAD = 40  # positions of a sample of realistic length
# Beside the numbers a sample takes its id, its hash and where its values begin, about 170 bytes; a pass of the teacher
# about 1.5 kB of Arrow's own.
BESIDE_SAMPLE, BESIDE_PASS = 200, 2500


@pytest.mark.parametrize(("vocabulary", "width"), [(1 << 16, 2), (WIDE, 4)])
@pytest.mark.parametrize("kind", ["topk", "systematic"])
def test_ids_take_two_bytes_or_four_and_files_little_more_than_their_numbers(
    tmp_path: Path, vocabulary: int, width: int, kind: str
) -> None:
    keys = [SampleKey(f"row-{number:03d}", "0" * 64) for number in range(8)]

    def forward(indices: list[int]) -> Answer:
        logits = torch.full((len(indices), SPREAD, vocabulary), -20.0)
        logits[..., vocabulary - 8 :] = torch.randn(len(indices), SPREAD, 8, generator=torch.Generator().manual_seed(1))
        labels = torch.full((len(indices), SPREAD), vocabulary - 1)
        return Answer(Signal(logits, {}), labels, torch.ones_like(labels, dtype=torch.bool))

    settings = CacheSettings(kind, 5, batch_size=4)
    built = build_targets(keys, forward, IDENTITY, settings, tmp_path / "cache")
    cache = TargetCache.open(tmp_path / "cache", IDENTITY, settings)
    targets = cache.targets(keys[2:3], torch.ones(1, SPREAD, dtype=torch.bool))
    assert int(targets.ids_NK.max()) == vocabulary - 1
    if kind == "topk":
        assert cache.bytes_per_position() == TeacherCache("topk", 5).bytes_per_token(vocabulary) == 5 * (width + 2) + 4
    payload = cache.bytes_per_position() * built.positions
    assert built.positions == 8 * SPREAD
    assert payload < built.bytes < payload + 8 * BESIDE_SAMPLE + 2 * BESIDE_PASS


def test_a_class_that_takes_every_draw_and_a_sample_without_positions_come_back() -> None:
    settings = CacheSettings("systematic", 255)
    logits = torch.tensor([[[300.0, 0.0, 0.0], [0.0, 0.0, -math.inf]], [[0.0] * 3] * 2])
    keep = torch.tensor([[True, True], [False, False]])
    answer = Answer(Signal(logits, {}), torch.zeros(2, 2, dtype=torch.long), keep)
    rows = [encode(answer, place, SampleKey(str(place), "t"), settings) for place in (0, 1)]
    assert [row.positions for row in rows] == [2, 0]
    assert rows[0].columns["counts"][0] == 255
    both = {name: rows[1].columns[name].tolist() + rows[0].columns[name].tolist() for name in rows[0].columns}
    columns = {name: torch.tensor(values).numpy() for name, values in both.items()}
    found = decode_targets(columns, "systematic", 255, 3)
    assert found.weights_NK.sum(-1).tolist() == pytest.approx([1.0, 1.0])
    assert found.ids_NK[0, 0] == 0
    assert found.weights_NK[0].tolist() == [1.0, 0.0]
    nothing = decode_targets(rows[1].columns, "systematic", 255, 3)
    assert nothing.ids_NK.shape == (0, 0)


def test_samples_draw_apart_and_each_the_same_again() -> None:
    logits = torch.zeros(1, 6, 50)
    answer = Answer(Signal(logits, {}), torch.zeros(1, 6, dtype=torch.long), torch.ones(1, 6, dtype=torch.bool))

    def drawn(name: str, token_hash: str, seed: int = 0) -> list[int]:
        row = encode(answer, 0, SampleKey(name, token_hash), CacheSettings("multinomial", 4, seed=seed))
        return row.columns["ids"].tolist()

    one = drawn("a", "t")
    assert one == drawn("a", "t")
    assert one not in (drawn("b", "t"), drawn("a", "u"), drawn("a", "t", 1))


def test_top_k_of_every_class_stays_a_distribution() -> None:
    logits = 3 * torch.randn(1, 50, 7, generator=torch.Generator().manual_seed(0))
    answer = Answer(Signal(logits, {}), torch.zeros(1, 50, dtype=torch.long), torch.ones(1, 50, dtype=torch.bool))
    row = encode(answer, 0, SampleKey("a", "t"), CacheSettings("topk", 7))
    for rest in (True, False):
        found = decode_targets(row.columns, "topk", 7, 7, rest)
        torch.testing.assert_close(found.weights_NK.sum(-1), torch.ones(50))
        own = torch.zeros(50, 7).scatter_(1, found.ids_NK, found.weights_NK.log())
        loss = divergence(Term("kl"), own, found, torch.ones(50, dtype=torch.bool))
        assert abs(float(loss.total)) <= 50 * FLOAT32


def test_rounding_never_lifts_a_target_above_a_distribution() -> None:
    """Nearly all mass is in the k classes, so that float16 lifts their sum above 1 at about half of the positions."""
    logits = 3 * torch.randn(1, 200, 8, generator=torch.Generator().manual_seed(0))
    logits[..., 7] = -30.0
    answer = Answer(Signal(logits, {}), torch.zeros(1, 200, dtype=torch.long), torch.ones(1, 200, dtype=torch.bool))
    row = encode(answer, 0, SampleKey("a", "t"), CacheSettings("topk", 7))
    stored = torch.from_numpy(row.columns["log_p"]).double().exp().view(-1, 7).sum(-1)
    assert 50 < int((stored > 1).sum()) < 150
    found = decode_targets(row.columns, "topk", 7, 8)
    torch.testing.assert_close(found.weights_NK.sum(-1) + found.rest_N, torch.ones(200))


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ({"kind": "dense"}, "a cache keeps one of topk, systematic, multinomial, hidden, not 'dense'"),
        (
            {"kind": "topk", "size": 4, "temperature": 2.0},
            "temperature is 2; sparse targets are kept at 1 only, because",
        ),
        ({"kind": "systematic", "size": 256}, "size is 256; systematic needs at least 1 and at most 255"),
        ({"kind": "topk"}, "size is 0; topk needs at least 1."),
        ({"kind": "hidden", "size": 3}, "size is 3; hidden keeps whole states"),
        ({"kind": "hidden", "layers": (2, 2)}, "layers are [2, 2]; each is 0 or more, and named once"),
        ({"kind": "hidden", "batch_size": 0}, "batch_size is 0; it must be at least 1"),
    ],
)
def test_settings_that_cannot_be_are_refused(words: dict[str, Any], said: str) -> None:
    with pytest.raises(InputError) as caught:
        CacheSettings(**words)
    assert said in str(caught.value)


def test_all_faults_of_settings_are_in_one_error() -> None:
    with pytest.raises(InputError) as caught:
        CacheSettings("systematic", 0, temperature=2.0, layers=(-1,), shard_samples=0)
    assert len(caught.value.faults) == 4


def test_what_the_teacher_does_not_give_is_refused(tmp_path: Path, folders: dict[str, Path]) -> None:
    with pytest.raises(InputError, match="this teacher's pass gives logits"):
        build_targets(KEYS, toy_forward(deferred=False), IDENTITY, toy_settings("hidden"), tmp_path / "a")
    with pytest.raises(InputError, match="no states of block 5"):
        build_toy(tmp_path / "b", "topk", layers=(5,))
    with pytest.raises(InputError, match="k from 1 to the vocabulary's 11, not 12"):
        build_toy(tmp_path / "c", "topk", size=12)
    sparse, hidden = TargetCache.open(folders["topk"], IDENTITY), TargetCache.open(folders["hidden"], IDENTITY)
    keep = torch.ones(1, 1, dtype=torch.bool)
    with pytest.raises(InputError, match="keeps no final states"):
        sparse.states(KEYS[:1], keep)
    with pytest.raises(InputError, match=r"keeps no states of block 4 \(it keeps block_1, final\)"):
        hidden.states(KEYS[:1], keep, 4)
    with pytest.raises(InputError, match="keeps final states, not sparse targets"):
        hidden.targets(KEYS[:1], keep)
    with pytest.raises(InputError, match="the teacher's head is needed"):
        CachedTeacher(hidden)
    head = torch.nn.Linear(8, 12)
    with pytest.raises(InputError, match="the head has 12 entries"):
        CachedTeacher(hidden, Head.of(head, 12))
    with pytest.raises(PreflightError, match="would be trained"):
        CachedTeacher(hidden, Head.of(head, VOCABULARY))


@pytest.mark.parametrize(
    ("kind", "value", "said"),
    [("hidden", 7e4, "do not fit float16 (the largest is 70000"), ("topk", math.nan, "are not numbers")],
)
def test_numbers_that_cannot_be_kept_stop_the_build_by_the_samples_name(
    tmp_path: Path, kind: str, value: float, said: str
) -> None:
    def forward(indices: list[int]) -> Answer:
        answer = toy_forward()(indices)
        scores = answer.signal.scores
        assert isinstance(scores, DeferredLogits)
        states = scores.states_BTH.clone()
        states[0, 1] = value
        return replace(answer, signal=Signal(replace(scores, states_BTH=states), answer.signal.states))

    with pytest.raises(TutelageError) as caught:
        build_targets(KEYS, forward, IDENTITY, toy_settings(kind), tmp_path / "cache")
    assert said in str(caught.value)
    assert "'clip-00'" in str(caught.value)
    assert not list((tmp_path / "cache").iterdir())


def test_without_pyarrow_the_extra_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, "pyarrow", None)
    with pytest.raises(MissingExtraError, match=r"pip install 'tutelage\[cache\]'"):
        build_toy(tmp_path / "cache")


def test_the_manifest_says_what_is_there(folders: dict[str, Path]) -> None:
    record = json.loads((folders["topk"] / MANIFEST).read_text())
    assert record["contents"] == {
        "format": 1,
        "model": "a" * 64,
        "tokenizer": "b" * 64,
        "data": IDENTITY.data,
        "adapter": "c" * 64,
        "template": "d" * 64,
        "window_seconds": None,
        "kind": "topk",
        "size": 3,
        "temperature": 1.0,
        "layers": [1],
        "seed": None,
    }
    assert record["vocabulary"] == VOCABULARY
    assert record["widths"] == {"block_1": 8}
    assert [shard["samples"] for shard in record["shards"]] == [5, 5, 4]
    assert [shard["first"] for shard in record["shards"]] == ["clip-00", "clip-05", "clip-10"]
    digest = record.pop("sha256")
    assert digest == sha256_json(record)
