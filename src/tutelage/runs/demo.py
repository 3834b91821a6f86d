"""The demo: what a plan says, then the whole job on recorded speech, beside a committed baseline.

Covers finding the demo's recipe in a checkout, the two plans, and the row of the same student trained by cross-entropy
alone (from a committed result: training it again would double the demo's time). Does not cover the job (`distil`).
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tutelage.errors import InputError
from tutelage.planning.plan import Plan, plan
from tutelage.planning.question import Question
from tutelage.planning.scenarios import Teacher
from tutelage.records.document import Caution
from tutelage.records.hashing import sha256_json

if TYPE_CHECKING:
    from tutelage.runs.speech.findings import SpeechFindings
    from tutelage.runs.speech.materials import SpeechMaterials

BASELINE = "cross_entropy_alone"
REALISTIC = Question(student_params=1e9, compute=1e21, teachers=(Teacher("7B", 7e9, 2.02),))
"""A 1B student, an existing 7B teacher of loss 2.02, 1e21 FLOPs."""


def find_recipe() -> Path:
    """The demo's recipe in the checkout that this package runs from.

    Raises:
        InputError: The package was installed without its repository, which holds the speech set.
    """
    recipe = _checkout() / "recipes" / "demo.yaml"
    if not recipe.is_file():
        raise InputError(
            "The demo's speech set is in the project's repository (examples/captions_es), not in the package: "
            "clone the repository and run `make demo` there, or `tutelage distill` with a recipe of your own."
        )
    return recipe


def _checkout() -> Path:
    return Path(__file__).resolve().parents[3]


def plan_realistic() -> Plan:
    """What the published law says for a realistic case."""
    return plan(REALISTIC)


def plan_own_sizes(materials: SpeechMaterials) -> Plan:
    """What it says for the demo's own sizes: that it does not apply (speech, and far below the fitted sizes)."""
    from tutelage.models.load import count_non_embedding_params
    from tutelage.runs.speech.assembly import load_meta_outline

    recipe = materials.recipe
    outline = load_meta_outline(materials)
    words = sum(len(utterance.text.split()) for utterance in materials.train.utterances)
    seen = recipe.training.steps * recipe.training.batch_size * recipe.training.accumulate
    return plan(
        Question(
            student_params=count_non_embedding_params(outline.student.model),
            tokens=max(1.0, words * seen / len(materials.train.utterances)),
            modality="speech",
        )
    )


def add_to(findings: SpeechFindings, plans: Mapping[str, Plan]) -> None:
    """Put the plans and the committed baseline among a run's findings."""
    findings.sections["plans"] = {name: answer.document().to_dict() for name, answer in plans.items()}
    row, caution = read_baseline(findings.materials)
    if row is not None:
        findings.rows.append(row)
    if caution is not None:
        findings.cautions.append(caution)


def conditions(identity: Mapping[str, Any]) -> str:
    """Hash of all that two arms must share to be compared: a run's identity without objective, map and projectors."""
    shared = {key: value for key, value in identity.items() if key not in ("objective", "evaluation")}
    student = {key: value for key, value in identity["student"].items() if key not in ("projector", "layer_map")}
    return sha256_json({**shared, "student": student})


def read_baseline(materials: SpeechMaterials) -> tuple[dict[str, Any] | None, Caution | None]:
    """The committed row of cross-entropy alone, or why there is none."""
    path = _checkout() / "results" / "acceptance.json"
    if not path.is_file():
        return None, _no_baseline(f"{path.name} is not there")
    committed = json.loads(path.read_text(encoding="utf-8"))
    arm = committed["arms"][BASELINE]
    if arm["conditions"] != conditions(materials.identity):
        return None, _no_baseline("it was made with other data, adapters or steps than this run")
    row = dict(arm["row"])
    row["source"] = {"file": f"results/{path.name}", "command": "make acceptance", "seeds": committed["seeds"]}
    return row, None


def _no_baseline(why: str) -> Caution:
    return Caution(
        "no-baseline",
        "results/acceptance.json",
        None,
        None,
        f"there is no row for the same student trained by cross-entropy alone: {why}; `make acceptance` makes it.",
    )
