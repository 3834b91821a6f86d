"""Adapters merged into their model: exact, frozen, checked and hashed before anything heavy is loaded."""

from __future__ import annotations

import json
import shutil

import pytest
import torch

from tiny import shared_tiny_whisper
from tiny_text import shared_tiny_text
from tutelage.errors import InputError
from tutelage.models.adapters import merge_adapter, resolve_adapter
from tutelage.models.causal import load_text_model
from tutelage.models.load import load_speech_model
from tutelage.students.design import Lora
from tutelage.students.export import AdapterBase, TextAdapterBase, save_adapter
from tutelage.students.lora import add_lora

MERGED = {"rtol": 1e-5, "atol": 1e-5}  # float32: W + s B A once, against W x + s B (A x)
MOVED = 1e-2  # far above MERGED: an adapter that was left out is seen
IDS = torch.arange(3, 15).reshape(2, 6)


def adapted(folder, lora, layers=4):
    """A model with a random adapter, and the adapter's folder."""
    wrapped = add_lora(load_text_model(shared_tiny_text()).model, lora, 3, seed=0)
    generator = torch.Generator().manual_seed(1)
    for name, parameter in wrapped.named_parameters():
        if "lora_B" in name:
            parameter.data = 0.3 * torch.randn(parameter.shape, generator=generator)
    save_adapter(wrapped, folder, TextAdapterBase("somewhere", None, tuple(range(layers))))
    return wrapped.eval()


def logits(model):
    with torch.no_grad():
        return model(input_ids=IDS).logits


@pytest.mark.parametrize("lora", [Lora(), Lora(use_rslora=True, targets=("o_proj",)), Lora(use_dora=True)])
def test_a_merged_adapter_is_the_adapted_model(tmp_path, lora):
    wrapped = adapted(tmp_path / "adapter", lora)
    plain = load_text_model(shared_tiny_text()).model
    before, state = logits(plain), torch.random.get_rng_state()
    merged = merge_adapter(plain, resolve_adapter(tmp_path / "adapter", 4))
    assert torch.allclose(logits(merged), logits(wrapped), **MERGED)
    assert float((logits(merged) - before).abs().max()) > MOVED
    assert {type(module).__name__ for module in merged.modules()} == {
        type(module).__name__ for module in load_text_model(shared_tiny_text()).model.modules()
    }
    assert not merged.training
    assert torch.equal(torch.random.get_rng_state(), state)


def test_an_adapter_counts_by_its_content(tmp_path):
    adapted(tmp_path / "adapter", Lora())
    first = resolve_adapter(tmp_path / "adapter").sha256
    shutil.copytree(tmp_path / "adapter", tmp_path / "moved")
    (tmp_path / "moved" / "README.md").write_text("another word", encoding="utf-8")
    assert resolve_adapter(tmp_path / "moved").sha256 == first
    with (tmp_path / "moved" / "adapter_model.safetensors").open("ab") as file:
        file.write(b" ")
    assert resolve_adapter(tmp_path / "moved").sha256 != first


def change(folder, file, **values):
    path = folder / file
    path.write_text(json.dumps({**json.loads(path.read_text(encoding="utf-8")), **values}), encoding="utf-8")


@pytest.mark.parametrize(
    ("file", "values", "faults"),
    [
        ("adapter_config.json", {"peft_type": "IA3"}, ["is of type 'IA3'; LORA is merged here"]),
        ("adapter_config.json", {"init_lora_weights": "pissa_niter_4"}, ["began as pissa_niter_4, which changes"]),
        ("base.json", {"layers": [0, 3]}, [r"cut to layers [0, 3], and this one has 4. Name the merged model"]),
        ("base.json", {"adapter": "x", "layers": [0]}, ["another adapter (x) was merged into", "cut to layers [0]"]),
    ],
)
def test_an_adapter_that_does_not_fit_is_refused_with_the_way_out(tmp_path, file, values, faults):
    adapted(tmp_path / "adapter", Lora())
    change(tmp_path / "adapter", file, **values)
    with pytest.raises(InputError) as caught:
        resolve_adapter(tmp_path / "adapter", 4)
    assert len(caught.value.faults) == len(faults)
    for fault, line in zip(faults, caught.value.faults, strict=True):
        assert fault in line


def test_a_folder_that_is_no_adapter_is_refused(tmp_path):
    with pytest.raises(InputError, match=r"no folder .*nowhere. An adapter is a PEFT folder, such as RUN/adapter"):
        resolve_adapter(tmp_path / "nowhere")
    with pytest.raises(InputError, match=r"holds no adapter_config.json and no adapter_model.safetensors"):
        resolve_adapter(tmp_path)


def test_an_adapter_of_another_shape_or_of_other_layers_is_one_line(tmp_path):
    adapted(tmp_path / "adapter", Lora())
    speech = load_speech_model(shared_tiny_whisper()).model
    with pytest.raises(InputError, match=r"The adapter in .*adapter .*"):
        merge_adapter(speech, resolve_adapter(tmp_path / "adapter"))
    change(tmp_path / "adapter", "adapter_config.json", target_modules=["model.layers.0.self_attn.q_proj"])
    with pytest.raises(InputError, match=r"differ in \d+ tensors, such as base_model.*it is of another model"):
        merge_adapter(load_text_model(shared_tiny_text()).model, resolve_adapter(tmp_path / "adapter"))


def test_a_runs_adapter_of_speech_is_merged(tmp_path):
    wrapped = add_lora(load_speech_model(shared_tiny_whisper()).model, Lora(), 2, seed=0)
    for name, parameter in wrapped.named_parameters():
        if "lora_B" in name:
            parameter.data += 0.3
    save_adapter(wrapped, tmp_path / "adapter", AdapterBase("somewhere", None, (0, 1, 2, 3), 2.0))
    plain = load_speech_model(shared_tiny_whisper()).model
    before = plain.model.decoder.layers[0].self_attn.q_proj.weight.clone()
    merged = merge_adapter(plain, resolve_adapter(tmp_path / "adapter", 4))
    layer = wrapped.base_model.model.model.decoder.layers[0].self_attn.q_proj
    expected = layer.base_layer.weight + layer.get_delta_weight("default")
    assert torch.allclose(merged.model.decoder.layers[0].self_attn.q_proj.weight, expected, **MERGED)
    assert not torch.allclose(before, expected, **MERGED)
