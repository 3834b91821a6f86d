"""Passes without the head: losses and every gradient are those of made logits, and no made logits outlive a chunk."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import pytest
import torch
from peft import LoraConfig, get_peft_model
from torch import Tensor, nn

from tiny import shared_tiny_whisper
from tiny_text import BLOCKS, VOCABULARY, WIDTH, tiny_config
from tutelage.models.architectures import architectures_of
from tutelage.objectives.chunks import CHUNK_BYTES
from tutelage.objectives.logits import DeferredLogits
from tutelage.objectives.objective import Objective
from tutelage.objectives.signal import Signal
from tutelage.objectives.terms import LayerPair, Term
from tutelage.tasks.deferral import without_head
from tutelage.tasks.speech.batch import SpeechBatch
from tutelage.tasks.speech.forward import decode
from tutelage.tasks.text.batch import TextBatch
from tutelage.tasks.text.forward import read
from tutelage.training.device import open_accelerator
from tutelage.training.step import Lesson, Stepper, StepReport

EQUAL = 1e-6  # relative to the whole gradient: float32 sums in another order
ROWS, T = 6, 12  # with some left out, more kept positions than the chunk below holds
OBJECTIVE = Objective(
    [Term("cross_entropy", 0.4), Term("kl", 0.6, temperature=2.0), Term("angle", 0.5)],
    [LayerPair(2, 2), LayerPair(BLOCKS, BLOCKS)],
)


def drawn(*shape: int, seed: int) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def ids(vocabulary: int, seed: int) -> Tensor:
    return torch.randint(vocabulary, (ROWS, T), generator=torch.Generator().manual_seed(seed))


KEEP = drawn(ROWS, T, seed=1) > -1.0


def load(kind: str, tied: bool = True) -> tuple[Any, Callable[..., Signal], Any]:
    """A student in training mode, its pass and a batch."""
    from transformers import AutoModelForCausalLM, WhisperForConditionalGeneration

    if kind == "whisper":
        model = WhisperForConditionalGeneration.from_pretrained(shared_tiny_whisper())
        size = model.config.vocab_size
        sound = drawn(ROWS, 200, 32, seed=3)
        return model.train(), decode, SpeechBatch(tuple("abcdef"), sound, ids(size, 4), ids(size, 5), KEEP)
    torch.manual_seed(0)
    model = AutoModelForCausalLM.from_config(tiny_config(kind, tied=tied))
    pieces = KEEP.long().cumsum(1).gt(5).long() + 1
    names = tuple("abcdef")
    return model.train(), read, TextBatch(names, names, ids(VOCABULARY, 4), ids(VOCABULARY, 5), KEEP, pieces, True)


def step(
    model: Any, forward: Callable[..., Signal], batch: Any, defer: bool, measure: bool = True
) -> tuple[StepReport, dict[str, Tensor]]:
    """The report of a step, and its gradients."""
    projectors = nn.ModuleDict({pair.name: nn.Linear(WIDTH, WIDTH) for pair in OBJECTIVE.pairs})
    for seed, parameter in enumerate(projectors.parameters()):
        parameter.data = drawn(*parameter.shape, seed=seed) / 4
    size = model.config.vocab_size
    states = {layer: drawn(ROWS, T, WIDTH, seed=layer) for layer in OBJECTIVE.teacher_layers}
    teacher = Signal(2 * drawn(ROWS, T, size, seed=9), states)
    lesson = Lesson(
        model,
        projectors,
        OBJECTIVE,
        lambda batch: forward(model, batch, OBJECTIVE.student_layers, **({"defer": True} if defer else {})),
        lambda _batch: teacher,
    )
    trainable = lesson.trainable()
    stepper = Stepper(lesson, torch.optim.SGD(trainable.values()), math.inf, open_accelerator("cpu"))
    report = stepper.take(1, [batch], 0.0, measure_terms=measure)
    return report, {name: parameter.grad.clone() for name, parameter in trainable.items() if parameter.grad is not None}


def assert_same_steps(model: Any, forward: Callable[..., Signal], batch: Any) -> None:
    (made, wanted), (deferred, found) = (step(model, forward, batch, defer) for defer in (False, True))
    assert found.keys() == wanted.keys()
    bound = EQUAL * math.sqrt(sum(float(gradient.square().sum()) for gradient in wanted.values()))
    assert bound > 0
    for name, gradient in wanted.items():
        assert float((found[name] - gradient).norm()) <= bound, name
    for name in ("terms", "term_gradient_norms"):
        assert getattr(deferred, name) == pytest.approx(getattr(made, name), rel=2 * EQUAL), name
    assert (deferred.total, deferred.gradient_norm) == pytest.approx((made.total, made.gradient_norm), rel=EQUAL)


KINDS = ("whisper", *architectures_of("text"))


@pytest.mark.parametrize("kind", KINDS)
def test_a_student_trained_whole_takes_the_same_step(kind: str, monkeypatch) -> None:
    model, forward, batch = load(kind)
    monkeypatch.setitem(CHUNK_BYTES, "cpu", 4 * model.config.vocab_size * 16)
    assert_same_steps(model, forward, batch)  # the head is the embedding and gets both gradients


@pytest.mark.parametrize("kind", ["whisper", "llama", "gpt_neox"])
def test_adapters_take_the_same_step_on_the_head_too(kind: str) -> None:
    model, forward, batch = load(kind, tied=False)
    head = {"whisper": "proj_out"}.get(kind, "lm_head")
    inner = {"gpt_neox": "query_key_value"}.get(kind, "q_proj")
    torch.manual_seed(0)
    wrapped = get_peft_model(model, LoraConfig(r=2, target_modules=[head, inner], init_lora_weights=False)).train()
    assert isinstance(forward(wrapped, batch, defer=True).scores, DeferredLogits)
    assert any(head in name for name, parameter in wrapped.named_parameters() if parameter.requires_grad)
    assert_same_steps(wrapped, forward, batch)


def test_a_step_runs_the_head_once_a_chunk_for_all_terms(monkeypatch) -> None:
    model, forward, batch = load("llama")
    monkeypatch.setitem(CHUNK_BYTES, "cpu", 4 * VOCABULARY * 16)
    seen = []
    model.lm_head.register_forward_hook(lambda _module, given, _output: seen.append(given[0].shape[0]))
    step(model, forward, batch, defer=True, measure=False)
    assert (seen[0], sum(seen[1:])) == (ROWS, int(KEEP.sum()))  # the pass without the head, and the chunks


@pytest.mark.parametrize("kind", KINDS)
def test_no_logits_of_the_students_positions_are_kept(kind: str, monkeypatch) -> None:
    model, forward, batch = load(kind)
    size = model.config.vocab_size
    monkeypatch.setitem(CHUNK_BYTES, "cpu", 4 * size * 2)
    teacher = Signal(drawn(ROWS, T, size, seed=9), {})
    objective = Objective([Term("cross_entropy"), Term("kl"), Term("jsd")])
    largest = {}
    for how in ("made", "deferred"):
        kept: list[int] = [0]

        def note(values: Tensor, kept: list[int] = kept) -> Tensor:
            if values.shape[-1] == size and values.shape[0] != WIDTH:  # not the head's own weight
                kept.append(values.numel())
            return values

        with torch.autograd.graph.saved_tensors_hooks(note, lambda values: values):
            student = forward(model, batch, (), **({"defer": True} if how == "deferred" else {}))
            objective.evaluate(student, teacher, batch.labels_BT, KEEP, {}, objective.slopes(objective.counts(KEEP)))
        largest[how] = max(kept)
    assert largest["made"] >= ROWS * T * size
    assert largest["deferred"] <= 2 * size


def test_the_head_is_back_after_the_pass_and_after_one_that_is_left() -> None:
    model, forward, batch = load("llama")
    before = forward(model, batch).logits_BTV
    assert torch.equal(forward(model, batch, defer=True).logits_BTV, before)
    with pytest.raises(KeyError), without_head(model):
        raise KeyError
    assert torch.equal(forward(model, batch).logits_BTV, before)
    model.lm_head.forward = lambda h: 2 * nn.functional.linear(h, model.lm_head.weight)  # somebody else's
    deferred = forward(model, batch, defer=True)
    torch.testing.assert_close(deferred.logits_BTV, 2 * before)
    torch.testing.assert_close(forward(model, batch).logits_BTV, 2 * before)


def test_heads_that_are_not_known_or_drop_units_are_not_deferred() -> None:
    model, forward, batch = load("llama", tied=False)
    assert isinstance(forward(nn.DataParallel(model), batch, defer=True).scores, Tensor)
    config = LoraConfig(r=2, target_modules=["lm_head"], lora_dropout=0.5)
    wrapped = get_peft_model(model, config)
    assert isinstance(forward(wrapped.train(), batch, defer=True).scores, Tensor)
    assert isinstance(forward(wrapped.eval(), batch, defer=True).scores, DeferredLogits)
    model.config.model_type = "another"
    assert isinstance(forward(model, batch, defer=True).scores, Tensor)


def test_in_mixed_precision_the_product_keeps_its_dtype() -> None:
    model, forward, batch = load("llama")
    with torch.autocast("cpu", torch.bfloat16):
        made, deferred = forward(model, batch), forward(model, batch, defer=True)
    logits = deferred.logits_BTV
    assert logits.dtype == torch.bfloat16
    assert torch.equal(logits, made.logits_BTV)
    objective = Objective([Term("cross_entropy")])
    gradients = []
    for signal in (made, deferred):
        loss = objective.evaluate(signal, None, batch.labels_BT, KEEP, {})["cross_entropy"].total
        gradients.append(torch.autograd.grad(loss, model.lm_head.weight)[0])
    assert gradients[1].dtype == torch.float32
    assert float((gradients[1] - gradients[0]).norm() / gradients[0].norm()) < 1e-2  # bfloat16 has 8 bits


def test_logits_made_without_gradients_leave_the_next_ones_theirs() -> None:
    model, forward, batch = load("llama")
    with torch.autocast("cpu", torch.bfloat16):
        signal = forward(model, batch, defer=True)
        with torch.no_grad():
            assert signal.logits_BTV.dtype == torch.bfloat16
        (gradient,) = torch.autograd.grad(signal.logits_BTV.float().square().sum(), model.lm_head.weight)
    assert float(gradient.norm()) > 0
