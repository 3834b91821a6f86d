"""What is written from the source is current, and what is written by hand has its parts."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
DECISIONS = sorted((ROOT / "docs" / "adr").glob("[0-9]*.md"))
LINK = re.compile(r"\[[^\]]*\]\(([^)#\s]+)(?:#[^)]*)?\)")


@pytest.mark.parametrize("script", ["cli_help.py", "source_tree.py", "readme_table.py"])
def test_pages_made_from_the_source_are_current(root: Path, script: str) -> None:
    done = subprocess.run([sys.executable, root / "scripts" / script, "--check"], capture_output=True, text=True)
    assert done.returncode == 0, f"run `make docs`\n{done.stderr}"


@pytest.mark.parametrize("path", DECISIONS, ids=lambda path: path.stem)
def test_a_decision_has_its_sections(path: Path) -> None:
    text = path.read_text(encoding="utf-8")
    assert re.match(rf"# {int(path.stem[:4])}\. \S", text), "the title carries the number"
    assert re.search(r"^Status: (accepted|superseded by \d{4}|proposed)", text, re.MULTILINE)
    sections = re.findall(r"^## (.+)$", text, re.MULTILINE)
    assert sections == ["Context", "Decision", "Consequences"]


def test_decisions_are_numbered_without_gaps() -> None:
    assert [int(path.stem[:4]) for path in DECISIONS] == list(range(1, len(DECISIONS) + 1))


def test_links_lead_somewhere(tracked: list[Path], root: Path) -> None:
    broken = []
    for page in (path for path in tracked if path.suffix == ".md"):
        for target in LINK.findall(page.read_text(encoding="utf-8")):
            if "://" not in target and not (page.parent / target).exists():
                broken.append(f"{page.relative_to(root)}: {target}")
    assert not broken


def test_the_index_lists_every_page(root: Path) -> None:
    index = (root / "docs" / "README.md").read_text(encoding="utf-8")
    pages = [str(p.relative_to(root / "docs")) for p in sorted((root / "docs").rglob("*")) if p.is_file()]
    assert not [page for page in pages if page != "README.md" and f"({page})" not in index]
