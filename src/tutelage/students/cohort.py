"""Students on one backbone: copies that share every frozen weight, and the frozen blocks that all of them begin with.

Covers copying a model so that a further student costs its adapters alone, finding the blocks below the lowest adapter
of any student, and handing one pass through them to all. Does not cover adapters (`lora`) or training (`training`).

Shape letters: B batch, T positions, H hidden.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from typing import Any, TypeVar

import torch
from torch import Tensor, nn

from tutelage.models.architectures import ARCHITECTURES

ModelT = TypeVar("ModelT", bound=nn.Module)

_OF_CLASSIFIERS = ("classifier_dropout", "summary_first_dropout")
"""Settings of heads that a language model does not have, above 0 in every GPT-NeoX and GPT-2."""


def share_weights(model: ModelT) -> ModelT:
    """A copy with modules of its own around the very same parameters and buffers.

    Wrapping the copy's layers (`add_lora`) leaves the model as it was. What changes a weight in place (PiSSA, merging)
    would change it for everybody, so it must not be done to such a copy.

    Args:
        model: Without adapters; its parameters are to stay frozen.

    Example:
        >>> one = nn.Linear(2, 2)
        >>> other = share_weights(one)
        >>> other is one, other.weight is one.weight
        (False, True)
    """
    shared = {id(tensor): tensor for tensor in (*model.parameters(), *model.buffers())}
    return copy.deepcopy(model, shared)


class SharedPrefix:
    """The blocks that are frozen in every student, run once a batch.

    Identity: a block that no student trains, after others like it, does the same in each of them, so its output is
    taken once and replayed. That holds to the bit unless a block draws random numbers.

    Args:
        students: With their adapters, on one backbone (`share_weights`).
    """

    def __init__(self, students: Sequence[nn.Module]) -> None:
        self._students = tuple(students)
        self.depth = 0 if any(drops_at_random(student) for student in students) else min(map(_frozen_blocks, students))

    def record(self, forward: Callable[[], object]) -> tuple[Any, ...]:
        """What the shared blocks put out.

        Args:
            forward: A pass of the first student over the batch; it is left as soon as the last shared block is done,
                and the random state is put back.
        """
        if self.depth == 0:
            return ()
        outputs: list[Any] = []

        def keep(_block: nn.Module, _given: object, output: Any) -> None:
            outputs.append(output)
            if len(outputs) == self.depth:
                raise _PrefixDone

        with ExitStack() as stack:
            for block in blocks_of(self._students[0])[: self.depth]:
                stack.callback(block.register_forward_hook(keep).remove)
            stack.enter_context(torch.random.fork_rng(devices=list(range(torch.cuda.device_count()))))
            stack.enter_context(torch.no_grad())
            try:
                forward()
            except _PrefixDone:
                return tuple(outputs)
        raise RuntimeError(f"the pass ended after {len(outputs)} of {self.depth} shared blocks")

    @contextmanager
    def replay(self, student: nn.Module, outputs: Sequence[Any]) -> Iterator[None]:
        """Within this context the shared blocks of `student` answer with what was recorded."""
        blocks = blocks_of(student)[: self.depth] if outputs else []
        for block, output in zip(blocks, outputs, strict=True):
            block.forward = _Answer(output)
        try:
            yield
        finally:
            for block in blocks:
                del block.forward  # the class's own shows again


def take_rows(output: Any, rows_N: Tensor) -> Any:
    """Some samples of a block's output: a tensor (B, ...), or a tuple that holds some."""
    if isinstance(output, Tensor):
        return output[rows_N]
    if isinstance(output, tuple):
        return tuple(take_rows(part, rows_N) for part in output)
    return output


class _PrefixDone(Exception):  # noqa: N818  (nothing went wrong)
    """The last shared block has answered; the rest of the pass is not needed."""


class _Answer:
    def __init__(self, output: Any) -> None:
        self._output = output

    def __call__(self, *_given: Any, **_named: Any) -> Any:
        return self._output


def _plain(student: nn.Module) -> Any:
    unwrap: Any = getattr(student, "get_base_model", None)  # PEFT's
    return student if unwrap is None else unwrap()


def blocks_of(student: nn.Module) -> list[Any]:
    """The blocks in order; none of a model that is not known."""
    plain = _plain(student)
    known = ARCHITECTURES.get(getattr(getattr(plain, "config", None), "model_type", ""))
    return [] if known is None else list(plain.get_submodule(known.blocks))


def _frozen_blocks(student: nn.Module) -> int:
    """How many blocks come before the first trained parameter; none where one is trained outside of the blocks."""
    blocks = blocks_of(student)
    trained = [{id(one) for one in block.parameters() if one.requires_grad} for block in blocks]
    inside = set().union(*trained)
    if any(one.requires_grad and id(one) not in inside for one in student.parameters()):
        return 0
    return next((index for index, own in enumerate(trained) if own), len(blocks))


def drops_at_random(student: nn.Module) -> dict[str, float]:
    """The settings by which the frozen model drops layers, units or attention at random in training; empty: none."""
    config = getattr(_plain(student), "config", None)
    settings = {} if config is None else config.to_dict()
    settings = {name: value for name, value in settings.items() if "drop" in name and name not in _OF_CLASSIFIERS}
    return {name: value for name, value in settings.items() if isinstance(value, float) and value > 0}
