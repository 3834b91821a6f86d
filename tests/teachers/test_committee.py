"""A committee is the documented average of its members, frozen like them, and refused where it has no meaning."""

import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from safetensors import safe_open
from torch import nn
from torch.nn.functional import kl_div

from tiny_text import BLOCKS, shared_tiny_text
from toy import STUDENT_WIDTH, TEACHER_WIDTH, VOCABULARY, ToyModel, ToySampler, make_batch, toy_lesson, toy_settings
from tutelage.errors import InputError, PreflightError
from tutelage.objectives.logits import DeferredLogits, Head
from tutelage.objectives.position_terms import divergence
from tutelage.objectives.signal import Signal
from tutelage.objectives.terms import Term
from tutelage.tasks.text.batch import collate
from tutelage.tasks.text.codec import Encoded
from tutelage.tasks.text.forward import read
from tutelage.tasks.text.packing import pack
from tutelage.teachers.committee import RULES, SPACES, Committee, Member
from tutelage.teachers.live import LiveTeacher
from tutelage.training.device import open_accelerator
from tutelage.training.loop import Keeping, Stream, train
from tutelage.training.step import Stepper

SINGLE = {"rtol": 1e-5, "atol": 2e-6}  # float32 log-softmax of ordinary logits against float64
APART = 1e-3  # far above SINGLE: two definitions that differ by this are told apart
TOKENS = {f"t{index}": index for index in range(VOCABULARY)}
PROBABILITY, LOGIT = SPACES
EVERY = [(space, weights) for space in SPACES for weights in (*RULES, "given")]
MASKED = -math.inf


def run_toy(model, batch, layers):
    return model(batch.inputs_BT)


def toy_member(seed, layers=(1,), width=TEACHER_WIDTH):
    return Member(LiveTeacher(ToyModel(width, seed=seed), layers, run_toy), TOKENS)


def fixed_member(logits_BTV, dtype=torch.float32):
    """A member whose answer is the given logits."""
    logits_BTV = torch.tensor(logits_BTV).to(dtype)
    return Member(LiveTeacher(nn.Identity(), (), lambda model, batch, layers: Signal(logits_BTV, {})), TOKENS)


def weights_for(members, weights):
    return {name: 1.0 + place for place, name in enumerate(sorted(members))} if weights == "given" else weights


def answer(members, space, weights="uniform"):
    """The distribution of a committee over the toy batch, (B, T, V)."""
    committee = Committee(members, space, weights_for(members, weights))
    return committee.signal(make_batch([0, 1, 4])).logits_BTV.log_softmax(-1)


def by_hand(members, space, weights):
    """The equations of the module, in float64, from the members' own logits."""
    z_MBTV = torch.stack([one.teacher.signal(make_batch([0, 1, 4])).logits_BTV.double() for one in members.values()])
    p_MBTV = z_MBTV.softmax(-1)
    share_M = torch.ones(len(members), dtype=torch.float64)
    if weights == "given":
        share_M = torch.tensor([weights_for(members, weights)[name] for name in members], dtype=torch.float64)
    share_MBT1 = share_M[:, None, None, None].expand(*z_MBTV.shape[:3], 1)
    if weights == "entropy":
        share_MBT1 = (p_MBTV * p_MBTV.log()).sum(-1, keepdim=True).exp()
    share_MBT1 = share_MBT1 / share_MBT1.sum(0)
    if space == PROBABILITY:
        return (share_MBT1 * p_MBTV).sum(0).log()
    return (share_MBT1 * z_MBTV).sum(0).log_softmax(-1)


def close(found, expected):
    return torch.allclose(found.double(), expected.double(), **SINGLE)


@pytest.mark.parametrize(("space", "weights"), EVERY)
def test_the_average_is_the_documented_one(space, weights):
    members = {"a": toy_member(2), "b": toy_member(3), "c": toy_member(4, width=STUDENT_WIDTH)}
    expected = by_hand(members, space, weights)
    assert close(answer(members, space, weights), expected)
    others = [by_hand(members, *other) for other in EVERY if other != (space, weights)]
    assert all(float((expected - other).abs().max()) > APART for other in others)


@pytest.mark.parametrize(("space", "weights"), EVERY)
def test_one_member_and_identical_members_are_that_member(space, weights):
    alone = toy_member(2).teacher.signal(make_batch([0, 1, 4])).logits_BTV.log_softmax(-1)
    assert close(answer({"a": toy_member(2)}, space, weights), alone)
    assert close(answer({name: toy_member(2) for name in "abc"}, space, weights), alone)


@pytest.mark.parametrize(("space", "weights"), EVERY)
def test_the_order_of_members_does_not_matter(space, weights):
    members = {"a": toy_member(2), "b": toy_member(3), "c": toy_member(4)}
    assert close(answer(dict(reversed(members.items())), space, weights), answer(members, space, weights))


def test_a_confident_member_counts_more_by_its_perplexity_at_each_position():
    sure, torn = [[0.0, MASKED, MASKED], [0.0, 0.0, MASKED]], [[MASKED, 0.0, 0.0], [MASKED, MASKED, 0.0]]
    committee = Committee({"a": fixed_member([sure]), "b": fixed_member([torn])}, PROBABILITY, "entropy")
    found = committee.signal(None).logits_BTV.exp()[0]
    # Perplexities 1 and 2 at the first position, 2 and 1 at the second: shares 2/3 and 1/3, then 1/3 and 2/3.
    assert close(found, torch.tensor([[2 / 3, 1 / 6, 1 / 6], [1 / 6, 1 / 6, 2 / 3]]))


def test_the_temperature_comes_after_the_average():
    z_MV = torch.tensor([[4.0, 0.0, -2.0], [-3.0, 1.0, 5.0]], dtype=torch.float64)
    student, keep = torch.tensor([[[0.3, -0.2, 0.1]]]), torch.tensor([[True]])
    members = {name: fixed_member([[row]]) for name, row in zip("ab", z_MV.tolist(), strict=True)}
    term = Term("kl", temperature=2.0)

    def loss(p_V):
        return float(kl_div((student[0, 0].double() / 2).log_softmax(-1), p_V, reduction="sum"))

    softened_mean = (z_MV.softmax(-1).mean(0).log() / 2).softmax(-1)
    mean_of_softened = (z_MV / 2).softmax(-1).mean(0)
    scores = Committee(members, PROBABILITY).signal(None).scores
    found = float(divergence(term, student, scores, keep).total)
    assert found == pytest.approx(loss(softened_mean), rel=SINGLE["rtol"])
    assert abs(found - loss(mean_of_softened)) > APART
    scores = Committee(members, LOGIT).signal(None).scores
    geometric = (z_MV / 2).log_softmax(-1).mean(0).softmax(-1)
    assert float(divergence(term, student, scores, keep).total) == pytest.approx(loss(geometric), rel=SINGLE["rtol"])


@pytest.mark.parametrize("weights", ["uniform", "entropy"])
def test_masked_classes_make_no_nan(weights):
    members = {"a": fixed_member([[[1.0, MASKED, MASKED, 0.0]]]), "b": fixed_member([[[MASKED, 0.0, MASKED, 1.0]]])}
    mean = Committee(members, PROBABILITY, weights).signal(None).logits_BTV[0, 0]
    assert mean.isneginf().tolist() == [False, False, True, False]
    assert float(mean.exp().sum()) == pytest.approx(1.0, rel=SINGLE["rtol"])
    ruled_out = Committee(members, LOGIT, weights).signal(None).logits_BTV[0, 0]
    assert ruled_out.isneginf().tolist() == [True, True, True, False]
    assert not ruled_out.isnan().any()


def test_a_logit_average_that_rules_every_class_out_is_refused():
    members = {"a": fixed_member([[[0.0, MASKED]]]), "b": fixed_member([[[MASKED, 0.0]]])}
    assert Committee(members, PROBABILITY).signal(None).logits_BTV.exp().tolist() == [[[0.5, 0.5]]]
    with pytest.raises(InputError, match=r"at 1 positions every class is masked .* use probability-average"):
        Committee(members, LOGIT).signal(None)


@pytest.mark.parametrize("space", SPACES)
def test_half_precision_members_are_averaged_in_float32(space):
    rows = [[[[10.0, 3.0, -4.0]]], [[[9.0, 9.5, 2.0]]], [[[-3.0, 0.5, 7.0]]]]
    half = {str(place): fixed_member(row, torch.bfloat16) for place, row in enumerate(rows)}
    full = {str(place): fixed_member(row) for place, row in enumerate(rows)}  # these logits are exact in bfloat16
    found = Committee(half, space, "entropy").signal(None).logits_BTV
    assert found.dtype == torch.float32
    assert torch.equal(found, Committee(full, space, "entropy").signal(None).logits_BTV)


@pytest.mark.parametrize("order", ["ab", "ba"])
def test_states_are_those_of_the_named_member_alone(order):
    made = {"a": toy_member(2), "b": toy_member(3, layers=(0, 1))}
    members, batch = {name: made[name] for name in order}, make_batch([0, 1])
    committee = Committee(members, PROBABILITY, layers=[1, 1], states_from="b")
    assert committee.layers == (1,)
    states = committee.signal(batch).states
    assert list(states) == [1]
    assert torch.equal(states[1], members["b"].teacher.signal(batch).states[1])
    assert Committee(members, PROBABILITY).signal(batch).states == {}


def test_members_are_frozen_and_a_thawed_one_is_refused_by_name():
    model = ToyModel(TEACHER_WIDTH, seed=2, rank=2, dropout=0.9).train()
    members = {"a": toy_member(3), "b": Member(LiveTeacher(model, (), run_toy), TOKENS)}
    committee = Committee(members, PROBABILITY)
    first, second = committee.signal(make_batch([0])), committee.signal(make_batch([0]))
    assert torch.equal(first.logits_BTV, second.logits_BTV)
    assert not any(parameter.requires_grad for parameter in model.parameters())
    assert not any(module.training for module in model.modules())
    model.head.weight.requires_grad_(True)
    with pytest.raises(PreflightError, match=r"Member b of the committee: .*head.weight is the first"):
        committee.signal(make_batch([0]))


def test_nothing_that_a_member_leaks_carries_a_gradient():
    def leaky(model, batch, layers):
        with torch.enable_grad():
            return Signal(model(batch.inputs_BT).logits_BTV * torch.ones(1, requires_grad=True), {})

    leak = Member(LiveTeacher(ToyModel(TEACHER_WIDTH, seed=2), (), leaky), TOKENS)
    for space in SPACES:
        assert not Committee({"a": leak, "b": toy_member(3)}, space).signal(make_batch([0])).logits_BTV.requires_grad


def teach(space, weights):
    """The toy lesson, taught by a committee."""
    committee = Committee({"a": toy_member(2), "b": toy_member(3)}, space, weights, layers=(1,), states_from="a")
    return replace(toy_lesson(), teacher_forward=committee.signal)


@pytest.mark.parametrize(("space", "weights"), [(PROBABILITY, "entropy"), (LOGIT, "uniform")])
def test_a_step_is_the_same_however_it_is_split(space, weights):
    taken = []
    for split in ([[0, 1, 2, 3, 4, 9]], [[4], [0, 1, 2, 3, 9]], [[9], [2], [0, 4], [1, 3]]):
        lesson = teach(space, weights)
        stepper = Stepper(
            lesson, torch.optim.SGD(lesson.trainable().values(), lr=1.0), math.inf, open_accelerator("cpu")
        )
        total = stepper.take(1, [make_batch(part) for part in split], 0.1).total
        taken.append((total, torch.cat([one.detach().flatten() for one in lesson.trainable().values()])))
    for total, trained in taken[1:]:
        assert total == pytest.approx(taken[0][0], rel=SINGLE["rtol"])
        assert close(trained, taken[0][1])


def test_nothing_of_a_committee_is_trained_or_saved(tmp_path):
    models = [ToyModel(TEACHER_WIDTH, seed=seed) for seed in (2, 3)]
    before = [{name: value.clone() for name, value in model.state_dict().items()} for model in models]
    members = {str(place): Member(LiveTeacher(model, (1,), run_toy), TOKENS) for place, model in enumerate(models)}
    committee = Committee(members, PROBABILITY, layers=(1,), states_from="0")
    lesson = replace(toy_lesson(), teacher_forward=committee.signal)
    stream = Stream(ToySampler(3), make_batch)
    train(lesson, stream, toy_settings(steps=3), Keeping(tmp_path, {}), open_accelerator("cpu"), 0)
    saved = set()
    for file in tmp_path.rglob("weights.safetensors"):
        with safe_open(file, "pt") as tensors:
            saved |= set(tensors.keys())
    assert saved == set(toy_lesson().trainable())
    for model, old in zip(models, before, strict=True):
        assert all(torch.equal(value, old[name]) for name, value in model.state_dict().items())


def test_every_fault_of_a_committee_is_reported_at_once():
    swapped = TOKENS | {"t3": 4, "t4": 3}
    members = {"a": toy_member(2), "b": replace(toy_member(3), tokens=swapped), "c": toy_member(4)}
    with pytest.raises(InputError) as caught:
        Committee(members, "average", {"a": 0.0, "b": 1.0, "d": math.nan}, layers=(1,))
    lines = caught.value.faults
    assert len(lines) == 7
    assert lines[0] == "a committee averages in probability-average or logit-average, not 'average'"
    assert lines[1] == "member c has no weight; give every member one"
    assert lines[2] == "a weight is given to d, which is no member"
    assert lines[3].startswith("member a has weight 0; a weight is a finite number above 0")
    assert lines[4].startswith("member d has weight nan")
    assert lines[5].startswith(
        "members a and b have different tokenizers: 't3' has id 3 in the one and 4 in the other (2 tokens differ)"
    )
    assert lines[6].startswith("an alignment reads blocks [1], and a committee has no states of its own; name the memb")


@pytest.mark.parametrize(
    ("changes", "line"),
    [
        ({"members": {}}, "a committee has no members"),
        ({"weights": "confidence"}, "weights are uniform, entropy or a number for every member, not 'confidence'"),
        ({"layers": (1,), "states_from": "z"}, r"states are to come from z, which is no member \(a\)"),
        ({"layers": (0, 1), "states_from": "a"}, r"reads blocks \[0, 1\], and member a was made with \[1\]"),
    ],
)
def test_what_has_no_meaning_is_refused(changes, line):
    with pytest.raises(InputError, match=line):
        Committee(**{"members": {"a": toy_member(2)}, "space": PROBABILITY, **changes})


def test_a_tokenizer_with_one_token_more_is_refused_by_name():
    more = replace(toy_member(3), tokens=TOKENS | {"extra": VOCABULARY})
    with pytest.raises(InputError, match=r"members a and b have .*'extra' has id None in the one and 11 in the other"):
        Committee({"a": toy_member(2), "b": more}, PROBABILITY)


def test_logits_that_do_not_match_are_refused_by_name():
    members = {"a": fixed_member([[[0.0, 1.0]]]), "b": fixed_member([[[0.0] * 3]]), "c": fixed_member([[[0.0]]])}
    with pytest.raises(InputError) as caught:
        Committee(members, LOGIT).signal(None)
    assert [line[:44] for line in caught.value.faults] == [
        "member b scores 3 classes and member a 2; an",
        "member c scores 1 classes and member a 2; an",
    ]
    members = {"a": fixed_member([[[0.0, 1.0]]]), "b": fixed_member([[[0.0, 1.0], [0.0, 1.0]]])}
    with pytest.raises(ValueError, match=r"member b answers with logits of shape \(1, 2, 2\), and member a"):
        Committee(members, PROBABILITY).signal(None)


def test_two_families_of_language_models_of_one_tokenizer_teach_together():
    """Their own `read` and `get_vocab`; one of them leaves its logits to its head."""
    from transformers import AutoModelForCausalLM, AutoTokenizer

    def deferred(model, batch, layers):
        states = read(model, batch, {*layers, BLOCKS}).states
        return Signal(DeferredLogits(states[BLOCKS], Head.of(model.lm_head, model.config.vocab_size)), {})

    members = {}
    for layout, forward in (("llama", read), ("qwen3", deferred)):
        folder = shared_tiny_text(layout)
        model = AutoModelForCausalLM.from_pretrained(folder)
        tokens = AutoTokenizer.from_pretrained(folder).get_vocab()
        members[layout] = Member(LiveTeacher(model, (1,) if forward is read else (), forward), tokens)
    ids = np.arange(3, 10, dtype=np.int32)
    rows = [Encoded(name, name, ids[:-1], ids[1:], np.ones(6, dtype=bool), 6) for name in "ab"]
    packed = pack(rows, 6, "documents")
    batch = collate(packed.rows, packed.isolated, 0)
    committee = Committee(members, PROBABILITY, layers=(1,), states_from="llama")
    found = committee.signal(batch)
    p = torch.stack([one.teacher.signal(batch).logits_BTV.double().softmax(-1) for one in members.values()]).mean(0)
    assert close(found.logits_BTV, p.log())
    assert torch.equal(found.states[1], members["llama"].teacher.signal(batch).states[1])
