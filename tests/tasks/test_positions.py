"""Answers at supervised positions from torch's logits: the float64 reference, dropped positions, the teacher's KL."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from tutelage.errors import InputError, TutelageError
from tutelage.evaluation.predictions import read_logits
from tutelage.tasks import positions
from tutelage.tasks.positions import answer, join_answers

ROUNDING = 2e-6  # float32 against float64, values of order 1
SHAPE = (3, 7, 11)
GROUPS = ["a", "b", "a"]


def case(seed: int = 0) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    logits_BTV = 3 * torch.randn(SHAPE, generator=generator)
    labels_BT = torch.randint(0, SHAPE[-1], SHAPE[:2], generator=generator)
    keep_BT = torch.rand(SHAPE[:2], generator=generator) < 0.6
    return logits_BTV, labels_BT, keep_BT


@pytest.mark.parametrize("at_once", [1, 4, 1024])
def test_answers_are_those_of_the_reference(monkeypatch: pytest.MonkeyPatch, at_once: int) -> None:
    monkeypatch.setattr(positions, "AT_ONCE", at_once)
    logits_BTV, labels_BT, keep_BT = case()
    found = answer(logits_BTV, labels_BT, keep_BT, GROUPS).predictions
    wanted = read_logits(logits_BTV.numpy(), labels_BT.numpy(), keep_BT.numpy(), GROUPS)
    for name in ("labels_N", "guesses_N", "groups_N"):
        assert np.array_equal(getattr(found, name), getattr(wanted, name))
    for name in ("nats_N", "confidence_N", "brier_N"):
        assert getattr(found, name) == pytest.approx(getattr(wanted, name), abs=ROUNDING)


def test_dropped_positions_count_nothing() -> None:
    logits_BTV, labels_BT, keep_BT = case()
    before = answer(logits_BTV, labels_BT, keep_BT, GROUPS, logits_BTV + 1)
    logits_BTV[~keep_BT], labels_BT[~keep_BT] = torch.nan, -100
    after = answer(logits_BTV, labels_BT, keep_BT, GROUPS, logits_BTV + 1)
    assert np.array_equal(before.predictions.nats_N, after.predictions.nats_N)
    assert before.divergence_N is not None
    assert after.divergence_N == pytest.approx(before.divergence_N, abs=ROUNDING)


def test_the_divergence_is_the_teachers_kl_and_zero_at_itself() -> None:
    logits_BTV, labels_BT, keep_BT = case()
    teacher_BTV = case(seed=1)[0]
    found = answer(logits_BTV, labels_BT, keep_BT, GROUPS, teacher_BTV).divergence_N
    p_NV, q_NV = (torch.log_softmax(one[keep_BT].double(), -1) for one in (teacher_BTV, logits_BTV))
    wanted = torch.nn.functional.kl_div(q_NV, p_NV, reduction="none", log_target=True).sum(-1)
    assert found == pytest.approx(wanted.numpy(), abs=10 * ROUNDING)  # values up to about 10
    shifted = answer(logits_BTV, labels_BT, keep_BT, GROUPS, logits_BTV + 5).divergence_N
    assert shifted == pytest.approx(np.zeros(int(keep_BT.sum())), abs=ROUNDING)


def test_joining_keeps_the_divergence_only_where_all_have_one() -> None:
    logits_BTV, labels_BT, keep_BT = case()
    told, untold = (answer(logits_BTV, labels_BT, keep_BT, GROUPS, teacher) for teacher in (logits_BTV, None))
    kept = int(keep_BT.sum())
    assert join_answers([told, untold]).divergence_N is None
    joined = join_answers([told, told])
    assert joined.divergence_N is not None
    assert (joined.divergence_N.size, joined.predictions.positions) == (2 * kept, 2 * kept)


def test_what_has_no_loss_is_refused() -> None:
    logits_BTV, labels_BT, keep_BT = case()
    with pytest.raises(InputError, match="no position is supervised"):
        answer(logits_BTV, labels_BT, torch.zeros_like(keep_BT), GROUPS)
    impossible = logits_BTV.scatter(-1, labels_BT[..., None], -torch.inf)
    with pytest.raises(InputError, match="labels have probability zero"):
        answer(impossible, labels_BT, keep_BT, GROUPS)
    with pytest.raises(TutelageError, match="not numbers"):
        answer(torch.full(SHAPE, torch.nan), labels_BT, keep_BT, GROUPS)
