"""Labels are shifted once, exactly the text and one end-of-text are supervised, masks come from lengths."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from tutelage.tasks.speech.batch import SpeechExamples, collate
from tutelage.tasks.speech.labels import LabelCodec
from tutelage.tasks.speech.manifest import Utterance

POSITIONS, WIDTH = 5, 3


def outputs(count: int) -> list[torch.Tensor]:
    return [torch.full((POSITIONS, WIDTH), float(index), dtype=torch.float16) for index in range(count)]


def test_the_layout_of_a_batch(codec: LabelCodec) -> None:
    start, language, task, plain = codec.prompt
    end = codec.end_of_text
    batch = collate(["a", "b"], outputs(2), [(7, 8), (9,)], codec)
    assert batch.decoder_input_ids_BT.tolist() == [
        [start, language, task, plain, 7, 8],
        [start, language, task, plain, 9, end],
    ]
    assert batch.keep_BT.tolist() == [[False] * 3 + [True] * 3, [False] * 3 + [True] * 2 + [False]]
    assert batch.labels_BT[batch.keep_BT].tolist() == [7, 8, end, 9, end]
    assert batch.supervised_tokens == 5
    assert batch.encoder_BSH.dtype == torch.float32
    assert batch.encoder_BSH.shape == (2, POSITIONS, WIDTH)


def test_exactly_one_end_of_text_is_supervised_whatever_the_lengths(codec: LabelCodec) -> None:
    texts = [tuple(range(10, 10 + length)) for length in (1, 6, 3, 6, 2)]
    batch = collate(list("abcde"), outputs(5), texts, codec)
    for row, text in enumerate(texts):
        kept = batch.labels_BT[row][batch.keep_BT[row]].tolist()
        assert kept == [*text, codec.end_of_text]
        # The label of a kept position is the next input, up to the end of the text.
        last = len(codec.prompt) + len(text) - 1
        assert batch.labels_BT[row, :last].tolist() == batch.decoder_input_ids_BT[row, 1 : last + 1].tolist()


def test_a_batch_moves_whole(codec: LabelCodec) -> None:
    moved = collate(["a"], outputs(1), [(7,)], codec).to("meta")
    assert {t.device.type for t in (moved.encoder_BSH, moved.decoder_input_ids_BT, moved.labels_BT, moved.keep_BT)} == {
        "meta"
    }


def test_collate_refuses_what_does_not_match(codec: LabelCodec) -> None:
    with pytest.raises(ValueError, match="2, 1, 1"):
        collate(["a", "b"], outputs(1), [(7,)], codec)
    with pytest.raises(ValueError, match="at least one"):
        collate([], [], [], codec)


def test_examples_join_by_id_not_by_order(codec: LabelCodec) -> None:
    utterances = [Utterance(name, Path("x.wav"), text, 1.0, name) for name, text in (("a", "el perro"), ("b", "gato"))]
    by_id = {"b": torch.ones(POSITIONS, WIDTH), "a": torch.zeros(POSITIONS, WIDTH)}
    examples = SpeechExamples(utterances, by_id, codec, max_positions=64)
    batch = examples.batch([1, 0])
    assert batch.ids == ("b", "a")
    assert batch.encoder_BSH[:, 0, 0].tolist() == [1.0, 0.0]
    assert codec.decode(batch.labels_BT[0][batch.keep_BT[0]].tolist()) == "gato"
    assert len(examples) == 2
    assert examples.supervised_tokens == batch.supervised_tokens
    with pytest.raises(ValueError, match="1 utterances have no encoder output, the first is 'b'"):
        SpeechExamples(utterances, {"a": by_id["a"]}, codec, max_positions=64)
