"""Adapters that start as the principal part of the weights they adapt (PiSSA), and their way back to ordinary LoRA.

Covers splitting a frozen weight into its largest singular parts, which are trained, and the rest, which stays frozen;
and turning what was trained into an adapter of the weight as it was. Does not cover plain adapters (`lora`) or writing
files (`export`).

    W = s B_0 A_0 + W_rest        B_0 A_0 = the R largest singular parts of W / s, W_rest in the place of W
    W + (s B A - s B_0 A_0)       what was learned, as an update of W: [A; A_0], [B, -B_0], of rank 2 R

Source: meng2024; the conversion is that of PEFT's `subtract_mutated_init`, which forgets DoRA's lengths and refuses
rsLoRA with ranks by layer. Signs of singular vectors are fixed here, so that a start does not depend on the library.

Shape letters: R rank, I inputs, O outputs of a layer.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

_START_A, _START_B = "principal_A", "principal_B"
_PREFIX = "base_model.model."


@torch.no_grad()
def start_from_principal(layer: Any, adapter: str) -> None:
    """Move the largest singular parts of a layer's weight into its adapter.

    Args:
        layer: A LoRA layer of PEFT over a float32 linear layer; changed in place. Where it started is kept beside it,
            not in its state.
        adapter: Name of the adapter.
    """
    weight = layer.get_base_layer().weight
    A, B, scale = layer.lora_A[adapter].weight, layer.lora_B[adapter].weight, layer.scaling[adapter]
    W_OI = _outputs_first(layer, weight.detach()).to("cpu", torch.float64)
    U_OR, singular_R, V_RI = torch.linalg.svd(W_OI, full_matrices=False)
    rank = A.shape[0]
    largest_R = U_OR.abs().argmax(0)
    sign_R = U_OR.gather(0, largest_R[None])[0].sign()[:rank]
    root_R = (singular_R[:rank] / scale).sqrt()
    A_RI, B_OR = ((sign_R * root_R)[:, None] * V_RI[:rank]).float(), (U_OR[:, :rank] * sign_R * root_R).float()
    # The rest is taken of what the adapter holds, so that the two add up to W whatever was rounded.
    rest_OI = (W_OI - scale * B_OR.double() @ A_RI.double()).float()
    for place, value in ((A, A_RI), (B, B_OR), (weight, _outputs_first(layer, rest_OI))):
        place.copy_(value)
    for name, start in ((_START_A, A_RI), (_START_B, B_OR)):
        layer.register_buffer(name, start.to(weight.device), persistent=False)


def started_from_principal(model: nn.Module) -> bool:
    """Whether the adapters of a model began as parts of its weights."""
    return any(hasattr(module, _START_A) for module in model.modules())


def as_ordinary_lora(
    model: Any, tensors: Mapping[str, Tensor], adapter: str
) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Saved adapters of a model, as adapters of the weights as they were: exact, at twice the rank.

    Args:
        model: The student with its adapters.
        tensors: What PEFT saves of them. DoRA's lengths stay as they are.
        adapter: Name of the adapter.

    Returns:
        The tensors, and the settings of `adapter_config.json` that change.
    """
    converted = dict(tensors)
    ranks: dict[str, int] = {}
    scaled: dict[str, float] = {}
    for full, layer in model.named_modules():
        if not hasattr(layer, _START_A):
            continue
        name = full.removeprefix(_PREFIX)
        key_A, key_B = (f"{full}.lora_{part}.weight" for part in "AB")
        A_RI, B_OR = tensors[key_A], tensors[key_B]
        start_RI, start_OR = (getattr(layer, part).to(A_RI) for part in (_START_A, _START_B))
        converted[key_A] = torch.cat([A_RI, start_RI])
        converted[key_B] = torch.cat([B_OR, -start_OR], dim=1)
        ranks[name] = len(converted[key_A])
        scaled[name] = layer.scaling[adapter] * ranks[name]
    rank, alpha = max(ranks.values()), max(scaled.values())
    settings = {
        "r": rank,
        "lora_alpha": alpha,
        "use_rslora": False,
        "rank_pattern": {name: own for name, own in ranks.items() if own != rank},
        "alpha_pattern": {name: own for name, own in scaled.items() if own != alpha},
    }
    return converted, settings


def _outputs_first(layer: Any, weight: Tensor) -> Tensor:
    """The weight as (O, I) if it is kept as (I, O), and the other way round."""
    return weight.T if layer.fan_in_fan_out else weight
