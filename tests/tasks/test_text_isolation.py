"""A model whose attention takes no mask a row is refused in one line with two ways out."""

from __future__ import annotations

import pytest
import torch

from tiny_text import shared_tiny_text
from tutelage.errors import InputError
from tutelage.models.causal import load_text_model
from tutelage.tasks.text import isolation
from tutelage.tasks.text.batch import TextBatch

IDS = torch.tensor([[5, 6, 7, 8]])
PIECES = torch.tensor([[1, 1, 2, 2]])
BATCH = TextBatch(("row",), ("hash",), IDS, IDS, PIECES > 0, PIECES, isolated=True)


def test_an_attention_that_fails_on_the_mask_is_an_input_error(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object) -> None:
        raise RuntimeError("The size of tensor a (4) must match\nthe size of tensor b")

    model = load_text_model(shared_tiny_text("gpt2")).model.train()
    monkeypatch.setattr(isolation, "read", fail)
    said = r"^This gpt2 model cannot keep .* \(The size of .* match\).*data\.packing: stream"
    with pytest.raises(InputError, match=said):
        isolation.leak_between_pieces(model, BATCH)
    assert model.training


def test_a_full_device_is_not_the_mask_s_fault(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object) -> None:
        raise torch.cuda.OutOfMemoryError("out of memory")

    monkeypatch.setattr(isolation, "read", fail)
    with pytest.raises(torch.cuda.OutOfMemoryError):
        isolation.leak_between_pieces(load_text_model(shared_tiny_text("gpt2")).model, BATCH)
