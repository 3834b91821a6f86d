"""Every source that the package names by key is listed, completely, in `docs/references.yaml`."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
from ruamel.yaml import YAML

ROOT = Path(__file__).resolve().parents[2]
KEY = re.compile(r"\b[a-z]{2,}(?:19|20)\d\d\b")


@pytest.fixture(scope="module")
def references() -> dict[str, Any]:
    return dict(YAML(typ="safe").load((ROOT / "docs" / "references.yaml").read_text("utf-8")))


def test_every_entry_is_complete(references: dict[str, Any]) -> None:
    for key, entry in references.items():
        assert KEY.fullmatch(key)
        assert {"authors", "title", "year", "used_for"} <= set(entry), key
        assert {"arxiv", "venue"} & set(entry), key  # a paper older than arXiv is found by its journal
        assert re.fullmatch(r"\d{4}\.\d{4,5}", entry.get("arxiv", "0000.0000")), key
        assert key.endswith(str(entry["year"])), key
        assert key.removesuffix(str(entry["year"])) == entry["authors"][0].split()[-1].lower(), key


def test_every_key_in_the_source_and_the_notation_is_listed(references: dict[str, Any]) -> None:
    pages = [*(ROOT / "src").rglob("*.py"), ROOT / "docs" / "notation.md"]
    named = {(key, page.name) for page in pages for key in KEY.findall(page.read_text("utf-8"))}
    assert named
    assert not sorted(pair for pair in named if pair[0] not in references)
