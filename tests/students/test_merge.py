"""Merging adapters: the weighted sum of updates itself, its best lower rank, and never A and B averaged apart."""

from __future__ import annotations

import copy
import dataclasses
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from tiny import shared_tiny_whisper
from tutelage.errors import InputError
from tutelage.models.load import load_speech_model
from tutelage.students.design import Lora
from tutelage.students.export import AdapterBase, export_student, merged_model, save_adapter
from tutelage.students.lora import add_lora, trainable_parameters
from tutelage.students.merge import (
    Adapter,
    Update,
    exchange_update,
    merge_exact,
    merge_svd,
    read_adapter,
    write_merged,
)

BASE = AdapterBase("openai/whisper-base", "abc", (0, 1), 30.0)
FLOAT32 = 2e-6
"""Rounding of float32 weights of order 0.1 that were added up in another order."""
LOGITS = 2e-5
"""W x + s B A x against (W + s B A) x in float32, through all layers; logits here are of order 1."""

Make = Callable[..., Path]


@pytest.fixture(scope="module")
def make(tmp_path_factory: pytest.TempPathFactory) -> Make:
    """Saves an adapter of the tiny model that is not zero any more."""

    def saved(seed: int, lora: Lora, rank: int = 3, base: AdapterBase = BASE) -> Path:
        model = add_lora(load_speech_model(shared_tiny_whisper()).model, lora, rank, seed)
        generator = torch.Generator().manual_seed(seed + 100)
        with torch.no_grad():
            for _, parameter in trainable_parameters(model):
                parameter.add_(torch.randn(parameter.shape, generator=generator), alpha=0.1)
        return save_adapter(model, tmp_path_factory.mktemp("members") / "adapter", base)

    return saved


@pytest.fixture(scope="module")
def members(make: Make) -> list[Adapter]:
    """Three members: another rank, another scale, another set of layers."""
    return [
        read_adapter(make(0, Lora(targets=("q_proj", "v_proj")), 3)),
        read_adapter(make(1, Lora(targets=("q_proj", "v_proj"), alpha=5.0, use_rslora=True), 4)),
        read_adapter(make(2, Lora(targets=("q_proj", "fc1")), 2)),
    ]


def with_adapter(folder: Path) -> Any:
    """The base under an adapter, opened by PEFT alone."""
    from peft import PeftModel

    return PeftModel.from_pretrained(load_speech_model(shared_tiny_whisper()).model, str(folder)).eval()


def deltas(folder: Path) -> dict[str, Tensor]:
    """What PEFT itself adds to each weight."""
    model = with_adapter(folder)
    return {
        name.removeprefix("base_model.model."): module.get_delta_weight("default").detach()
        for name, module in model.named_modules()
        if hasattr(module, "get_delta_weight")
    }


def dense(adapter: Adapter) -> dict[str, Tensor]:
    return {name: update.B_OR @ update.A_RI for name, update in adapter.updates.items()}


def largest_difference(one: dict[str, Tensor], other: dict[str, Tensor]) -> float:
    assert one.keys() == other.keys()
    return max(float((one[name].double() - other[name].double()).abs().max()) for name in one)


def average(weights: tuple[float, ...], folders: list[Path]) -> dict[str, Tensor]:
    total: dict[str, Tensor] = {}
    for weight, folder in zip(weights, folders, strict=True):
        for name, delta in deltas(folder).items():
            total[name] = total.get(name, torch.zeros_like(delta)) + weight * delta
    return total


def test_updates_are_read_as_peft_reads_them(members: list[Adapter]) -> None:
    for member in members:
        assert largest_difference(dense(member), deltas(member.path)) < FLOAT32


def test_the_exact_merge_is_the_weighted_sum_of_what_peft_adds(members: list[Adapter], tmp_path: Path) -> None:
    merged = merge_exact(members, (2.0, 1.0, 1.0))
    assert merged.weights == (0.5, 0.25, 0.25)
    assert merged.lost == 0.0
    out = write_merged(merged, members[0], tmp_path / "merged")
    assert largest_difference(deltas(out), average(merged.weights, [member.path for member in members])) < FLOAT32
    assert largest_difference(dense(read_adapter(out)), deltas(out)) < FLOAT32
    ranks = {name.rpartition(".")[2]: update.rank for name, update in merged.updates.items()}
    assert ranks == {"q_proj": 3 + 4 + 2, "v_proj": 3 + 4, "fc1": 2}


def test_a_merge_of_one_is_that_one(members: list[Adapter], tmp_path: Path) -> None:
    for how in (merge_exact, merge_svd):
        merged = how(members[:1])
        assert merged.lost < 1e-7  # float64, and a square root of rounding
        out = write_merged(merged, members[0], tmp_path / how.__name__)
        assert largest_difference(deltas(out), deltas(members[0].path)) < FLOAT32


def test_merged_logits_are_those_of_the_averaged_weights(members: list[Adapter], tmp_path: Path) -> None:
    out = write_merged(merge_exact(members), members[0], tmp_path / "merged")
    by_hand = load_speech_model(shared_tiny_whisper()).model
    with torch.no_grad():
        for name, delta in average((1 / 3,) * 3, [member.path for member in members]).items():
            by_hand.get_submodule(name).weight += delta
    generator = torch.Generator().manual_seed(5)
    features = torch.randn(2, by_hand.config.num_mel_bins, 2 * by_hand.config.max_source_positions, generator=generator)
    ids = torch.randint(0, by_hand.config.vocab_size, (2, 6), generator=generator)
    with torch.no_grad():
        expected = by_hand.eval()(input_features=features, decoder_input_ids=ids).logits
        lazy = with_adapter(out)
        assert (lazy(input_features=features, decoder_input_ids=ids).logits - expected).abs().max() < LOGITS
        plain = merged_model(lazy)
        assert (plain(input_features=features, decoder_input_ids=ids).logits - expected).abs().max() < LOGITS


def test_the_lower_rank_is_the_best_one_and_says_what_it_lost(members: list[Adapter], tmp_path: Path) -> None:
    whole = {name: update.B_OR @ update.A_RI for name, update in merge_exact(members).updates.items()}
    merged = merge_svd(members, rank=2)
    squared = {"lost": 0.0, "whole": 0.0}
    for name, update in merged.updates.items():
        assert update.rank == 2
        singular = torch.linalg.svdvals(whole[name])
        error = torch.linalg.norm(whole[name] - update.B_OR @ update.A_RI)
        assert error == pytest.approx(float(singular[2:].norm()), abs=1e-9)
        assert merged.lost_by_layer[name] == pytest.approx(float(error / singular.norm()), abs=1e-9)
        squared["lost"] += float(error) ** 2
        squared["whole"] += float(singular.norm()) ** 2
    assert merged.lost == pytest.approx((squared["lost"] / squared["whole"]) ** 0.5)
    assert 0 < merged.lost < 1
    out = write_merged(merged, members[0], tmp_path / "merged")
    written = {name: update.B_OR @ update.A_RI for name, update in merged.updates.items()}
    assert largest_difference(deltas(out), {name: update.float() for name, update in written.items()}) < FLOAT32


def test_the_rank_is_the_members_own_unless_it_is_given(members: list[Adapter]) -> None:
    ranks = {name.rpartition(".")[2]: update.rank for name, update in merge_svd(members).updates.items()}
    assert ranks == {"q_proj": 4, "v_proj": 4, "fc1": 2}
    assert merge_svd(members).params < merge_exact(members).params
    enough = merge_svd(members, rank=50)
    assert enough.lost < 1e-7
    assert enough.params == merge_exact(members).params


def test_averaging_a_and_b_apart_is_another_update(members: list[Adapter]) -> None:
    """Two members with one and the same update, written in two ways: the merge is it, the mean of A and of B is not."""
    one = members[0]
    turn = torch.linalg.qr(torch.randn(3, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(1)))[0]
    turned = {name: Update(turn @ update.A_RI, update.B_OR @ turn.T) for name, update in one.updates.items()}
    merged = merge_exact([one, dataclasses.replace(one, updates=turned)])
    for name, update in one.updates.items():
        true = update.B_OR @ update.A_RI
        apart = (update.B_OR + turned[name].B_OR) / 2 @ ((update.A_RI + turned[name].A_RI) / 2)
        assert torch.linalg.norm(apart - true) > 0.1 * torch.linalg.norm(true)
        mine = merged.updates[name]
        assert torch.linalg.norm(mine.B_OR @ mine.A_RI - true) < 1e-9 * torch.linalg.norm(true)


def test_members_of_another_base_are_refused(make: Make, members: list[Adapter]) -> None:
    cut = read_adapter(make(3, Lora(), base=AdapterBase("openai/whisper-base", "abc", (0,), 30.0)))
    other = read_adapter(make(3, Lora(), base=AdapterBase("openai/whisper-tiny", "abc", (0, 1), 30.0)))
    with pytest.raises(InputError) as refused:
        merge_exact([members[0], cut, other])
    assert len(refused.value.faults) == 2
    assert "fits another base" in refused.value.faults[0]


@pytest.mark.parametrize("weights", [(1.0,), (1.0, 0.0, 1.0), (1.0, float("nan"), 1.0), (1.0, -1.0, 1.0)])
def test_weights_that_are_none_are_refused(weights: tuple[float, ...], members: list[Adapter]) -> None:
    with pytest.raises(InputError, match="weight"):
        merge_exact(members, weights)
    with pytest.raises(InputError, match="no adapter to merge"):
        merge_exact([])
    with pytest.raises(InputError, match="not 0"):
        merge_svd(members, rank=0)


def test_what_is_more_than_a_low_rank_update_is_refused(make: Make, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"there is no adapter_config\.json"):
        read_adapter(tmp_path)
    folder = make(4, Lora())
    settings = json.loads((folder / "adapter_config.json").read_text())
    (folder / "adapter_config.json").write_text(json.dumps({**settings, "use_dora": True}))
    with pytest.raises(InputError, match="DoRA"):
        read_adapter(folder)
    (folder / "adapter_config.json").write_text(json.dumps({**settings, "peft_type": "IA3"}))
    with pytest.raises(InputError, match="IA3"):
        read_adapter(folder)
    (folder / "adapter_config.json").write_text(json.dumps(settings))
    (folder / "adapter_model.safetensors").write_bytes(b"cut off")
    with pytest.raises(InputError, match="cannot be read"):
        read_adapter(folder)


def test_a_folder_that_exists_is_not_overwritten(members: list[Adapter], tmp_path: Path) -> None:
    with pytest.raises(InputError, match="exists"):
        write_merged(merge_exact(members), members[0], tmp_path)


def test_another_members_update_in_the_students_weights(members: list[Adapter], tmp_path: Path) -> None:
    """From the student of one member to the others and back: what PEFT merges, to two roundings."""
    speech = load_speech_model(shared_tiny_whisper())
    student = export_student(merged_model(with_adapter(members[0].path)), speech.processor, tmp_path / "first").path
    for number, member in enumerate(members[1:]):
        out = exchange_update(student, tmp_path / f"other{number}", members[0], member)
        expected = merged_model(with_adapter(member.path)).state_dict()
        found = load_speech_model(out).model.state_dict()
        assert max(float((found[name] - expected[name]).abs().max()) for name in expected) < FLOAT32
        unchanged = {file.name: file.read_bytes() for file in student.iterdir() if file.suffix != ".safetensors"}
        assert unchanged == {file.name: file.read_bytes() for file in out.iterdir() if file.suffix != ".safetensors"}
    elsewhere = {"model.decoder.layers.9.fc1": next(iter(members[1].updates.values()))}
    with pytest.raises(InputError, match="has no layer"):
        exchange_update(student, tmp_path / "foreign", members[0], dataclasses.replace(members[1], updates=elsewhere))
    assert not (tmp_path / "foreign").exists()


def test_layers_that_keep_their_inputs_first(tmp_path: Path) -> None:
    """GPT-2's square layers do not say by their shape which way an update lies."""
    from transformers import GPT2Config, GPT2LMHeadModel

    torch.manual_seed(0)
    config = GPT2Config(n_layer=1, n_head=2, n_embd=8, vocab_size=11, n_positions=16, bos_token_id=0, eos_token_id=0)
    base = GPT2LMHeadModel(config)
    models = []
    for seed in (1, 2):
        model = add_lora(copy.deepcopy(base), Lora(targets=("attn.c_proj",)), 2, seed)
        with torch.no_grad():
            for _, parameter in trainable_parameters(model):
                parameter.add_(0.1)
        save_adapter(model, tmp_path / f"adapter{seed}", BASE)
        models.append(merged_model(model))
    models[0].save_pretrained(tmp_path / "student")
    adapters = [read_adapter(tmp_path / f"adapter{seed}") for seed in (1, 2)]
    out = exchange_update(tmp_path / "student", tmp_path / "out", *adapters)
    found, expected = GPT2LMHeadModel.from_pretrained(out).state_dict(), models[1].state_dict()
    assert max(float((found[name] - expected[name]).abs().max()) for name in expected) < FLOAT32
