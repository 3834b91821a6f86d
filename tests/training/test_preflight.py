"""Preflight on toy decoders: each check passes on a sound run, and fails by name on the run that it is there for."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from types import SimpleNamespace

import pytest
import torch
from torch import Tensor, nn

from tutelage.errors import PreflightError
from tutelage.objectives.alignments import alignments
from tutelage.objectives.chunks import Chunk, Losses
from tutelage.objectives.divergences import divergences
from tutelage.objectives.logits import DeferredLogits, Head
from tutelage.objectives.objective import Objective
from tutelage.objectives.reduction import Reduced
from tutelage.objectives.signal import Signal
from tutelage.objectives.targets import systematic
from tutelage.objectives.terms import LayerPair, Term
from tutelage.records.document import jsonable
from tutelage.students.design import Projector
from tutelage.students.projection import make_projectors
from tutelage.teachers.live import LiveTeacher
from tutelage.training.checks import (
    check_budget,
    check_settings,
    check_targets,
    check_tokens,
    shared_settings,
)
from tutelage.training.preflight import PreflightReport, garble_padding, preflight
from tutelage.training.step import Lesson
from tutelage.training.term_checks import alignment_tolerance

V, T = 13, 6
PAIRS = (LayerPair(1, 2), LayerPair(2, 4))
TERMS = (Term("cross_entropy"), Term("kl", 0.8, 2.0), Term("angle", 1.0))


@dataclass(frozen=True)
class ToyBatch:
    ids_BT: Tensor
    labels_BT: Tensor
    keep_BT: Tensor


class ToyDecoder(nn.Module):
    """Causal: every block mixes each position with the mean of those before it."""

    def __init__(self, width: int, blocks: int, seed: int, vocabulary: int = V, dropout: float = 0.0) -> None:
        super().__init__()
        self.embedding = nn.Embedding(vocabulary, width)
        self.blocks = nn.ModuleList(nn.Linear(width, width) for _ in range(blocks))
        self.norm = nn.LayerNorm(width)
        self.head = nn.Linear(width, vocabulary)
        self.dropout = nn.Dropout(dropout)
        generator = torch.Generator().manual_seed(seed)
        for parameter in self.parameters():
            parameter.data = 0.5 * torch.randn(parameter.shape, generator=generator)

    def mix(self, h_BTH: Tensor) -> Tensor:
        steps = torch.arange(1, h_BTH.shape[1] + 1)[:, None]
        return h_BTH.cumsum(1) / steps

    def signal(self, batch: ToyBatch) -> Signal:
        h_BTH = self.embedding(batch.ids_BT)
        states = {0: h_BTH}
        for number, block in enumerate(self.blocks, start=1):
            h_BTH = h_BTH + self.dropout(torch.tanh(block(self.mix(h_BTH))))
            states[number] = h_BTH
        states[len(self.blocks)] = self.norm(h_BTH)
        return Signal(self.head(states[len(self.blocks)]), states)


@dataclass
class Run:
    """A sound run, to be spoiled by a test."""

    student: ToyDecoder
    teacher: ToyDecoder
    lesson: Lesson[ToyBatch]
    batch: ToyBatch

    def check(self, *declared: object) -> PreflightReport:
        ids_BT = garble_padding(self.batch.ids_BT, self.batch.keep_BT, V)
        garbled = replace(self.batch, ids_BT=ids_BT)
        return preflight(self.lesson, self.batch, declared, teacher=self.teacher, garbled=garbled)

    def failures(self, *declared: object) -> list[str]:
        with pytest.raises(PreflightError) as caught:
            self.check(*declared)
        return str(caught.value).splitlines()


def make_batch() -> ToyBatch:
    generator = torch.Generator().manual_seed(0)
    sequence = torch.randint(V, (3, T + 1), generator=generator)
    positions = torch.arange(T)
    keep_BT = (positions >= 1) & (positions < torch.tensor([6, 3, 4])[:, None])
    return ToyBatch(sequence[:, :-1], sequence[:, 1:], keep_BT)


def make_run(
    terms: tuple[Term, ...] = TERMS,
    pairs: tuple[LayerPair, ...] = PAIRS,
    trained: Callable[[str], bool] = lambda name: name.startswith("blocks.0"),
    dropout: float = 0.0,
) -> Run:
    teacher = ToyDecoder(8, 4, seed=1).eval().requires_grad_(False)
    student = ToyDecoder(6, 2, seed=2, dropout=dropout)
    for name, parameter in student.named_parameters():
        parameter.requires_grad_(trained(name))
    lesson = Lesson(
        student,
        make_projectors(Projector("linear"), pairs, 6, 8, seed=3),
        Objective(terms, pairs),
        student.signal,
        teacher.signal,
    )
    return Run(student, teacher, lesson, make_batch())


def test_a_sound_run_passes_every_check_and_reports_its_numbers() -> None:
    report = make_run(dropout=0.1).check()
    assert all(check.passed for check in report.checks)
    names = [check.name for check in report.checks]
    assert names == [
        "teacher parameters that require a gradient",
        "teacher modules in training mode",
        "trainable tensors of the student",
        "trainable tensors that require no gradient",
        "trainable tensors that are the teacher's",
        "supervised positions",
        "entries that differ between two teacher passes",
        "kl on (teacher, teacher)",
        "angle at student 1 -> teacher 2 on (teacher, teacher)",
        "angle at student 2 -> teacher 4 on (teacher, teacher)",
        "angle at student 1 -> teacher 2 on (P(student), student)",
        "angle at student 2 -> teacher 4 on (P(student), student)",
        "effect of garbage at dropped positions",
        "gradient of cross_entropy on the student",
        "gradient of kl on the student",
        "gradient of angle at student 1 -> teacher 2 on the student",
        "gradient of angle at student 2 -> teacher 4 on the student",
        "effect of other ids at padding",
    ]
    document = jsonable(report)
    assert set(document["checks"][0]) == {"name", "measured", "tolerance", "passed", "detail"}
    assert all(math.isfinite(check["measured"]) for check in document["checks"])


def every_comparison() -> list[Term]:
    """Every divergence plain and standardised, every comparison of states plain and, where it can be, centred."""
    terms = [Term(kind, standardise=standardise) for kind in divergences() for standardise in (False, True)]
    for kind, member in alignments().items():
        terms += [Term(kind)] + ([Term(kind, centre=True)] if member.centring == "option" else [])
    return terms


@pytest.mark.parametrize("term", every_comparison(), ids=str)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_every_comparison_passes_in_every_teacher_dtype(term: Term, dtype: torch.dtype) -> None:
    run = make_run((Term("cross_entropy"), term))

    def low_precision(batch: ToyBatch) -> Signal:
        signal = run.teacher.signal(batch)
        return Signal(signal.logits_BTV.to(dtype), {layer: state.to(dtype) for layer, state in signal.states.items()})

    run.lesson = replace(run.lesson, teacher_forward=low_precision)
    assert all(check.passed for check in run.check().checks)


def deferred(model: ToyDecoder, batch: ToyBatch) -> Signal:
    """The model's answer with its final states in place of logits."""
    states = model.signal(batch).states
    return Signal(DeferredLogits(states[len(model.blocks)], Head.of(model.head, V)), states)


def test_logits_that_are_made_later_pass_every_check() -> None:
    run = make_run()
    expected = {check.name: check.measured for check in run.check().checks}
    run.lesson = replace(
        run.lesson,
        student_forward=lambda batch: deferred(run.student, batch),
        teacher_forward=lambda batch: deferred(run.teacher, batch),
    )
    found = {check.name: check.measured for check in run.check().checks}
    assert found == pytest.approx(expected, rel=1e-4, abs=1e-6)


def test_a_teacher_of_sparse_targets_passes_what_can_be_checked() -> None:
    run = make_run((Term("cross_entropy"), Term("kl"), Term("angle")))

    def cached(batch: ToyBatch, seed: int = 0) -> Signal:
        signal = run.teacher.signal(batch)
        labels, generator = batch.labels_BT.flatten(), torch.Generator().manual_seed(seed)
        flat = systematic(signal.logits_BTV.flatten(0, 1), labels, 8, generator)
        return Signal(flat.map(lambda values: values.unflatten(0, batch.ids_BT.shape)), signal.states)

    run.lesson = replace(run.lesson, teacher_forward=cached)
    names = [check.name for check in run.check().checks]
    assert "kl on (teacher, teacher)" not in names
    assert "gradient of kl on the student" in names
    assert "angle at student 1 -> teacher 2 on (teacher, teacher)" in names
    seeds = iter(range(100))
    run.lesson = replace(run.lesson, teacher_forward=lambda batch: cached(batch, next(seeds)))
    assert any("two passes over one batch differ" in line for line in run.failures())


def test_terms_that_project_nothing_need_no_projector() -> None:
    run = make_run((Term("cross_entropy"), Term("procrustes"), Term("gram", centre=True)))
    run.lesson = replace(run.lesson, projectors={})
    names = [check.name for check in run.check().checks]
    assert "procrustes at student 2 -> teacher 4 on (P(student), student)" in names


def test_it_leaves_no_trace() -> None:
    run = make_run(dropout=0.5)
    torch.manual_seed(7)
    before = torch.random.get_rng_state()
    weights = [p.detach().clone() for p in run.student.parameters()]
    run.check()
    assert torch.equal(torch.random.get_rng_state(), before)
    assert all(p.grad is None for p in [*run.student.parameters(), *run.lesson.projectors.parameters()])
    assert all(torch.equal(old, new) for old, new in zip(weights, run.student.parameters(), strict=True))
    assert run.student.training


def test_a_term_over_frozen_states_is_refused_by_its_name_and_its_path() -> None:
    run = make_run(trained=lambda name: name.startswith("blocks.1"))
    (line,) = run.failures()
    assert line.startswith("preflight: gradient of angle at student 1 -> teacher 2 on the student (0)")
    assert "the state after student block 1 (compared with teacher block 2) depends on no trainable parameter" in line
    assert "Only the projector would learn" in line
    assert "blocks.1.weight" in line


@pytest.mark.parametrize("kind", [kind for kind, member in alignments().items() if member.group != "position"])
def test_no_kind_over_frozen_states_escapes(kind: str) -> None:
    run = make_run((Term("cross_entropy"), Term(kind)), trained=lambda name: name.startswith("blocks.1"))
    (line,) = run.failures()
    assert line.startswith(f"preflight: gradient of {kind} at student 1 -> teacher 2 on the student (0)")


def test_a_dead_term_of_weight_0_is_only_logged() -> None:
    run = make_run((Term("cross_entropy"), Term("angle", 0.0)), trained=lambda name: name.startswith("blocks.1"))
    assert all(check.passed for check in run.check().checks)


def test_a_path_whose_gradients_are_all_zero_is_refused() -> None:
    run = make_run((Term("cross_entropy"),))

    def cut(batch: ToyBatch) -> Signal:
        signal = run.student.signal(batch)
        return Signal(signal.logits_BTV.detach() + 0 * signal.logits_BTV, signal.states)

    run.lesson = replace(run.lesson, student_forward=cut)
    assert "their gradients are 0" in run.failures()[0]


def test_a_student_that_equals_its_teacher_is_not_taken_for_a_dead_path() -> None:
    teacher = ToyDecoder(8, 4, seed=1).eval().requires_grad_(False)
    student = ToyDecoder(8, 4, seed=1)
    pairs = tuple(LayerPair(layer, layer) for layer in (1, 2, 3, 4))
    objective = Objective([Term("kl"), Term("mse")], pairs)
    projectors = make_projectors(Projector("linear"), pairs, 8, 8, seed=0)
    report = preflight(Lesson(student, projectors, objective, student.signal, teacher.signal), make_batch())
    reached = [check for check in report.checks if check.name.startswith("gradient of mse")]
    assert len(reached) == 4
    assert all("random target" in check.detail and check.measured > 0 for check in reached)
    # student = teacher gives zero at every mapped pair, through the objective and its real (identity) projectors
    signal = student.signal(make_batch())
    reduced = objective.evaluate(
        signal, teacher.signal(make_batch()), make_batch().labels_BT, make_batch().keep_BT, projectors
    )
    assert float(reduced["mse"].total.detach()) == 0.0


def test_a_teacher_in_training_mode_or_thawed_is_refused() -> None:
    run = make_run()
    run.teacher.dropout.p = 0.5
    run.teacher.train()
    run.teacher.head.requires_grad_(True)
    lines = run.failures()
    assert any("teacher parameters that require a gradient (2, allowed 0): head.weight, head.bias" in x for x in lines)
    assert any("teacher modules in training mode" in x and "call eval()" in x for x in lines)
    assert any("two passes over one batch differ" in x for x in lines)


def test_a_student_that_shares_its_teachers_weights_is_refused() -> None:
    run = make_run(trained=lambda name: name in ("blocks.0.weight", "head.bias"))
    run.teacher.head.bias = run.student.head.bias
    lines = run.failures()
    assert any("trainable tensors that are the teacher's (1, allowed 0): head.bias" in line for line in lines)


def test_a_teacher_that_refuses_to_answer_is_one_line_among_the_others() -> None:
    run = make_run()
    live = LiveTeacher(run.teacher, (2, 4), lambda model, batch, layers: model.signal(batch))
    run.teacher.head.requires_grad_(True)
    run.lesson = replace(run.lesson, teacher_forward=live.signal)
    lines = run.failures(check_targets([], 2))
    assert len(lines) == 3
    assert "would be trained" in lines[-1]


def test_a_student_with_nothing_to_train_is_refused() -> None:
    lines = make_run(trained=lambda name: False).failures()
    assert any("no trainable parameter besides projectors" in line for line in lines)
    assert sum("depends on no trainable parameter" in line for line in lines) == 4  # ce, kl and angle at two pairs


def test_a_loss_that_reads_dropped_positions_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    def masked_after(losses: list[Losses], scores: Tensor, keep_BT: Tensor, _slopes: object) -> list[Reduced]:
        nats_BT = -torch.log_softmax(scores, -1)[..., 0]
        return [Reduced((nats_BT * keep_BT).sum(), 13) for _ in losses]

    monkeypatch.setattr("tutelage.objectives.objective.sum_over_positions", masked_after)
    assert any("effect of garbage at dropped positions (inf, allowed 0)" in line for line in make_run().failures())


def test_a_divergence_that_is_a_cross_entropy_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    def soft_cross_entropy(term: Term, _vocabulary: int, teacher: Tensor, *_: object) -> Losses:
        def losses(chunk: Chunk) -> Tensor:
            log_q_NV = torch.log_softmax(chunk.logits_NV / term.temperature, -1)
            return -(torch.softmax(teacher[chunk.index] / term.temperature, -1) * log_q_NV).sum(-1)

        return losses

    monkeypatch.setattr("tutelage.objectives.objective.divergence_losses", soft_cross_entropy)
    (line,) = make_run().failures()
    assert "kl on (teacher, teacher)" in line
    assert "not zero when the student equals the teacher" in line


def test_a_model_that_looks_at_padding_is_refused() -> None:
    run = make_run()
    run.student.mix = lambda h_BTH: h_BTH.mean(1, keepdim=True).expand_as(h_BTH)  # type: ignore[method-assign]
    (line,) = run.failures()
    assert "effect of other ids at padding" in line


def test_different_vocabularies_are_refused_beside_the_other_failures() -> None:
    run = make_run()
    run.teacher = ToyDecoder(8, 4, seed=1, vocabulary=V + 1).eval().requires_grad_(False)
    run.lesson = replace(run.lesson, teacher_forward=run.teacher.signal)
    configs = [SimpleNamespace(vocab_size=size, num_mel_bins=80) for size in (V, V + 1)]
    lines = run.failures(*check_settings(*(shared_settings(config) for config in configs)))
    assert any(
        "vocab_size of student and teacher (1, allowed 0): the student has 13 and the teacher 14" in x for x in lines
    )
    assert any(
        f"student's vocabulary has {V + 1} entries" in x or f"student's vocabulary has {V} entries" in x for x in lines
    )


def test_a_batch_that_supervises_nothing_is_refused() -> None:
    run = make_run()
    run.batch = replace(run.batch, keep_BT=torch.zeros_like(run.batch.keep_BT))
    assert any("supervises nothing" in line for line in run.failures())


def test_cross_entropy_alone_needs_no_teacher() -> None:
    run = make_run((Term("cross_entropy"),), ())
    report = preflight(replace(run.lesson, teacher_forward=None, projectors={}), run.batch)
    assert [check.name for check in report.checks][-1] == "gradient of cross_entropy on the student"


def test_all_failures_are_listed_one_line_each() -> None:
    run = make_run(trained=lambda name: name.startswith("blocks.1"))
    lines = run.failures(
        check_targets(["decoder.q_proj"], 2),
        check_budget(101, 10_000, 0.01),
        check_tokens([1, 2], {1: "a", 2: "b"}.get, {1: "a", 2: "c"}.get),
    )
    assert len(lines) == 4
    assert lines[0].endswith("the recipe implies 2 adapted modules, found decoder.q_proj; see lora.targets")
    assert "101 of 10000 parameters are trained, over the budget of 1.00%" in lines[1]
    assert "id 2 is 'b' to the student and 'c' to the teacher" in lines[2]


@pytest.mark.parametrize(
    ("check", "passed"),
    [
        (check_targets(["a", "b"], 2), True),
        (check_targets(["a", "b", "c"], 2), False),
        (check_targets([], 0), False),
        (check_budget(100, 10_000, 0.01), True),
        (check_budget(101, 10_000, 0.01), False),
        (check_budget(101, 10_000, 0.01, allow_over=True), True),
        (check_tokens([3, 3, 1], "abcd".__getitem__, "abcd".__getitem__), True),
        (check_tokens([5], {}.get, {}.get), False),  # an id that neither knows
    ],
)
def test_declared_checks(check: object, passed: bool) -> None:
    assert check.passed is passed
    assert bool(check.detail) == (not passed or check.measured > (check.tolerance or math.inf))


def test_settings_that_only_one_side_has_are_a_difference() -> None:
    checks = check_settings({"vocab_size": 5, "eos_token_id": 1}, {"vocab_size": 5, "pad_token_id": 1})
    assert [(check.name.split()[0], check.passed) for check in checks] == [
        ("vocab_size", True),
        ("eos_token_id", False),
        ("pad_token_id", False),
    ]


def test_garbling_touches_padding_only() -> None:
    batch = make_batch()
    garbled = garble_padding(batch.ids_BT, batch.keep_BT, V)
    assert torch.equal(garbled[0], batch.ids_BT[0])  # no padding in the longest row
    assert torch.equal(garbled[1, :3], batch.ids_BT[1, :3])
    assert torch.equal(garbled[2, :4], batch.ids_BT[2, :4])
    assert not torch.equal(garbled[1:], batch.ids_BT[1:])


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_alignment_tolerance_covers_rounding_and_little_more(dtype: torch.dtype) -> None:
    h_NH = torch.randn(512, 384, generator=torch.Generator().manual_seed(0))
    rounded = h_NH.to(dtype).double()
    angles = torch.arccos(torch.nn.functional.cosine_similarity(h_NH.double(), rounded, dim=-1).clamp(max=1.0))
    tolerance = alignment_tolerance("angle", dtype, 1.0)
    assert float(angles.max()) < tolerance < 4 * float(angles.mean())
