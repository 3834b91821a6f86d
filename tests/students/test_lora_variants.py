"""DoRA, PiSSA and ranks by layer: counted as built, merged exactly, usable on the weights as they were."""

from __future__ import annotations

import copy
import json
from pathlib import Path
from typing import Any

import pytest
import torch

from tiny import shared_tiny_whisper
from tiny_text import LAYOUTS, shared_tiny_text
from tutelage.errors import InputError
from tutelage.models.causal import load_meta_causal, load_text_model
from tutelage.models.compute import dora_pass_flops, lora_utterance_flops, row_training_flops
from tutelage.models.load import load_meta, load_speech_model
from tutelage.students.budget import Budget, choose_rank
from tutelage.students.design import Lora
from tutelage.students.export import AdapterBase, TextAdapterBase, merged_model, save_adapter
from tutelage.students.lora import (
    adapter_trainables,
    add_lora,
    count_lora_params,
    largest_useful_rank,
    module_ranks,
    trainable_parameters,
)
from tutelage.students.merge import merge_exact, read_adapter

RANK = 3
TARGETS = {
    "llama": ("q_proj", "down_proj"),
    "qwen2": ("q_proj", "v_proj"),
    "qwen3": ("o_proj", "up_proj"),
    "gpt_neox": ("query_key_value", "dense_h_to_4h"),
    "gpt2": ("c_attn", "mlp.c_proj"),
}
VARIANTS: dict[str, dict[str, Any]] = {
    "plain": {},
    "dora": {"use_dora": True},
    "pissa": {"init": "pissa"},
    "pissa-dora": {"init": "pissa", "use_dora": True},
    "pissa-rslora": {"init": "pissa", "use_rslora": True},
}
INPUTS = torch.tensor([[0, 80, 90, 100, 110]])
IDS = torch.tensor([[305, 309, 314, 318, 10, 20]])
SAME = 2e-5  # float32 sums in another order, of the largest logit; 3e-6 was seen


def lora_of(layout: str, variant: str, own: bool = True) -> Lora:
    targets = TARGETS[layout]
    return Lora(rank=RANK, targets=targets, ranks={targets[1]: 2} if own else {}, **VARIANTS[variant])


def moved(model: Any) -> Any:
    """The same adapters, as if they had learned something."""
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for _, parameter in trainable_parameters(model):
            parameter.add_(torch.empty(parameter.shape).normal_(0, 0.1, generator=generator))
    return model.eval()


def logits(model: Any) -> torch.Tensor:
    with torch.no_grad():
        if model.config.model_type != "whisper":
            return model(INPUTS).logits
        encoded = torch.randn(1, 200, 32, generator=torch.Generator().manual_seed(0))
        return model(encoder_outputs=(encoded,), decoder_input_ids=IDS).logits


def close(found: torch.Tensor, expected: torch.Tensor) -> bool:
    return float((found - expected).detach().abs().max()) < SAME * float(expected.abs().max())


@pytest.mark.parametrize("variant", VARIANTS)
@pytest.mark.parametrize("layout", [*LAYOUTS, "whisper"])
def test_every_variant_is_counted_starts_at_the_base_merges_and_opens_on_the_base(
    tmp_path: Path, layout: str, variant: str
) -> None:
    from peft import PeftModel

    if layout == "whisper":
        lora = Lora(rank=RANK, targets=("q_proj", "fc1"), ranks={"encoder_attn.q_proj": 2}, **VARIANTS[variant])
        base, shape = load_speech_model(shared_tiny_whisper()).model, load_meta(shared_tiny_whisper())
        about: Any = AdapterBase("base", None, (0, 1, 2, 3), 4.0)
    else:
        lora = lora_of(layout, variant)
        base, shape = load_text_model(shared_tiny_text(layout)).model, load_meta_causal(shared_tiny_text(layout)).model
        about = TextAdapterBase("base", None, (0, 1, 2, 3))
    student = add_lora(copy.deepcopy(base), lora, RANK, seed=3)
    assert close(logits(student.eval()), logits(base))
    trained = dict(trainable_parameters(student))
    assert sum(parameter.numel() for parameter in trained.values()) == count_lora_params(shape, lora, RANK)
    assert all("lora_" in name for name in trained)
    expected = logits(moved(student))
    assert not close(expected, logits(base))
    assert close(logits(merged_model(student)), expected)
    folder = save_adapter(student, tmp_path / "adapter", about)
    again = PeftModel.from_pretrained(copy.deepcopy(base), folder).eval()
    assert close(logits(again), expected)
    assert "principal" not in (folder / "adapter_config.json").read_text()
    assert not [name for name in student.state_dict() if "principal" in name]


@pytest.mark.parametrize("variant", ["pissa", "pissa-rslora"])
def test_a_saved_pissa_adapter_is_an_ordinary_one_that_other_tools_read(tmp_path: Path, variant: str) -> None:
    base = load_text_model(shared_tiny_text()).model
    student = moved(add_lora(copy.deepcopy(base), lora_of("llama", variant), RANK, seed=3))
    folder = save_adapter(student, tmp_path / "adapter", TextAdapterBase("base", None, (0, 1, 2, 3)))
    settings = json.loads((folder / "adapter_config.json").read_bytes())
    assert settings["init_lora_weights"] is True
    assert {settings["r"], *settings["rank_pattern"].values()} == {2 * RANK, 4}
    adapter = read_adapter(folder)
    whole = dict(merged_model(student).named_modules())
    for name, update in merge_exact([adapter]).updates.items():
        before = dict(base.named_modules())[name].weight.double()
        assert close(before + update.B_OR @ update.A_RI, whole[name].weight.double()), name


def test_pissa_takes_the_largest_singular_parts_and_depends_on_no_seed() -> None:
    base = load_text_model(shared_tiny_text("gpt2")).model
    lora = lora_of("gpt2", "pissa")
    first, again = (add_lora(copy.deepcopy(base), lora, RANK, seed) for seed in (1, 2))
    for (name, one), (_, other) in zip(trainable_parameters(first), trainable_parameters(again), strict=True):
        assert torch.equal(one, other), name
    for name, rank in module_ranks(base, lora, RANK).items():
        layer = first.get_submodule(f"base_model.model.{name}")
        singular = torch.linalg.svdvals(base.get_submodule(name).weight)
        left = torch.linalg.svdvals(layer.get_base_layer().weight)
        assert torch.allclose(left[: -rank or None], singular[rank:], atol=SAME), name
        A, B = layer.lora_A["default"].weight, layer.lora_B["default"].weight
        assert torch.allclose(A.norm(dim=1), B.norm(dim=0), rtol=SAME)
        assert (B.gather(0, B.abs().argmax(0)[None]) > 0).all()  # signs are ours, not the library's


def test_dora_trains_lengths_that_start_at_those_of_the_weights() -> None:
    base = load_text_model(shared_tiny_text("gpt2")).model
    lora = Lora(targets=("c_attn",), use_dora=True)
    student = add_lora(copy.deepcopy(base).to(torch.bfloat16), lora, RANK, seed=0)
    assert {parameter.dtype for _, parameter in trainable_parameters(student)} == {torch.float32}
    student = add_lora(copy.deepcopy(base), lora, RANK, seed=0)
    lengths = {name: value for name, value in trainable_parameters(student) if "magnitude" in name}
    assert len(lengths) == 4
    weight = base.transformer.h[0].attn.c_attn.weight  # (inputs, outputs)
    assert torch.allclose(next(iter(lengths.values())), weight.norm(dim=0), rtol=SAME)
    logits_ = student(INPUTS).logits
    logits_.square().sum().backward()
    assert all(value.grad is not None and value.grad.abs().sum() > 0 for value in lengths.values())


def test_the_longer_name_rules_and_scales_follow_each_rank() -> None:
    model = load_speech_model(shared_tiny_whisper()).model
    lora = Lora(targets=("q_proj", "v_proj"), ranks={"q_proj": 5, "encoder_attn.q_proj": 7}, alpha=10.0)
    ranks = module_ranks(model, lora, 2)
    assert [ranks[f"model.decoder.layers.0.{name}"] for name in ("self_attn.q_proj", "encoder_attn.q_proj")] == [5, 7]
    assert ranks["model.decoder.layers.3.self_attn.v_proj"] == 2
    for own, layers in ((Lora(**{**lora.__dict__, "alpha": None}), {2: 2.0, 5: 2.0, 7: 2.0}), (lora, {2: 5.0, 5: 2.0})):
        student = add_lora(copy.deepcopy(model), own, 2, seed=0)
        for name, rank in ranks.items():
            layer = student.get_submodule(f"base_model.model.{name}")
            assert layer.lora_A["default"].weight.shape[0] == rank
            assert layer.scaling["default"] == layers.get(rank, 10.0 / rank)


def test_ranks_that_rule_nothing_and_too_many_singular_parts_are_refused_together() -> None:
    model = load_meta(shared_tiny_whisper())
    lora = Lora(targets=("q_proj",), ranks={"fc1": 4, "q_proj": 40}, init="pissa")
    with pytest.raises(InputError) as refused:
        module_ranks(model, lora, 2)
    assert "ranks name fc1, which counts for no adapted layer; there are q_proj" in str(refused.value)
    assert "40 singular parts out of model.decoder.layers.0.self_attn.q_proj, which has 32" in str(refused.value)
    hidden = Lora(targets=("self_attn.q_proj",), ranks={"q_proj": 4, "self_attn.q_proj": 2})
    with pytest.raises(InputError, match="ranks name q_proj, which counts"):
        module_ranks(model, hidden, 2)
    half = load_speech_model(shared_tiny_whisper()).model.to(torch.bfloat16)
    with pytest.raises(InputError, match="half precision"):
        add_lora(half, Lora(init="pissa"), 2, seed=0)


@pytest.mark.parametrize("settings", [{"init": "gaussian"}, {"ranks": {"fc1": 0}}, {"ranks": {"fc1": True}}])
def test_settings_that_cannot_be(settings: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=r"init is|rank of fc1"):
        Lora(**settings)


def test_an_open_rank_fills_what_own_ranks_and_lengths_leave() -> None:
    model = load_meta(shared_tiny_whisper())
    lora = Lora(targets=("q_proj", "fc1"), ranks={"fc1": 2}, use_dora=True)
    trainables = adapter_trainables(model, lora, projector_params=11)
    fixed = 4 * 2 * (32 + 64) + 8 * 32 + 4 * 64  # fc1 at rank 2, lengths of 8 q_proj and 4 fc1
    assert (trainables.fixed_params, trainables.params_per_rank) == (fixed, 8 * 64)
    report = choose_rank(Budget(10_000, 0.5), trainables)
    assert report.rank == (5000 - 11 - fixed) // 512
    assert report.lora_params == count_lora_params(model, lora, report.rank)
    assert f"at rank {report.rank} (fc1 2) = " in report.describe()
    with pytest.raises(InputError, match=r"Rank 7 fits"):
        choose_rank(Budget(10_000, 0.5), trainables, 30)
    with pytest.raises(InputError, match=r"No rank fits: .* or lower ranks of their own"):
        choose_rank(Budget(1_000, 0.5), trainables)


def test_where_every_layer_has_a_rank_of_its_own_there_is_none_to_choose() -> None:
    model = load_meta(shared_tiny_whisper())
    lora = Lora(targets=("q_proj", "fc1"), ranks={"fc1": 2, "q_proj": 3})
    report = choose_rank(Budget(10_000, 1.0), adapter_trainables(model, lora))
    assert (report.rank, report.lora_params) == (3, 8 * 3 * 64 + 4 * 2 * 96)
    assert largest_useful_rank(model, lora) == 3


def test_flops_follow_each_rank_and_dora_s_products_are_a_pass_s() -> None:
    from torch.utils.flop_counter import FlopCounterMode

    model = load_text_model(shared_tiny_text()).model
    model.set_attn_implementation("eager")
    plain, dora = (Lora(targets=TARGETS["llama"], ranks={"q_proj": 5}, use_dora=one) for one in (False, True))
    ranks = module_ranks(model, plain, RANK)
    counted = []
    for lora in (plain, dora):
        student = add_lora(copy.deepcopy(model), lora, RANK, seed=0).train()
        with FlopCounterMode(display=False) as counter:
            student(torch.zeros(1, 64, dtype=torch.long)).logits.sum().backward()
        counted.append(counter.get_total_flops())
    assert counted[1] - counted[0] == dora_pass_flops(model, ranks)
    uniform = row_training_flops(model, ranks, RANK, 64)
    own = row_training_flops(model, ranks, ranks, 64)
    assert own - uniform == 6 * 64 * 4 * (5 - RANK) * (32 + 32)
    speech = load_meta(shared_tiny_whisper())
    adapted = module_ranks(speech, Lora(targets=("fc1",), ranks={"fc1": 5}), RANK)
    more = [lora_utterance_flops(speech, adapted, rank, 10, cached_encoder=True) for rank in (adapted, RANK)]
    assert more[0] - more[1] == 6 * 10 * 4 * (5 - RANK) * 96
