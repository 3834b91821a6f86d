"""A recipe that says nothing of a later key is the recipe that it was before the key."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tiny_text_run import write_text_run
from tutelage.config import load_recipe
from tutelage.runs.later_keys import LATER, LATER_IN_SPEECH, LATER_IN_TEXT

Write = Callable[..., Path]


def at(plain: dict[str, Any], path: str) -> Any:
    for name in path.split("."):
        plain = plain[name]
    return plain


@pytest.mark.parametrize(("path", "default"), [*LATER, *LATER_IN_SPEECH])
def test_the_default_of_a_row_is_the_settings_own(write_recipe: Write, path: str, default: Any) -> None:
    recipe = load_recipe(write_recipe())
    assert at(recipe.to_dict(), path) == default
    with pytest.raises(KeyError):
        at(recipe.identity("t", "h"), path)


@pytest.mark.parametrize(("path", "default"), LATER_IN_TEXT)
def test_the_default_of_a_row_of_text_is_the_settings_own(tmp_path: Path, path: str, default: Any) -> None:
    recipe = load_recipe(write_text_run(tmp_path))
    assert at(recipe.to_dict(), path) == default
    with pytest.raises(KeyError):
        at(recipe.identify({}), path)


@pytest.mark.parametrize(
    ("override", "path"),
    [
        ("student.keep=first", "student.keep"),
        ("student.lora.use_dora=true", "student.lora.use_dora"),
        ("teacher.dtype=bfloat16", "teacher.dtype"),
    ],
)
def test_a_key_that_says_something_counts(write_recipe: Write, override: str, path: str) -> None:
    recipe = write_recipe()
    said, plain = load_recipe(recipe, [override]), load_recipe(recipe)
    assert at(said.identity("t", "h"), path) == at(said.to_dict(), path)
    assert said.hash("t", "h") != plain.hash("t", "h")


def test_text_had_keep_from_the_beginning(tmp_path: Path) -> None:
    plain = load_recipe(write_text_run(tmp_path)).identify({})
    assert at(plain, "student.keep") == "spaced"
    assert at(plain, "student.layers") == 2
    assert "sensitivity_batches" not in plain["student"]
