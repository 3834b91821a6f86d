"""What a run found, as one document, one row of the ledger and one model card.

Covers gathering every number with its interval, hashes, seeds and provenance, and writing `result.json` last. Does not
cover measuring (`judge`), the card's text (`card`) or printing.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from tutelage.evaluation.compare import compare_scores
from tutelage.models.load import count_non_embedding_params, count_params
from tutelage.records.document import Caution, Document, Status
from tutelage.records.estimate import Estimate
from tutelage.records.files import write_atomically, write_json
from tutelage.records.hashing import sha256_file
from tutelage.records.ledger import Ledger
from tutelage.records.provenance import collect_provenance
from tutelage.records.run import LawColumns, Run
from tutelage.runs.assembly import Outline
from tutelage.runs.card import write_card
from tutelage.runs.cost import TrainingCost
from tutelage.runs.folder import RunFolder
from tutelage.runs.judge import Verdict
from tutelage.runs.materials import Materials
from tutelage.students.export import ExportedStudent
from tutelage.tasks.speech.manifest import Manifest
from tutelage.training.loop import Trained
from tutelage.training.preflight import PreflightReport


@dataclass
class Findings:
    """Everything that a run found.

    Args:
        materials: Recipe, data, models.
        outline: Teacher, student, layer map, budget.
        preflight: The checks before the first step.
        trained: The training.
        tokens: Supervised tokens that the student was trained on, over all steps.
        cost: FLOPs of the training.
        verdicts: One row a system, the distilled student last.
        alignment: By layer pair, the mean angle on held-out clips (radians) and its two baselines.
        exported: The merged student's folder.
        speed: Timings of the four corners; None where not measured.
        rows: Rows that were measured elsewhere, such as a committed baseline.
        cautions: Soft faults met after the data was read.
    """

    materials: Materials
    outline: Outline
    preflight: PreflightReport
    trained: Trained
    tokens: int
    cost: TrainingCost
    verdicts: Sequence[Verdict]
    alignment: Mapping[str, Mapping[str, float]]
    exported: ExportedStudent
    speed: Mapping[str, Any] | None
    rows: list[dict[str, Any]] = field(default_factory=list)
    sections: dict[str, Any] = field(default_factory=dict)
    cautions: list[Caution] = field(default_factory=list)

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
        """What a distillation law needs of this run; D_T is not known of a teacher that was not trained here."""
        return LawColumns(
            N_S=count_non_embedding_params(self.outline.student.model),
            D_S=self.tokens,
            N_T=count_non_embedding_params(self.outline.stock.model),
            L_T=self.teacher.loss.value if self.teacher.loss else None,
            L_S=self.student.loss.value if self.student.loss else None,
            FLOPs=self.cost.total,
            held_out_sha256=self.materials.held_out.sha256,
        )


def keep_result(findings: Findings, folder: RunFolder, ledger: Path | None) -> Path:
    """Write the card, the ledger's row and, last, `result.json`.

    Returns:
        Path of `result.json`.
    """
    provenance = collect_provenance().to_dict()
    document = Document(
        "distill",
        _body(findings, folder, provenance),
        status=Status("done", "the student was trained, judged and exported."),
        warnings=(*findings.materials.cautions, *findings.cautions),
    ).to_dict()
    card = write_card(document)
    write_atomically(folder.card, card)
    write_atomically(folder.transcripts, "".join(_transcript_lines(findings)))
    write_atomically(folder.student / "README.md", card)
    if ledger is not None:
        Ledger(ledger).record(_ledger_row(findings, folder, provenance))
    write_json(folder.result, document)
    return folder.result


def _transcript_lines(findings: Findings) -> Iterator[str]:
    """Every transcript of every system, one JSON line each: enough to score them again."""
    for verdict in findings.verdicts:
        for scored in verdict.score.utterances:
            line = {
                "system": verdict.name,
                "id": scored.id,
                "group": scored.group,
                "reference": scored.raw.reference,
                "transcript": scored.raw.hypothesis,
                "hit_cap": scored.hit_cap,
            }
            yield json.dumps(line, ensure_ascii=False) + "\n"


def _body(findings: Findings, folder: RunFolder, provenance: Mapping[str, Any]) -> dict[str, Any]:
    materials, outline, student = findings.materials, findings.outline, findings.student
    recipe = materials.recipe
    return {
        "path": str(folder.result),
        "recipe": {"name": recipe.name, "sha256": materials.recipe_hash, "resolved": recipe.to_dict()},
        "seeds": {"recipe": recipe.seed, "bootstrap": student.score.resampling.seed},
        "data": {
            "language": recipe.data.language,
            "train": _describe_data(materials.train),
            "held_out": _describe_data(materials.held_out),
        },
        "teacher": asdict(materials.teacher),
        "student": {
            "started_from": asdict(materials.student or materials.teacher),
            "decoder_layers": list(outline.student.origins),
            "window_seconds": outline.student.speech.window_seconds,
            "params": findings.exported.params,
            "share_of_teacher_params": findings.exported.params / count_params(outline.stock.model),
            "bytes": findings.exported.bytes,
            "share_of_teacher_bytes": findings.exported.bytes / _bytes_of(materials.teacher.path),
            "sha256": {path.name: sha256_file(path) for path in sorted(folder.student.iterdir()) if path.is_file()},
        },
        "trainable": {
            **asdict(outline.budget),
            "params": outline.budget.lora_params + outline.budget.projector_params,
            "lora_share": outline.budget.lora_share,
        },
        "layer_map": [asdict(pair) for pair in outline.pairs],
        "alignment": findings.alignment,
        "preflight": findings.preflight.to_dict(),
        "training": {
            "steps": findings.trained.steps,
            "seconds": findings.trained.seconds,
            "supervised_tokens": findings.tokens,
            "flops": findings.cost.to_dict(),
            "last_step": findings.trained.last.to_dict() if findings.trained.last else None,
        },
        "law": asdict(findings.law_columns),
        "systems": [*(verdict.to_dict() for verdict in findings.verdicts[:-1]), *findings.rows, student.to_dict()],
        "comparisons": _comparisons(findings),
        "speed": findings.speed,
        "samples": _samples(findings),
        **findings.sections,
        "provenance": provenance,
    }


def _comparisons(findings: Findings) -> list[dict[str, Any]]:
    """The distilled student against teacher and untrained student, paired by clip."""
    rows = []
    for other in (findings.teacher, findings.before):
        compared = compare_scores(other.score, findings.student.score, "wer", findings.student.score.resampling)
        rows.append({"baseline_name": other.name, "candidate_name": findings.student.name, **compared.to_dict()})
    return rows


def _samples(findings: Findings) -> list[dict[str, str]]:
    """A few held-out clips as teacher and student wrote them: evenly spread over the manifest, not the best ones."""
    clips = findings.materials.held_out.spread(findings.materials.recipe.evaluation.show_clips)
    return [
        {
            "id": clip.id,
            "reference": clip.text,
            "teacher": findings.teacher.transcripts[clip.id].text,
            "student": findings.student.transcripts[clip.id].text,
        }
        for clip in clips
    ]


def _describe_data(manifest: Manifest) -> dict[str, Any]:
    return {
        "clips": len(manifest.utterances),
        "seconds": manifest.seconds,
        "groups": len({utterance.group for utterance in manifest.utterances}),
        "dropped": len(manifest.dropped),
        "sha256": manifest.sha256,
    }


def _ledger_row(findings: Findings, folder: RunFolder, provenance: Mapping[str, Any]) -> Run:
    recipe = findings.materials.recipe
    scores: dict[str, Estimate] = {}
    for short, verdict in (("teacher", findings.teacher), ("before", findings.before), ("student", findings.student)):
        scores |= {f"{short}.{metric}": estimate for metric, estimate in verdict.score.metrics().items()}
    return Run(
        name=recipe.name,
        task=recipe.task,
        recipe_hash=findings.materials.recipe_hash,
        seed=recipe.seed,
        folder=folder.path.resolve(),
        law=findings.law_columns,
        scores=scores,
        provenance=provenance,
    )


def _bytes_of(folder: Path) -> int:
    return sum(path.stat().st_size for path in folder.iterdir() if path.is_file())
