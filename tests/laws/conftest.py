"""The published distillation law, which most tests of the laws are about."""

from __future__ import annotations

import pytest

from tutelage.laws.families.distillation import DistillationLaw
from tutelage.laws.published import PUBLISHED


@pytest.fixture
def distillation() -> DistillationLaw:
    """The distillation law of `busbridge2025`."""
    return PUBLISHED["busbridge2025"].require_distillation()
