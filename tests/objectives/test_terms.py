"""Settings of terms and the assembly of an objective from them."""

from __future__ import annotations

import math
import subprocess
import sys

import pytest
import torch

from tutelage.objectives.objective import Objective
from tutelage.objectives.reduction import Reduced
from tutelage.objectives.schedules import Schedule
from tutelage.objectives.signal import Signal
from tutelage.objectives.terms import LayerPair, Term


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"kind": "kll"}, "unknown; choose one of cross_entropy, "),
        ({"kind": "kl", "weight": -1.0}, "weight -1.0"),
        ({"kind": "kl", "weight": math.nan}, "weight nan"),
        ({"kind": "kl", "temperature": 0.0}, "temperature 0.0"),
        ({"kind": "kl", "temperature": math.inf}, "temperature inf"),
        ({"kind": "cross_entropy", "temperature": 2.0}, "no temperature"),
        ({"kind": "angle", "temperature": 2.0}, "no temperature"),
        ({"kind": "kl", "mix": 0.5}, "no mixing weight, yet mix 0.5 was given; only jsd, skew_kl and skew_reverse_kl"),
        ({"kind": "jsd", "mix": 1.5}, "mix 1.5 of term jsd must be a number from 0 to 1"),
        ({"kind": "jsd", "mix": math.nan}, "mix nan"),
        ({"kind": "jsd", "mix": 0.0}, "nothing would be learned; use kl or reverse_kl"),
        ({"kind": "skew_kl", "mix": 1.0}, "nothing would be learned"),
        ({"kind": "angle", "standardise": True}, "compares no logits to standardise"),
        ({"kind": "kl", "centre": True}, "compares no states to centre"),
        ({"kind": "linear_cka", "centre": True}, "centres by definition"),
        ({"kind": "curve", "centre": True}, "which no centring changes"),
    ],
)
def test_bad_settings_are_one_clear_sentence(settings: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Term(**settings)


def test_settings_load_without_torch() -> None:
    code = (
        "import sys, tutelage.objectives.terms, tutelage.students.layer_map; "
        "print(sorted({'torch', 'numpy', 'transformers'} & set(sys.modules)))"
    )
    answer = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert answer.stdout.strip() == "[]"


@pytest.mark.parametrize(
    ("terms", "pairs", "message"),
    [
        ([], (), "at least one term"),
        ([Term("kl"), Term("kl", temperature=2.0)], (), "kl is listed more than once"),
        ([Term("angle")], (), "no layer pair"),
        ([Term("angle")], (LayerPair(1, 1), LayerPair(1, 1)), "listed more than once"),
    ],
)
def test_objectives_that_mean_nothing_are_refused(
    terms: list[Term], pairs: tuple[LayerPair, ...], message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        Objective(terms, pairs)


def test_temperature_squared_and_weight_are_applied_once_and_only_where_they_belong() -> None:
    objective = Objective([Term("cross_entropy", 0.5), Term("kl", 0.8, 3.0), Term("angle", 2.0)], (LayerPair(1, 1),))
    assert objective.scales_at(1) == {"cross_entropy": 0.5, "kl": pytest.approx(0.8 * 9.0), "angle": 2.0}
    reduced = {name: Reduced(torch.tensor(6.0), 2) for name in objective.terms}
    counts = {"cross_entropy": 2, "kl": torch.tensor(3), "angle": 6}
    expected = 0.5 * 3.0 + 0.8 * 9.0 * 2.0 + 2.0 * 1.0
    assert float(objective.combine(reduced, counts)) == pytest.approx(expected)
    assert objective.means(reduced, counts) == {"cross_entropy": 3.0, "kl": 2.0, "angle": 1.0}


def test_a_schedule_changes_the_weight_and_nothing_else() -> None:
    half = Schedule("linear", start=0.0, end=1.0, to_step=2)
    objective = Objective([Term("cross_entropy"), Term("kl", 0.8, 3.0, schedule=half)])
    reduced = {name: Reduced(torch.tensor(6.0), 2) for name in objective.terms}
    counts = dict.fromkeys(objective.terms, 3)
    for step, weight in ((1, 0.0), (2, 0.4), (3, 0.8), (9, 0.8)):
        assert objective.weights_at(step) == {"cross_entropy": 1.0, "kl": weight}
        assert objective.scales_at(step)["kl"] == pytest.approx(9.0 * weight)
        assert float(objective.combine(reduced, counts, step)) == pytest.approx(2.0 + 9.0 * weight * 2.0)
        assert objective.means(reduced, counts)["kl"] == 2.0


def test_a_term_without_a_unit_in_a_step_adds_nothing_while_others_count() -> None:
    objective = Objective([Term("cross_entropy"), Term("linear_cka")], (LayerPair(1, 1),))
    assert objective.counts(torch.tensor([[True, True, False]])) == {"cross_entropy": 2, "linear_cka": 0}
    reduced = {"cross_entropy": Reduced(torch.tensor(3.0), 2), "linear_cka": Reduced(torch.tensor(0.0), 0)}
    counts = {"cross_entropy": 2, "linear_cka": 0}
    assert float(objective.combine(reduced, counts)) == 1.5
    assert objective.means(reduced, counts) == {"cross_entropy": 1.5, "linear_cka": 0.0}


def test_layers_that_must_be_captured() -> None:
    objective = Objective([Term("angle")], (LayerPair(2, 6), LayerPair(1, 3), LayerPair(1, 6)))
    assert objective.student_layers == (1, 2)
    assert objective.teacher_layers == (3, 6)
    assert objective.needs_teacher
    alone = Objective([Term("cross_entropy")], (LayerPair(2, 6),))
    assert alone.student_layers == alone.teacher_layers == ()
    assert not alone.needs_teacher


def test_cross_entropy_alone_runs_without_a_teacher_and_others_do_not() -> None:
    student = Signal(torch.zeros(1, 2, 4), {})
    keep_BT, labels_BT = torch.ones(1, 2, dtype=torch.bool), torch.zeros(1, 2, dtype=torch.long)
    reduced = Objective([Term("cross_entropy")]).evaluate(student, None, labels_BT, keep_BT, {})
    assert float(reduced["cross_entropy"].total) == pytest.approx(2 * math.log(4))
    with pytest.raises(ValueError, match="none was given"):
        Objective([Term("kl")]).evaluate(student, None, labels_BT, keep_BT, {})


def test_alignment_is_the_mean_over_pairs_each_through_its_own_projector() -> None:
    generator = torch.Generator().manual_seed(0)
    states = {layer: torch.randn(1, 3, 4, generator=generator) for layer in (1, 2)}
    signal = Signal(torch.zeros(1, 3, 5), states)
    keep_BT, labels_BT = torch.ones(1, 3, dtype=torch.bool), torch.zeros(1, 3, dtype=torch.long)
    pairs = (LayerPair(1, 1), LayerPair(2, 2))

    class Flip(torch.nn.Module):
        def forward(self, h: torch.Tensor) -> torch.Tensor:
            return -h

    projectors = {"1-1": torch.nn.Identity(), "2-2": Flip()}
    reduced = Objective([Term("cosine")], pairs).evaluate(signal, signal, labels_BT, keep_BT, projectors)["cosine"]
    assert float(reduced.total) == pytest.approx((0.0 + 3 * 2.0) / 2)
    assert reduced.count == 3


def test_sets_are_compared_without_the_projector_that_another_term_uses() -> None:
    generator = torch.Generator().manual_seed(0)
    state = torch.randn(1, 4, 6, generator=generator).requires_grad_()
    student = Signal(torch.zeros(1, 4, 5), {1: state})
    teacher = Signal(torch.zeros(1, 4, 5), {1: torch.randn(1, 4, 8, generator=generator)})
    keep_BT, labels_BT = torch.ones(1, 4, dtype=torch.bool), torch.zeros(1, 4, dtype=torch.long)
    projectors = {"1-1": torch.nn.Linear(6, 8)}
    pairs = (LayerPair(1, 1),)
    both = Objective([Term("angle"), Term("gram")], pairs).evaluate(student, teacher, labels_BT, keep_BT, projectors)
    alone = Objective([Term("gram")], pairs).evaluate(student, teacher, labels_BT, keep_BT, {})  # none is needed
    assert torch.equal(both["gram"].total, alone["gram"].total)
    (found,) = torch.autograd.grad(both["gram"].total, projectors["1-1"].weight, allow_unused=True)
    assert found is None
