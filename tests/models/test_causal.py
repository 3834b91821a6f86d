"""Causal language models are loaded strictly and safely, in every layout, and counted alike whatever their head."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from tiny import shared_tiny_whisper
from tiny_text import BLOCKS, LAYOUTS, VOCABULARY, WIDTH, shared_tiny_text, tiny_text, tiny_tokenizer
from tutelage.errors import InputError
from tutelage.models.architectures import ARCHITECTURES
from tutelage.models.causal import initialise_text_model, load_meta_causal, load_text_model, load_tokenizer
from tutelage.models.load import count_non_embedding_params, count_params
from tutelage.models.resolve import resolve_model
from tutelage.models.verify import verify_model_folder


@pytest.mark.parametrize("layout", LAYOUTS)
def test_every_layout_loads_with_its_tokenizer_and_its_blocks_are_where_the_table_says(layout: str) -> None:
    text = load_text_model(shared_tiny_text(layout))
    blocks = text.model.get_submodule(ARCHITECTURES[layout].blocks)
    assert (len(blocks), text.blocks, text.width) == (BLOCKS, BLOCKS, WIDTH)
    assert not text.model.training
    said = "the dog runs"
    assert text.tokenizer.decode(text.tokenizer(said)["input_ids"]) == said


@pytest.mark.parametrize("layout", LAYOUTS)
def test_shapes_alone_count_as_the_loaded_model_does(layout: str) -> None:
    text, shape = load_text_model(shared_tiny_text(layout)), load_meta_causal(shared_tiny_text(layout))
    assert next(shape.model.parameters()).is_meta
    assert count_params(shape.model) == count_params(text.model)
    assert count_non_embedding_params(shape.model) == count_non_embedding_params(text.model)


def test_a_head_of_its_own_is_no_part_of_the_laws_count() -> None:
    tied, untied = (load_meta_causal(shared_tiny_text("llama", tied=tied)).model for tied in (True, False))
    assert count_params(untied) - count_params(tied) == VOCABULARY * WIDTH
    assert count_non_embedding_params(untied) == count_non_embedding_params(tied)


def test_a_missing_weight_is_named(tmp_path: Path) -> None:
    folder = tiny_text(tmp_path / "model")
    weights = load_file(folder / "model.safetensors")
    del weights["model.layers.1.mlp.up_proj.weight"]
    save_file(weights, folder / "model.safetensors", {"format": "pt"})
    with pytest.raises(InputError, match=r"lacks model\.layers\.1\.mlp\.up_proj\.weight"):
        load_text_model(folder)


def test_each_task_takes_its_own_kind_of_model() -> None:
    with pytest.raises(InputError, match=r"'whisper'.*for text.*llama.*It is a speech model"):
        verify_model_folder(shared_tiny_whisper(), task="text")
    with pytest.raises(InputError, match=r"'llama'.*for speech.*It is a text model"):
        resolve_model(str(shared_tiny_text()))
    assert resolve_model(str(shared_tiny_text()), task="text").kind == "folder"


def test_pickles_alone_are_refused(tmp_path: Path) -> None:
    folder = tiny_text(tmp_path / "model", weights=False)
    (folder / "pytorch_model.bin").write_bytes(b"\x80\x04never read")
    with pytest.raises(InputError, match=r"pytorch_model\.bin"):
        load_text_model(folder)


@pytest.mark.parametrize("layout", LAYOUTS)
def test_a_folder_without_a_tokenizer_is_refused(tmp_path: Path, layout: str) -> None:
    folder = tiny_text(tmp_path / "model", layout, weights=False)
    for file in folder.glob("*token*"):
        file.unlink()
    with pytest.raises(InputError, match="no usable tokenizer"):
        load_tokenizer(folder)


def test_random_weights_follow_the_seed_and_leave_the_global_state_alone() -> None:
    folder, tokenizer = shared_tiny_text("llama", weights=False), tiny_tokenizer()
    before = torch.get_rng_state()
    one, same, other = (initialise_text_model(folder, tokenizer, seed).model.state_dict() for seed in (1, 1, 2))
    assert torch.equal(torch.get_rng_state(), before)
    name = "model.layers.0.mlp.up_proj.weight"
    assert torch.equal(one[name], same[name])
    assert not torch.equal(one[name], other[name])


def test_a_vocabulary_smaller_than_the_tokenizers_is_refused(tmp_path: Path) -> None:
    folder = tiny_text(tmp_path / "model", weights=False)
    config = folder / "config.json"
    config.write_text(config.read_text().replace(f'"vocab_size": {VOCABULARY}', '"vocab_size": 10'))
    with pytest.raises(InputError, match="vocabulary of 10"):
        initialise_text_model(folder, tiny_tokenizer(), 0)
