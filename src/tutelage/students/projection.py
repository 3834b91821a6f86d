"""Projectors: the trained maps from a student's hidden width to its teacher's, used in training and dropped at export.

Covers the kinds of `students.design.Projector`, their seeded initialisation and their parameter counts. Does not cover
projectors that live on in the student.

Where the widths agree every projector starts as the identity (linear: identity matrix; the others: a skip connection
around a branch whose last layer starts at zero), so that the alignment starts at the true distance and its first
gradients move the student, not the projector. Where they differ a linear map starts semi-orthogonal: student states
keep their lengths and mutual angles (when widened), so no direction is favoured before training.

Shape letters: N positions, S student width, H teacher width, K inner width.
"""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import Tensor, nn

from tutelage.errors import InputError
from tutelage.objectives.terms import LayerPair
from tutelage.students.design import Projector


class BranchProjector(nn.Module):
    """Down (or across), GELU, up; plus its input where the widths agree.

    Args:
        student_width: S.
        inner_width: K; the bottleneck's width, or the teacher's for an MLP.
        teacher_width: H.
        generator: Source of the initial weights.
    """

    def __init__(self, student_width: int, inner_width: int, teacher_width: int, generator: torch.Generator) -> None:
        super().__init__()
        self.down = _linear(student_width, inner_width, generator)
        self.up = _linear(inner_width, teacher_width, generator)
        self.skip = student_width == teacher_width
        if self.skip:
            nn.init.zeros_(self.up.weight)

    def forward(self, h_NS: Tensor) -> Tensor:
        """(..., S) to (..., H)."""
        branch: Tensor = self.branch(h_NS)
        return h_NS + branch if self.skip else branch

    def branch(self, h_NS: Tensor) -> Tensor:
        """(..., S) to (..., H), without the input."""
        found: Tensor = self.up(nn.functional.gelu(self.down(h_NS)))
        return found


class AverageProjector(nn.Module):
    """The mean of several bottlenecks that start differently (chen2022, whose members are one layer with a ReLU).

    Members are no linear maps: those get equal gradients whatever their weights, so their mean would be trained as one
    linear map is, at so many times the parameters.

    Args:
        members: Bottlenecks of the same widths.
    """

    def __init__(self, members: Iterable[BranchProjector]) -> None:
        super().__init__()
        self.members = nn.ModuleList(members)

    def forward(self, h_NS: Tensor) -> Tensor:
        """(..., S) to (..., H)."""
        members: list[BranchProjector] = list(self.members)  # type: ignore[arg-type]  # nn.ModuleList forgets the kind
        mean = torch.stack([member.branch(h_NS) for member in members]).mean(0)
        return h_NS + mean if members[0].skip else mean


def make_projector(projector: Projector, student_width: int, teacher_width: int, seed: int) -> nn.Module:
    """Build one projector: float32, on the CPU, a function of the seed only (the global random state is untouched).

    Args:
        projector: Its settings.
        student_width: Hidden width of the student.
        teacher_width: Hidden width of the teacher.
        seed: Of the initial weights.

    Returns:
        A module from (..., student_width) to (..., teacher_width); it starts as the identity if the two agree.

    Raises:
        InputError: A width below 1, or kind "none" between different widths.

    Source:
        yang2026 (reconstruction).

    Example:
        >>> make_projector(Projector("linear"), 4, 6, seed=0)(torch.ones(3, 4)).shape
        torch.Size([3, 6])
    """
    _refuse_widths(projector, student_width, teacher_width)
    generator = torch.Generator().manual_seed(seed)
    if projector.kind == "none":
        return nn.Identity()
    if projector.kind == "linear":
        linear = _linear(student_width, teacher_width, generator)
        if student_width == teacher_width:
            nn.init.eye_(linear.weight)
        return linear
    widths = (student_width, _inner_width(projector, teacher_width), teacher_width)
    if projector.kind == "ensemble":
        return AverageProjector(BranchProjector(*widths, generator) for _ in range(projector.members))
    return BranchProjector(*widths, generator)


def make_projectors(
    projector: Projector, pairs: Iterable[LayerPair], student_width: int, teacher_width: int, seed: int
) -> nn.ModuleDict:
    """One projector per layer pair under `LayerPair.name`; the i-th is drawn from `seed` + i. See `make_projector`."""
    return nn.ModuleDict(
        {
            pair.name: make_projector(projector, student_width, teacher_width, seed + index)
            for index, pair in enumerate(pairs)
        }
    )


def count_projector_params(projector: Projector, student_width: int, teacher_width: int) -> int:
    """Trained parameters of one projector, biases included, without building it.

    Raises:
        InputError: As `make_projector`.

    Example:
        >>> [count_projector_params(Projector(kind), 1024, 1280) for kind in ("linear", "mlp")]
        [1312000, 2951680]
    """
    _refuse_widths(projector, student_width, teacher_width)
    if projector.kind == "none":
        return 0
    if projector.kind == "linear":
        return (student_width + 1) * teacher_width
    inner = _inner_width(projector, teacher_width)
    one = (student_width + 1) * inner + (inner + 1) * teacher_width
    return one * projector.members if projector.kind == "ensemble" else one


def _inner_width(projector: Projector, teacher_width: int) -> int:
    return teacher_width if projector.kind == "mlp" else projector.width


def _linear(inputs: int, outputs: int, generator: torch.Generator) -> nn.Linear:
    """A linear layer with (semi-)orthogonal weight and bias 0."""
    # Shaped on the meta device, since the usual constructor draws from the global random state.
    layer = nn.Linear(inputs, outputs, device="meta", dtype=torch.float32).to_empty(device="cpu")
    nn.init.orthogonal_(layer.weight, generator=generator)
    nn.init.zeros_(layer.bias)
    return layer


def _refuse_widths(projector: Projector, student_width: int, teacher_width: int) -> None:
    if student_width < 1 or teacher_width < 1:
        raise InputError(f"a projector needs widths of at least 1, not {student_width} and {teacher_width}")
    if projector.kind == "none" and student_width != teacher_width:
        raise InputError(
            f'projector "none" compares states as they are, but the student is {student_width} wide and the teacher '
            f"{teacher_width}; choose linear, bottleneck, ensemble or mlp"
        )
