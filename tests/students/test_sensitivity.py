"""A skipped block is a block that is not there, and the blocks that are missed most stay."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from tiny import shared_tiny_whisper
from tiny_text import LAYOUTS, shared_tiny_text
from tutelage.errors import InputError
from tutelage.models.causal import load_text_model
from tutelage.models.load import load_speech_model
from tutelage.objectives.reduction import Reduced
from tutelage.students.depth import shrink_text_model
from tutelage.students.sensitivity import choose_by_sensitivity, skipped
from tutelage.students.shrink import shrink_speech_model

IDS = torch.tensor([[0, 80, 90, 100, 110]])
SAME = 1e-6  # the same products in the same order


def loss(model: Any, ids: torch.Tensor) -> Reduced:
    logits = model(ids).logits[:, :-1]
    losses = torch.nn.functional.cross_entropy(logits.flatten(0, 1), ids[:, 1:].flatten(), reduction="sum")
    return Reduced(losses, ids[:, 1:].numel())


@pytest.mark.parametrize("layout", LAYOUTS)
def test_a_skipped_block_is_a_block_that_is_not_there(layout: str) -> None:
    source = load_text_model(shared_tiny_text(layout))
    for gone in range(4):
        cut = shrink_text_model(source, tuple(layer for layer in range(4) if layer != gone)).text.model
        found = choose_by_sensitivity(source.model, 2, [IDS], loss)
        assert found.without[gone] == pytest.approx(float(loss(cut, IDS).total.detach()) / 4, rel=SAME)
    assert found.whole == pytest.approx(float(loss(source.model, IDS).total.detach()) / 4, rel=SAME)


def test_whisper_s_decoder_is_measured_over_encoder_outputs() -> None:
    source = load_speech_model(shared_tiny_whisper())
    encoded = torch.randn(1, 200, 32, generator=torch.Generator().manual_seed(0))
    ids = torch.tensor([[305, 309, 314, 318, 10, 20]])

    def logits(model: Any) -> torch.Tensor:
        return model(encoder_outputs=(encoded,), decoder_input_ids=ids, use_cache=False).logits

    with torch.no_grad():
        cut = logits(shrink_speech_model(source, (0, 1, 3)).model)
        with skipped(source.model.model.decoder.layers[2]):
            assert torch.equal(logits(source.model), cut)
        assert not torch.equal(logits(source.model), cut)
    found = choose_by_sensitivity(source.model, 1, [0], lambda model, _: Reduced(logits(model).square().sum(), 1))
    assert len(found.without) == 4  # the decoder's, not the encoder's two


def test_the_blocks_that_are_missed_most_stay_and_of_equals_the_earlier() -> None:
    model = load_text_model(shared_tiny_text()).model.train()
    losses = iter([1.0, 3.0, 3.0, 5.0, 3.0])
    found = choose_by_sensitivity(model, 2, ["a"], lambda *_: Reduced(torch.tensor(next(losses)), 1))
    assert (found.layers, found.whole, found.without) == ((0, 2), 1.0, (3.0, 3.0, 5.0, 3.0))
    assert model.training
    assert "without 3: 3.0000 (+2.0000), removed" in found.describe()
    assert "without 2: 5.0000 (+4.0000)\n" in found.describe()
    assert found.to_dict()["layers"] == (0, 2)


def test_losses_are_weighted_by_tokens_and_nothing_is_left_hooked() -> None:
    model = load_text_model(shared_tiny_text()).model
    before = model(IDS).logits
    found = choose_by_sensitivity(model, 2, [1, 3], lambda _, size: Reduced(torch.tensor(8.0), size))
    assert (found.whole, found.tokens, found.batches) == (4.0, 4, 2)
    assert torch.equal(model(IDS).logits, before)


def test_what_cannot_be_measured_is_refused() -> None:
    model = load_text_model(shared_tiny_text()).model
    with pytest.raises(InputError, match="cannot keep 5 decoder layers: the model has 4"):
        choose_by_sensitivity(model, 5, [IDS], loss)
    with pytest.raises(InputError, match="not finite"):
        choose_by_sensitivity(model, 2, [IDS], lambda *_: Reduced(torch.tensor(float("nan")), 1))
