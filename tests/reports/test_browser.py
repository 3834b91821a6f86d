"""Pages as a browser sees them: headless Chromium says no word and asks for nothing, in light and in dark.

Skipped where there is no Chromium; continuous integration installs it.
"""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from run_folders import finished
from tutelage.laws.law import Law
from tutelage.reports.law_report import law_page
from tutelage.reports.plan_document import Part
from tutelage.reports.plan_report import plan_page
from tutelage.reports.render import render
from tutelage.reports.run_files import read_run
from tutelage.reports.run_report import run_page

CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
SECONDS = 120  # far above the second or two that it takes, for a loaded machine
QUIET = (
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--hide-scrollbars",
    "--enable-logging=stderr",
    "--v=0",
)
THEMES = {"light": "1", "dark": "0"}
# Of 255: what image encoding may move a colour by.
SHADE = 3
# Of a drawing's pixels: less is not a drawing.
DRAWN = 0.005

pytestmark = [pytest.mark.slow, pytest.mark.skipif(CHROMIUM is None, reason="Chromium is not installed")]


@dataclass(frozen=True)
class Seen:
    """What came of opening a page: console lines, addresses that the page asked for, the picture, the tree."""

    console: list[str]
    requests: list[str]
    picture: np.ndarray
    tree: str


def look(html: str, folder: Path, theme: str, width: int = 1000) -> Seen:
    """Open a page with no way out, and see."""
    from matplotlib.image import imread

    (folder / "page.html").write_text(html, encoding="utf-8")
    words = [
        str(CHROMIUM),
        *QUIET,
        "--host-resolver-rules=MAP * ~NOTFOUND",
        f"--blink-settings=preferredColorScheme={THEMES[theme]}",
        f"--user-data-dir={folder / 'user'}",
        f"--log-net-log={folder / 'net.json'}",
        f"--screenshot={folder / 'page.png'}",
        f"--window-size={width},4000",
        "--dump-dom",
        (folder / "page.html").as_uri(),
    ]
    done = subprocess.run(words, capture_output=True, text=True, timeout=SECONDS, cwd=folder)
    assert done.returncode == 0, done.stderr
    events = json.loads((folder / "net.json").read_text(encoding="utf-8"))["events"]
    # What the browser asks for of its own accord has no origin.
    asked = [
        event["params"]
        for event in events
        if event.get("params", {}).get("initiator", "not an origin") != "not an origin"
    ]
    picture = (255 * imread(folder / "page.png")).astype(int)[..., :3]
    console = [line for line in done.stderr.splitlines() if "CONSOLE" in line]
    return Seen(console, [each["url"] for each in asked], picture, done.stdout)


def paper(root: Path, theme: str) -> list[int]:
    """The ground's colour in a theme."""
    css = (root / "src" / "tutelage" / "reports" / "page.css").read_text(encoding="utf-8")
    light, dark = re.findall(r"--paper: #([0-9a-f]{6})", css)
    return list(bytes.fromhex({"light": light, "dark": dark}[theme]))


@pytest.mark.parametrize("theme", THEMES)
@pytest.mark.parametrize("kind", ["law", "plan", "run"])
def test_a_page_is_silent_alone_and_in_the_readers_colours(
    kind: str, theme: str, distillation: Law, plan_document: dict[str, Any], root: Path, tmp_path: Path
) -> None:
    if kind == "run":
        page = run_page(read_run(finished(tmp_path / "run", "speech")))
    else:
        page = law_page(distillation) if kind == "law" else plan_page(Part(plan_document, ""))
    seen = look(render(page, "0" * 64), tmp_path, theme)
    assert seen.console == []
    assert [url for url in seen.requests if not url.startswith("data:")] == []
    ground = np.array(paper(root, theme))
    assert np.abs(seen.picture[5, 5] - ground).max() <= SHADE
    assert np.mean(np.abs(seen.picture - ground).max(axis=-1) > 40) > DRAWN
    # Nothing was moved out of its figure by the browser's own reading of the page.
    assert seen.tree.count("<figure") == len(page.figures)
    inside = re.findall(r"<figure.*?</figure>", seen.tree, re.DOTALL)
    assert [part.count('role="img"') for part in inside] == [2] * len(page.figures)


def test_a_phone_sees_no_page_wider_than_itself(distillation: Law, root: Path, tmp_path: Path) -> None:
    for page in (law_page(distillation), run_page(read_run(finished(tmp_path / "run", "speech")))):
        seen = look(render(page, "0" * 64), tmp_path, "light", width=390)
        margin = seen.picture[:, -8:]
        assert np.abs(margin - np.array(paper(root, "light"))).max() <= SHADE


def test_a_page_that_asks_or_complains_would_be_seen(tmp_path: Path) -> None:
    html = "<!DOCTYPE html><title>x</title><img src='http://example.invalid/a.png'><script>console.error('no')</script>"
    seen = look(html, tmp_path, "light")
    assert seen.requests == ["http://example.invalid/a.png"]
    assert len(seen.console) == 1
