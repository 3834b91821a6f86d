"""A teacher that is run beside the student: frozen, in evaluation mode, without gradients.

Covers any model for which there is a function (model, batch, layers) -> Signal, such as `tasks.speech.forward.decode`.
Does not cover cached targets, committees, or where the model comes from (`models.load`).
"""

from __future__ import annotations

from collections.abc import Callable, Collection
from typing import Generic, TypeVar

import torch
from torch import Tensor, nn

from tutelage.errors import PreflightError
from tutelage.objectives.signal import Signal

BatchT = TypeVar("BatchT")
Forward = Callable[[nn.Module, BatchT, Collection[int]], Signal]
"""Runs a model on a batch and returns its logits and the states of the named blocks."""


class LiveTeacher(Generic[BatchT]):
    """Freezes a model and answers batches with its signal.

    The model is frozen and put in evaluation mode here, and both are checked again at every call: a student that
    shares a module with its teacher (instead of a copy) would thaw it, or switch its dropout on, later.

    Args:
        model: The teacher; frozen in place, left in evaluation mode. It stays on its own device, in its own dtype.
        layers: 1-based blocks whose states an objective compares (`Objective.teacher_layers`).
        forward: The pass itself.

    Raises:
        PreflightError: If a parameter still requires a gradient once the model is frozen.
    """

    def __init__(self, model: nn.Module, layers: Collection[int], forward: Forward[BatchT]) -> None:
        self._model = model.eval().requires_grad_(False)
        self._layers = tuple(sorted(set(layers)))
        self._forward = forward
        self._require_frozen()

    @property
    def layers(self) -> tuple[int, ...]:
        """The blocks whose states every signal carries, ascending."""
        return self._layers

    @torch.no_grad()
    def signal(self, batch: BatchT) -> Signal:
        """The teacher's logits and states on one batch, detached.

        Raises:
            PreflightError: If the model was thawed or put in training mode since it was frozen.
        """
        self._require_frozen()
        return self._forward(self._model, batch, self._layers)

    def check_repeatable(self, batch: BatchT) -> None:
        """Run the teacher twice and compare: a teacher that draws random numbers, or learns, is refused.

        Raises:
            PreflightError: If the passes differ in any bit, or carry a gradient.
        """
        first, second = self.signal(batch), self.signal(batch)
        pairs = {"logits": (first.logits_BTV, second.logits_BTV)}
        pairs |= {f"states of block {layer}": (first.states[layer], second.states[layer]) for layer in self._layers}
        for name, (one, other) in pairs.items():
            if not _same_bits(one, other):
                raise PreflightError(
                    f"Two passes of the teacher over one batch differ in their {name}, so its targets are not fixed; "
                    "switch off what is random in its forward pass."
                )
            if one.requires_grad:
                raise PreflightError(f"The teacher's {name} carry a gradient; its forward pass must not enable them.")

    def _require_frozen(self) -> None:
        thawed = [name for name, parameter in self._model.named_parameters() if parameter.requires_grad]
        if thawed:
            raise PreflightError(
                f"The teacher has {len(thawed)} parameters that require a gradient ({thawed[0]} is the first), so it "
                "would be trained; give the student a copy of the teacher's modules, not the modules themselves."
            )
        training = [name or "the model itself" for name, module in self._model.named_modules() if module.training]
        if training:
            raise PreflightError(
                f"The teacher has {len(training)} modules in training mode ({training[0]} is the first), so its "
                "dropout is on; give the student a copy of the teacher's modules, not the modules themselves."
            )


def _same_bits(one: Tensor, other: Tensor) -> bool:
    """Equal everywhere, NaN counting as equal to NaN."""
    return one.shape == other.shape and bool(((one == other) | (one.isnan() & other.isnan())).all())
