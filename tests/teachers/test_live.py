"""A live teacher is frozen, deterministic, and refused when it is not."""

import pytest
import torch
from torch import nn

from tiny import shared_tiny_whisper
from toy import STUDENT_WIDTH, ToyModel, make_batch
from tutelage.errors import PreflightError
from tutelage.objectives.signal import Signal
from tutelage.teachers.live import LiveTeacher


def run_toy(model, batch, layers):
    return model(batch.inputs_BT)


def test_the_teacher_is_frozen_and_two_passes_are_identical():
    model = ToyModel(STUDENT_WIDTH, seed=1, rank=2, dropout=0.9).train()
    teacher = LiveTeacher(model, (1,), run_toy)
    first, second = teacher.signal(make_batch([0, 1])), teacher.signal(make_batch([0, 1]))
    assert torch.equal(first.logits_BTV, second.logits_BTV)
    assert torch.equal(first.states[1], second.states[1])
    assert not first.logits_BTV.requires_grad
    assert not any(parameter.requires_grad for parameter in model.parameters())
    assert not any(module.training for module in model.modules())
    teacher.check_repeatable(make_batch([0, 1]))


def test_a_teacher_thawed_later_is_refused_by_name():
    model = ToyModel(STUDENT_WIDTH, seed=1)
    teacher = LiveTeacher(model, (1,), run_toy)
    model.head.weight.requires_grad_(True)
    with pytest.raises(PreflightError, match=r"1 parameters that require a gradient \(head.weight is the first\)"):
        teacher.signal(make_batch([0]))


def test_a_student_that_shares_a_module_with_its_teacher_is_refused():
    model = ToyModel(STUDENT_WIDTH, seed=1)
    teacher = LiveTeacher(model, (1,), run_toy)
    nn.Sequential(model.head).train()
    with pytest.raises(PreflightError, match=r"1 modules in training mode \(head is the first\)"):
        teacher.signal(make_batch([0]))


def test_a_teacher_that_stays_thawed_is_refused_at_once():
    class Stubborn(nn.Module):
        def __init__(self):
            super().__init__()
            self.weight = nn.Parameter(torch.ones(1))

        def requires_grad_(self, requires_grad=True):
            return self

    with pytest.raises(PreflightError, match="weight is the first"):
        LiveTeacher(Stubborn(), (), run_toy)


def test_a_teacher_that_draws_random_numbers_is_refused():
    def noisy(model, batch, layers):
        signal = run_toy(model, batch, layers)
        return Signal(signal.logits_BTV, {1: signal.states[1] + torch.rand(())})

    teacher = LiveTeacher(ToyModel(STUDENT_WIDTH, seed=1), (1,), noisy)
    with pytest.raises(PreflightError, match="differ in their states of block 1"):
        teacher.check_repeatable(make_batch([0]))


def test_a_forward_pass_that_turns_gradients_on_is_refused():
    def leaky(model, batch, layers):
        with torch.enable_grad():
            signal = run_toy(model, batch, layers)
            return Signal(signal.logits_BTV * torch.ones(1, requires_grad=True), signal.states)

    teacher = LiveTeacher(ToyModel(STUDENT_WIDTH, seed=1), (1,), leaky)
    with pytest.raises(PreflightError, match="logits carry a gradient"):
        teacher.check_repeatable(make_batch([0]))


def test_an_input_that_requires_a_gradient_gets_none_through_the_teacher():
    trained_encoder_output = torch.ones(1, requires_grad=True)

    def listen(model, batch, layers):
        signal = run_toy(model, batch, layers)
        return Signal(signal.logits_BTV * trained_encoder_output, signal.states)

    signal = LiveTeacher(ToyModel(STUDENT_WIDTH, seed=1), (1,), listen).signal(make_batch([0]))
    assert not signal.logits_BTV.requires_grad


def test_layers_are_handed_to_the_pass_once_and_in_order():
    seen = []

    def note(model, batch, layers):
        seen.append(tuple(layers))
        return run_toy(model, batch, layers)

    LiveTeacher(ToyModel(STUDENT_WIDTH, seed=1), [3, 1, 3], note).signal(make_batch([0]))
    assert seen == [(1, 3)]


def test_a_whisper_loaded_for_training_becomes_a_fixed_teacher():
    from transformers import WhisperForConditionalGeneration
    from transformers.modeling_outputs import BaseModelOutput

    def decode(model, encoder_BSH, layers):
        found = model(
            encoder_outputs=BaseModelOutput(last_hidden_state=encoder_BSH),
            decoder_input_ids=torch.tensor([[1, 2, 3]]),
            output_hidden_states=True,
            use_cache=False,
        )
        return Signal(found.logits, {layer: found.decoder_hidden_states[layer] for layer in layers})

    model = WhisperForConditionalGeneration.from_pretrained(shared_tiny_whisper(), dropout=0.5).train()
    teacher = LiveTeacher(model, (2, 4), decode)
    encoder_BSH = torch.rand(1, 200, 32, generator=torch.Generator().manual_seed(0))
    teacher.check_repeatable(encoder_BSH)
    assert sorted(teacher.signal(encoder_BSH).states) == [2, 4]
