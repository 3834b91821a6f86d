"""What a run on speech found: error rates of every system, transcripts, speed.

Covers the speech parts of the document. Does not cover what every task has (`runs.result`), measuring (`judge`) or the
card's text (`card`).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, ClassVar

from tutelage.evaluation.compare import compare_scores
from tutelage.models.load import count_non_embedding_params
from tutelage.records.estimate import Estimate
from tutelage.records.run import LawColumns
from tutelage.runs.result import Findings, hash_files, size_of
from tutelage.runs.speech.assembly import Outline
from tutelage.runs.speech.augment import hear_training
from tutelage.runs.speech.card import write_card
from tutelage.runs.speech.judge import Verdict
from tutelage.runs.speech.materials import SpeechMaterials
from tutelage.runs.speech.teachers import Hearing
from tutelage.runs.teacher_folders import describe_teachers
from tutelage.tasks.speech.manifest import Manifest


@dataclass(kw_only=True)
class SpeechFindings(Findings):
    """Everything that a run on speech found.

    Args:
        materials: Recipe, data, models.
        outline: Teacher, student, layer map, budget.
        hearing: How each teacher was asked.
        verdicts: One row a system, the distilled student last.
        speed: Timings of the four corners; None where not measured.
        targets: What the teacher's cache holds; None where the teacher was run.
    """

    outputs_name: ClassVar[str] = "transcripts.jsonl"

    materials: SpeechMaterials
    outline: Outline
    hearing: Hearing
    verdicts: Sequence[Verdict]
    speed: Mapping[str, Any] | None
    targets: Mapping[str, Any] | None = None

    @property
    def teacher(self) -> Verdict:
        """The teacher at the student's window: what the student learned from."""
        return self.verdicts[-3]

    @property
    def before(self) -> Verdict:
        """The student before training."""
        return self.verdicts[-2]

    @property
    def student(self) -> Verdict:
        """The distilled student."""
        return self.verdicts[-1]

    @property
    def law_columns(self) -> LawColumns:
        """What a distillation law needs of this run; D_T is not known of a teacher that was not trained here, and a
        committee has no one size.
        """
        return LawColumns(
            N_S=count_non_embedding_params(self.outline.student.model),
            D_S=self.student_tokens,
            N_T=None if len(self.outline.teachers) > 1 else count_non_embedding_params(self.outline.stock.model),
            L_T=self.teacher.loss.value if self.teacher.loss else None,
            L_S=self.student.loss.value if self.student.loss else None,
            FLOPs=self.cost.total,
            held_out_sha256=self.materials.held_out.sha256,
        )

    def trainable(self) -> dict[str, Any]:
        """Adapters and projectors, against the budget."""
        budget = self.outline.budget
        return {
            **asdict(budget),
            "params": budget.lora_params + budget.projector_params,
            "lora_share": budget.lora_share,
        }

    def systems(self) -> list[dict[str, Any]]:
        """Every system's row."""
        return [*(verdict.to_dict() for verdict in self.verdicts[:-1]), *self.rows, self.student.to_dict()]

    def scores(self) -> dict[str, Estimate]:
        """Error rates of teacher, untrained and trained student."""
        named = (("teacher", self.teacher), ("before", self.before), ("student", self.student))
        return {
            f"{short}.{metric}": estimate
            for short, verdict in named
            for metric, estimate in verdict.score.metrics().items()
        }

    def details(self) -> dict[str, Any]:
        """Data, student, comparisons, speed, samples."""
        materials, outline = self.materials, self.outline
        recipe = materials.recipe
        return {
            "seeds": {"recipe": recipe.seed, "bootstrap": self.student.score.resampling.seed},
            "data": {
                "language": recipe.data.language,
                "train": {
                    **_describe_data(materials.train),
                    "augment": hear_training(materials).describe(),
                    "pseudo_labels": materials.labelling,
                },
                "held_out": _describe_data(materials.held_out),
            },
            "student": {
                "started_from": asdict(materials.student or materials.teacher),
                "decoder_layers": list(outline.student.origins),
                "sensitivity": None if outline.choice is None else outline.choice.to_dict(),
                "window_seconds": outline.student.speech.window_seconds,
                "params": self.exported.params,
                "share_of_teacher_params": self.exported.params / outline.budget.teacher_params,
                "bytes": self.exported.bytes,
                "share_of_teacher_bytes": self.exported.bytes
                / max(size_of(one.model.path) for one in materials.teachers),
                "sha256": hash_files(self.exported.path),
            },
            "teachers": describe_teachers(recipe.teacher, materials.teachers, self.hearing.to_dict()),
            "cached_targets": self.targets,
            "comparisons": self._comparisons(),
            "speed": self.speed,
            "samples": self._samples(),
        }

    def card(self, document: Mapping[str, Any]) -> str:
        """The model card."""
        return write_card(document)

    def outputs(self) -> Iterator[dict[str, Any]]:
        """Every transcript of every system: enough to score them again."""
        for verdict in self.verdicts:
            for scored in verdict.score.utterances:
                yield {
                    "system": verdict.name,
                    "id": scored.id,
                    "group": scored.group,
                    "reference": scored.raw.reference,
                    "transcript": scored.raw.hypothesis,
                    "hit_cap": scored.hit_cap,
                }

    def _comparisons(self) -> list[dict[str, Any]]:
        """The distilled student against teacher and untrained student, paired by clip."""
        rows = []
        for other in (self.teacher, self.before):
            compared = compare_scores(other.score, self.student.score, "wer", self.student.score.resampling)
            rows.append({"baseline_name": other.name, "candidate_name": self.student.name, **compared.to_dict()})
        return rows

    def _samples(self) -> list[dict[str, str]]:
        """A few held-out clips as teacher and student wrote them: evenly spread over the manifest, not the best."""
        return [
            {
                "id": clip.id,
                "reference": clip.text,
                "teacher": self.teacher.transcripts[clip.id].text,
                "student": self.student.transcripts[clip.id].text,
            }
            for clip in self.materials.held_out.spread(self.materials.recipe.evaluation.show_clips)
        ]


def _describe_data(manifest: Manifest) -> dict[str, Any]:
    return {
        "clips": len(manifest.utterances),
        "seconds": manifest.seconds,
        "groups": len({utterance.group for utterance in manifest.utterances}),
        "dropped": len(manifest.dropped),
        "sha256": manifest.sha256,
    }
