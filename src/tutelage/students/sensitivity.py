"""Which blocks matter: the loss on a few training batches with each block of a model skipped in turn.

Covers skipping a block of a model that runs, the losses, and the choice. Does not cover the batches and the loss of a
task (`runs.speech.sensitivity`, `runs.text.sensitivity`) or cutting (`depth`, `shrink`).

The choice is one-shot and our own: the blocks whose removal alone raises the loss most are kept, in their order; of
equals the earlier one. It costs one pass of the batches a block and one more. Blocks that stand in for each other are
not seen: a greedy search would, at as many times the cost as blocks are removed. Related: sajjad2020 and
men2024 drop whole blocks of trained models, by their place and by how little they change the states.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from typing import Any

import torch

from tutelage.errors import InputError
from tutelage.models.verify import architecture_of
from tutelage.objectives.reduction import Reduced

UNKNOWN_LAYERS = (
    "layers kept: chosen by sensitivity when the weights are read, so neither they nor a layer map is known yet"
)


@dataclass(frozen=True)
class LayerChoice:
    """The blocks that stay, with the losses that decided; nats per token.

    Args:
        layers: Blocks that stay, from 0, rising.
        whole: Loss of the model as it is.
        without: Loss with each block skipped, first to last.
        tokens: Supervised tokens behind each loss.
        batches: Training batches that they are of.
    """

    layers: tuple[int, ...]
    whole: float
    without: tuple[float, ...]
    tokens: int
    batches: int

    def describe(self) -> str:
        """A table of the losses, as text."""
        behind = f"{self.tokens:,} tokens of {self.batches} training batches"
        lines = [
            f"layers kept by sensitivity (counted from 0; {behind}): {', '.join(map(str, self.layers))}",
            f"  whole model: {self.whole:.4f} nats per token",
        ]
        lines += [
            f"  without {layer}: {loss:.4f} ({loss - self.whole:+.4f}){'' if layer in self.layers else ', removed'}"
            for layer, loss in enumerate(self.without)
        ]
        return "\n".join(lines)

    def to_dict(self) -> dict[str, Any]:
        """Plain values, for the result."""
        return {**asdict(self), "unit": "nats per token"}


def choose_by_sensitivity(
    model: Any, kept: int, batches: Sequence[Any], loss: Callable[[Any, Any], Reduced]
) -> LayerChoice:
    """Measure every block of a model and keep those that it misses most.

    Args:
        model: Of a known architecture; of one with an encoder, blocks of the decoder are measured. Its mode is put
            back.
        kept: How many blocks stay.
        batches: A few training batches, on the model's device.
        loss: Of the model on one batch: a sum in nats, and the tokens that it is of.

    Raises:
        InputError: More blocks are to stay than there are, or a loss is not finite.
    """
    blocks = model.get_submodule(architecture_of(model.config.to_dict()).blocks)
    if kept > len(blocks):
        raise InputError(f"The student cannot keep {kept} decoder layers: the model has {len(blocks)}.")
    was_training = model.training
    model.eval()
    try:
        whole, tokens = _mean_loss(model, batches, loss)
        without = []
        for block in blocks:
            with skipped(block):
                without.append(_mean_loss(model, batches, loss)[0])
    finally:
        model.train(was_training)
    order = sorted(range(len(blocks)), key=lambda layer: (-without[layer], layer))
    return LayerChoice(tuple(sorted(order[:kept])), whole, tuple(without), tokens, len(batches))


@contextmanager
def skipped(block: torch.nn.Module) -> Iterator[None]:
    """Make a block hand on the states that it was given, as if it were not there."""

    def hand_on(_: Any, inputs: tuple[Any, ...], named: dict[str, Any], output: Any) -> Any:
        states = inputs[0] if inputs else named["hidden_states"]
        return (states, *output[1:]) if isinstance(output, tuple) else states

    handle = block.register_forward_hook(hand_on, with_kwargs=True)
    try:
        yield
    finally:
        handle.remove()


@torch.no_grad()
def _mean_loss(model: Any, batches: Sequence[Any], loss: Callable[[Any, Any], Reduced]) -> tuple[float, int]:
    found = [loss(model, batch) for batch in batches]
    total, tokens = sum(float(one.total) for one in found), sum(int(one.count) for one in found)
    mean = total / max(tokens, 1)
    if not torch.isfinite(torch.tensor(mean)):
        raise InputError("The model's loss on the training data is not finite, so its layers cannot be chosen by it.")
    return mean, tokens
