"""An objective: weighted terms over one student signal and one teacher signal.

Covers evaluating every term as (sum, count) and the one place that divides by counts and applies weights and T**2.
Does not cover the equations of the terms, gathering counts over micro-batches and ranks, or the backward pass
(`training.step`).

L = w_ce * CE + w_kl * T**2 * KL(p_T || p_S) + w_geo * mean over pairs and positions of angle(P(h_S), h_T)
(yang2026, reconstruction).

Shape letters: B batch, T positions, V vocabulary, H hidden, N kept positions.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TypeAlias

import torch
from torch import Tensor, nn

from tutelage.errors import TutelageError
from tutelage.objectives.baselines import AlignmentBaselines, alignment_baselines
from tutelage.objectives.chunks import Losses, sum_over_positions
from tutelage.objectives.likelihood import label_losses
from tutelage.objectives.position_terms import divergence_losses, vocabulary_of
from tutelage.objectives.reduction import Reduced
from tutelage.objectives.signal import Signal
from tutelage.objectives.state_terms import Groups, compare_heard, compare_states, count_units, kept_states
from tutelage.objectives.targets import SparseTargets
from tutelage.objectives.terms import LayerPair, Term

Projectors: TypeAlias = Mapping[str, nn.Module] | nn.ModuleDict
"""One module per layer pair, from student width to teacher width, by `LayerPair.name`."""


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
        comparing = [term.kind for term in terms if term.compares_states]
        self.pairs: tuple[LayerPair, ...] = tuple(pairs) if comparing else ()
        if comparing and not self.pairs:
            raise ValueError(f"term {comparing[0]} aligns states, yet no layer pair is given")

    @property
    def needs_teacher(self) -> bool:
        """Whether any term reads the teacher's signal."""
        return any(term.family != "likelihood" for term in self.terms.values())

    @property
    def student_layers(self) -> tuple[int, ...]:
        """Student blocks whose states must be in its signal, ascending."""
        return tuple(sorted({pair.student for pair in self.pairs if pair.side == "decoder"}))

    @property
    def teacher_layers(self) -> tuple[int, ...]:
        """Teacher blocks whose states must be in its signal, ascending."""
        return tuple(sorted({pair.teacher for pair in self.pairs if pair.side == "decoder"}))

    def weights_at(self, step: int) -> dict[str, float]:
        """Every term's weight at an optimiser step (the first is 1), by its schedule: the one place that asks it."""
        return {name: term.weight_at(step) for name, term in self.terms.items()}

    def scales_at(self, step: int) -> dict[str, float]:
        """What each term's mean is multiplied by: its weight, and T**2 for a divergence at temperature T.

        T**2 because the gradient of a softened divergence shrinks as 1/T**2 (hinton2015, section 2).
        """
        return {
            name: weight * (self.terms[name].temperature ** 2 if self.terms[name].family == "divergence" else 1.0)
            for name, weight in self.weights_at(step).items()
        }

    def slopes(self, counts: Mapping[str, int | Tensor], step: int = 1) -> dict[str, float]:
        """What `combine` multiplies each term's total by, so that `evaluate` can make gradients of it right away."""
        return {name: scale / _divisor(counts[name]) for name, scale in self.scales_at(step).items()}

    def counts(self, keep_BT: Tensor) -> dict[str, int]:
        """What each term will count on a batch, from its mask alone: kept positions; sets; differences along time.

        Summed over micro-batches and ranks before the first backward pass, these are the divisors of `combine`.
        """
        groups = Groups.of(keep_BT)
        return {name: count_units(term, groups) for name, term in self.terms.items()}

    def evaluate(
        self,
        student: Signal,
        teacher: Signal | None,
        labels_BT: Tensor,
        keep_BT: Tensor,
        projectors: Projectors,
        slopes: Mapping[str, float] | None = None,
    ) -> dict[str, Reduced]:
        """Every term, unweighted and undivided, by its kind; float32 whatever the signals' dtype or autocast.

        Args:
            student: Gradients flow into this.
            teacher: Detached. None only if `needs_teacher` is false.
            labels_BT: The right class at each position; read at kept positions only.
            keep_BT: True where a position is supervised. Alignments compare the same positions.
            projectors: One module per pair under `LayerPair.name`, for terms that project. They see kept positions
                only, so that garbage at a dropped position cannot reach their gradients.
            slopes: From `slopes`, where they are known: gradients from deferred logits are then made in one walk.

        Returns:
            Sums with the counts of `counts`. An alignment is averaged over pairs. T**2 is not inside.

        Raises:
            InputError: Vocabularies or widths differ, or a cached teacher does not serve a term.
            ValueError: A term needs the teacher and there is none.
        """
        if self.needs_teacher and teacher is None:
            raise ValueError(f"the objective ({', '.join(self.terms)}) compares with a teacher, and none was given")
        if isinstance(student.scores, SparseTargets):
            raise ValueError("a student has logits; sparse targets are a teacher's")
        reduced: dict[str, Reduced] = {}
        with torch.autocast(device_type=student.device.type, enabled=False):
            losses = self._position_losses(student, teacher, labels_BT, keep_BT)
            if losses:
                expected = None if slopes is None else [slopes[name] for name in losses]
                totals = sum_over_positions(list(losses.values()), student.scores, keep_BT, expected)
                reduced |= zip(losses, totals, strict=True)
            if self.pairs and teacher is not None:
                reduced |= self._compare_states(student, teacher, keep_BT, projectors)
        return {name: reduced[name] for name in self.terms}

    def combine(self, reduced: Mapping[str, Reduced], counts: Mapping[str, int | Tensor], step: int = 1) -> Tensor:
        """The scalar to minimise: the sum over terms of scale * total / count. The one place that divides.

        Args:
            reduced: From `evaluate`, of one micro-batch on one rank.
            counts: From `counts`, summed over all micro-batches and ranks of the optimiser step *before* the first
                backward. The parts' scalars then add up to that of the whole batch, and so do their gradients. A term
                that has nothing to count in this step, while others have, adds nothing.
            step: The optimiser step, for weights with a schedule; the first is 1.

        Raises:
            TutelageError: Nothing is counted by any term.
        """
        _require_counted(counts)
        scales = self.scales_at(step)
        return torch.stack([_divide(reduced[name], counts[name]) * scales[name] for name in self.terms]).sum()

    def means(self, reduced: Mapping[str, Reduced], counts: Mapping[str, int | Tensor]) -> dict[str, float]:
        """Every unweighted term per unit counted (nats, radians, ...), for logging; 0 where it has none."""
        _require_counted(counts)
        return {name: float(_divide(reduced[name], counts[name]).detach()) for name in self.terms}

    def baselines(
        self,
        student: Signal,
        teacher: Signal,
        keep_BT: Tensor,
        projectors: Projectors,
        seed: int = 0,
    ) -> dict[str, AlignmentBaselines]:
        """Mean angle of each projected pair, by `LayerPair.name`, beside its mean-vector and shuffled baselines."""
        if not any(term.projected for term in self.terms.values()):
            return {}
        with torch.no_grad(), torch.autocast(device_type=keep_BT.device.type, enabled=False):
            found = {}
            for pair in self.pairs:
                h_S_NH, h_T_NH = _states_of(pair, student, teacher, keep_BT)
                found[pair.name] = alignment_baselines(projectors[pair.name](h_S_NH), h_T_NH, seed)
            return found

    def _position_losses(
        self, student: Signal, teacher: Signal | None, labels_BT: Tensor, keep_BT: Tensor
    ) -> dict[str, Losses]:
        """The terms that read scores, which walk over the positions together."""
        losses: dict[str, Losses] = {}
        for name, term in self.terms.items():
            if term.family == "likelihood":
                losses[name] = label_losses(labels_BT)
            elif term.family == "divergence" and teacher is not None:
                classes = None if student.classes is teacher.classes else teacher.classes
                losses[name] = divergence_losses(term, vocabulary_of(student.scores), teacher.scores, keep_BT, classes)
        return losses

    def _compare_states(
        self,
        student: Signal,
        teacher: Signal,
        keep_BT: Tensor,
        projectors: Projectors,
    ) -> dict[str, Reduced]:
        comparing = [term for term in self.terms.values() if term.compares_states]
        groups = Groups.of(keep_BT)
        by_pair: dict[str, list[Reduced]] = {term.kind: [] for term in comparing}
        for pair in self.pairs:
            h_S_NH, h_T_NH = _states_of(pair, student, teacher, keep_BT)
            z_NH = projectors[pair.name](h_S_NH) if any(term.projected for term in comparing) else h_S_NH
            for term in comparing:
                states = (z_NH if term.projected else h_S_NH, h_T_NH)
                if pair.side == "encoder" and teacher.heard_BS is not None:
                    by_pair[term.kind].append(compare_heard(term, *states, teacher.heard_BS, keep_BT))
                else:
                    by_pair[term.kind].append(compare_states(term, *states, groups))
        return {
            name: Reduced(torch.stack([one.total for one in found]).mean(), found[0].count)
            for name, found in by_pair.items()
        }


def _states_of(pair: LayerPair, student: Signal, teacher: Signal, keep_BT: Tensor) -> tuple[Tensor, Tensor]:
    """What a pair compares: both sides' states at supervised positions, or where sound was heard; (N, H) each."""
    if pair.side == "decoder":
        return (
            kept_states(student.states[pair.student], keep_BT),
            kept_states(teacher.states[pair.teacher].detach(), keep_BT),
        )
    if student.heard_BSH is None or teacher.heard_BSH is None or teacher.heard_BS is None:
        raise ValueError("a pair of encoder blocks is compared, and the signals do not say what the encoders put out")
    return kept_states(student.heard_BSH, teacher.heard_BS), kept_states(teacher.heard_BSH.detach(), teacher.heard_BS)


def _divide(reduced: Reduced, count: int | Tensor) -> Tensor:
    return reduced.total / _divisor(count)


def _divisor(count: int | Tensor) -> float:
    return max(1.0, float(count))  # a term without any unit has a total of 0


def _require_counted(counts: Mapping[str, int | Tensor]) -> None:
    if not any(float(count) > 0 for count in counts.values()):
        raise TutelageError(
            f"term {', '.join(counts)}: the optimiser step supervises no position, so there is no mean to take"
        )
