"""Stacked students say what each says by itself, and each one's adapters get the gradient that they would get alone."""

import pytest
import torch

import tiny_cohort
from tiny_text import shared_tiny_text
from tutelage.objectives.logits import DeferredLogits, Head
from tutelage.objectives.signal import Signal
from tutelage.students.cohort import share_weights
from tutelage.students.design import Lora
from tutelage.students.lora import add_lora
from tutelage.students.stacked import StackedStudents, split_signal, why_not_stacked

EXACT = {"rtol": 1e-10, "atol": 1e-12}  # float64; only the order of sums differs
DESIGNS = (  # of the second the first has no adapter, and the other way round
    {"rank": 2, "targets": ("FIRST",), "first_block": 2},
    {"rank": 4, "targets": ("SECOND",), "alpha": 3.0, "use_rslora": True},
    {"rank": 3, "targets": ("FIRST", "SECOND"), "first_block": 1, "ranks": {"SECOND": 1}},
)
LAYOUTS = {
    "llama": ("q_proj", "up_proj"),
    "qwen3": ("v_proj", "down_proj"),
    "gpt_neox": ("query_key_value", "dense_4h_to_h"),
    "gpt2": ("c_attn", "c_fc"),
}


def named(value, targets):
    if isinstance(value, dict):
        return {named(name, targets): rank for name, rank in value.items()}
    if isinstance(value, tuple):
        return tuple(named(name, targets) for name in value)
    return {"FIRST": targets[0], "SECOND": targets[1]}.get(value, value) if isinstance(value, str) else value


def students_of(base, targets, designs=DESIGNS):
    """In float64, with updates that are not zero."""
    found = []
    for seed, design in enumerate(designs):
        design = {name: named(value, targets) for name, value in design.items()}
        student = add_lora(share_weights(base), Lora(**design), design["rank"], seed).double()
        generator = torch.Generator().manual_seed(seed)
        for name, value in student.named_parameters():
            if "lora_B" in name:
                torch.nn.init.normal_(value, std=0.3, generator=generator)
        found.append(student.train())
    return found


def load(layout):
    from transformers import AutoConfig, AutoModelForCausalLM

    config = AutoConfig.from_pretrained(shared_tiny_text(layout))
    if layout == "gpt2":
        config.resid_pdrop = config.embd_pdrop = config.attn_pdrop = 0.0
    return AutoModelForCausalLM.from_pretrained(shared_tiny_text(layout), config=config)


def gradients(signal, student):
    own = [value for value in student.parameters() if value.requires_grad]
    scalar = sum(values.square().sum() * (place + 1) for place, values in enumerate(signal.tensors()))
    return torch.autograd.grad(scalar, own)


@pytest.mark.parametrize("layout", LAYOUTS)
def test_stacked_text_students_say_and_learn_what_each_does_alone(layout):
    students = students_of(load(layout), LAYOUTS[layout])
    ids = torch.randint(300, (2, 9), generator=torch.Generator().manual_seed(0))

    def signal(student, input_ids):
        outputs = student(input_ids=input_ids, output_hidden_states=True, use_cache=False)
        return Signal(outputs.logits, {1: outputs.hidden_states[1], 4: outputs.hidden_states[4]})

    assert not any(why_not_stacked(student) for student in students)
    together = StackedStudents(students[0], students).run(lambda: signal(students[0], ids.repeat(3, 1)))
    for student, found in zip(students, together, strict=True):
        alone = signal(student, ids)
        for mine, expected in zip(found.tensors(), alone.tensors(), strict=True):
            torch.testing.assert_close(mine, expected, **EXACT)
    total = sum(sum(v.square().sum() * (n + 1) for n, v in enumerate(one.tensors())) for one in together)
    total.backward()  # one pass for all
    for student in students:
        own = [value.grad for value in student.parameters() if value.requires_grad]
        assert any(gradient.abs().max() > 0 for gradient in own)
        for mine, expected in zip(own, gradients(signal(student, ids), student), strict=True):
            torch.testing.assert_close(mine, expected, **EXACT)
    assert not any("forward" in vars(module) for module in students[0].modules())


def test_the_modules_may_be_those_of_a_student_that_is_not_there():
    tree, *students = students_of(load("llama"), LAYOUTS["llama"])
    ids = torch.arange(8).view(2, 4)
    forward = lambda student, ids: Signal(student(input_ids=ids, use_cache=False).logits, {})  # noqa: E731
    together = StackedStudents(tree, students).run(lambda: forward(tree, ids.repeat(2, 1)))
    for student, found in zip(students, together, strict=True):
        torch.testing.assert_close(found.logits_BTV, forward(student, ids).logits_BTV, **EXACT)


def test_a_signal_is_split_by_student_whatever_its_scores_are():
    states = torch.arange(24.0).view(6, 2, 2)
    head = Head(lambda h: 2 * h, 2, ())
    shared = torch.ones(2, 2, 2)
    for scores in (states, DeferredLogits(states, head)):
        parts = split_signal(Signal(scores, {1: shared, 3: states}), 3)
        made = 1 if scores is states else 2
        for place, part in enumerate(parts):
            own = states[2 * place : 2 * place + 2]
            assert torch.equal(part.logits_BTV, made * own)
            assert torch.equal(part.states[3], own)
            assert part.states[1] is shared


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"use_dora": True}, "has DoRA"),
        ({"dropout": 0.1}, "drops units at random"),
        ({"scope": "both"}, "trains more than LoRA matrices in its blocks"),
    ],
)
def test_a_student_that_must_be_run_by_itself_says_why(change, reason):
    plain = Lora(rank=2, targets=("q_proj",))
    assert why_not_stacked(add_lora(tiny_cohort.load(), plain, 2, 0)) is None
    lora = Lora(**{"rank": 2, "targets": ("q_proj",), **change})
    assert reason in why_not_stacked(add_lora(tiny_cohort.load(), lora, 2, 0))


def test_a_backbone_that_drops_units_is_not_stacked():
    from transformers import GPT2Config, GPT2LMHeadModel

    base = GPT2LMHeadModel(GPT2Config(vocab_size=19, n_embd=16, n_layer=2, n_head=2, n_positions=16))
    assert "drops units" in why_not_stacked(add_lora(base, Lora(rank=2, targets=("c_attn",)), 2, 0))
