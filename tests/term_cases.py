"""A batch of random signals, and every kind of term with every option: what the contract tests run over."""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from torch import Tensor, nn

from tutelage.objectives.alignments import alignments
from tutelage.objectives.divergences import divergences
from tutelage.objectives.objective import Objective
from tutelage.objectives.signal import Signal
from tutelage.objectives.terms import TERM_FAMILIES, LayerPair, Term

PAIRS = (LayerPair(1, 2), LayerPair(2, 4))
B, T, V, H_S, H_T = 5, 7, 11, 6, 8


def every_term() -> list[Term]:
    """Each kind plain, and with each of its options on."""
    terms = [Term(kind) for kind in sorted(TERM_FAMILIES)]
    for kind, member in divergences().items():
        terms += [
            Term(kind, temperature=2.0),
            Term(kind, temperature=7.0),
            Term(kind, temperature=2.0, standardise=True),
        ]
        terms += [
            Term(kind, mix=mix) for mix in (0.0, 1e-3, 0.9) if member.mix is not None and mix not in member.vanishes_at
        ]
    for kind, member in alignments().items():
        terms += [Term(kind, centre=True)] if member.centring == "option" else []
        terms += [Term(kind, temperature=0.2)] if member.takes_temperature else []
    return terms


def name_of(term: Term) -> str:
    """Kind and what differs from its defaults."""
    plain = Term(term.kind)
    options = [f"{name}={getattr(term, name)}" for name in ("temperature", "mix", "standardise", "centre")]
    return "-".join(
        [term.kind, *(o for o in options if o.partition("=")[2] != str(getattr(plain, o.partition("=")[0])))]
    )


TERMS = every_term()
COMPARISONS = [term for term in TERMS if term.family in ("divergence", "alignment")]


@dataclass
class Case:
    """Signals of student and teacher over one batch, with labels, mask and projectors."""

    student: Signal
    teacher: Signal
    labels_BT: Tensor
    keep_BT: Tensor
    projectors: nn.ModuleDict

    def rows(self, rows: slice) -> Case:
        """Some utterances of the batch."""
        cut = lambda values: values[rows]  # noqa: E731
        return Case(
            self.student.map(cut), self.teacher.map(cut), self.labels_BT[rows], self.keep_BT[rows], self.projectors
        )


def make_case(seed: int = 0, dtype: torch.dtype = torch.float32) -> Case:
    """Five utterances of 5, 2, 4, 3 and 1 kept positions, the third with a gap before its last."""
    generator = torch.Generator().manual_seed(seed)

    def draw(*shape: int) -> Tensor:
        return (2.0 * torch.randn(*shape, generator=generator)).to(dtype)

    lengths = torch.tensor([7, 2, 5, 3, 1])  # unequal on purpose
    positions = torch.arange(T)
    keep_BT = (positions >= torch.tensor([2, 0, 1, 0, 0])[:, None]) & (positions < lengths[:, None])
    keep_BT[2, 4:6] = torch.tensor([False, True])
    student = Signal(draw(B, T, V).requires_grad_(), {p.student: draw(B, T, H_S).requires_grad_() for p in PAIRS})
    teacher = Signal(draw(B, T, V), {p.teacher: draw(B, T, H_T) for p in PAIRS})
    projectors = nn.ModuleDict()
    for pair in PAIRS:
        projectors[pair.name] = nn.Linear(H_S, H_T)
        for parameter in projectors[pair.name].parameters():
            parameter.data = torch.randn(parameter.shape, generator=generator)
    return Case(student, teacher, torch.randint(0, V, (B, T), generator=generator), keep_BT, projectors)


def with_student(case: Case, student: Signal) -> Case:
    """The case with another student, whose tensors are leaves of their own."""
    leaves = student.map(lambda values: values.detach().clone().requires_grad_())
    return replace(case, student=leaves)


def objective_of(term: Term) -> Objective:
    """The term alone."""
    return Objective([term], PAIRS)


def evaluate(objective: Objective, case: Case):
    """All terms as sums and counts."""
    return objective.evaluate(case.student, case.teacher, case.labels_BT, case.keep_BT, case.projectors)


def loss_of(objective: Objective, case: Case) -> Tensor:
    """The scalar of the whole batch."""
    return objective.combine(evaluate(objective, case), objective.counts(case.keep_BT))


def gradients(loss: Tensor, case: Case) -> list[Tensor]:
    """On everything of the student, then on the projectors; zeros where there is no path."""
    wanted = [*case.student.tensors(), *case.projectors.parameters()]
    found = torch.autograd.grad(loss, wanted, allow_unused=True, retain_graph=True)
    return [torch.zeros_like(x) if g is None else g for x, g in zip(wanted, found, strict=True)]
