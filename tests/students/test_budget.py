"""The budget counts adapters and projectors over the teacher, on configurations alone."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tutelage.errors import InputError
from tutelage.models.load import count_params, load_meta
from tutelage.students.budget import Budget, Trainables, choose_rank
from tutelage.students.design import Lora, Projector
from tutelage.students.lora import count_lora_params, largest_useful_rank
from tutelage.students.projection import count_projector_params

EXAMPLES = Path(__file__).parents[2] / "examples"
AUTHORS = Lora(rank=64)


@pytest.fixture(scope="module")
def large_v3() -> Any:
    return load_meta(EXAMPLES / "whisper-large-v3-config")


@pytest.fixture(scope="module")
def medium() -> Any:
    return load_meta(EXAMPLES / "whisper-medium-config")


def authors(large_v3: Any, medium: Any, kind: Any) -> tuple[Budget, Trainables]:
    """Whisper large-v3 to medium, rank 64 on the decoder's q and v in self- and cross-attention."""
    widths = (medium.config.d_model, large_v3.config.d_model)
    projector = 0 if kind == "none" else count_projector_params(Projector(kind), *widths)
    trainables = Trainables(count_lora_params(medium, AUTHORS, 1), projector, largest_useful_rank(medium, AUTHORS))
    return Budget(count_params(large_v3), 0.01), trainables


@pytest.mark.parametrize(("kind", "share"), [("none", "0.815 %"), ("linear", "0.900 %")])
def test_the_authors_setting_counts_as_they_count(large_v3: Any, medium: Any, kind: Any, share: str) -> None:
    report = choose_rank(*authors(large_v3, medium, kind), rank=64)
    assert report.lora_params == 12_582_912
    assert f"= {share} of the teacher's 1,543,490,560" in report.describe()
    assert "(0.815 % without the projectors), within" in report.describe()


def test_the_authors_setting_with_a_two_layer_projector_is_refused(large_v3: Any, medium: Any) -> None:
    budget, trainables = authors(large_v3, medium, "mlp")
    with pytest.raises(InputError, match=r"1\.006 % of the teacher.*over the budget of 1\.000 %.*Rank 63 fits"):
        choose_rank(budget, trainables, rank=64)
    report = choose_rank(Budget(budget.teacher_params, 0.01, allow_over=True), trainables, rank=64)
    assert not report.within
    assert round(report.share, 5) == 0.01006
    assert "over the budget" in report.describe()


@given(
    teacher=st.integers(1, 10**10),
    share=st.floats(1e-6, 1.0),
    per_rank=st.integers(1, 10**6),
    projectors=st.integers(0, 10**7),
)
def test_an_open_rank_is_the_largest_that_fits(teacher: int, share: float, per_rank: int, projectors: int) -> None:
    budget, trainables = Budget(teacher, share), Trainables(per_rank, projectors)
    if per_rank + projectors > budget.limit:
        with pytest.raises(InputError, match="No rank fits"):
            choose_rank(budget, trainables)
        return
    report = choose_rank(budget, trainables)
    assert report.within
    assert report.lora_params + report.projector_params <= budget.limit
    assert report.lora_params + report.projector_params + per_rank > budget.limit


def test_the_share_is_taken_as_it_was_written() -> None:
    assert Budget(100, 0.29).limit == 29
    assert choose_rank(Budget(100, 0.29), Trainables(29)).within


def test_an_open_rank_stops_where_more_gains_nothing() -> None:
    assert choose_rank(Budget(10**9, 1.0), Trainables(10, 0, largest_rank=32)).rank == 32


def test_a_budget_that_cannot_be_met_says_so() -> None:
    with pytest.raises(InputError, match="No rank fits: choose a smaller projector"):
        choose_rank(Budget(1000, 0.01), Trainables(5, 8))
    assert choose_rank(Budget(1000, 0.01, allow_over=True), Trainables(5, 8)).rank == 1


def test_nothing_to_count_is_a_programming_error() -> None:
    with pytest.raises(ValueError, match="rank 1"):
        Trainables(0)
    with pytest.raises(ValueError, match="teacher"):
        Budget(0, 0.01)
