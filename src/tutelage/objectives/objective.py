"""An objective: weighted terms over one student signal and one teacher signal.

Covers evaluating every term as (sum, count) and the one place that divides by counts and applies weights and T**2.
Does not cover the equations of the terms, gathering counts over micro-batches and ranks, or the backward pass
(`training.step`).

L = w_ce * CE + w_kl * T**2 * KL(p_T || p_S) + w_geo * mean over pairs and positions of angle(P(h_S), h_T)
(yang2026, reconstruction).

Shape letters: B batch, T positions, V vocabulary, H hidden, N kept positions.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TypeAlias

import torch
from torch import Tensor, nn

from tutelage.errors import TutelageError
from tutelage.objectives.alignment import AlignmentBaselines, alignment_baselines, angle, angle2, cosine, mse
from tutelage.objectives.divergence import forward_kl
from tutelage.objectives.likelihood import cross_entropy
from tutelage.objectives.reduction import Reduced, gather_kept
from tutelage.objectives.signal import Signal
from tutelage.objectives.terms import LayerPair, Term

Projectors: TypeAlias = Mapping[str, nn.Module] | nn.ModuleDict
"""One module per layer pair, from student width to teacher width, by `LayerPair.name`."""

# One row per kind; together with its row in TERM_FAMILIES a new member inherits the contract tests.
LIKELIHOODS: Mapping[str, Callable[[Tensor, Tensor, Tensor], Reduced]] = {"cross_entropy": cross_entropy}
DIVERGENCES: Mapping[str, Callable[[Tensor, Tensor, Tensor, float], Reduced]] = {"kl": forward_kl}
ALIGNMENTS: Mapping[str, Callable[[Tensor, Tensor, Tensor], Reduced]] = {
    "angle": angle,
    "angle2": angle2,
    "cosine": cosine,
    "mse": mse,
}


class Objective:
    """Weighted terms and the layer pairs that alignments compare.

    Args:
        terms: At least one; each kind at most once, because a kind is the name of its logged number.
        pairs: (student block, teacher block) pairs; needed, and used, by alignments only.

    Raises:
        ValueError: No terms, a repeated kind, or an alignment without pairs.
    """

    def __init__(self, terms: Sequence[Term], pairs: Sequence[LayerPair] = ()) -> None:
        kinds = [term.kind for term in terms]
        if not kinds:
            raise ValueError("an objective needs at least one term")
        repeated = sorted({kind for kind in kinds if kinds.count(kind) > 1})
        if repeated:
            raise ValueError(f"term {', '.join(repeated)} is listed more than once; give it one weight")
        if len(set(pairs)) != len(pairs):
            raise ValueError("a layer pair is listed more than once")
        self.terms: Mapping[str, Term] = {term.kind: term for term in terms}
        self.pairs: tuple[LayerPair, ...] = tuple(pairs) if self._kinds_of("alignment") else ()
        if self._kinds_of("alignment") and not self.pairs:
            raise ValueError(f"term {self._kinds_of('alignment')[0]} aligns states, yet no layer pair is given")

    @property
    def needs_teacher(self) -> bool:
        """Whether any term reads the teacher's signal."""
        return any(term.family != "likelihood" for term in self.terms.values())

    @property
    def student_layers(self) -> tuple[int, ...]:
        """Student blocks whose states must be in its signal, ascending."""
        return tuple(sorted({pair.student for pair in self.pairs}))

    @property
    def teacher_layers(self) -> tuple[int, ...]:
        """Teacher blocks whose states must be in its signal, ascending."""
        return tuple(sorted({pair.teacher for pair in self.pairs}))

    @property
    def scales(self) -> dict[str, float]:
        """What each term's mean is multiplied by: its weight, and T**2 for a divergence at temperature T.

        T**2 because the gradient of a softened divergence shrinks as 1/T**2 (hinton2015, section 2).
        """
        return {
            name: term.weight * (term.temperature**2 if term.family == "divergence" else 1.0)
            for name, term in self.terms.items()
        }

    def evaluate(
        self,
        student: Signal,
        teacher: Signal | None,
        labels_BT: Tensor,
        keep_BT: Tensor,
        projectors: Projectors,
    ) -> dict[str, Reduced]:
        """Every term, unweighted and undivided, by its kind; float32 whatever the signals' dtype or autocast.

        Args:
            student: Gradients flow into this.
            teacher: Detached. None only if `needs_teacher` is false.
            labels_BT: The right class at each position; read at kept positions only.
            keep_BT: True where a position is supervised. Alignments compare the same positions.
            projectors: One module per pair under `LayerPair.name`. They see kept positions only, so that garbage at a
                dropped position cannot reach their gradients.

        Returns:
            Sums over kept positions with their count. An alignment is averaged over pairs. T**2 is not inside.

        Raises:
            InputError: Vocabularies or widths differ.
            ValueError: A term needs the teacher and there is none.
        """
        reduced: dict[str, Reduced] = {}
        with torch.autocast(device_type=student.logits_BTV.device.type, enabled=False):
            for name in self._kinds_of("likelihood"):
                reduced[name] = LIKELIHOODS[name](student.logits_BTV, labels_BT, keep_BT)
            if self.needs_teacher and teacher is None:
                raise ValueError(f"the objective ({', '.join(self.terms)}) compares with a teacher, and none was given")
            if teacher is not None:
                for name in self._kinds_of("divergence"):
                    reduced[name] = DIVERGENCES[name](
                        student.logits_BTV, teacher.logits_BTV, keep_BT, self.terms[name].temperature
                    )
                reduced |= self._evaluate_alignments(student, teacher, keep_BT, projectors)
        return {name: reduced[name] for name in self.terms}

    def combine(self, reduced: Mapping[str, Reduced], counts: Mapping[str, int | Tensor]) -> Tensor:
        """The scalar to minimise: the sum over terms of scale * total / count. The one place that divides.

        Args:
            reduced: From `evaluate`, of one micro-batch on one rank.
            counts: Kept positions by term, summed over all micro-batches and ranks of the optimiser step *before* the
                first backward. The parts' scalars then add up to that of the whole batch, and so do their gradients.

        Raises:
            TutelageError: A count is 0.
        """
        scales = self.scales
        parts = [_divide(name, reduced[name], counts[name]) * scales[name] for name in self.terms]
        return torch.stack(parts).sum()

    def means(self, reduced: Mapping[str, Reduced], counts: Mapping[str, int | Tensor]) -> dict[str, float]:
        """Every unweighted term per kept position (nats, radians, ...), for logging."""
        return {name: float(_divide(name, reduced[name], counts[name]).detach()) for name in self.terms}

    def baselines(
        self,
        student: Signal,
        teacher: Signal,
        keep_BT: Tensor,
        projectors: Projectors,
        seed: int = 0,
    ) -> dict[str, AlignmentBaselines]:
        """Mean angle of each pair, by `LayerPair.name`, beside its mean-vector and shuffled baselines, for logging."""
        with torch.no_grad(), torch.autocast(device_type=keep_BT.device.type, enabled=False):
            found = {}
            for pair in self.pairs:
                z_NH, h_NH, keep_N = _project(pair, student, teacher, keep_BT, projectors)
                found[pair.name] = alignment_baselines(z_NH, h_NH, keep_N, seed)
            return found

    def _kinds_of(self, family: str) -> list[str]:
        return [name for name, term in self.terms.items() if term.family == family]

    def _evaluate_alignments(
        self,
        student: Signal,
        teacher: Signal,
        keep_BT: Tensor,
        projectors: Projectors,
    ) -> dict[str, Reduced]:
        names = self._kinds_of("alignment")
        by_pair: dict[str, list[Reduced]] = {name: [] for name in names}
        for pair in self.pairs:
            z_NH, h_NH, keep_N = _project(pair, student, teacher, keep_BT, projectors)
            for name in names:
                by_pair[name].append(ALIGNMENTS[name](z_NH, h_NH, keep_N))
        return {
            name: Reduced(torch.stack([one.total for one in found]).mean(), found[0].count)
            for name, found in by_pair.items()
        }


def _project(
    pair: LayerPair,
    student: Signal,
    teacher: Signal,
    keep_BT: Tensor,
    projectors: Projectors,
) -> tuple[Tensor, Tensor, Tensor]:
    """Projected student rows, teacher rows and an all-True mask at the kept positions of one pair."""
    h_S_NH = gather_kept(student.states[pair.student], keep_BT).float()
    h_T_NH = gather_kept(teacher.states[pair.teacher].detach(), keep_BT)
    keep_N = torch.ones(h_S_NH.shape[0], dtype=torch.bool, device=h_S_NH.device)
    return projectors[pair.name](h_S_NH), h_T_NH, keep_N


def _divide(name: str, reduced: Reduced, count: int | Tensor) -> Tensor:
    positions = float(count)
    if positions <= 0:
        raise TutelageError(f"term {name}: the optimiser step supervises no position, so there is no mean to take")
    return reduced.total / positions
