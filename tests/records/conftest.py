"""Runs to keep."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from tutelage.records.estimate import Estimate
from tutelage.records.run import LawColumns, Run


@pytest.fixture
def make_run() -> Callable[..., Run]:
    def make(seed: int = 0, recipe_hash: str = "ab12", wer: float = 0.25, **changes: object) -> Run:
        values: dict[str, object] = {
            "name": "captions",
            "task": "speech",
            "recipe_hash": recipe_hash,
            "seed": seed,
            "folder": Path("/runs/one"),
            "law": LawColumns(N_S=2e7, D_S=3e5, N_T=7.2e7, L_T=0.9, L_S=1.1, FLOPs=4e13, held_out_sha256="cd34"),
            "scores": {"student.wer": Estimate(wer, wer - 0.05, wer + 0.07, 0.95, "group bootstrap")},
            "provenance": {"python": "3.11", "packages": {"torch": None}},
        }
        return Run(**{**values, **changes})  # type: ignore[arg-type]

    return make
