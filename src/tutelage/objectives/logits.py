"""Logits that have not been made yet: final states and the head that turns them into logits.

Covers the head with what models put around it (bias, adapters, scale, soft cap). Does not cover when logits are made
(`chunks`, a few positions at a time).

Shape letters: B batch, T positions, V vocabulary, H hidden, N positions.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass

import torch
from torch import Tensor, nn


@dataclass(frozen=True)
class Head:
    """From final states to logits.

    Equation: softcap(scale * apply(h)), softcap(x) = cap * tanh(x / cap).

    Args:
        apply: (N, H) to (N, V): a linear layer, one with adapters around it, or any function.
        vocabulary: V.
        parameters: What `apply` reads, so that those which are trained get their gradient; the first one's dtype is
            that of the product.
        scale: Factor of the logits.
        softcap: Cap on their size; None caps nothing.
        autocast: Dtype of the product in mixed precision, whose region has ended when logits are made; None is none.
    """

    apply: Callable[[Tensor], Tensor]
    vocabulary: int
    parameters: tuple[Tensor, ...]
    scale: float = 1.0
    softcap: float | None = None
    autocast: torch.dtype | None = None

    @classmethod
    def of(cls, module: nn.Module, vocabulary: int, scale: float = 1.0, softcap: float | None = None) -> Head:
        """The head that is a module: a `Linear`, or one wrapped by PEFT, whose adapters are then part of it."""
        return cls(module, vocabulary, tuple(module.parameters()), scale, softcap)

    @property
    def trained(self) -> tuple[Tensor, ...]:
        """The parameters that require a gradient."""
        return tuple(parameter for parameter in self.parameters if parameter.requires_grad)

    def logits(self, h_NH: Tensor) -> Tensor:
        """(..., V), in the head's dtype or that of `autocast`."""
        with self._precision(h_NH.device.type):
            logits_NV = self.apply(h_NH.to(self.parameters[0].dtype) if self.parameters else h_NH)
        if self.scale != 1.0:
            logits_NV = self.scale * logits_NV
        return logits_NV if self.softcap is None else self.softcap * torch.tanh(logits_NV / self.softcap)

    def _precision(self, device_type: str) -> AbstractContextManager[object]:
        if self.autocast is None:
            return nullcontext()
        # Some releases of torch would hand on weights that were cast without gradients to where those are wanted.
        return torch.autocast(device_type, self.autocast, cache_enabled=False)


@dataclass(frozen=True)
class DeferredLogits:
    """What logits will be made of.

    Args:
        states_BTH: Final states, as the head reads them (after the final norm).
        head: The head.
    """

    states_BTH: Tensor
    head: Head

    def made(self) -> Tensor:
        """All logits at once, (B, T, V)."""
        return self.head.logits(self.states_BTH)
