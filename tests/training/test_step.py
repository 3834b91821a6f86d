"""One optimiser step: its scale, whatever the split into micro-batches and ranks, and its report."""

import json
import math
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from torch.nn.functional import cosine_similarity, cross_entropy, kl_div

from toy import PAIRS, TERMS, make_batch, toy_lesson
from tutelage.errors import TutelageError
from tutelage.objectives.objective import Objective
from tutelage.objectives.reduction import Reduced
from tutelage.objectives.schedules import Schedule
from tutelage.objectives.signal import Signal
from tutelage.objectives.terms import Term
from tutelage.training.device import open_accelerator
from tutelage.training.step import Lesson, Stepper

SINGLE = {"rel": 2e-5, "abs": 1e-7}  # float32 sums of a few hundred products, in another order
NO_CLIP = math.inf
SAMPLES = [0, 1, 2, 3, 4, 9]  # 2 to 6 tokens, so micro-batches hold unequal numbers of kept positions
SPLITS = [[SAMPLES], [[0, 1, 2], [3, 4, 9]], [[4], [0, 1, 2, 3, 9]], [[9], [2], [0, 4], [1, 3]]]


class OneProcess:
    """Answers like an accelerator on one process, without its globals."""

    device = torch.device("cpu")
    num_processes = 1

    def autocast(self):
        return torch.autocast("cpu", enabled=False)

    def backward(self, loss):
        loss.backward()

    def reduce(self, tensor, reduction):
        assert reduction == "sum"
        return tensor.clone()


def take(lesson, batches, process=None, clip_norm=NO_CLIP, rate=0.1, measure=False):
    optimizer = torch.optim.SGD(lesson.trainable().values(), lr=123.0)  # the schedule's rate replaces it
    return Stepper(lesson, optimizer, clip_norm, process or OneProcess()).take(1, batches, rate, measure)


def weights_of(lesson):
    return {name: parameter.detach().clone() for name, parameter in lesson.trainable().items()}


def documented_scalar(lesson, batch):
    """The objective written out with torch's own losses: means over the kept positions of the whole step."""
    student, teacher = lesson.student_forward(batch), lesson.teacher_forward(batch)
    keep = batch.keep_BT
    logits, targets = student.logits_BTV[keep].double(), teacher.logits_BTV[keep].double()
    ce = cross_entropy(logits, batch.labels_BT[keep], reduction="mean")
    kl = kl_div((logits / 2).log_softmax(-1), (targets / 2).softmax(-1), reduction="batchmean")
    z = lesson.projectors[PAIRS[0].name](student.states[1][keep]).double()
    cosine = cosine_similarity(z, teacher.states[1][keep].double(), dim=-1)
    return ce + 0.5 * 2.0**2 * kl + 0.3 * torch.arccos(cosine).mean()


@pytest.mark.parametrize("split", SPLITS, ids=["1", "3+3", "1+5", "1+1+2+2"])
def test_an_sgd_step_has_the_size_of_the_documented_scalars_gradient(split):
    oracle = toy_lesson()
    scalar = documented_scalar(oracle, make_batch(SAMPLES))
    scalar.backward()
    lesson = toy_lesson()
    before = weights_of(lesson)
    report = take(lesson, [make_batch(indices) for indices in split])
    assert report.total == pytest.approx(float(scalar.detach()), **SINGLE)
    gradients = {name: parameter.grad for name, parameter in oracle.trainable().items()}
    for name, parameter in lesson.trainable().items():
        expected = before[name] - 0.1 * gradients[name]
        assert torch.allclose(parameter, expected, rtol=SINGLE["rel"], atol=SINGLE["abs"]), name
    norm = math.sqrt(sum(float(gradient.square().sum()) for gradient in gradients.values()))
    assert report.gradient_norm == pytest.approx(norm, **SINGLE)
    assert report.positions == int(make_batch(SAMPLES).keep_BT.sum())


def test_a_mean_of_micro_batch_means_is_not_what_the_step_takes():
    """The scales above tell the two apart: on this split the wrong mean is off by far more than the tolerance."""
    lesson = toy_lesson()
    whole = float(documented_scalar(lesson, make_batch(SAMPLES)).detach())
    wrong = sum(float(documented_scalar(lesson, make_batch(part)).detach()) for part in ([4], [0, 1, 2, 3, 9])) / 2
    assert abs(whole - wrong) > 100 * SINGLE["rel"] * whole


def test_terms_are_reported_unweighted_and_without_t_squared():
    lesson = toy_lesson()
    batch = make_batch(SAMPLES)
    report = take(lesson, [make_batch([0, 1]), make_batch([2, 3, 4, 9])])
    fresh = toy_lesson()
    reduced = fresh.objective.evaluate(
        fresh.student_forward(batch), fresh.teacher_forward(batch), batch.labels_BT, batch.keep_BT, fresh.projectors
    )
    assert list(report.terms) == ["cross_entropy", "kl", "angle"]
    for name, one in reduced.items():
        assert report.terms[name] == pytest.approx(float(one.total.detach()) / one.count, **SINGLE)
    weighted = report.terms["cross_entropy"] + 0.5 * 4 * report.terms["kl"] + 0.3 * report.terms["angle"]
    assert report.total == pytest.approx(weighted, **SINGLE)
    json.dumps(report.to_dict(), allow_nan=False)


SET_TERMS = (
    Term("cross_entropy"),
    Term("linear_cka", 2.0),
    Term("gram", 0.5, centre=True),
    Term("procrustes"),
    Term("infonce", 0.3, temperature=0.2),
    Term("curve", 0.7),
    Term("angle", 0.3, centre=True),
)


@pytest.mark.parametrize("split", SPLITS, ids=["1", "3+3", "1+5", "1+1+2+2"])
def test_terms_over_sets_and_differences_have_divisors_of_their_own_whatever_the_split(split):
    whole, parts = toy_lesson(terms=SET_TERMS), toy_lesson(terms=SET_TERMS)
    batch = make_batch(SAMPLES)
    counts = whole.objective.counts(batch.keep_BT)
    kept = int(batch.keep_BT.sum())
    assert counts["cross_entropy"] == kept
    assert counts["linear_cka"] < counts["procrustes"] < len(SAMPLES) < counts["angle"] < kept
    expected = take(whole, [batch], measure=True)
    found = take(parts, [make_batch(indices) for indices in split], measure=True)
    assert found.positions == expected.positions == kept
    assert found.terms == pytest.approx(expected.terms, **SINGLE)
    assert found.term_gradient_norms == pytest.approx(expected.term_gradient_norms, rel=1e-4)
    assert all(norm > 0 for norm in found.term_gradient_norms.values())
    for name, parameter in whole.trainable().items():
        assert torch.allclose(parameter, parts.trainable()[name], rtol=1e-4, atol=1e-6), name


def test_weights_follow_their_schedule_and_are_logged():
    ramp = Schedule("linear", start=0.0, end=1.0, from_step=0, to_step=4)
    terms = (Term("cross_entropy"), Term("kl", 0.8, temperature=2.0, schedule=ramp))
    for step, weight in ((1, 0.0), (3, 0.4), (9, 0.8)):
        lesson, plain = toy_lesson(terms=terms), toy_lesson(terms=(Term("cross_entropy"), Term("kl", weight, 2.0)))
        optimizer = torch.optim.SGD(lesson.trainable().values(), lr=0.1)
        report = Stepper(lesson, optimizer, NO_CLIP, OneProcess()).take(step, [make_batch(SAMPLES)], 0.1)
        assert report.weights == pytest.approx({"cross_entropy": 1.0, "kl": weight})
        assert report.total == pytest.approx(report.terms["cross_entropy"] + 4 * weight * report.terms["kl"], **SINGLE)
        assert json.loads(json.dumps(report.to_dict()))["weights"]["kl"] == pytest.approx(weight)
        take(plain, [make_batch(SAMPLES)])
        for name, parameter in plain.trainable().items():
            assert torch.allclose(parameter, lesson.trainable()[name], rtol=1e-5, atol=1e-7), name


def test_each_terms_gradient_norm_is_that_of_its_mean_on_the_student_alone():
    report = take(toy_lesson(), [make_batch([4]), make_batch([0, 1, 2, 3, 9])], measure=True)
    for term in TERMS:
        lesson = toy_lesson(terms=(term,))
        batch = make_batch(SAMPLES)
        teacher = lesson.teacher_forward(batch)
        reduced = lesson.objective.evaluate(
            lesson.student_forward(batch), teacher, batch.labels_BT, batch.keep_BT, lesson.projectors
        )
        trained = [parameter for parameter in lesson.student.parameters() if parameter.requires_grad]
        found = torch.autograd.grad(reduced[term.kind].total / reduced[term.kind].count, trained)
        norm = math.sqrt(sum(float(gradient.square().sum()) for gradient in found))
        assert norm > 0
        assert report.term_gradient_norms[term.kind] == pytest.approx(norm, **SINGLE)


def test_measuring_terms_changes_no_bit_of_the_update():
    measured, plain = toy_lesson(dropout=0.4), toy_lesson(dropout=0.4)
    for lesson, measure in ((measured, True), (plain, False)):
        torch.manual_seed(5)
        report = take(lesson, [make_batch([4]), make_batch([0, 1, 9])], measure=measure)
        assert bool(report.term_gradient_norms) is measure
    for name, parameter in plain.trainable().items():
        assert torch.equal(parameter, measured.trainable()[name]), name


def test_clipping_bounds_the_update_and_the_report_says_the_norm_before():
    lesson = toy_lesson()
    before = weights_of(lesson)
    free = take(toy_lesson(), [make_batch(SAMPLES)]).gradient_norm
    report = take(lesson, [make_batch(SAMPLES)], clip_norm=free / 4)
    moved = math.sqrt(sum(float((p.detach() - before[name]).square().sum()) for name, p in lesson.trainable().items()))
    assert report.gradient_norm == pytest.approx(free, **SINGLE)
    assert moved == pytest.approx(0.1 * free / 4, rel=1e-3)  # the difference of float32 weights, and clip's 1e-6


class OneOfTwo(OneProcess):
    """A rank whose peer is played by known numbers: counts of the other are added, gradients are left apart."""

    num_processes = 2

    def __init__(self, other_positions):
        self.other_positions = other_positions

    def reduce(self, tensor, reduction):
        assert reduction == "sum"
        return tensor + self.other_positions if tensor.dtype == torch.int64 else tensor.clone()


@pytest.mark.parametrize("shares", [([0, 1, 2], [3, 4, 9]), ([4], [0, 1, 2, 3, 9]), (SAMPLES, [])])
def test_the_gradients_of_two_ranks_add_up_to_that_of_one(shares):
    whole = toy_lesson()
    take(whole, [make_batch(SAMPLES)])
    positions = [int(make_batch(share).keep_BT.sum()) if share else 0 for share in shares]
    summed = {name: torch.zeros_like(parameter) for name, parameter in whole.trainable().items()}
    for share, other in zip(shares, reversed(positions), strict=True):
        rank = toy_lesson()
        take(rank, [make_batch(share)] if share else [], OneOfTwo(other))
        for name, parameter in rank.trainable().items():
            summed[name] += parameter.grad
    for name, parameter in whole.trainable().items():
        assert torch.allclose(summed[name], parameter.grad, rtol=SINGLE["rel"], atol=SINGLE["abs"]), name


def test_two_ranks_count_sets_apart_from_positions():
    whole = toy_lesson(terms=SET_TERMS)
    take(whole, [make_batch(SAMPLES)])
    shares = ([4], [0, 1, 2, 3, 9])
    summed = {name: torch.zeros_like(parameter) for name, parameter in whole.trainable().items()}
    for share, other in (shares, shares[::-1]):
        rank = toy_lesson(terms=SET_TERMS)
        keep_BT = make_batch(other).keep_BT
        there = torch.tensor([int(keep_BT.sum()), *rank.objective.counts(keep_BT).values()])
        take(rank, [make_batch(share)], OneOfTwo(there))
        for name, parameter in rank.trainable().items():
            summed[name] += parameter.grad
    for name, parameter in whole.trainable().items():
        assert torch.allclose(summed[name], parameter.grad, rtol=1e-4, atol=1e-6), name


GLOO = """
import json, sys, torch
from toy import make_batch, toy_lesson
from tutelage.training.device import open_accelerator
from tutelage.training.step import Stepper
accelerator = open_accelerator("cpu")
lesson = toy_lesson()
share = [[4, 1], [0, 2, 3, 9]][accelerator.process_index]
optimizer = torch.optim.SGD(lesson.trainable().values(), lr=0.1)
report = Stepper(lesson, optimizer, 1e9, accelerator).take(1, [make_batch(share)], 0.1, True)
weights = {name: p.tolist() for name, p in lesson.trainable().items()}
answer = {"ranks": accelerator.num_processes, "report": report.to_dict(), "weights": weights}
with open(f"{sys.argv[1]}/{accelerator.process_index}.json", "w") as file:
    json.dump(answer, file)
torch.distributed.destroy_process_group()
"""


@pytest.mark.slow
def test_two_gloo_ranks_with_unequal_token_counts_take_the_step_of_one(tmp_path):
    script = tmp_path / "rank.py"
    script.write_text(GLOO)
    path = os.pathsep.join([str(Path(__file__).parents[1]), os.environ.get("PYTHONPATH", "")])
    settings = {**os.environ, "PYTHONPATH": path, "OMP_NUM_THREADS": "1"}
    settings |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(20000 + os.getpid() % 20000), "WORLD_SIZE": "2"}
    ranks = [
        subprocess.Popen(
            [sys.executable, str(script), str(tmp_path)], env={**settings, "RANK": str(rank), "LOCAL_RANK": str(rank)}
        )
        for rank in range(2)
    ]
    assert [rank.wait(timeout=120) for rank in ranks] == [0, 0]
    one = toy_lesson()
    expected = take(one, [make_batch(SAMPLES)], measure=True).to_dict()
    for number in range(2):
        answer = json.loads((tmp_path / f"{number}.json").read_text())
        assert answer["ranks"] == 2
        for name, parameter in one.trainable().items():
            found = torch.tensor(answer["weights"][name])
            assert torch.allclose(found, parameter, rtol=SINGLE["rel"], atol=SINGLE["abs"]), name
        for key, value in expected.items():
            assert answer["report"][key] == (pytest.approx(value, **SINGLE)), key


def test_a_loss_that_is_not_finite_is_refused_and_moves_nothing():
    lesson = toy_lesson()
    before = weights_of(lesson)
    broken = Lesson(
        lesson.student,
        lesson.projectors,
        lesson.objective,
        lambda batch: Signal(lesson.student_forward(batch).logits_BTV * math.inf, {1: torch.zeros(1, 2, 6)}),
        lesson.teacher_forward,
    )
    with pytest.raises(TutelageError, match=r"Step 1: the loss is not finite \(cross_entropy nan"):
        take(broken, [make_batch([0])])
    assert all(torch.equal(parameter, before[name]) for name, parameter in lesson.trainable().items())


def test_a_gradient_that_is_not_finite_is_refused_and_moves_nothing():
    lesson = toy_lesson()
    before = weights_of(lesson)
    next(iter(lesson.trainable().values())).register_hook(lambda gradient: gradient * math.nan)
    with pytest.raises(TutelageError, match="the gradient is not finite"):
        take(lesson, [make_batch([0])])
    assert all(torch.equal(parameter, before[name]) for name, parameter in lesson.trainable().items())


def test_a_step_without_supervised_positions_is_refused():
    batch = make_batch([0])
    batch.keep_BT.zero_()
    with pytest.raises(TutelageError, match="no position"):
        take(toy_lesson(), [batch])


def test_a_term_that_counts_something_else_is_refused():
    class Odd(Objective):
        def evaluate(self, *arguments):
            found = super().evaluate(*arguments)
            return {**found, "kl": Reduced(found["kl"].total, 1)}

    lesson = toy_lesson()
    odd = Lesson(lesson.student, lesson.projectors, Odd(TERMS, PAIRS), lesson.student_forward, lesson.teacher_forward)
    with pytest.raises(RuntimeError, match="term kl counted 1 units where 4 positions"):
        take(odd, [make_batch([3])])


def test_cross_entropy_alone_runs_no_teacher():
    def refuse(batch):
        raise AssertionError("the teacher ran")

    lesson = toy_lesson(terms=(Term("cross_entropy"),))
    alone = Lesson(lesson.student, {}, lesson.objective, lesson.student_forward, refuse)
    report = take(alone, [make_batch(SAMPLES)])
    assert list(report.terms) == ["cross_entropy"]


def test_an_accelerator_answers_as_a_step_expects():
    lesson, other = toy_lesson(), toy_lesson()
    take(lesson, [make_batch(SAMPLES)], open_accelerator("cpu"))
    take(other, [make_batch(SAMPLES)])
    for name, parameter in lesson.trainable().items():
        assert torch.equal(parameter, other.trainable()[name])
