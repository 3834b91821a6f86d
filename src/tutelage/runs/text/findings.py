"""What a run on text found: losses of every system, document by document, and how models continue.

Covers the text parts of the document. Does not cover what every task has (`runs.result`), measuring (`judge`) or the
card's text (`card`).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, ClassVar

from tutelage.models.load import count_non_embedding_params
from tutelage.records.estimate import Estimate
from tutelage.records.run import LawColumns
from tutelage.runs.result import Findings, hash_files, size_of
from tutelage.runs.teacher_folders import describe_teachers
from tutelage.runs.text.assembly import TextOutline
from tutelage.runs.text.card import write_card
from tutelage.runs.text.corpus import TokenSet
from tutelage.runs.text.judge import TextVerdict, compare
from tutelage.runs.text.materials import TextMaterials
from tutelage.runs.text.teachers import Classes
from tutelage.tasks.text.documents import Corpus


@dataclass(frozen=True)
class TextSample:
    """A held-out document's beginning and how it goes on.

    Args:
        id: The document.
        prompt: Its beginning.
        reference: What follows there.
        teacher: What the teacher writes; None without one.
        student: What the trained student writes.
    """

    id: str
    prompt: str
    reference: str
    teacher: str | None
    student: str | None


@dataclass(kw_only=True)
class TextFindings(Findings):
    """Everything that a run on text found.

    Args:
        materials: Recipe, data, models.
        outline: Teacher, student, layer map, budget.
        classes: How each teacher was asked.
        train: The training rows.
        held_out: The held-out rows.
        identity: Hashes of tokenizer and template.
        verdicts: The teacher where there is one, the student before and after.
        samples: Continuations.
        targets: What the teacher's cache holds; None where the teacher was run, or there is none.
    """

    outputs_name: ClassVar[str] = "documents.jsonl"

    materials: TextMaterials
    outline: TextOutline
    classes: Classes
    train: TokenSet
    held_out: TokenSet
    identity: Mapping[str, str]
    verdicts: Sequence[TextVerdict]
    samples: Sequence[TextSample]
    targets: Mapping[str, Any] | None = None

    @property
    def teacher(self) -> TextVerdict | None:
        """The teacher's row, where there is one."""
        return None if self.outline.teacher is None else self.verdicts[0]

    @property
    def before(self) -> TextVerdict:
        """The student before training."""
        return self.verdicts[-2]

    @property
    def student(self) -> TextVerdict:
        """The trained student."""
        return self.verdicts[-1]

    @property
    def law_columns(self) -> LawColumns:
        """What a law needs of this run; the teacher's only where the student learned from it (D_T is not known)."""
        taught = self.outline.teacher if any(term.family != "likelihood" for term in self._recipe.objective) else None
        return LawColumns(
            N_S=count_non_embedding_params(self.outline.student.model),
            D_S=self.student_tokens,
            N_T=None if taught is None or len(self.outline.teachers) > 1 else count_non_embedding_params(taught.model),
            L_T=None if taught is None or self.teacher is None else _loss(self.teacher),
            L_S=_loss(self.student),
            FLOPs=self.cost.total,
            held_out_sha256=self.held_out.sha256,
        )

    @property
    def _recipe(self) -> Any:
        return self.materials.recipe

    def trainable(self) -> dict[str, Any]:
        """Adapters and projectors against the budget, or every weight."""
        outline, params = self.outline, self.outline.trained_params
        if outline.budget is not None:
            return {**asdict(outline.budget), "params": params, "lora_share": outline.budget.lora_share}
        teacher = outline.teacher_params
        return {
            "params": params,
            "projector_params": outline.projector_params,
            "teacher_params": teacher,
            "share": None if teacher is None else params / teacher,
        }

    def systems(self) -> list[dict[str, Any]]:
        """Every system's row."""
        return [*(verdict.to_dict() for verdict in self.verdicts[:-1]), *self.rows, self.student.to_dict()]

    def scores(self) -> dict[str, Estimate]:
        """Losses and agreement of teacher, untrained and trained student."""
        named = [("before", self.before), ("student", self.student)]
        if self.teacher is not None:
            named.insert(0, ("teacher", self.teacher))
        return {f"{short}.{name}": found for short, verdict in named for name, found in verdict.estimates().items()}

    def details(self) -> dict[str, Any]:
        """Data, student, comparisons, samples."""
        materials, outline = self.materials, self.outline
        source = materials.student or (None if self._recipe.student.config else materials.teacher)
        return {
            "seeds": {"recipe": self._recipe.seed, "bootstrap": self.student.bench.resampling.seed},
            "data": {
                "identity": dict(self.identity),
                "train": _describe_data(materials.train, self.train),
                "held_out": _describe_data(materials.held_out, self.held_out),
            },
            "student": {
                "started_from": None if source is None else asdict(source),
                "config": outline.student.model.config.to_dict(),
                "layers": None if outline.origins is None else list(outline.origins),
                "sensitivity": None if outline.choice is None else outline.choice.to_dict(),
                "params": self.exported.params,
                "share_of_teacher_params": self._share(self.exported.params),
                "bytes": self.exported.bytes,
                "share_of_teacher_bytes": None
                if materials.teacher is None
                else self.exported.bytes / max(size_of(one.model.path) for one in materials.teachers),
                "sha256": hash_files(self.exported.path),
            },
            "teachers": None
            if self._recipe.teacher is None
            else describe_teachers(self._recipe.teacher, materials.teachers, self.classes.to_dict()),
            "comparisons": self._comparisons(),
            "samples": [asdict(sample) for sample in self.samples],
            "cached_targets": self.targets,
        }

    def card(self, document: Mapping[str, Any]) -> str:
        """The model card."""
        return write_card(document)

    def outputs(self) -> Iterator[dict[str, Any]]:
        """Every system's sums by document: enough to compare runs with each other."""
        for verdict in self.verdicts:
            yield from verdict.lines()

    def _share(self, params: int) -> float | None:
        return None if self.outline.teacher_params is None else params / self.outline.teacher_params

    def _comparisons(self) -> list[dict[str, Any]]:
        """The trained student against teacher and untrained student, paired by document."""
        others = [verdict for verdict in (self.teacher, self.before) if verdict is not None]
        return [
            {
                "baseline_name": other.name,
                "candidate_name": self.student.name,
                **compare(other, self.student).to_dict(),
            }
            for other in others
        ]


def _loss(verdict: TextVerdict) -> float:
    return verdict.by_group("nats_per_token").ratio


def _describe_data(corpus: Corpus, rows: TokenSet) -> dict[str, Any]:
    return {
        **rows.examples.packed.to_dict(),
        "conversations": corpus.conversations,
        "groups": len({document.group for document in corpus.documents}),
        "repeated": corpus.repeated,
        "dropped": list(rows.dropped),
        "sha256": corpus.sha256,
        "rows_sha256": rows.sha256,
    }
