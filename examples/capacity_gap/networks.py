"""Several small MLPs trained side by side, one batched product a layer.

Covers: networks with two equal ReLU layers and their training by Adam with warm-up and a cosine. Not here: the problem
that they learn, nor distillation.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Callable

import torch
from torch.nn import functional

WARM_UP = 0.05  # share of the steps


class Networks:
    """M networks of one shape: 2C inputs, two ReLU layers of equal width, C logits.

    Args:
        count: M.
        positions: C.
        width: Of both hidden layers.
        seed: Of the initial weights (uniform, He for the hidden layers).
    """

    def __init__(self, count: int, positions: int, width: int, seed: int) -> None:
        generator = torch.Generator().manual_seed(seed)
        self.weights: list[torch.Tensor] = []
        for inputs, outputs, gain in ((2 * positions, width, 6), (width, width, 6), (width, positions, 3)):
            uniform = 2 * torch.rand((count, inputs, outputs), generator=generator) - 1
            self.weights += [uniform * math.sqrt(gain / inputs), torch.zeros(count, 1, outputs)]
        for weight in self.weights:
            weight.requires_grad_()

    @property
    def count(self) -> int:
        """M."""
        return self.weights[0].shape[0]

    def repeat(self, times: int) -> Networks:
        """All M networks `times` over, with weights of their own."""
        other = copy.copy(self)
        other.weights = [weight.detach().repeat(times, 1, 1).requires_grad_() for weight in self.weights]
        return other

    def __call__(self, inputs: torch.Tensor) -> torch.Tensor:
        """Logits of shape (M, B, C) for inputs of shape (M, B, 2C)."""
        first, first_bias, second, second_bias, last, last_bias = self.weights
        hidden = torch.relu(torch.baddbmm(first_bias, inputs, first))
        hidden = torch.relu(torch.baddbmm(second_bias, hidden, second))
        return torch.baddbmm(last_bias, hidden, last)


def cross_entropy(logits: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
    """Mean cross-entropy of each network, shape (M,), nats per sample."""
    each = functional.cross_entropy(logits.flatten(0, 1), labels.flatten(), reduction="none")
    return each.view(labels.shape).mean(dim=1)


def train(networks: Networks, steps: int, learning_rate: float, loss: Callable[[Networks], torch.Tensor]) -> None:
    """Train in place by Adam.

    Args:
        networks: What to train.
        steps: Training steps.
        learning_rate: Peak, reached after `WARM_UP` of the steps and lowered by a cosine to 0.
        loss: Draws fresh samples and returns the *sum* over networks, so that each is trained as if alone.
    """
    optimiser = torch.optim.Adam(networks.weights, lr=learning_rate, fused=True)
    warm_up = max(1, round(WARM_UP * steps))

    def factor(step: int) -> float:
        if step < warm_up:
            return (step + 1) / warm_up
        return 0.5 * (1 + math.cos(math.pi * (step - warm_up) / (steps - warm_up)))

    schedule = torch.optim.lr_scheduler.LambdaLR(optimiser, factor)
    for _ in range(steps):
        optimiser.zero_grad()
        loss(networks).backward()
        optimiser.step()
        schedule.step()
