"""A recipe in the test's own folder."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path

import pytest

from tiny_run import write_run


@pytest.fixture
def write_recipe(tmp_path: Path) -> Callable[..., Path]:
    """`write_run` into the test's folder."""
    return partial(write_run, tmp_path)
