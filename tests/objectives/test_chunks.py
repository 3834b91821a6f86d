"""Position terms in chunks equal the plain computation, from logits and from final states with any head."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode

from tutelage.objectives.chunks import CHUNK_BYTES, Chunk, sum_over_positions
from tutelage.objectives.divergences import divergences
from tutelage.objectives.likelihood import cross_entropy, label_losses
from tutelage.objectives.logits import DeferredLogits, Head
from tutelage.objectives.objective import Objective
from tutelage.objectives.position_terms import divergence, divergence_losses
from tutelage.objectives.signal import Signal
from tutelage.objectives.targets import label_targets, mix_with_labels, systematic, top_k
from tutelage.objectives.terms import Term

EQUAL = 1e-6  # relative, gradients in norm: float32 sums in another order
# Products of a few rows and of all differ in their last digit, which a gradient q (log q - log m) carries on; kl's,
# q - p, does not.
EQUAL_BUT_ROUNDED = 3e-6
B, T, V, H = 3, 6, 37, 8
TINY = 4 * V * 2  # bytes of two positions' logits, so that 13 kept positions make seven chunks


class LowRank(nn.Module):
    """A frozen linear layer with a trained low-rank adapter, as PEFT wraps a head."""

    def __init__(self, base: nn.Linear) -> None:
        super().__init__()
        self.base = base.requires_grad_(False)
        self.down, self.up = nn.Linear(H, 2, bias=False), nn.Linear(2, V, bias=False)

    def forward(self, h: Tensor) -> Tensor:
        return self.base(h) + 4.0 * self.up(self.down(h))


def drawn(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def linear(bias: bool) -> nn.Linear:
    layer = nn.Linear(H, V, bias=bias)
    for seed, parameter in enumerate(layer.parameters()):
        parameter.data = drawn(*parameter.shape, seed=seed) / 2  # logits of a few nats
    return layer


def low_rank() -> LowRank:
    module = LowRank(linear(bias=True))
    for seed, parameter in enumerate([module.down.weight, module.up.weight], start=5):
        parameter.data = 0.3 * drawn(*parameter.shape, seed=seed)
    return module


HEADS: dict[str, Callable[[], Head]] = {
    "plain": lambda: Head.of(linear(bias=False), V),
    "bias": lambda: Head.of(linear(bias=True), V),
    "frozen": lambda: Head.of(linear(bias=True).requires_grad_(False), V),
    "scale": lambda: Head.of(linear(bias=False), V, scale=0.25),
    "softcap": lambda: Head.of(linear(bias=False), V, softcap=3.0),
    "scale and softcap": lambda: Head.of(linear(bias=True), V, scale=2.0, softcap=3.0),
    "adapter": lambda: Head.of(low_rank(), V),
    "no module": lambda: Head(lambda h: h @ drawn(H, V), V, ()),
}
KEEP = torch.tensor([[0, 1, 1, 1, 1, 0], [1, 0, 1, 1, 1, 1], [1, 1, 1, 1, 0, 0]]).bool()
LABELS = torch.randint(V, (B, T), generator=torch.Generator().manual_seed(3)).masked_fill(~KEEP, -100)


def teachers() -> dict[str, object]:
    logits = 2.0 * drawn(B, T, V, seed=9)
    labels = LABELS.clamp_min(0)
    flat = logits.flatten(0, 1)
    shaped = lambda targets: targets.map(lambda values: values.unflatten(0, (B, T)))  # noqa: E731
    generator = torch.Generator().manual_seed(0)
    head = linear(bias=False).requires_grad_(False)
    sampled = systematic(flat, labels.flatten(), 12, generator)
    return {
        "logits": logits,
        "deferred": DeferredLogits(drawn(B, T, H, seed=11), Head.of(head, V)),
        "top-k": shaped(top_k(flat, labels.flatten(), 5)),
        "sampled": shaped(sampled),
        "mixed": shaped(mix_with_labels(sampled, labels.flatten(), 0.3)),
        "labels": shaped(label_targets(labels.flatten(), V)),
    }


TERMS = [Term("kl", temperature=2.0), Term("kl", temperature=2.0, standardise=True)]
TERMS += [Term(kind) for kind in divergences()]
CASES = [
    ("cross_entropy", None, "none"),
    *(("divergence", term, kind) for term in TERMS for kind in ("logits", "deferred")),
]
CASES += [("divergence", Term("kl"), kind) for kind in ("top-k", "sampled", "mixed", "labels")]


def loss_in(chunk_bytes: int, case: tuple, scores: Tensor | DeferredLogits) -> Tensor:
    name, term, teacher = case
    if name == "cross_entropy":
        return cross_entropy(scores, LABELS, KEEP).total
    return divergence(term, scores, teachers()[teacher], KEEP, chunk_bytes).total


def assert_equal(found: Tensor, want: Tensor, bound: float = EQUAL) -> None:
    assert float((found - want).norm()) <= bound * float(want.norm())


def bound_of(case: tuple) -> float:
    return EQUAL if case[1] is None or case[1].kind == "kl" else EQUAL_BUT_ROUNDED


def name_of(case: tuple) -> str:
    return f"{case[0] if case[1] is None else case[1].kind}-{case[2]}{'-z' if case[1] and case[1].standardise else ''}"


@pytest.mark.parametrize("case", CASES, ids=name_of)
@pytest.mark.parametrize("name", HEADS)
def test_states_and_their_head_equal_the_logits_made_at_once(case: tuple, name: str, monkeypatch) -> None:
    monkeypatch.setitem(CHUNK_BYTES, "cpu", TINY)
    head = HEADS[name]()
    h = drawn(B, T, H, seed=4).requires_grad_()
    plain = loss_in(10**9, case, head.logits(h))
    chunked = loss_in(TINY, case, DeferredLogits(h, head))
    assert chunked.item() == pytest.approx(plain.item(), rel=EQUAL)
    wanted = [h, *head.trained]
    assert len(head.trained) == {"frozen": 0, "no module": 0, "bias": 2, "scale and softcap": 2, "adapter": 2}.get(
        name, 1
    )
    # A factor behind the loss, as weights and counts are, reaches every gradient once.
    for found, want in zip(
        torch.autograd.grad(0.37 * chunked, wanted), torch.autograd.grad(0.37 * plain, wanted), strict=True
    ):
        assert_equal(found, want, bound_of(case))


@pytest.mark.parametrize("case", CASES, ids=name_of)
def test_logits_in_chunks_equal_logits_at_once(case: tuple, monkeypatch) -> None:
    monkeypatch.setitem(CHUNK_BYTES, "cpu", TINY)
    logits = (2.0 * drawn(B, T, V, seed=4)).requires_grad_()
    chunked = loss_in(TINY, case, logits)
    (found,) = torch.autograd.grad(0.37 * chunked, logits)
    monkeypatch.setitem(CHUNK_BYTES, "cpu", 10**9)
    plain = loss_in(10**9, case, logits)
    (want,) = torch.autograd.grad(0.37 * plain, logits)
    assert chunked.item() == pytest.approx(plain.item(), rel=EQUAL)
    assert_equal(found, want)


def test_the_plain_path_is_torchs_own() -> None:
    """What the two above are compared with, against autograd of log_softmax without any chunk."""
    logits, teacher = (2.0 * drawn(B, T, V, seed=4)).requires_grad_(), teachers()["logits"]
    found = divergence(Term("kl", temperature=2.0), logits, teacher, KEEP).total
    log_q, log_p = (torch.log_softmax(x[KEEP] / 2.0, -1) for x in (logits, teacher))
    want = nn.functional.kl_div(log_q, log_p, reduction="sum", log_target=True)
    assert found.item() == pytest.approx(want.item(), rel=EQUAL)
    assert_equal(torch.autograd.grad(found, logits)[0], torch.autograd.grad(want, logits)[0])


def test_a_head_scales_then_caps() -> None:
    layer, h = linear(bias=True), drawn(5, H)
    product = 2.0 * (h @ layer.weight.T + layer.bias)
    torch.testing.assert_close(Head.of(layer, V, scale=2.0).logits(h), product)
    torch.testing.assert_close(Head.of(layer, V, 2.0, softcap=3.0).logits(h), 3.0 * torch.tanh(product / 3.0))
    made = DeferredLogits(h.reshape(1, 5, H), Head.of(low_rank(), V)).made()[0]
    adapted = low_rank()
    torch.testing.assert_close(
        made, h @ (adapted.base.weight + 4 * adapted.up.weight @ adapted.down.weight).T + adapted.base.bias
    )


def test_no_chunk_is_larger_than_its_bytes() -> None:
    seen = []

    def losses(chunk: Chunk) -> Tensor:
        seen.append(chunk.logits_NV.shape[0])
        assert all(len(part) == chunk.logits_NV.shape[0] for part in chunk.index)
        return chunk.logits_NV.float().sum(-1)

    (reduced,) = sum_over_positions([losses], drawn(B, T, V).requires_grad_(), KEEP, chunk_bytes=4 * V * 5)
    assert (seen, reduced.count) == ([5, 5, 3], 13)
    seen.clear()
    sum_over_positions([losses], drawn(B, T, V), KEEP, chunk_bytes=1)
    assert seen == [1] * 13


@pytest.mark.parametrize("case", CASES, ids=name_of)
def test_from_states_nothing_of_size_positions_times_vocabulary_is_kept(case: tuple, monkeypatch) -> None:
    monkeypatch.setitem(CHUNK_BYTES, "cpu", TINY)
    kept = []

    def note(values: Tensor) -> Tensor:
        kept.append(values.numel())
        return values

    h = drawn(B, T, H, seed=4).requires_grad_()
    with torch.autograd.graph.saved_tensors_hooks(note, lambda values: values):
        loss = loss_in(TINY, case, DeferredLogits(h, HEADS["frozen"]()))
    assert max(kept) == V * H  # the head's own weights; of logits two positions at a time
    assert int(KEEP.sum()) * V > V * H
    assert loss.requires_grad


def test_measuring_one_term_at_a_time_keeps_the_graph() -> None:
    """A step takes each term's own gradient first, and that of the sum after it."""
    h, head = drawn(B, T, H).requires_grad_(), HEADS["bias"]()
    for scores in (DeferredLogits(h, head), head.logits(h)):
        loss = cross_entropy(scores, LABELS, KEEP).total
        first = torch.autograd.grad(loss, h, retain_graph=True)[0]
        assert torch.equal(torch.autograd.grad(loss, h)[0], first)


def test_a_half_precision_head_is_summed_in_float32() -> None:
    head = Head.of(linear(bias=False).bfloat16(), V)
    h = drawn(B, T, H, seed=4).bfloat16().requires_grad_()
    loss = cross_entropy(DeferredLogits(h, head), LABELS, KEEP).total
    found = torch.autograd.grad(loss, [h, *head.trained])
    assert loss.dtype == torch.float32
    assert [gradient.dtype for gradient in found] == [torch.bfloat16, torch.bfloat16]
    exact = Head.of(linear(bias=False), V)
    exact.parameters[0].data = head.parameters[0].detach().float()
    wide = h.detach().float().requires_grad_()
    wanted = torch.autograd.grad(cross_entropy(DeferredLogits(wide, exact), LABELS, KEEP).total, [wide, *exact.trained])
    for one, other in zip(found, wanted, strict=True):  # logits in bfloat16 have 8 bits
        assert float((one.float() - other).norm() / other.norm()) < 2e-2


def test_nothing_is_kept_without_gradients() -> None:
    with torch.no_grad():
        loss = cross_entropy(DeferredLogits(drawn(B, T, H).requires_grad_(), HEADS["bias"]()), LABELS, KEEP).total
    assert not loss.requires_grad


def test_an_objective_takes_deferred_students_and_every_teacher() -> None:
    h, head = drawn(B, T, H).requires_grad_(), HEADS["adapter"]()
    objective = Objective([Term("cross_entropy"), Term("kl")])
    deferred = Signal(DeferredLogits(h, head), {})
    assert torch.equal(deferred.logits_BTV, head.logits(h))
    for teacher in teachers().values():
        signal, dense = Signal(teacher, {}), Signal(head.logits(h), {})
        values = [
            objective.combine(objective.evaluate(student, signal, LABELS, KEEP, {}), objective.counts(KEEP))
            for student in (deferred, dense)
        ]
        assert values[0].item() == pytest.approx(values[1].item(), rel=EQUAL)
        for one, other in zip(*(torch.autograd.grad(value, [h, *head.trained]) for value in values), strict=True):
            assert_equal(one, other)
    with pytest.raises(ValueError, match="a student has logits"):
        objective.evaluate(Signal(teachers()["top-k"], {}), dense, LABELS, KEEP, {})


SEVERAL = Objective([Term("cross_entropy", 0.3), Term("kl", 0.7, temperature=2.0), Term("jsd", 2.0)])


def made_and_deferred(teacher: object, slopes: bool) -> tuple[Head, Tensor, dict[str, dict]]:
    """The head, the states, and every term by how the student's scores were handed over."""
    head, h = HEADS["adapter"](), drawn(B, T, H, seed=4).requires_grad_()
    expected = SEVERAL.slopes(SEVERAL.counts(KEEP)) if slopes else None
    found = {
        name: SEVERAL.evaluate(Signal(scores, {}), Signal(teacher, {}), LABELS, KEEP, {}, expected)
        for name, scores in (("made", head.logits(h)), ("deferred", DeferredLogits(h, head)))
    }
    return head, h, found


@pytest.mark.parametrize("slopes", [True, False])
def test_terms_that_walk_together_keep_their_own_totals_and_gradients(slopes: bool, monkeypatch) -> None:
    monkeypatch.setitem(CHUNK_BYTES, "cpu", TINY)
    head, h, found = made_and_deferred(teachers()["logits"], slopes)
    wanted = [h, *head.trained]
    for name in SEVERAL.terms:
        totals = [found[how][name].total for how in ("deferred", "made")]
        assert totals[0].item() == pytest.approx(totals[1].item(), rel=EQUAL)
        for one, other in zip(*(torch.autograd.grad(x, wanted, retain_graph=True) for x in totals), strict=True):
            assert_equal(one, other, EQUAL_BUT_ROUNDED)
    # Expected slopes times 0.37, and after them others: neither way is a gradient that of the other slopes.
    counts = SEVERAL.counts(KEEP)
    for combined in (0.37, 1.0), (5.0, 0.0):
        sums = [
            SEVERAL.combine(found[how], counts) * combined[0] + found[how]["kl"].total * (1 - combined[1])
            for how in ("deferred", "made")
        ]
        for one, other in zip(*(torch.autograd.grad(x, wanted, retain_graph=True) for x in sums), strict=True):
            assert_equal(one, other, EQUAL_BUT_ROUNDED)


def test_terms_that_walk_together_run_the_head_once_a_chunk(monkeypatch) -> None:
    monkeypatch.setitem(CHUNK_BYTES, "cpu", TINY)
    layer, runs, softmaxes, own = linear(bias=False), [], [], torch.log_softmax

    def run(h_NH: Tensor) -> Tensor:
        runs.append(len(h_NH))
        return layer(h_NH)

    def softmax(logits: Tensor, dim: int) -> Tensor:
        softmaxes.append(len(logits))
        return own(logits, dim)

    monkeypatch.setattr(torch, "log_softmax", softmax)
    objective, h = Objective([Term("cross_entropy", 0.3), Term("kl", 0.7)]), drawn(B, T, H).requires_grad_()
    counts, student = objective.counts(KEEP), Signal(DeferredLogits(h, Head(run, V, (layer.weight,))), {})
    teacher = Signal(teachers()["top-k"], {})
    softmaxes.clear()
    reduced = objective.evaluate(student, teacher, LABELS, KEEP, {}, objective.slopes(counts))
    objective.combine(reduced, counts).backward()
    assert runs == softmaxes == [2, 2, 2, 2, 2, 2, 1]
    assert h.grad is not None


class DenseOperations(TorchDispatchMode):
    """Counts operations that put out a chunk's logits' worth of numbers, by name."""

    def __init__(self) -> None:
        super().__init__()
        self.found: Counter[str] = Counter()

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        out = func(*args, **(kwargs or {}))
        if isinstance(out, Tensor) and out.shape == (int(KEEP.sum()), V):
            self.found[str(func.overloadpacket).split(".")[-1].rstrip("_")] += 1
        return out


@pytest.mark.parametrize("kind", ["top-k", "sampled"])
def test_terms_of_one_temperature_make_one_dense_gradient(kind: str) -> None:
    found = {}
    for name, terms in {
        "alone": [Term("cross_entropy")],
        "both": [Term("cross_entropy", 0.3), Term("kl", 0.7)],
    }.items():
        objective, h = Objective(terms), drawn(B, T, H).requires_grad_()
        student, teacher = Signal(DeferredLogits(h, HEADS["bias"]()), {}), Signal(teachers()[kind], {})
        counts = objective.counts(KEEP)
        with DenseOperations() as operations:
            reduced = objective.evaluate(student, teacher, LABELS, KEEP, {}, objective.slopes(counts))
            objective.combine(reduced, counts).backward()
        found[name] = operations.found
    more = found["both"] - found["alone"]
    assert found["both"]["exp"] == found["alone"]["exp"] == 1
    assert dict(more) == {"top-k": {"scatter": 1, "scatter_add": 1}, "sampled": {"scatter_add": 1}}[kind]


def test_two_rest_buckets_of_one_walk_keep_their_own_gradients() -> None:
    """A softmax serves one; the second has its own."""
    logits, flat = (2.0 * drawn(B, T, V, seed=4)).requires_grad_(), drawn(B * T, V, seed=9)
    targets = [top_k(flat, LABELS.clamp_min(0).flatten(), k).map(lambda x: x.unflatten(0, (B, T))) for k in (3, 6)]
    losses = [divergence_losses(Term("kl"), V, one, KEEP) for one in targets]
    together = sum(one.total for one in sum_over_positions([*losses, label_losses(LABELS)], logits, KEEP))
    apart = sum(sum_over_positions([one], logits, KEEP)[0].total for one in [*losses, label_losses(LABELS)])
    assert_equal(*(torch.autograd.grad(one, logits)[0] for one in (together, apart)))


def test_a_weight_of_zero_and_a_term_alone_are_slopes_like_others() -> None:
    h, head = drawn(B, T, H).requires_grad_(), HEADS["bias"]()
    for slopes in ([0.0, 0.0], [0.0, 1.0], [1.0, 0.0], [-1.0, 3.0]):
        for expected in ([0.0, 0.0], [0.0, 1.0], [1.0, 1.0]):
            losses = [label_losses(LABELS), lambda chunk: chunk.logits_NV.square().sum(-1)]
            sums = sum_over_positions(losses, DeferredLogits(h, head), KEEP, expected)
            both = sum(slope * one.total for slope, one in zip(slopes, sums, strict=True))
            logits = head.logits(h)[KEEP]
            plain = nn.functional.cross_entropy(logits, LABELS[KEEP], reduction="sum")
            want = torch.autograd.grad(slopes[0] * plain + slopes[1] * logits.square().sum(), h)[0]
            assert_equal(torch.autograd.grad(both, h)[0], want)
