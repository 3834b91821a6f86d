"""What training LoRA adapters costs beside training every weight.

Covers: FLOPs per token from a published law's F(N) and, where the student's configuration is known, from that. Does not
cover: the loss of a student with adapters: the laws were fitted on training every weight.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from tutelage.errors import InputError
from tutelage.laws.architecture import count_flops
from tutelage.laws.compute import ForwardCost
from tutelage.laws.validity import not_positive
from tutelage.planning.parts import as_document, known
from tutelage.records.estimate import Estimate
from tutelage.units import Params, format_quantity

LORA_CAVEAT = (
    "The laws were fitted on training every weight: of a LoRA student the plan knows what its training costs, not what "
    "loss it reaches."
)


@dataclass(frozen=True)
class LoraStudent:
    """A student of which adapters alone are trained.

    Args:
        adapter_params: Parameters of all adapters; or None, where `share` is given.
        share: Adapter parameters over the student's; or None.
        config: The student's configuration (`config.json`), from which its FLOPs are counted; None for the law's F(N).
        context: Tokens of a sequence, where a configuration is counted.

    Raises:
        InputError: With every fault.
    """

    adapter_params: Params | None = None
    share: float | None = None
    config: Mapping[str, Any] | None = None
    context: int = 4096

    def __post_init__(self) -> None:
        faults = not_positive({"lora: adapter_params": self.adapter_params, "lora: share": self.share})
        if (self.adapter_params is None) == (self.share is None):
            faults.append("lora: give either the adapters' parameters or their share of the student's")
        if self.share is not None and self.share > 1.0:
            faults.append(f"lora: share is {self.share:g}; adapters are smaller than the student (at most 1)")
        if self.context < 1:
            faults.append(f"lora: context is {self.context}; it must be at least 1")
        if faults:
            raise InputError(faults)

    def params_of(self, student_params: Params) -> Params:
        """Adapter parameters on a student of that size."""
        return self.adapter_params if self.adapter_params is not None else (self.share or 0.0) * student_params


@dataclass(frozen=True)
class LoraCost:
    """Training cost per token with adapters and without.

    Args:
        full_training_flops_per_token: Training every weight.
        lora_training_flops_per_token: Training the adapters alone.
        ratio: The second over the first.
        adapter_params: Parameters of the adapters.
        counted_from: "configuration" or "F(N)".
        text: The same in a sentence.
        flops: What the chosen way costs with adapters; None before a plan has chosen one.
    """

    full_training_flops_per_token: Estimate
    lora_training_flops_per_token: Estimate
    ratio: Estimate
    adapter_params: Estimate
    counted_from: str
    text: str
    flops: Estimate | None = None

    def to_dict(self) -> dict[str, object]:
        """The JSON form."""
        return as_document(self)


def lora_flops(forward: ForwardCost, params: Params, adapter_params: Params) -> float:
    """FLOPs per token of training adapters in every block of a model of `params` parameters, the rest frozen.

    F + F_lin + 2 F_attn + F_head + 6 N_adapter: frozen weights need no gradient of their own, products of positions
    with positions have two inputs and no weights. F(N) = F_lin + F_attn + F_head are the three terms of the law's
    forward cost: 2N, the one in the context, the one in the vocabulary.

    Args:
        forward: The law's forward cost.
        params: N, non-embedding parameters of the frozen model.
        adapter_params: N_adapter.

    Source: own model, on F(N) of `busbridge2025` App. H; `tutelage.laws.architecture` counts a known configuration.

    Example:
        >>> whole = float(ForwardCost().training_per_token(1e9))
        >>> f"{lora_flops(ForwardCost(), 1e9, 1e7) / whole:.3f}"
        '0.717'
    """
    linear, attention, head = (float(part) for part in forward.split(params))
    return 2.0 * (linear + head) + 3.0 * attention + 6.0 * adapter_params


def cost_lora(forward: ForwardCost, student_params: Params, student: LoraStudent) -> LoraCost:
    """What training one token costs with adapters and without.

    Raises:
        InputError: The configuration is of a model that is not counted.
    """
    adapters = student.params_of(student_params)
    if student.config is None:
        full = float(forward.training_per_token(student_params))
        lora, source = lora_flops(forward, student_params, adapters), "F(N)"
    else:
        counted = count_flops(student.config, student.context)
        full = counted.training / student.context
        lora, source = counted.lora_training(adapters * student.context) / student.context, "configuration"
    text = (
        f"training {format_quantity(adapters)} adapter parameters takes {lora:.3g} FLOPs a token, {lora / full:.0%} of "
        f"training every weight ({full:.3g}); counted from "
        + ("the law's F(N), a model: adapters in every block" if source == "F(N)" else "the student's configuration")
    )
    return LoraCost(known(full), known(lora), known(lora / full), known(adapters), source, text)
