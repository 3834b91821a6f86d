"""The published law, which the plans are made with."""

from __future__ import annotations

import pytest

from tutelage.laws.law import Law
from tutelage.laws.published import PUBLISHED


@pytest.fixture(scope="session")
def law() -> Law:
    """The distillation law of `busbridge2025`."""
    return PUBLISHED["busbridge2025"]
