"""Gathering kept positions."""

from __future__ import annotations

import pytest
import torch

from tutelage.objectives.reduction import gather_kept, sum_rows


def test_rows_come_in_reading_order_and_shapes_must_match() -> None:
    values = torch.arange(12.0).reshape(2, 3, 2)
    keep_BT = torch.tensor([[True, False, True], [False, True, False]])
    assert gather_kept(values, keep_BT).tolist() == [[0.0, 1.0], [4.0, 5.0], [8.0, 9.0]]
    with pytest.raises(ValueError, match="do not match"):
        gather_kept(values, keep_BT[:, :2])
    with pytest.raises(ValueError, match="boolean"):
        gather_kept(values, keep_BT.long())


def test_sum_keeps_the_number_of_rows() -> None:
    total, count = sum_rows(torch.tensor([1.0, 2.5]))
    assert (float(total), count) == (3.5, 2)
