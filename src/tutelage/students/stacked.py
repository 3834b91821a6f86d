"""Students on one backbone in one pass: their samples side by side, and their LoRA matrices as one stack a layer.

Covers which students can be stacked, and the pass. Does not cover their losses and updates (`training.cohort_stacked`).

For student m of M, layer W and input x of its own samples

    y_m = W x_m + s_m B_m A_m x_m

so W x is one product over all samples, and the updates are two batched ones. Gradients reach each student's own A and
B, since the stack is made of them. Smaller ranks, and layers that a student has no adapter at, are filled with zeros.

Shape letters: M students, B samples of each, T positions, N rows of a student (B T), I inputs, O outputs, R rank.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import pad

from tutelage.objectives.signal import Signal
from tutelage.students.cohort import blocks_of, drops_at_random
from tutelage.students.lora import ADAPTER, is_adapted

Place = tuple[int, str]
"""A block and the name of a layer in it."""


def why_not_stacked(student: nn.Module) -> str | None:
    """Why a student must be run by itself; None where it may be stacked with others.

    Example:
        >>> why_not_stacked(nn.Linear(2, 2))
        'trains more than LoRA matrices in its blocks'
    """
    layers = _adapted_layers(student).values()
    if any(layer.use_dora[ADAPTER] for layer in layers):
        return "has DoRA, whose update is no product of two matrices"
    if drops_at_random(student) or any(not isinstance(layer.lora_dropout[ADAPTER], nn.Identity) for layer in layers):
        return "drops units at random, from generators of its own"
    stacked = {id(part.weight) for layer in layers for part in (layer.lora_A[ADAPTER], layer.lora_B[ADAPTER])}
    if any(one.requires_grad and id(one) not in stacked for one in student.parameters()):
        return "trains more than LoRA matrices in its blocks"
    return None


class StackedStudents:
    """Students that are run as one.

    Args:
        tree: The student whose modules are run; its own adapters count only if it is among `students`.
        students: In the order of their samples, on the backbone of `tree` (`cohort.share_weights`).
    """

    def __init__(self, tree: nn.Module, students: Sequence[nn.Module]) -> None:
        adapted = [_adapted_layers(student) for student in students]
        places = dict.fromkeys(place for layers in adapted for place in layers)
        blocks = blocks_of(tree)
        self._count = len(students)
        self._layers = [
            (blocks[block].get_submodule(name), [layers.get((block, name)) for layers in adapted])
            for block, name in places
        ]

    def run(self, forward: Callable[[], Signal]) -> list[Signal]:
        """Every student's signal on its samples.

        Args:
            forward: A pass of `tree` over M B samples, the first student's first. What it says of B samples alone
                (states of blocks that were run once for all) is everybody's.
        """
        with self._stacked():
            return split_signal(forward(), self._count)

    @contextmanager
    def _stacked(self) -> Iterator[None]:
        for module, layers in self._layers:
            module.forward = _StackedLayer(module, layers)
        try:
            yield
        finally:
            for module, _ in self._layers:
                del module.forward  # the class's own shows again


def split_signal(signal: Signal, count: int) -> list[Signal]:
    """What each of `count` students said, from one signal on their samples in turn.

    Args:
        signal: Of a student, so without sparse targets.
        count: M; a tensor of M B samples is split, one of B samples is everybody's.
    """
    tensors = signal.tensors()
    samples = len(tensors[0]) // count  # the scores come first, and they are of everybody's samples
    parts = [
        values.view(count, samples, *values.shape[1:]).unbind() if len(values) == count * samples else [values] * count
        for values in tensors
    ]
    return [_replaced(signal, own) for own in zip(*parts, strict=True)]


def _replaced(signal: Signal, tensors: Sequence[Tensor]) -> Signal:
    """The same with other tensors, in the order of `Signal.tensors`."""
    rest = iter(tensors)
    return signal.map(lambda _values: next(rest))


class _StackedLayer:
    """Stands for a linear layer, with or without an adapter, while students are stacked."""

    def __init__(self, module: Any, layers: Sequence[Any]) -> None:
        self._base = module.base_layer if is_adapted(module) else module.forward
        like = next(layer for layer in layers if layer is not None)
        rank = max(layer.r[ADAPTER] for layer in layers if layer is not None)
        self._A_MIR = torch.stack([_filled_A(layer, like, rank) for layer in layers]).mT
        self._B_MRO = torch.stack([_filled_B(layer, like, rank) for layer in layers]).mT

    def __call__(self, x: Tensor) -> Tensor:
        y: Tensor = self._base(x)
        x_MNI = x.reshape(len(self._A_MIR), -1, x.shape[-1]).to(self._A_MIR.dtype)
        update_MNO = torch.bmm(torch.bmm(x_MNI, self._A_MIR), self._B_MRO)
        return (y + update_MNO.view(y.shape)).to(y.dtype)


def _filled_A(layer: Any, like: Any, rank: int) -> Tensor:  # noqa: N802  (the paper's letter)
    """(R, I)."""
    if layer is None:
        return torch.zeros_like(like.lora_A[ADAPTER].weight[:1]).expand(rank, -1)
    A_RI: Tensor = layer.lora_A[ADAPTER].weight
    return pad(A_RI, (0, 0, 0, rank - len(A_RI)))


def _filled_B(layer: Any, like: Any, rank: int) -> Tensor:  # noqa: N802  (the paper's letter)
    """(O, R), scaled."""
    if layer is None:
        return torch.zeros_like(like.lora_B[ADAPTER].weight[:, :1]).expand(-1, rank)
    B_OR: Tensor = layer.scaling[ADAPTER] * layer.lora_B[ADAPTER].weight
    return pad(B_OR, (0, rank - B_OR.shape[1]))


def _adapted_layers(student: nn.Module) -> dict[Place, Any]:
    """The layers with an adapter, of every block in order."""
    return {
        (place, name): module
        for place, block in enumerate(blocks_of(student))
        for name, module in block.named_modules()
        if is_adapted(module)
    }
