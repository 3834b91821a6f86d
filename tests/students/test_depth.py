"""Language models cut to fewer blocks: the cache still works, the weights are the source's, nothing is shared."""

from __future__ import annotations

import pytest
import torch

from tiny_text import BLOCKS, LAYOUTS, shared_tiny_text
from tutelage.errors import InputError
from tutelage.models.architectures import ARCHITECTURES
from tutelage.models.causal import TextModel, load_meta_causal, load_text_model
from tutelage.models.load import count_params
from tutelage.students.depth import choose_layers, shrink_text_model

PROMPT = torch.tensor([[0, 80, 90, 100, 110]])
NEW_TOKENS = 12


def load(layout: str) -> TextModel:
    return load_text_model(shared_tiny_text(layout))


@pytest.mark.parametrize("layout", LAYOUTS)
def test_generation_with_the_cache_equals_generation_without(layout: str) -> None:
    model = shrink_text_model(load(layout), (1, 3)).text.model
    settings = {"max_new_tokens": NEW_TOKENS, "do_sample": False, "eos_token_id": None, "pad_token_id": 0}
    mask = torch.ones_like(PROMPT)
    with_cache, without = (
        model.generate(PROMPT, attention_mask=mask, use_cache=use, **settings) for use in (True, False)
    )
    assert with_cache.shape[1] == PROMPT.shape[1] + NEW_TOKENS
    assert torch.equal(with_cache, without)


@pytest.mark.parametrize("layout", LAYOUTS)
def test_a_student_with_every_block_says_what_its_source_says(layout: str) -> None:
    source = load(layout)
    student = shrink_text_model(source)
    assert student.origins == tuple(range(BLOCKS))
    with torch.no_grad():
        assert torch.equal(student.text.model(PROMPT).logits, source.model(PROMPT).logits)


@pytest.mark.parametrize("layout", LAYOUTS)
def test_the_blocks_are_the_sources_and_share_no_memory(layout: str) -> None:
    source = load(layout)
    student = shrink_text_model(source, 2)
    assert student.origins == (0, BLOCKS - 1)
    with torch.no_grad():
        states = source.model(PROMPT, output_hidden_states=True).hidden_states
        first = student.text.model(PROMPT, output_hidden_states=True).hidden_states[1]
    assert torch.equal(first, states[1])  # the first block is followed by another one, in both
    before = {name: tensor.clone() for name, tensor in source.model.state_dict().items()}
    with torch.no_grad():
        for parameter in student.text.model.parameters():
            parameter.fill_(3.0)
    assert all(torch.equal(tensor, before[name]) for name, tensor in source.model.state_dict().items())


@pytest.mark.parametrize("layout", LAYOUTS)
def test_every_block_has_the_weights_of_its_origin(layout: str) -> None:
    source = load(layout)
    student = shrink_text_model(source, (1, 3))
    path = ARCHITECTURES[layout].blocks
    theirs, mine = source.model.get_submodule(path), student.text.model.get_submodule(path)
    for block, origin in enumerate(student.origins):
        for one, other in zip(mine[block].parameters(), theirs[origin].parameters(), strict=True):
            assert torch.equal(one, other)


@pytest.mark.parametrize("layout", LAYOUTS)
def test_shapes_alone_are_cut_alike(layout: str) -> None:
    shape = shrink_text_model(load_meta_causal(shared_tiny_text(layout)), 3).text
    assert next(shape.model.parameters()).is_meta
    assert count_params(shape.model) == count_params(shrink_text_model(load(layout), 3).text.model)


def test_kinds_of_attention_follow_their_blocks() -> None:
    source = load("qwen3")
    source.model.config.layer_types = ["full_attention", "full_attention", "sliding_attention", "full_attention"]
    assert shrink_text_model(source, (2, 3)).text.model.config.layer_types == ["sliding_attention", "full_attention"]
    assert len(source.model.config.layer_types) == BLOCKS


def test_which_layers_stay() -> None:
    assert choose_layers(6, 3) == (0, 3, 5)
    assert choose_layers(6, 2, "first") == (0, 1)
    assert choose_layers(6, 2, "last") == (4, 5)
    assert choose_layers(6, (1, 4), "last") == (1, 4)
    assert choose_layers(3, None) == (0, 1, 2)
    for wrong in (0, 7):
        with pytest.raises(InputError, match=f"cannot keep {wrong}"):
            choose_layers(6, wrong, "last")
    with pytest.raises(InputError, match="no layer 6"):
        choose_layers(6, (0, 6))
