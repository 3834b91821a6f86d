"""What the page about a law says: its status, findings that match the numbers, and parts that not every law has."""

from __future__ import annotations

import re
from dataclasses import replace

import numpy as np
import pytest

from tutelage.laws.law import Law, make_equation
from tutelage.laws.published import PUBLISHED
from tutelage.planning.optimum import compute_optimal
from tutelage.records.document import Status
from tutelage.reports.content import Figure, Page
from tutelage.reports.law_report import law_page
from tutelage.reports.law_runs import residuals
from tutelage.reports.words import count

# Half a unit of the last digit of a loss with three decimals.
THREE_DECIMALS = 5e-4
# A percentage of two digits, or a quantity of three, is right to half a unit of the last.
TWO_DIGITS, THREE_DIGITS = 0.05, 0.005


def figures(page: Page) -> dict[str, Figure]:
    return {figure.id: figure for figure in page.figures}


def section(page: Page, title: str) -> str:
    """Every cell of a section's tables and its items, as one text."""
    (found,) = (part for part in page.sections if part.title == title)
    return "\n".join([*(cell for table in found.tables for row in table.rows for cell in row), *found.items])


@pytest.mark.parametrize(
    ("law", "ids"),
    [
        ("busbridge2025", ["teacher", "tokens", "optimum"]),
        ("hoffmann2022", ["tokens", "optimum"]),
        ("muennighoff2023", ["tokens", "repetition", "optimum"]),
    ],
)
def test_a_published_law_has_no_runs_to_show(law: str, ids: list[str]) -> None:
    page = law_page(PUBLISHED[law])
    assert [figure.id for figure in page.figures] == ids
    assert page.banners[0].headline == "Published"
    assert "no probability" in page.banners[0].lines[0]


def test_a_fitted_law_shows_its_runs(supervised: Law, distillation: Law) -> None:
    assert list(figures(law_page(supervised))) == ["tokens", "optimum", "residuals", "agreement"]
    assert list(figures(law_page(distillation))) == ["teacher", "tokens", "optimum", "residuals", "agreement"]


@pytest.mark.parametrize(
    ("kind", "tone"),
    [("converged", "good"), ("weakly-identified", "warn"), ("not-identified", "bad"), ("stuck", "bad")],
)
def test_the_status_comes_first_and_is_as_loud_as_it_must_be(supervised: Law, kind: str, tone: str) -> None:
    page = law_page(replace(supervised, status=Status(kind, "One ratio (20).", "Add runs at other ratios.")))
    (banner,) = page.banners
    assert banner.tone == tone
    assert banner.lines == ("One ratio (20).", "What to do: Add runs at other ratios.")


def test_the_residuals_finding_matches_the_runs(supervised: Law) -> None:
    assert supervised.runs is not None
    runs = supervised.runs.arrays()
    relative = runs["L"] / supervised.supervised.predict(runs["N"], runs["D"]) - 1
    finding = figures(law_page(supervised))["residuals"].finding
    typical, worst, off = re.findall(r"±([\d.]+) %.*run (\d+), is ([\d.]+) %", finding)[0]
    assert float(typical) == pytest.approx(100 * np.quantile(np.abs(relative), 0.9), rel=TWO_DIGITS)
    assert int(worst) == len(relative)  # the last run of the fixture lies 4 % above the law
    assert float(off) == pytest.approx(4.0, rel=TWO_DIGITS)
    assert finding.endswith("above it.")


def test_the_table_of_residuals_holds_every_run_and_its_interval(supervised: Law) -> None:
    found = residuals(supervised)
    assert found is not None
    assert supervised.runs is not None
    table = figures(law_page(supervised))["residuals"].table
    assert len(table.rows) == len(supervised.runs)
    last = dict(zip(table.headers, table.rows[-1], strict=True))
    assert last["residual, %"] == "+4.00"
    low, high = map(float, last["interval of the prediction"].split(" to "))
    assert low < float(last["predicted"]) < high < float(last["observed"])
    assert np.all((found.low < found.predicted) & (found.predicted < found.high))


def test_residuals_of_a_distillation_law_lie_along_the_ratio_of_losses(distillation: Law) -> None:
    found = residuals(distillation)
    assert found is not None
    assert found.split == (pytest.approx(0.93), "knee")
    own = distillation.supervised.predict(found.columns["N_S"], found.columns["D_S"])
    assert np.allclose(found.across, found.columns["L_T"] / own)


def test_residuals_of_a_supervised_law_mark_where_the_held_out_check_begins(supervised: Law) -> None:
    found = residuals(supervised)
    assert found is not None
    assert found.split == (1e21, "held-out check begins")


def test_runs_of_other_columns_are_passed_over(supervised: Law, distillation: Law) -> None:
    assert residuals(replace(supervised, runs=distillation.runs)) is None


def test_the_best_teacher_of_the_finding_is_the_bottom_of_the_u() -> None:
    law = PUBLISHED["busbridge2025"]
    finding = figures(law_page(law))["teacher"].finding
    best, strong, lost = map(
        float, re.findall(r"of loss ([\d.]+) \(.*of loss ([\d.]+), leaves it ([\d.]+)", finding)[0]
    )
    assert "550M parameters on 11B tokens" in finding
    teacher, student = law.require_distillation().best_teacher_loss(550e6, 11e9)
    assert best == pytest.approx(float(teacher), abs=THREE_DECIMALS)
    predicted = float(law.require_distillation().predict(550e6, 11e9, strong))
    assert lost == pytest.approx(predicted - float(student), abs=2 * THREE_DECIMALS)


def test_the_optimum_of_the_finding_is_the_planners(supervised: Law) -> None:
    figure = figures(law_page(supervised))["optimum"]
    params, tokens = compute_optimal(supervised.supervised, supervised.forward, np.array([1e20]))
    assert (
        f"At 10²⁰ FLOPs the best size is {count(params[0])} parameters on {count(tokens[0])} tokens" in figure.finding
    )
    (row,) = (row for row in figure.table.rows if row[0] == "10²⁰")
    value, interval = row[1].split("\n")
    low, high = (float(end.rstrip("MB")) for end in interval.split(" to "))
    assert low < float(value.rstrip("MB")) < high


def test_the_optimum_of_pilot_runs_is_not_held_to_the_planners_smallest_model(supervised: Law) -> None:
    equation = make_equation({"E": 1.2, "A": 30.0, "B": 60.0, "alpha": 0.35, "beta": 0.35, "gamma": 1.0})
    fitted = {"student_params": (25e3, 2e5), "student_tokens": (2.5e5, 2e6)}
    figure = figures(law_page(replace(supervised, equation=equation, draws=None, runs=None, fitted=fitted)))["optimum"]
    # alpha = beta: N / D = (A / B)^(1 / alpha) where F(N) = 2N, and 6 N D is the budget.
    size = np.sqrt(1e12 / 6 * (30 / 60) ** (1 / 0.35))
    assert f"At 10¹² FLOPs the best size is {count(size)} parameters" in figure.finding


def test_a_law_without_draws_or_rounding_claims_no_band() -> None:
    finding = figures(law_page(PUBLISHED["muennighoff2023"]))["tokens"].finding
    assert "±" not in finding
    assert "band" not in finding


def test_what_the_fit_says_of_itself_is_told(supervised: Law) -> None:
    page = law_page(supervised)
    told = section(page, "What the fit determined")
    for part in ("3,911", "62.4", "2.1B", "1.7B to 2.6B", "0.41 %", "8.4×10⁻⁴"):
        assert part in told
    titles = [table.title for part in page.sections for table in part.tables]
    assert "What the runs determine, at 10²¹ FLOPs and 7B parameters on 300B tokens" in titles
    assert "Held out." in section(page, "Mind")
    assert "A note of the fit." in section(page, "Mind")
    coefficients = section(page, "Coefficients")
    assert "1.78 to 1.85" in coefficients  # the fit's own interval of E wins over the draws'
    assert "fixed by the family" in coefficients


def test_a_coefficient_on_a_bound_says_so(supervised: Law) -> None:
    law = replace(supervised, diagnostics={**supervised.diagnostics, "at_bounds": ["alpha"]})
    (found,) = (part for part in law_page(law).sections if part.title == "Coefficients")
    rows = {row[0]: row[-1] for row in found.tables[0].rows}
    assert rows["α"] == "on a bound of the search"
    assert rows["β"] == ""


def test_four_passes_are_worth_less_than_four() -> None:
    finding = figures(law_page(PUBLISHED["muennighoff2023"]))["repetition"].finding
    worth = float(re.findall(r"worth ([\d.]+) passes", finding)[0])
    # R_D* (1 - exp(-3 / R_D*)) + 1 with R_D* = 15.387756.
    assert worth == pytest.approx(3.73, abs=THREE_DIGITS)
