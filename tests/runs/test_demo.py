"""What the demo adds to a run: its plans, and a baseline that was made under the same conditions."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from tutelage.cli.scores import score_table
from tutelage.config import load_recipe
from tutelage.runs import demo
from tutelage.runs.speech.card import score_lines
from tutelage.tasks.speech.manifest import read_manifest


@pytest.fixture(scope="module")
def hashes(root: Path) -> tuple[str, str]:
    captions = root / "examples" / "captions_es"
    return read_manifest(captions / "train.jsonl").sha256, read_manifest(captions / "held_out.jsonl").sha256


def identity_of(root: Path, hashes: tuple[str, str], *overrides: str) -> dict[str, Any]:
    return load_recipe(root / "recipes" / "demo.yaml", overrides).identity(*hashes)


def test_the_committed_baseline_was_made_under_the_demos_conditions(root: Path, hashes: tuple[str, str]) -> None:
    committed = json.loads((root / "results" / "acceptance.json").read_text(encoding="utf-8"))
    for arm in committed["arms"].values():
        assert arm["conditions"] == demo.conditions(identity_of(root, hashes))
    assert len(committed["seeds"]) >= 5
    materials: Any = SimpleNamespace(identity=identity_of(root, hashes))
    row, caution = demo.read_baseline(materials)
    assert caution is None
    assert row is not None
    assert row["source"]["command"] == "make acceptance"
    (line,) = score_lines({"systems": [row]})[2:]  # its loss is a mean of seeds, without an interval
    assert row["name"] in line
    assert str(row["utterances"]) in line
    assert score_table([row])


@pytest.mark.parametrize(
    ("override", "same"),
    [
        ("objective=[{kind: cross_entropy}]", True),
        ("student.projector.kind=linear", True),
        ("evaluation.stock_clips=0", True),
        ("training.steps=30", False),
        ("student.lora.rank=4", False),
        ("student.decoder_layers=3", False),
    ],
)
def test_conditions_are_all_that_two_arms_must_share(
    root: Path, hashes: tuple[str, str], override: str, same: bool
) -> None:
    plain, other = identity_of(root, hashes), identity_of(root, hashes, override)
    assert (demo.conditions(plain) == demo.conditions(other)) is same


def test_a_baseline_of_other_conditions_is_left_out_and_said(root: Path, hashes: tuple[str, str]) -> None:
    materials: Any = SimpleNamespace(identity=identity_of(root, hashes, "training.steps=30"))
    row, caution = demo.read_baseline(materials)
    assert row is None
    assert caution is not None
    assert "make acceptance" in caution.text


def test_the_realistic_plan_has_a_verdict_with_a_band(root: Path) -> None:
    document = demo.plan_realistic().document().to_dict()
    assert document["verdict"]["choice"] == "train"
    assert document["scenarios"]["existing"]["student_loss"]["method"] == "rounding band"
    assert 2.2 < document["scenarios"]["existing"]["student_loss"]["value"] < 2.3
