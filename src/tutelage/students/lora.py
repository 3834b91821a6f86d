"""Low-rank adapters on chosen layers of a model, through PEFT.

Covers which modules a target names, how many there must be, their ranks, counting adapters without building them, and
adding them with weights that depend on the seed alone. Does not cover the budget (`budget`), starting from the weights
(`pissa`), merging or saving (`export`). Works on the meta device for everything but `add_lora`.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import Any

import torch

from tutelage.errors import InputError
from tutelage.models.architectures import Architecture
from tutelage.models.compute import layer_sizes
from tutelage.models.verify import architecture_of
from tutelage.students.budget import Trainables
from tutelage.students.design import Lora
from tutelage.students.pissa import start_from_principal

ADAPTER = "default"
_PREFIX = "base_model.model."
_SELF_ONLY, _SELF_AND_CROSS = 1, 2


def target_modules(model: Any, lora: Lora) -> tuple[str, ...]:
    """Full names of the linear layers that get an adapter, in the model's order.

    A target matches a layer inside a block by its last name, or by more of its path: `q_proj` is in self- and
    cross-attention, `encoder_attn.q_proj` in cross-attention alone.

    Args:
        model: A model of a known architecture, or one on the meta device.
        lora: Targets and scope; a language model is all "decoder".

    Raises:
        InputError: A target matches nothing, or not once per attention and layer as it must. The names that do exist
            are listed.
    """
    candidates = _linear_layers(model, lora)
    matched: list[str] = []
    for target in lora.targets:
        found = [name for name, inside in candidates if _matches(inside, target)]
        if not found:
            raise InputError(
                f"The LoRA target {target} matches no layer of the {_scope_name(lora)}. "
                f"There are: {', '.join(_existing(candidates))}."
            )
        expected = _expected(model.config, target, lora, len(found))
        if len(found) != expected:
            raise InputError(
                f"The LoRA target {target} matches {len(found)} layers of the {_scope_name(lora)}; the recipe implies "
                f"{expected}. There are: {', '.join(_existing(candidates))}."
            )
        matched += found
    wanted = set(matched)
    if len(wanted) != len(matched):
        raise InputError(f"The LoRA targets {', '.join(lora.targets)} name some layers twice.")
    return tuple(name for name, _ in candidates if name in wanted)


def expected_modules(config: Any, lora: Lora) -> int:
    """How many layers the recipe implies, from the configuration alone.

    Attention layers are once in an encoder block and twice in a decoder block (self and cross), feed-forward once.
    """
    return sum(_expected(config, target, lora, 0) for target in lora.targets)


def module_ranks(model: Any, lora: Lora, rank: int) -> dict[str, int]:
    """Full names of the layers that get an adapter, in the model's order, each with its rank.

    Args:
        model: A model of a known architecture, or one on the meta device.
        lora: Targets, scope and ranks of their own; its `rank` is not read, since it may be "auto".
        rank: Of every layer that has no rank of its own.

    Raises:
        InputError: As `target_modules`; or a name in `lora.ranks` counts for no adapted layer, or PiSSA is to take more
            singular parts out of a layer than it has.
    """
    inside = dict(_linear_layers(model, lora))
    ruling = {name: _ruling(inside[name], lora) for name in target_modules(model, lora)}
    faults = [
        f"The LoRA ranks name {own}, which counts for no adapted layer; there are "
        f"{', '.join(_existing((name, inside[name]) for name in ruling))}."
        for own in lora.ranks
        if own not in ruling.values()
    ]
    ranks = {name: rank if own is None else lora.ranks[own] for name, own in ruling.items()}
    if lora.init == "pissa":
        narrow = {name: min(layer_sizes(model.get_submodule(name))) for name in ranks}
        faults += [
            f"PiSSA cannot take {ranks[name]} singular parts out of {name}, which has {most}. Choose a lower rank."
            for name, most in narrow.items()
            if ranks[name] > most
        ]
    if faults:
        raise InputError(faults)
    return ranks


def count_lora_params(model: Any, lora: Lora, rank: int) -> int:
    """Parameters of the adapters at `rank`: rank * (inputs + outputs) over the layers, with DoRA + outputs.

    Raises:
        InputError: As `module_ranks`.
    """
    sizes = {name: layer_sizes(model.get_submodule(name)) for name in target_modules(model, lora)}
    lengths = sum(outputs for _, outputs in sizes.values()) if lora.use_dora else 0
    return lengths + sum(own * sum(sizes[name]) for name, own in module_ranks(model, lora, rank).items())


def adapter_trainables(model: Any, lora: Lora, projector_params: int = 0) -> Trainables:
    """What the adapters of a student train, as it depends on the rank.

    Raises:
        InputError: As `module_ranks`.
    """
    fixed = count_lora_params(model, lora, 0)
    per_rank = count_lora_params(model, lora, 1) - fixed
    most = largest_useful_rank(model, lora)
    return Trainables(per_rank, projector_params, most, fixed, dict(lora.ranks))


def largest_useful_rank(model: Any, lora: Lora) -> int:
    """The rank at which the smallest matched layer's adapter spans every update of it.

    Layers with ranks of their own are left out; where all have some, the largest of those.
    """
    ranks = module_ranks(model, lora, 0)
    open_ranks = [min(layer_sizes(model.get_submodule(name))) for name, own in ranks.items() if own == 0]
    return min(open_ranks, default=max(ranks.values()))


def add_lora(model: Any, lora: Lora, rank: int, seed: int) -> Any:
    """Wrap `model` with adapters; everything else is frozen.

    The update starts at zero (B is 0), A is drawn uniformly as in PEFT's default (Kaiming, a = sqrt(5)) from a
    generator of its own, layer by layer in the order of their names: one seed gives the same weights on every device
    and under every version of PEFT, and the global random state is left alone. With `init: pissa` nothing is drawn
    (`pissa`).

    Args:
        model: A model of a known architecture; its layers are wrapped in place. PiSSA changes their weights.
        lora: Settings; its `rank` is not read, since it may be "auto".
        rank: Rank of every adapter that has none of its own.
        seed: Seed of A.

    Returns:
        A PeftModel whose trainable parameters are the adapters, in float32.

    Raises:
        InputError: As `module_ranks`, or PiSSA is to split weights of half precision.
    """
    from peft import LoraConfig, get_peft_model

    ranks = module_ranks(model, lora, rank)
    names = tuple(ranks)
    if lora.init == "pissa" and model.get_submodule(names[0]).weight.dtype != torch.float32:
        raise InputError("PiSSA splits the weights, which half precision cannot add up again; load them in float32.")
    others = {name: own for name, own in ranks.items() if own != rank}
    settings = LoraConfig(
        r=rank,
        lora_alpha=lora.alpha_for(rank),
        lora_dropout=lora.dropout,
        target_modules=list(names),
        rank_pattern=others,
        alpha_pattern={name: lora.alpha_for(own) for name, own in others.items()},
        use_rslora=lora.use_rslora,
        use_dora=lora.use_dora,
        fan_in_fan_out=_keeps_inputs_first(model.get_submodule(names[0])),
        bias="none",
    )
    with torch.random.fork_rng(devices=[]):
        wrapped = get_peft_model(model, settings, adapter_name=ADAPTER)
    adapted = tuple(name.removeprefix(_PREFIX) for name, module in wrapped.named_modules() if is_adapted(module))
    if sorted(adapted) != sorted(names):
        raise InputError(f"{len(adapted)} layers were adapted, not the {len(names)} that the targets name.")
    _draw(wrapped, names, seed)
    if lora.init == "pissa":
        for name in names:
            start_from_principal(wrapped.get_submodule(f"{_PREFIX}{name}"), ADAPTER)
    return wrapped


def trainable_parameters(model: torch.nn.Module) -> tuple[tuple[str, torch.nn.Parameter], ...]:
    """Name and parameter of everything that training will move."""
    return tuple((name, parameter) for name, parameter in model.named_parameters() if parameter.requires_grad)


def _draw(wrapped: Any, names: Iterable[str], seed: int) -> None:
    generator = torch.Generator(device="cpu").manual_seed(seed)
    for name in sorted(names):
        layer = wrapped.get_submodule(f"{_PREFIX}{name}")
        A, B = layer.lora_A[ADAPTER], layer.lora_B[ADAPTER]
        start = torch.empty(A.weight.shape, dtype=torch.float32)
        torch.nn.init.kaiming_uniform_(start, a=math.sqrt(5), generator=generator)
        for part, value in ((A, start), (B, torch.zeros(B.weight.shape))):
            part.to(torch.float32)
            with torch.no_grad():
                part.weight.copy_(value)


def is_adapted(module: torch.nn.Module) -> bool:
    """Whether it is a layer with an adapter around it."""
    return hasattr(module, "lora_A") and hasattr(module, "base_layer")


def _linear_layers(model: Any, lora: Lora) -> tuple[tuple[str, str], ...]:
    """(full name, name inside its block) of every linear layer in the blocks of the scope, from its first block up."""
    places = tuple(f"{path}." for path in _scopes(architecture_of(model.config.to_dict()), lora.scope))
    blocks = min(len(model.get_submodule(place.removesuffix("."))) for place in places)
    if lora.first_block >= blocks:
        raise InputError(
            f"lora.first_block is {lora.first_block}, and the {_scope_name(lora)} has blocks 0 to {blocks - 1}."
        )
    layers = []
    for name, module in model.named_modules():
        place = next((place for place in places if name.startswith(place)), None)
        if place is None or int(name.removeprefix(place).partition(".")[0]) < lora.first_block:
            continue
        if isinstance(module, torch.nn.Linear) or _keeps_inputs_first(module):
            layers.append((name, name.removeprefix(place).partition(".")[2]))
    return tuple(layers)


def _scopes(architecture: Architecture, scope: str) -> tuple[str, ...]:
    """Paths of the lists of blocks in a scope."""
    if architecture.encoder_blocks is None:
        if scope != "decoder":
            raise InputError(f'A {architecture.model_type} model has no encoder; its LoRA scope is "decoder".')
        return (architecture.blocks,)
    halves = {"encoder": (architecture.encoder_blocks,), "decoder": (architecture.blocks,)}
    return halves.get(scope, (architecture.encoder_blocks, architecture.blocks))


def _keeps_inputs_first(module: torch.nn.Module) -> bool:
    """GPT-2's linear layer, whose weight is (inputs, outputs)."""
    return type(module).__name__ == "Conv1D" and hasattr(module, "nf")


def _matches(inside: str, target: str) -> bool:
    return inside == target or inside.endswith(f".{target}")


def _ruling(inside: str, lora: Lora) -> str | None:
    """The name in `lora.ranks` that counts for a layer: the longest that matches."""
    return max((own for own in lora.ranks if _matches(inside, own)), key=len, default=None)


def _expected(config: Any, target: str, lora: Lora, found: int) -> int:
    if architecture_of(config.to_dict()).encoder_blocks is None:
        # A name may stand twice in a block (GPT-2's c_proj), but as often in each.
        blocks = int(config.num_hidden_layers) - lora.first_block
        return blocks * max(1, found // blocks)
    attention = target.endswith("_proj")
    cross = target.startswith("encoder_attn.")
    in_decoder = _SELF_AND_CROSS if attention and "." not in target else _SELF_ONLY
    decoder = (int(config.decoder_layers) - lora.first_block) * in_decoder if lora.scope != "encoder" else 0
    encoder = int(config.encoder_layers) - lora.first_block if lora.scope != "decoder" and not cross else 0
    return decoder + encoder


def _existing(candidates: Iterable[tuple[str, str]]) -> tuple[str, ...]:
    """Names that a target may use: the last names, then the longer ones."""
    inside = list(dict.fromkeys(name for _, name in candidates))
    return tuple(dict.fromkeys([*(name.split(".")[-1] for name in inside), *inside]))


def _scope_name(lora: Lora) -> str:
    return "encoder and decoder" if lora.scope == "both" else lora.scope
