"""Passes of every layout: labels aligned as the library's own loss has them, documents kept apart, states numbered."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
import torch

from tiny_text import BLOCKS, LAYOUTS, VOCABULARY, WIDTH, shared_tiny_text
from tutelage.errors import InputError
from tutelage.models.causal import TextModel, load_text_model
from tutelage.tasks.text.batch import TextBatch, TextExamples
from tutelage.tasks.text.codec import TextCodec
from tutelage.tasks.text.documents import TextDocument
from tutelage.tasks.text.forward import positions_in_piece, read
from tutelage.tasks.text.packing import pack
from tutelage.tasks.text.score import score_documents
from tutelage.training.preflight import garble_padding

TEXTS = ("the dog runs", "a blue train passes the green house", "word", "children sing in the garden and the dog too")
ROUNDING = 2e-5  # float32, another kernel or another order of sums


def examples_of(text: TextModel, length: int, packing: str, texts: tuple[str, ...] = TEXTS) -> TextExamples:
    codec = TextCodec(text.tokenizer)
    documents = codec.encode_all(TextDocument(str(number), said) for number, said in enumerate(texts))
    return TextExamples(pack(documents, length, packing), documents, codec.end, text.positions)


def loss(text: TextModel, batch: TextBatch) -> torch.Tensor:
    logits = read(text.model, batch).logits_BTV
    return torch.nn.functional.cross_entropy(logits[batch.keep_BT], batch.labels_BT[batch.keep_BT], reduction="sum")


@pytest.mark.parametrize("layout", LAYOUTS)
@torch.no_grad()
def test_the_loss_equals_the_librarys_own(layout: str) -> None:
    """The library shifts labels by itself; ours are shifted already, so a double shift would show."""
    text = load_text_model(shared_tiny_text(layout))
    batch = examples_of(text, 64, "documents", TEXTS[1:2]).batch([0])
    whole = torch.cat([batch.input_ids_BT, batch.labels_BT[:, -1:]], dim=1)
    theirs = text.model(input_ids=whole, labels=whole).loss
    assert float(loss(text, batch) / batch.supervised_tokens) == pytest.approx(float(theirs), rel=ROUNDING)


@pytest.mark.parametrize("layout", LAYOUTS)
@torch.no_grad()
def test_a_document_in_a_packed_row_is_read_as_if_it_were_alone(layout: str) -> None:
    text = load_text_model(shared_tiny_text(layout))
    packed = examples_of(text, 120, "documents")
    assert len(packed) == 1
    batch = packed.batch([0])
    logits = read(text.model, batch).logits_BTV[0]
    for number, owner in enumerate(packed.packed.rows[0].owners, start=1):
        alone = read(text.model, examples_of(text, 120, "documents", (TEXTS[owner],)).batch([0])).logits_BTV[0]
        difference = (logits[batch.pieces_BT[0] == number] - alone).abs().max()
        assert float(difference) < ROUNDING * float(alone.abs().max())


@torch.no_grad()
def test_in_a_stream_a_document_is_read_after_the_one_before() -> None:
    text = load_text_model(shared_tiny_text())
    apart, stream = (examples_of(text, 120, packing).batch([0]) for packing in ("documents", "stream"))
    assert sorted(apart.labels_BT[0].tolist()) == sorted(stream.labels_BT[0].tolist())
    first = stream.pieces_BT[0] == 1
    alone = read(text.model, examples_of(text, 120, "documents", TEXTS[:1]).batch([0])).logits_BTV[0]
    logits = read(text.model, stream).logits_BTV[0]
    assert torch.allclose(logits[first], alone, atol=ROUNDING * float(alone.abs().max()))
    second = read(text.model, examples_of(text, 120, "documents", TEXTS[1:2]).batch([0])).logits_BTV[0]
    assert not torch.allclose(logits[stream.pieces_BT[0] == 2], second, atol=0.01)


@pytest.mark.parametrize("packing", ["documents", "stream"])
@torch.no_grad()
def test_padding_changes_nothing(packing: str) -> None:
    text = load_text_model(shared_tiny_text("gpt_neox"))
    examples = examples_of(text, 14, packing)
    batch = examples.batch([0, len(examples) - 1])
    assert not batch.keep_BT.all()
    garbled = dataclasses.replace(
        batch, input_ids_BT=garble_padding(batch.input_ids_BT, batch.keep_BT, VOCABULARY, seed=1)
    )
    assert not torch.equal(garbled.input_ids_BT, batch.input_ids_BT)
    assert float(loss(text, garbled)) == pytest.approx(float(loss(text, batch)), rel=1e-6)


def test_exactly_the_supervised_positions_move_the_loss() -> None:
    text = load_text_model(shared_tiny_text())
    batch = examples_of(text, 16, "documents").batch(range(2))
    logits = read(text.model, batch).logits_BTV.detach().requires_grad_()
    kept = logits[batch.keep_BT]
    torch.nn.functional.cross_entropy(kept, batch.labels_BT[batch.keep_BT]).backward()
    assert logits.grad is not None
    assert torch.equal(logits.grad.abs().sum(-1) > 0, batch.keep_BT)


@torch.no_grad()
def test_states_are_the_librarys_and_wrong_numbers_are_refused() -> None:
    text = load_text_model(shared_tiny_text())
    batch = examples_of(text, 32, "documents").batch([0])
    signal = read(text.model, batch, (1, BLOCKS))
    assert {layer: state.shape[-1] for layer, state in signal.states.items()} == {1: WIDTH, BLOCKS: WIDTH}
    assert torch.allclose(text.model.lm_head(signal.states[BLOCKS]), signal.logits_BTV, atol=ROUNDING)
    with pytest.raises(ValueError, match=r"blocks 1 to 4 .* not \[5\]"):
        read(text.model, batch, (5,))


def test_positions_begin_anew_in_every_piece() -> None:
    assert positions_in_piece(torch.tensor([[1, 1, 1, 2, 2, 0]])).tolist() == [[0, 1, 2, 0, 1, 0]]


def test_sums_by_document_are_those_of_each_document_alone() -> None:
    text = load_text_model(shared_tiny_text())
    packed = examples_of(text, 120, "documents")
    found = score_documents(text.model, packed, batch_size=2)
    predictions = found.answers.predictions
    assert predictions.positions == packed.packed.supervised
    for number, said in enumerate(TEXTS):
        alone = score_documents(text.model, examples_of(text, 120, "documents", (said,)), batch_size=1)
        mine = found.owners_N == number
        assert predictions.nats_N[mine].sum() == pytest.approx(alone.answers.predictions.nats_N.sum(), rel=ROUNDING)
        assert np.array_equal(predictions.guesses_N[mine], alone.answers.predictions.guesses_N)
        assert packed.documents[number].bytes == len(said)
    cut = score_documents(text.model, examples_of(text, 9, "documents"), batch_size=2)
    assert np.array_equal(np.bincount(cut.owners_N), np.bincount(found.owners_N))


def test_rows_longer_than_the_models_positions_are_refused() -> None:
    with pytest.raises(InputError, match=r"data\.length is 400; the model's positions end at 128"):
        examples_of(load_text_model(shared_tiny_text()), 400, "documents")
