"""Encoder states are compared where sound is heard, each utterance as often as its supervised positions count."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import nn

from tutelage.objectives.objective import Objective
from tutelage.objectives.signal import Signal
from tutelage.objectives.terms import LayerPair, Term

PAIR = LayerPair(2, 2, "encoder")
SAME = 1e-5  # float32 sums in another order
KEEP = torch.tensor([[False, True, True, True], [True, False, False, False]])
HEARD = torch.tensor([[True, True, True, False, False], [True, True, True, True, True]])
LABELS = torch.zeros(2, 4, dtype=torch.long)


def signals(seed: int = 0) -> tuple[Signal, Signal]:
    generator = torch.Generator().manual_seed(seed)

    def draw(*shape: int) -> torch.Tensor:
        return torch.randn(*shape, generator=generator)

    student = Signal(draw(2, 4, 7), {1: draw(2, 4, 6)}, None, draw(2, 5, 6))
    teacher = Signal(draw(2, 4, 7), {1: draw(2, 4, 6)}, None, draw(2, 5, 6), HEARD)
    return student, teacher


def evaluate(terms: list[Term], pairs: list[LayerPair], student: Signal, teacher: Signal, rows: slice) -> Any:
    def cut(signal: Signal) -> Signal:
        states = {layer: state[rows] for layer, state in signal.states.items()}
        heard = None if signal.heard_BS is None else signal.heard_BS[rows]
        assert signal.heard_BSH is not None
        return Signal(signal.logits_BTV[rows], states, None, signal.heard_BSH[rows], heard)

    projectors = nn.ModuleDict({pair.name: nn.Identity() for pair in pairs})
    return Objective(terms, pairs).evaluate(cut(student), cut(teacher), LABELS[rows], KEEP[rows], projectors)


def test_each_utterance_s_mean_counts_by_its_supervised_positions() -> None:
    student, teacher = signals()
    found = evaluate([Term("mse")], [PAIR], student, teacher, slice(None))["mse"]
    assert student.heard_BSH is not None
    assert teacher.heard_BSH is not None
    squares = (student.heard_BSH - teacher.heard_BSH).square().mean(-1)
    expected = 3 * squares[0, :3].mean() + 1 * squares[1].mean()
    assert float(found.total) == pytest.approx(float(expected), rel=SAME)
    assert found.count == 4


@pytest.mark.parametrize("kind", ["angle", "cosine", "linear_cka", "gram", "curve"])
def test_no_split_changes_a_loss_and_silence_is_not_read(kind: str) -> None:
    student, teacher = signals()
    both = [LayerPair(1, 1), PAIR]
    whole = evaluate([Term(kind)], both, student, teacher, slice(None))[kind]
    parts = [evaluate([Term(kind)], both, student, teacher, rows)[kind] for rows in (slice(0, 1), slice(1, 2))]
    assert sum(float(part.total) for part in parts) == pytest.approx(float(whole.total), rel=SAME)
    assert sum(part.count for part in parts) == whole.count == Objective([Term(kind)], both).counts(KEEP)[kind]
    assert student.heard_BSH is not None
    student.heard_BSH[~HEARD] = float("nan")
    again = evaluate([Term(kind)], both, student, teacher, slice(None))[kind]
    assert float(again.total) == float(whole.total)


def test_signals_without_what_was_heard_are_a_programming_error() -> None:
    student, teacher = signals()
    bare = Signal(student.scores, student.states)
    with pytest.raises(ValueError, match="what the encoders put out"):
        Objective([Term("mse")], [PAIR]).evaluate(bare, teacher, LABELS, KEEP, {PAIR.name: nn.Identity()})


def test_layers_that_a_pass_keeps_are_the_decoder_s() -> None:
    objective = Objective([Term("mse")], [LayerPair(1, 3), PAIR])
    assert (objective.student_layers, objective.teacher_layers) == ((1,), (3,))
    assert [pair.name for pair in objective.pairs] == ["1-3", "encoder-2-2"]


def test_what_was_heard_stays_with_the_signal() -> None:
    _, teacher = signals()
    moved = teacher.map(lambda values: values + 1)
    assert moved.heard_BSH is teacher.heard_BSH
    assert moved.heard_BS is teacher.heard_BS
    assert len(teacher.tensors()) == 2
