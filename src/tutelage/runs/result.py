"""What a run found, as one document, one row of the ledger and one model card.

Covers what the results of every task have (hashes, seeds, what was trained, provenance), and writing `result.json`
last. Does not cover measuring (the tasks' `judge`), the tasks' own numbers and cards (`speech.findings`,
`text.findings`) or printing.
"""

from __future__ import annotations

import json
from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, ClassVar

from tutelage.objectives.terms import LayerPair
from tutelage.records.document import Caution, Document, Status
from tutelage.records.estimate import Estimate
from tutelage.records.files import write_atomically, write_json
from tutelage.records.hashing import sha256_file
from tutelage.records.ledger import Ledger
from tutelage.records.provenance import collect_provenance
from tutelage.records.run import LawColumns, Run
from tutelage.runs.cost import TrainingCost
from tutelage.runs.folder import RunFolder
from tutelage.runs.materials import Materials
from tutelage.runs.prediction import forecast_run
from tutelage.students.export import ExportedStudent
from tutelage.training.loop import Trained
from tutelage.training.preflight import PreflightReport


@dataclass(kw_only=True)
class Findings(ABC):
    """Everything that a run found, as far as every task has it.

    Args:
        materials: Recipe, data, models.
        pairs: The layer map.
        preflight: The checks before the first step.
        trained: The training.
        tokens: Supervised tokens of all steps that were taken.
        cost: FLOPs of the training.
        alignment: By layer pair, the mean angle on held-out data (radians) and its two baselines.
        exported: The student's folder.
        rows: Rows that were measured elsewhere, such as a committed baseline.
        sections: Further parts of the document.
        cautions: Soft faults met after the data was read.
        kept_tokens: Supervised tokens up to the step whose weights the student has; None for all steps.
    """

    outputs_name: ClassVar[str]
    """The file that `outputs` goes into."""

    materials: Materials
    pairs: Sequence[LayerPair]
    preflight: PreflightReport
    trained: Trained
    tokens: int
    cost: TrainingCost
    alignment: Mapping[str, Mapping[str, float]]
    exported: ExportedStudent
    rows: list[dict[str, Any]] = field(default_factory=list)
    sections: dict[str, Any] = field(default_factory=dict)
    cautions: list[Caution] = field(default_factory=list)
    kept_tokens: int | None = None

    @property
    def student_tokens(self) -> int:
        """What a law calls D_S: the tokens that the judged weights were trained on. FLOPs count every step."""
        return self.tokens if self.kept_tokens is None else self.kept_tokens

    @property
    @abstractmethod
    def law_columns(self) -> LawColumns:
        """What a distillation law needs of this run."""

    @abstractmethod
    def trainable(self) -> dict[str, Any]:
        """What was trained, and what that is of the teacher."""

    @abstractmethod
    def systems(self) -> list[dict[str, Any]]:
        """One row a system; the trained student last."""

    @abstractmethod
    def scores(self) -> dict[str, Estimate]:
        """The ledger's scores, "SYSTEM.METRIC" each."""

    @abstractmethod
    def details(self) -> dict[str, Any]:
        """The task's own parts of the document: data, student, seeds, comparisons, samples, speed."""

    @abstractmethod
    def card(self, document: Mapping[str, Any]) -> str:
        """The model card, from the document."""

    @abstractmethod
    def outputs(self) -> Iterator[dict[str, Any]]:
        """What the systems wrote, one JSON line each."""


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
    card = findings.card(document)
    write_atomically(folder.card, card)
    lines = "".join(json.dumps(line, ensure_ascii=False) + "\n" for line in findings.outputs())
    write_atomically(folder.path / findings.outputs_name, lines)
    write_atomically(folder.student / "README.md", card)
    if ledger is not None:
        Ledger(ledger).record(run_of(document, folder.path))
    write_json(folder.result, document)
    return folder.result


def hash_files(folder: Path) -> dict[str, str]:
    """SHA-256 of every file of the exported student."""
    return {path.name: sha256_file(path) for path in sorted(folder.iterdir()) if path.is_file()}


def size_of(folder: Path) -> int:
    """Bytes of all files of a folder."""
    return sum(path.stat().st_size for path in folder.iterdir() if path.is_file())


def _body(findings: Findings, folder: RunFolder, provenance: Mapping[str, Any]) -> dict[str, Any]:
    materials, trained = findings.materials, findings.trained
    recipe, systems = materials.recipe, findings.systems()
    return {
        "path": str(folder.result),
        "recipe": {"name": recipe.name, "sha256": materials.recipe_hash, "resolved": recipe.to_dict()},
        "teacher": asdict(materials.teacher) if materials.teacher else None,
        "trainable": findings.trainable(),
        "layer_map": [asdict(pair) for pair in findings.pairs],
        "alignment": findings.alignment,
        "preflight": findings.preflight.to_dict(),
        "training": {
            "steps": trained.steps,
            "seconds": trained.seconds,
            "supervised_tokens": findings.tokens,
            "flops": findings.cost.to_dict(),
            "last_step": trained.last.to_dict() if trained.last else None,
            "best": trained.best.to_dict() if trained.best else None,
            "stopped_early": trained.stopped_early,
            "kept_step": trained.kept_step,
        },
        "law": asdict(findings.law_columns),
        "systems": systems,
        "prediction": _predict(findings, systems),
        "scores": {name: score.to_dict() for name, score in findings.scores().items()},
        "adapter": {"sha256": hash_files(folder.adapter)} if folder.adapter.is_dir() else None,
        **findings.details(),
        **findings.sections,
        "provenance": provenance,
    }


def _predict(findings: Findings, systems: Sequence[Mapping[str, Any]]) -> dict[str, Any] | None:
    """What the recipe's law says of the run; None where it names none."""
    recipe = findings.materials.recipe
    from_scratch = recipe.to_dict()["student"].get("config") is not None
    columns = LawColumns(**findings.sections.get("law", asdict(findings.law_columns)))  # a cohort's: the mean member's
    found = forecast_run(recipe.law, columns, recipe.task, systems, from_scratch=from_scratch)
    return None if found is None else found.to_dict()


def run_of(document: Mapping[str, Any], folder: Path) -> Run:
    """The ledger's row of a finished run.

    Args:
        document: What is, or will be, in its `result.json`.
        folder: The run's folder.
    """
    recipe = document["recipe"]
    return Run(
        name=recipe["name"],
        task=recipe["resolved"]["task"],
        recipe_hash=recipe["sha256"],
        seed=recipe["resolved"]["seed"],
        folder=folder.resolve(),
        law=LawColumns(**document["law"]),
        scores={name: Estimate(**score) for name, score in document["scores"].items()},
        provenance=document["provenance"],
    )
