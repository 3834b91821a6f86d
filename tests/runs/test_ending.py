"""The sentence on when a training ended and which step was kept: on the terminal, the card and the page."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from run_folders import finished, text_document
from tutelage.reports.content import Page
from tutelage.reports.run_files import read_run
from tutelage.reports.run_report import run_page
from tutelage.runs.ending import describe_ending


def training(steps: int, kept: int | None, best: int = 40, metric: str = "loss") -> dict[str, Any]:
    return {"steps": steps, "kept_step": kept, "best": {"step": best, "metric": metric, "value": 3.0}}


@pytest.mark.parametrize(
    ("found", "said"),
    [
        (
            training(60, 40),
            "Stopped early at step 60 of 120, kept step 40: the loss on the dev split was lowest at step 40.",
        ),
        (
            training(120, None, metric="wer"),
            "Trained all 120 steps, kept step 120: the word error rate on the dev split was lowest at step 40.",
        ),
        (training(60, None), "Stopped early at step 60 of 120, kept step 60: the loss"),
        ({"steps": 120, "kept_step": None, "best": None}, ""),
        ({"steps": 120}, ""),
    ],
    ids=["stopped and kept", "watched alone", "stopped alone", "no dev split", "an older result"],
)
def test_the_sentence_names_both_steps(found: dict[str, Any], said: str) -> None:
    sentence = describe_ending(found, 120)
    assert sentence.startswith(said)
    assert bool(sentence) == bool(said)


def test_the_page_says_it_in_one_line(tmp_path: Path) -> None:
    document = text_document()
    document["training"] |= training(50, 40)
    (tmp_path / "result.json").write_text(json.dumps(document), encoding="utf-8")
    other = finished(tmp_path / "plain", "speech")
    watched, plain = (_training(run_page(read_run(folder))) for folder in (tmp_path, other))
    assert watched == (
        "Stopped early at step 50 of 60, kept step 40: the loss on the dev split was lowest at step 40.",
    )
    assert plain == ()


def _training(page: Page) -> tuple[str, ...]:
    (found,) = [each for each in page.sections if each.title == "How the training went"]
    return found.paragraphs
