"""What every page owes its reader: well-formed, self-contained, accessible, escaped, the same bytes each time."""

from __future__ import annotations

import copy
import json
import os
import re
import subprocess
import sys
from dataclasses import replace
from itertools import combinations
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import numpy as np
import pytest

from page_tree import Element, read
from run_folders import finished
from tutelage.laws.files import write_law
from tutelage.laws.law import Law
from tutelage.reports.law_report import law_page
from tutelage.reports.palette import HUES, NAMES, STEPS
from tutelage.reports.plan_document import Part
from tutelage.reports.plan_report import plan_page
from tutelage.reports.render import render
from tutelage.reports.run_files import read_run
from tutelage.reports.run_report import run_page

HOSTILE = "<script>alert('$1$')</script>&\"</title>"
SVG = re.compile(r"<svg .*?</svg>", re.DOTALL)
# Against the ground, as WCAG 2.2 asks of graphics (1.4.11) and of text (1.4.3).
GRAPHICS_CONTRAST = 3.0
TEXT_CONTRAST = 4.5
# CIE 1976 colour difference; well above what can just be told apart, about 2.
APART = 15.0
VISIONS = {
    "common": np.eye(3),
    "no red cones": [[0.1523, 1.0526, -0.2049], [0.1145, 0.7863, 0.0992], [-0.0039, -0.0481, 1.0520]],
    "no green cones": [[0.3673, 0.8606, -0.2280], [0.2801, 0.6725, 0.0474], [-0.0118, 0.0429, 0.9689]],
    "no blue cones": [[1.2555, -0.0767, -0.1788], [-0.0784, 0.9309, 0.1476], [0.0047, 0.6914, 0.3039]],
}
"""Linear RGB as it is seen: the matrices of Machado, Oliveira and Fernandes, 2009."""


@pytest.fixture(scope="module", params=["supervised", "distillation", "plan", "speech", "text"])
def html(request: pytest.FixtureRequest) -> str:
    """One page of each kind."""
    if request.param in ("speech", "text"):
        folder = finished(request.getfixturevalue("tmp_path_factory").mktemp("runs") / "run", request.param)
        return render(run_page(read_run(folder)), "0" * 64)
    if request.param == "plan":
        return render(plan_page(Part(request.getfixturevalue("plan_document"), "")), "0" * 64)
    return render(law_page(request.getfixturevalue(request.param)), "0" * 64)


@pytest.fixture(scope="module")
def page(html: str) -> Element:
    """Its tree."""
    return read(html)


def test_the_page_and_each_drawing_are_well_formed(html: str, page: Element) -> None:
    drawings = SVG.findall(html)
    assert len(drawings) == len(page.all("svg")) == 2 * len(page.all("figure")) > 0
    for drawing in drawings:
        assert ElementTree.fromstring(drawing).tag == "{http://www.w3.org/2000/svg}svg"


def test_nothing_comes_from_elsewhere(html: str, page: Element) -> None:
    assert not re.findall(r"https?://(?!www\.w3\.org/2000/svg\")", html)
    assert "@import" not in html
    assert set(re.findall(r"url\((.)", html)) <= {"#"}
    assert not page.all("script")
    targets = [each.attributes["href"] for tag in ("a", "use", "image", "link") for each in page.all(tag)]
    assert [target for target in targets if not target.startswith("#")] == ["data:,"]


def everything(element: Element) -> list[Element]:
    return [element, *(each for child in element.children for each in everything(child))]


def test_ids_are_unique_and_every_reference_has_its_target(html: str, page: Element) -> None:
    ids = [each.attributes["id"] for each in everything(page) if "id" in each.attributes]
    assert len(ids) == len(set(ids))
    wanted = set(re.findall(r"url\(#([^)]+)\)", html)) | set(re.findall(r'href="#([^"]+)"', html))
    wanted |= {name for names in re.findall(r'aria-labelledby="([^"]+)"', html) for name in names.split()}
    assert wanted <= set(ids)


def test_every_figure_has_a_finding_a_description_and_its_numbers(page: Element) -> None:
    for figure in page.all("figure"):
        (caption,) = figure.all("figcaption")
        finding = caption.all("strong")[0].text
        assert re.search(r"\d", finding)
        assert finding.endswith(".")
        for drawing in figure.all("svg"):
            assert drawing.attributes["role"] == "img"
            assert drawing.attributes["viewbox"]
            assert "width" not in drawing.attributes
            assert drawing.all("title")[0].text
            assert drawing.all("desc")[0].text.replace("\u00a0", " ") == finding.replace("\u00a0", " ")
        (details,) = figure.all("details")
        assert len(details.all("tr")) > 1


def test_tables_name_their_rows_and_columns(page: Element) -> None:
    assert page.all("table")
    for table in page.all("table"):
        head, *rows = table.all("tr")
        assert {cell.attributes["scope"] for cell in head.all("th")} == {"col"}
        assert all(row.all("th")[0].attributes["scope"] == "row" for row in rows)
        assert {len(row.all("th")) + len(row.all("td")) for row in rows} == {len(head.all("th"))}


def test_drawings_take_their_colours_and_typeface_from_the_page(html: str) -> None:
    drawings = "".join(SVG.findall(html))
    assert not re.findall(r"#[0-9a-f]{3,6}\b(?![^\"]*[\"]?\))", re.sub(r'(url\(#|href="#)[^")]*', "", drawings))
    assert set(re.findall(r"var\(--([a-z0-9]+)\)", drawings)) <= set(NAMES)
    assert "font-family" not in drawings
    assert "<style" not in drawings
    assert "<text" in drawings


def themes(css: str) -> list[dict[str, str]]:
    """The colours of light and dark."""
    light, dark = (dict(re.findall(r"--(\w+): (#[0-9a-f]{6})", part)) for part in css.split("prefers-color-scheme"))
    return [light, dark]


def linear_parts(colour: str) -> list[float]:
    parts = [int(colour[at : at + 2], 16) / 255 for at in (1, 3, 5)]
    return [part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4 for part in parts]


def luminance(colour: str) -> float:
    linear = linear_parts(colour)
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


def contrast(one: str, other: str) -> float:
    dark, light = sorted((luminance(one), luminance(other)))
    return (light + 0.05) / (dark + 0.05)


@pytest.mark.parametrize("theme", [0, 1], ids=["light", "dark"])
def test_colours_stand_out_in_both_themes(root: Path, theme: int) -> None:
    css = (root / "src" / "tutelage" / "reports" / "page.css").read_text(encoding="utf-8")
    colours = themes(css)[theme]
    assert set(NAMES) <= set(colours)
    for name in (*HUES, *STEPS, "mark"):
        assert contrast(colours[name], colours["paper"]) >= GRAPHICS_CONTRAST, name
    for name in HUES:  # words beside a curve have its colour
        assert contrast(colours[name], colours["paper"]) >= TEXT_CONTRAST, name
    for name in ("ink", "soft", "good", "warn", "bad"):
        assert contrast(colours[name], colours["card"]) >= TEXT_CONTRAST, name


def lightness_and_hue(linear: np.ndarray) -> np.ndarray:
    """CIE L*, a*, b* of linear sRGB under D65."""
    to_xyz = np.array([[0.4124, 0.3576, 0.1805], [0.2126, 0.7152, 0.0722], [0.0193, 0.1192, 0.9505]])
    parts = to_xyz @ np.clip(linear, 0, 1) / [0.9505, 1.0, 1.089]
    x, y, z = np.where(parts > 0.008856, np.cbrt(parts), 7.787 * parts + 16 / 116)
    return np.array([116 * y - 16, 500 * (x - y), 200 * (y - z)])


@pytest.mark.parametrize("vision", VISIONS)
@pytest.mark.parametrize("theme", [0, 1], ids=["light", "dark"])
def test_curves_are_told_apart_by_every_common_vision(root: Path, theme: int, vision: str) -> None:
    css = (root / "src" / "tutelage" / "reports" / "page.css").read_text(encoding="utf-8")
    seen = {
        name: lightness_and_hue(np.array(VISIONS[vision]) @ np.array(linear_parts(themes(css)[theme][name])))
        for name in (*HUES, "ink")
    }
    close = {pair for pair in combinations(seen, 2) if np.linalg.norm(seen[pair[0]] - seen[pair[1]]) < APART}
    assert not close


def test_a_hostile_law_is_only_text(supervised: Law) -> None:
    assert supervised.runs is not None
    law = replace(supervised, name=HOSTILE, source=HOSTILE, note=HOSTILE, runs=replace(supervised.runs, source=HOSTILE))
    html = render(law_page(law), "0" * 64)
    page = read(html)
    assert not page.all("script")
    assert HOSTILE in page.all("h1")[0].text
    assert HOSTILE not in html


def test_a_hostile_plan_is_only_text(plan_document: dict[str, Any]) -> None:
    document = json.loads(json.dumps(plan_document).replace('"7B"', json.dumps(HOSTILE)))
    document["law"] = document["verdict"]["text"] = HOSTILE
    document["crossover"][HOSTILE] = document["crossover"]["best"]
    document["curves"]["scenarios"][HOSTILE] = document["curves"]["scenarios"]["best"]
    html = render(plan_page(Part(document, "")), "0" * 64)
    page = read(html)
    assert not page.all("script")
    assert HOSTILE not in html
    names = [
        text.text for figure in page.all("figure") for drawing in figure.all("svg") for text in drawing.all("text")
    ]
    assert HOSTILE in names


def test_the_same_page_gives_the_same_bytes(plan_document: dict[str, Any]) -> None:
    first, second = (render(plan_page(Part(copy.deepcopy(plan_document), "")), "0" * 64) for _ in range(2))
    assert first == second
    assert not re.search(r"20\d\d-\d\d-\d\d[T ]\d\d:\d\d", first)


@pytest.mark.slow
def test_other_processes_give_the_same_bytes(supervised: Law, tmp_path: Path) -> None:
    write_law(supervised, tmp_path / "law.json")
    settings = tmp_path / "of-the-user"
    settings.write_text("axes.ymargin: 0.4\nfont.size: 30\nsvg.fonttype: path\n")
    pages = []
    for seed in ("1", "2"):
        words = ["report", "law.json", "--out", f"{seed}.html", "--quiet"]
        environment = {**os.environ, "PYTHONHASHSEED": seed}
        if seed == "2":
            environment["MATPLOTLIBRC"] = str(settings)
        script = [sys.executable, "-m", "tutelage.cli.main", *words]
        subprocess.run(script, cwd=tmp_path, env=environment, check=True, capture_output=True, timeout=120)
        pages.append((tmp_path / f"{seed}.html").read_bytes())
    assert pages[0] == pages[1]
