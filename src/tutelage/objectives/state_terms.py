"""Alignments over the kept positions of a batch: which positions are compared together, and how many losses that makes.

Covers grouping by position, by set (one row of a batch: an utterance or document) and by run, centring, and the count
of every term from the mask alone, so that it is known before the models run. Does not cover the equations
(`alignments`) or projectors (`students.projection`).

Shape letters: B batch, T positions, H hidden, N kept positions.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from tutelage.errors import InputError
from tutelage.objectives.alignments import alignments
from tutelage.objectives.reduction import Reduced, gather_kept
from tutelage.objectives.terms import Term


@dataclass(frozen=True)
class Groups:
    """The kept positions of a batch, in reading order, cut into groups.

    Args:
        sets: Kept positions of every row.
        runs: Lengths of the stretches of kept positions without a gap, row by row.
    """

    sets: tuple[int, ...]
    runs: tuple[int, ...]

    @classmethod
    def of(cls, keep_BT: Tensor) -> Groups:
        """The groups of a mask (B, T)."""
        if keep_BT.dtype != torch.bool or keep_BT.ndim != 2:
            raise ValueError(f"a boolean mask (B, T) is needed, not {keep_BT.dtype} of shape {tuple(keep_BT.shape)}")
        edged = torch.nn.functional.pad(keep_BT.to("cpu", torch.int8), (1, 1)).diff(dim=1)
        starts, ends = (edged == 1).nonzero()[:, 1], (edged == -1).nonzero()[:, 1]
        return cls(tuple(keep_BT.sum(1).tolist()), tuple((ends - starts).tolist()))

    @property
    def positions(self) -> int:
        """Kept positions."""
        return sum(self.sets)


def count_units(term: Term, groups: Groups) -> int:
    """What a term divides by: kept positions, or for an alignment of sets or runs the losses that they have."""
    if not term.compares_states:
        return groups.positions
    return sum(_units(term, size) for size in _sizes(term, groups))


def compare_states(term: Term, z_NH: Tensor, h_NH: Tensor, groups: Groups) -> Reduced:
    """An alignment, summed over its positions, sets or runs.

    Args:
        term: Its kind, centring and temperature.
        z_NH: Student states at kept positions, in reading order; projected where the kind asks for it.
        h_NH: Teacher states at the same positions; detached.
        groups: Of the mask.

    Returns:
        Sum in the kind's own unit, and `count_units`.

    Raises:
        InputError: Widths differ, and the kind compares state by state.
    """
    member = alignments()[term.kind]
    z_NH, h_NH = z_NH.float(), h_NH.detach().float()
    if member.projected:
        require_widths(z_NH, h_NH)
    options = (term.temperature,) if member.takes_temperature else ()
    sizes = _sizes(term, groups)
    losses = []
    for z_nH, h_nH in zip(torch.split(z_NH, sizes), torch.split(h_NH, sizes), strict=True):
        if _units(term, len(z_nH)) == 0:
            continue
        if _centred(term):
            z_nH, h_nH = z_nH - z_nH.mean(0), h_nH - h_nH.mean(0)
        losses.append(member.losses(z_nH, h_nH, *options))
    total = torch.cat(losses).sum() if losses else z_NH[:0].sum()
    return Reduced(total, count_units(term, groups))


def compare_heard(term: Term, z_NH: Tensor, h_NH: Tensor, heard_BS: Tensor, keep_BT: Tensor) -> Reduced:
    """An alignment over what was heard, counted as one over the supervised positions.

    The mean over each utterance's own sound counts as often as the utterance has units by its supervised positions, so
    that divisors are known from the labels' mask and no split into micro-batches changes a loss.

    Args:
        term: Its kind, centring and temperature.
        z_NH: Student states where sound was heard, in reading order; projected where the kind asks for it.
        h_NH: Teacher states at the same places; detached.
        heard_BS: Where sound was heard.
        keep_BT: True where a position is supervised.

    Returns:
        Sum in the kind's own unit, and `count_units` of `keep_BT`.
    """
    sizes = heard_BS.sum(1).tolist()
    losses = []
    for z_nH, h_nH, keep_1T in zip(
        torch.split(z_NH, sizes), torch.split(h_NH, sizes), torch.split(keep_BT, 1), strict=True
    ):
        units = count_units(term, Groups.of(keep_1T))
        found = compare_states(term, z_nH, h_nH, Groups((len(z_nH),), (len(z_nH),)))
        if units and found.count:
            losses.append(units * found.total / found.count)
    total = torch.stack(losses).sum() if losses else z_NH[:0].float().sum()
    return Reduced(total, count_units(term, Groups.of(keep_BT)))


def kept_states(state_BTH: Tensor, keep_BT: Tensor) -> Tensor:
    """States at kept positions, in reading order, float32."""
    return gather_kept(state_BTH, keep_BT).float()


def require_widths(z_NH: Tensor, h_NH: Tensor) -> None:
    """Refuse states of different width.

    Raises:
        InputError: They differ.
    """
    if z_NH.shape[-1] != h_NH.shape[-1]:
        raise InputError(
            f"alignment: projected student states are {z_NH.shape[-1]} wide and the teacher's {h_NH.shape[-1]}; "
            "choose a projector (linear, bottleneck, ensemble or mlp) that maps the one width to the other."
        )


def _centred(term: Term) -> bool:
    return term.centre or alignments()[term.kind].centring == "always"


def _sizes(term: Term, groups: Groups) -> list[int]:
    """Sizes of the groups that the term compares, which add up to the kept positions."""
    by = alignments()[term.kind].group
    if by == "position" and not _centred(term):
        return [groups.positions]  # positions stand alone, so one group of all is the same, and faster
    return list(groups.runs if by == "run" else groups.sets)


def _units(term: Term, size: int) -> int:
    member = alignments()[term.kind]
    return 0 if size < member.smallest + _centred(term) else member.units(size)
