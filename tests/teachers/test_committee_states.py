"""A committee's answer from its members' final states: the average that its logits give, in any order of names."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from tutelage.errors import InputError, PreflightError
from tutelage.objectives.logits import DeferredLogits, Head
from tutelage.objectives.position_terms import divergence
from tutelage.objectives.signal import Signal
from tutelage.objectives.terms import Term
from tutelage.teachers.committee import RULES, SPACES, Committee, Member
from tutelage.teachers.live import LiveTeacher

SINGLE = {"rtol": 1e-5, "atol": 2e-6}  # float32 sums over the members in another order
VOCABULARY, BLOCK = 11, 1
WIDTHS = {"narrow": 3, "wide": 5, "alike": 3}
TOKENS = {f"t{index}": index for index in range(VOCABULARY)}
GIVEN = {"wide": 3.0, "narrow": 1.0, "alike": 2.0}


def linear(name: str, vocabulary: int) -> nn.Linear:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(len(name))
        return nn.Linear(WIDTHS[name], vocabulary)


def member(name: str, *, deferred: bool, vocabulary: int = VOCABULARY) -> Member[torch.Tensor]:
    """A model that is its head; a batch is the seed of its final states."""
    module = linear(name, vocabulary)
    head = Head.of(module, vocabulary)

    def read(model: nn.Module, batch: int, layers: object) -> Signal:
        states_BTH = torch.randn(2, 4, WIDTHS[name], generator=torch.Generator().manual_seed(batch + len(name)))
        final = DeferredLogits(states_BTH, head)
        return Signal(final if deferred else final.made(), dict.fromkeys(layers, states_BTH))

    return Member(LiveTeacher(module, (BLOCK,) if name == "wide" else (), read), TOKENS)


def committee(
    names: tuple[str, ...] = tuple(WIDTHS), *, deferred: bool = True, space: str = SPACES[0], weights: object = RULES[0]
) -> Committee[int]:
    members = {name: member(name, deferred=deferred) for name in names}
    return Committee(members, space, weights, (BLOCK,), "wide")


@pytest.mark.parametrize("weights", [*RULES, GIVEN], ids=str)
@pytest.mark.parametrize("space", SPACES)
def test_replayed_and_averaged_it_is_the_committees_answer(space: str, weights: object) -> None:
    whole = committee(deferred=False, space=space, weights=weights).signal(7)
    kept = committee(space=space, weights=weights).deferred(7)
    assert kept.scores.states_BTH.shape == (2, 4, sum(WIDTHS.values()))
    assert torch.allclose(kept.logits_BTV, whole.logits_BTV, **SINGLE)
    assert kept.states.keys() == {BLOCK}
    assert torch.equal(kept.states[BLOCK], whole.states[BLOCK])


def test_the_order_of_the_members_plays_no_part() -> None:
    """A cache does not know it: states that are read with another member's head would be silently wrong."""
    one = committee(weights=GIVEN).deferred(7)
    other = committee(tuple(reversed(WIDTHS)), weights=GIVEN).deferred(7)
    assert torch.equal(one.scores.states_BTH, other.scores.states_BTH)
    assert torch.equal(one.logits_BTV, other.logits_BTV)


@pytest.mark.parametrize("kind", ["kl", "reverse_kl", "jsd"])
def test_a_divergence_makes_the_average_chunk_by_chunk(kind: str) -> None:
    student_BTV = torch.randn(2, 4, VOCABULARY, generator=torch.Generator().manual_seed(1))
    keep_BT = torch.tensor([[True, True, False, True], [False, True, True, True]])
    term, one_position = Term(kind, temperature=2.0), 4 * VOCABULARY
    whole = divergence(term, student_BTV, committee(deferred=False).signal(7).scores, keep_BT)
    kept = divergence(term, student_BTV, committee().deferred(7).scores, keep_BT, chunk_bytes=one_position)
    assert torch.allclose(kept.total, whole.total, **SINGLE)


def test_what_cannot_be_deferred_is_refused() -> None:
    with pytest.raises(ValueError, match="member narrow answers with logits"):
        committee(deferred=False).deferred(7)
    members = {
        name: member(name, deferred=True, vocabulary=VOCABULARY + (name == "wide")) for name in ("narrow", "wide")
    }
    with pytest.raises(InputError, match="member wide scores 12 classes and member narrow 11"):
        Committee(members, SPACES[0]).deferred(7)
    thawed = committee()
    thawed._teachers["alike"]._model.train()
    with pytest.raises(PreflightError, match="Member alike of the committee"):
        thawed.deferred(7)
