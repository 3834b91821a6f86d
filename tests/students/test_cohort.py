"""Students on one backbone: copies share every frozen weight, and replayed blocks answer as the blocks themselves."""

import copy

import pytest
import torch
from transformers import GPT2Config, GPT2LMHeadModel, LlamaConfig, LlamaForCausalLM

import tiny_cohort
from tutelage.errors import InputError
from tutelage.students.cohort import SharedPrefix, share_weights
from tutelage.students.design import Lora
from tutelage.students.lora import add_lora, count_lora_params, expected_modules, target_modules

IDS = torch.arange(2 * 7).view(2, 7) % 19


def llama():
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=19,
        hidden_size=16,
        intermediate_size=24,
        num_hidden_layers=4,
        num_attention_heads=2,
        num_key_value_heads=2,
    )
    return LlamaForCausalLM(config).eval()


def gpt2(**drop):
    torch.manual_seed(0)
    config = GPT2Config(vocab_size=19, n_embd=16, n_layer=4, n_head=2, n_positions=16, **drop)
    return GPT2LMHeadModel(config).eval()


NO_DROPOUT = {"resid_pdrop": 0.0, "embd_pdrop": 0.0, "attn_pdrop": 0.0}  # summary_first_dropout: no head has it


def adapt(base, seed, first=2, targets=("q_proj",)):
    return add_lora(share_weights(base), Lora(rank=2, targets=targets, first_block=first), 2, seed)


def test_copies_share_every_frozen_weight_and_wrap_their_own_layers():
    base = llama()
    students = [adapt(base, seed) for seed in (1, 2)]
    assert not any("lora" in name for name, _ in base.named_parameters())
    own = {id(value) for value in base.parameters()}
    for student in students:
        for name, value in student.named_parameters():
            assert ("lora" in name) == (id(value) not in own) == value.requires_grad
    assert sum(v.numel() for s in students for v in s.parameters() if id(v) not in own) == 2 * 2 * 2 * (16 + 16)


@pytest.mark.parametrize(
    ("make", "targets"), [(llama, ("q_proj",)), (lambda: gpt2(**NO_DROPOUT), ("c_attn",))], ids=["llama", "gpt2"]
)
def test_replayed_blocks_answer_as_the_blocks_themselves(make, targets):
    base = make()
    students = [adapt(base, 1, 2, targets), adapt(base, 2, 3, targets)]
    for student in students:
        for name, value in student.named_parameters():
            if "lora_B" in name:
                torch.nn.init.normal_(value)
    prefix = SharedPrefix(students)
    assert prefix.depth == 2  # the lower of the two
    recorded = prefix.record(lambda: students[0](input_ids=IDS))
    for student in students:
        plain = student(input_ids=IDS, output_hidden_states=True)
        with prefix.replay(student, recorded):
            replayed = student(input_ids=IDS, output_hidden_states=True)
        assert torch.equal(plain.logits, replayed.logits)
        assert all(torch.equal(*pair) for pair in zip(plain.hidden_states, replayed.hidden_states, strict=True))
        gradients = [
            torch.autograd.grad(out.logits.square().sum(), [v for v in student.parameters() if v.requires_grad])
            for out in (plain, replayed)
        ]
        assert all(torch.equal(*pair) for pair in zip(*gradients, strict=True))


def test_the_shared_blocks_run_once_and_nothing_is_left_behind():
    base = llama()
    students = [adapt(base, seed) for seed in (1, 2)]
    prefix, ran = SharedPrefix(students), []
    for student in students:
        for place, block in enumerate(student.get_base_model().model.layers):
            block.self_attn.register_forward_hook(lambda *_, place=place: ran.append(place))
    recorded = prefix.record(lambda: students[0](input_ids=IDS))
    assert ran == [0, 1]
    for student in students:
        with prefix.replay(student, recorded):
            student(input_ids=IDS)
    assert ran == [0, 1, 2, 3, 2, 3]
    assert not any("forward" in vars(module) for module in students[0].modules())
    copy.deepcopy(students[0])(input_ids=IDS)
    assert ran[-4:] == [0, 1, 2, 3]


def test_recording_draws_nothing():
    lesson = tiny_cohort.members(1)[0].lesson
    lesson.set_training(True)
    prefix = SharedPrefix([lesson.student])
    before = torch.get_rng_state()
    batch_BT = torch.zeros(1, 3, dtype=torch.long)
    states = torch.zeros(1, 200, tiny_cohort.WIDTH)

    def forward():
        torch.rand(1)  # as a model does that may leave out layers
        lesson.student(encoder_outputs=(states,), decoder_input_ids=batch_BT)

    assert len(prefix.record(forward)) == prefix.depth == 1
    assert torch.equal(torch.get_rng_state(), before)


def test_a_backbone_that_drops_units_at_random_is_not_shared():
    assert SharedPrefix([adapt(gpt2(), 1, 2, ("c_attn",))]).depth == 0


def test_what_is_trained_below_the_blocks_is_not_shared():
    student = adapt(llama(), 1)
    student.get_base_model().model.embed_tokens.weight.requires_grad_(True)
    assert SharedPrefix([student]).depth == 0


def test_a_model_of_another_kind_has_no_shared_blocks():
    assert SharedPrefix([torch.nn.Linear(2, 2)]).depth == 0


def test_adapters_begin_at_the_first_block_and_are_counted_so():
    text, speech = llama(), tiny_cohort.load()
    high = Lora(rank=2, targets=("q_proj",), first_block=2)
    assert target_modules(text, high) == ("model.layers.2.self_attn.q_proj", "model.layers.3.self_attn.q_proj")
    for model, expected in ((text, 2), (speech, 2)):  # of Whisper one block, self- and cross-attention
        assert expected_modules(model.config, high) == len(target_modules(model, high)) == expected
    assert count_lora_params(text, high, 2) == 2 * 2 * (16 + 16)


def test_a_first_block_that_is_not_there_is_refused():
    with pytest.raises(InputError, match=r"lora\.first_block is 4, and the decoder has blocks 0 to 3\."):
        target_modules(llama(), Lora(targets=("q_proj",), first_block=4))
    with pytest.raises(ValueError, match="first block with adapters must be a whole number from 0, not -1"):
        Lora(first_block=-1)
