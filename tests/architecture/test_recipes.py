"""Every shipped recipe is read by the parser that reads a user's."""

from __future__ import annotations

from pathlib import Path

import pytest


def test_every_shipped_recipe_loads(root: Path, subtests: pytest.Subtests) -> None:
    from tutelage.config import load_recipe

    for path in sorted((root / "recipes").rglob("*.yaml")):
        with subtests.test(recipe=path.name):
            load_recipe(path)
