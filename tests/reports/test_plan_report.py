"""What the page about a plan says, against its document; what is absent is left out, what is wrong is named."""

from __future__ import annotations

import copy
import re
from typing import Any

import numpy as np
import pytest

from tutelage.errors import InputError
from tutelage.reports.content import Figure, Page
from tutelage.reports.plan_curves import read_curves
from tutelage.reports.plan_document import Part
from tutelage.reports.plan_report import plan_page

# Half a unit of the last digit of a gain with three decimals, and a grid's error of a gain between two budgets.
THREE_DECIMALS = 5e-4
BETWEEN_BUDGETS = 1e-3
ESTIMATE = {"value": 2e21, "low": 1e21, "high": 3e21, "level": 0.9, "method": "bootstrap, 100 draws"}
OPTIONAL = ("curves", "teacher_curve", "cost", "lifetime", "repetition", "lora", "cache", "sizes", "law_status")


@pytest.fixture
def document(plan_document: dict[str, Any]) -> dict[str, Any]:
    """A document that a test may change."""
    return copy.deepcopy(plan_document)


def page_of(document: dict[str, Any]) -> Page:
    return plan_page(Part(document, ""))


def figures(page: Page) -> dict[str, Figure]:
    return {figure.id: figure for figure in page.figures}


def cells(page: Page, title: str) -> str:
    (found,) = (part for part in page.sections if part.title == title)
    return "\n".join(cell for table in found.tables for row in table.rows for cell in row)


def test_the_verdict_is_on_top_with_its_probability(document: dict[str, Any]) -> None:
    document["verdict"].update(choice="distil", probability=0.962, text="Distil: it is better.")
    banner = page_of(document).banners[0]
    assert banner.headline == "Distil: right with a probability of 96 %"
    assert banner.lines[0] == "It is better."


def test_a_verdict_without_a_probability_says_why(document: dict[str, Any]) -> None:
    document["verdict"].update(choice="train", probability=None, reason="the law has no joint draws")
    banner = page_of(document).banners[0]
    assert banner.headline == "Train"
    assert banner.lines[-1] == "The law has no joint draws."


@pytest.mark.parametrize(("choice", "tone"), [("distil", "good"), ("either", "warn"), (None, "bad")])
def test_the_verdicts_tone(document: dict[str, Any], choice: str | None, tone: str) -> None:
    document["verdict"].update(choice=choice, probability=None)
    assert page_of(document).banners[0].tone == tone


def test_a_law_that_was_not_determined_is_loud(document: dict[str, Any]) -> None:
    document["law_status"] = {"kind": "not-identified", "text": "One ratio (20).", "remedy": "Add runs."}
    document["warnings"] = [{"code": "at-bound", "text": "tokens sit on 1e17"}, {"code": "law-status", "text": "again"}]
    _, law, warnings = page_of(document).banners
    assert (law.tone, law.headline) == ("bad", "The law is not-identified")
    assert law.lines == ("One ratio (20).", "What to do: Add runs.")
    assert (warnings.headline, warnings.lines) == ("1 warning", ("tokens sit on 10¹⁷",))


def test_every_way_has_its_loss_and_gain_with_intervals(document: dict[str, Any]) -> None:
    told = cells(page_of(document), "The ways")
    for scenario in (each for each in document["scenarios"].values() if each is not None):
        loss, gain = scenario["student_loss"], scenario["gain"]
        assert f"{loss['value']:.4f}\n{loss['low']:.3f} to {loss['high']:.3f}" in told
        assert f"{gain['value']:+.4f}".replace("-", "−") in told


def test_choices_have_the_range_that_is_as_good(document: dict[str, Any]) -> None:
    document["scenarios"]["both"]["student_tokens"]["value"] = 4.2e11
    document["scenarios"]["both"]["near_optimal"]["student_tokens"] = [2.1e11, 8.4e11]
    assert "420B\n210B to 840B" in cells(page_of(document), "The ways")


def test_the_break_even_of_the_finding_is_the_crossovers(document: dict[str, Any]) -> None:
    document["verdict"]["way"] = "existing"
    document["crossover"]["existing"] = {
        "begins": None,
        "ends": ESTIMATE,
        "text": "distilling is better below 2e21 FLOPs",
    }
    finding = figures(page_of(document))["loss"].finding
    assert finding == "With an existing teacher: distilling is better below 2×10²¹ FLOPs."
    curves = read_curves(Part(document, ""))
    assert curves is not None
    shown = curves.compute[curves.shown]
    assert 10**1.0 < 1e21 / shown[0] < 10**2.0
    assert 10**1.0 < shown[-1] / 1e22 < 10**2.0


def test_the_gains_of_the_finding_are_those_of_the_scenarios(document: dict[str, Any]) -> None:
    finding = figures(page_of(document))["gain"].finding
    assert finding.startswith("At 10²² FLOPs ")
    high, best, low, worst = re.findall(
        r"between ([\d.]+) nats below \((\w+)\) and ([\d.]+) nats \w+ .*\((\w+)\)", finding
    )[0]
    gains = {name: each["gain"]["value"] for name, each in document["scenarios"].items()}
    assert best == max(gains, key=gains.__getitem__)
    assert worst == min(gains, key=gains.__getitem__)
    assert float(high) == pytest.approx(gains[best], abs=THREE_DECIMALS + BETWEEN_BUDGETS)
    assert float(low) == pytest.approx(abs(gains[worst]), abs=THREE_DECIMALS + BETWEEN_BUDGETS)


def test_the_shares_of_the_finding_are_those_of_the_way_that_trains(document: dict[str, Any]) -> None:
    document["verdict"]["way"] = "existing"
    shares = [
        round(100 * document["scenarios"]["shared"]["shares"][part]["value"])
        for part in ("student", "logits", "teacher")
    ]
    finding = figures(page_of(document))["shares"].finding
    told = [int(number) for number in re.findall(r"(\d+) % (?:go|to)", finding)]
    assert finding.startswith("Sharing a trained teacher: at 10²² FLOPs")
    # Rounding, and the curve's points are a tenth of a decade apart.
    assert told == pytest.approx(shares, abs=1.0)


def test_budgets_that_nothing_pays_for_are_gaps(document: dict[str, Any]) -> None:
    for series in ("loss", "low", "high", "gain", "gain_low", "gain_high"):
        document["curves"]["scenarios"]["best"][series][:30] = [None] * 30
    found = figures(page_of(document))
    column = found["loss"].table.headers.index("best")
    assert found["loss"].table.rows[0][column] == "–"
    assert found["loss"].table.rows[-1][column] != "–"


def test_the_teacher_of_the_finding_is_the_bottom_of_the_u(document: dict[str, Any]) -> None:
    planned = document["teacher_curve"]["students"][0]
    finding = figures(page_of(document))["teachers"].finding
    assert f"from a teacher of loss {planned['best_teacher_loss']:.3f}" in finding
    low, high = map(float, re.findall(r"any of ([\d.]+) to ([\d.]+)", finding)[0])
    losses, reached = np.array(document["teacher_curve"]["teacher_loss"]), np.array(planned["loss"])
    inside = (losses > low - THREE_DECIMALS) & (losses < high + THREE_DECIMALS)
    assert np.array_equal(inside, reached <= 1.005 * planned["best_student_loss"])
    closest = min(document["teacher_curve"]["teachers"], key=lambda teacher: teacher["student_loss"])
    assert f"at hand {closest['name']} comes closest" in finding


@pytest.mark.parametrize("value", [None, "absent"])
def test_what_is_absent_is_left_out(document: dict[str, Any], value: str | None) -> None:
    for key in OPTIONAL:
        document.pop(key, None)
        if value is None:
            document[key] = None
    page = page_of(document)
    assert page.figures == ()
    shown = [part.title for part in page.sections if part.tables or part.items or part.paragraphs]
    assert shown == ["The ways", "Where distilling pays", "Which teacher?", "Mind"]


def test_answers_of_any_shape_become_tables(document: dict[str, Any]) -> None:
    way = {"params": ESTIMATE, "loss": {**ESTIMATE, "value": 2.1, "low": 2.0, "high": 2.2}}
    document["lifetime"] = {
        "text": "for 2e12 tokens",
        "saving": 0.17,
        "ways": {"best": way, "both": way},
        "optimal": way,
    }
    document["lora"] = {
        "adapter_params": 1e7,
        "kept": True,
        "layers": [3, 4, 5],
        "curve": list(range(60)),
        "none": None,
    }
    page = page_of(document)
    (lifetime,) = (part for part in page.sections if part.title == "Over a lifetime of serving")
    assert lifetime.paragraphs == ("For 2×10¹² tokens",)
    assert [row[0] for row in lifetime.tables[1].rows] == ["best", "both", "optimal"]
    assert "2.1000\n2.0000 to 2.2000" in cells(page, "Over a lifetime of serving")
    (lora,) = (part for part in page.sections if part.title == "As a LoRA student")
    assert lora.tables[0].rows == (("adapter parameters", "10M"), ("kept", "yes"), ("layers", "3, 4 and 5"))


def test_the_cost_stands_on_its_assumptions(document: dict[str, Any]) -> None:
    assumed = {
        "name": "H100",
        "numbers": [{"name": "mfu", "value": 0.4, "unit": "share of the peak", "source": "assumed"}],
    }
    point = {"value": 7021.7, "low": None, "high": None, "level": None, "method": "point"}
    document["cost"] = {"flops": ESTIMATE, "gpu_hours": point, "assumptions": assumed}
    told = cells(page_of(document), "Cost")
    for part in ("2×10²¹", "10²¹ to 3×10²¹", "7022", "H100", "mfu", "0.4", "share of the peak"):
        assert part in told


@pytest.mark.parametrize(
    ("path", "value", "line"),
    [
        ("verdict", None, "verdict is missing; it must be an object"),
        ("question", [], "question is []; it must be an object"),
        ("scenarios.best.gain", None, "scenarios.best.gain is missing"),
        (
            "scenarios.best.student_loss.value",
            "2.1",
            "scenarios.best.student_loss.value is '2.1'; it must be a finite number",
        ),
        (
            "curves.scenarios.best.loss",
            [1.0],
            "curves.scenarios.best.loss holds 1 numbers; it must hold 61, one a budget",
        ),
        ("curves.compute", "x", "curves.compute is 'x'; it must be a list of numbers"),
        ("caveats", "x", "caveats is 'x'; it must be a list of texts"),
        ("teachers", {}, None),
        ("warnings", 3, "warnings is 3; it must be a list"),
        ("verdict.text", 3, "verdict.text is 3; it must be a text"),
        ("verdict.probability", float("nan"), "verdict.probability is nan; it must be a finite number"),
    ],
)
def test_what_is_wrong_is_named_by_its_path(
    document: dict[str, Any], path: str, value: object, line: str | None
) -> None:
    *way, last = path.split(".")
    part = document
    for key in way:
        part = part[key]
    part[last] = value
    if line is None:
        page_of(document)
        return
    with pytest.raises(InputError) as error:
        page_of(document)
    assert error.value.faults == (line,)
