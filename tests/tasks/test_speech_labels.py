"""The prompt, the text ids and the way back."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from tutelage.errors import InputError
from tutelage.tasks.speech.labels import LabelCodec, require_language
from tutelage.tasks.speech.manifest import Utterance


def test_the_prompt_is_whispers_own(processor: Any, codec: LabelCodec) -> None:
    # The library's own prefix is the oracle.
    processor.tokenizer.set_prefix_tokens(language="spanish", task="transcribe", predict_timestamps=False)
    assert list(codec.prompt) == processor.tokenizer.prefix_tokens
    assert codec.end_of_text == processor.tokenizer.eos_token_id


def test_an_english_only_model_has_a_short_prompt(processor: Any) -> None:
    tokens = processor.tokenizer.convert_ids_to_tokens(list(LabelCodec(processor.tokenizer, None).prompt))
    assert tokens == ["<|startoftranscript|>", "<|notimestamps|>"]


def test_a_transcript_begins_with_a_space_and_comes_back(processor: Any, codec: LabelCodec) -> None:
    ids = codec.encode("  El perro corre. ")
    assert processor.tokenizer.decode(list(ids)) == " El perro corre."
    assert codec.decode(ids) == "El perro corre."


def test_special_tokens_in_a_transcript_stay_text(codec: LabelCodec) -> None:
    ids = codec.encode("fin <|endoftext|> no")
    assert codec.end_of_text not in ids
    assert codec.decode(ids) == "fin <|endoftext|> no"


def test_unknown_languages_and_tasks_are_refused(processor: Any) -> None:
    with pytest.raises(InputError, match=r"no token <\|xx\|>: 'xx' is not a language"):
        LabelCodec(processor.tokenizer, "xx")
    with pytest.raises(InputError, match=r"<\|sing\|>.*'sing' not a task"):
        LabelCodec(processor.tokenizer, "es", "sing")


def test_transcripts_that_do_not_fit_are_all_named(codec: LabelCodec) -> None:
    def utterance(name: str, text: str) -> Utterance:
        return Utterance(name, Path("a.wav"), text, 1.0, name)

    fits, too_long = utterance("fits", "x" * 3), [utterance(name, "xyz" * 20) for name in ("one", "two")]
    room = len(codec.prompt) + len(codec.encode("x" * 3)) + 1
    assert list(codec.encode_all([fits], room)) == ["fits"]
    with pytest.raises(InputError) as caught:
        codec.encode_all([fits, *too_long], room)
    assert [fault.split()[3] for fault in caught.value.faults] == ["one", "two"]
    with pytest.raises(InputError):
        codec.encode_all([fits], room - 1)


@pytest.mark.parametrize(
    ("multilingual", "language", "fault"),
    [(True, "es", None), (False, None, None), (True, None, "several languages"), (False, "es", "English alone")],
)
def test_a_language_that_the_model_does_not_take_is_refused(
    multilingual: bool, language: str | None, fault: str | None
) -> None:
    generation = SimpleNamespace(is_multilingual=multilingual)
    if fault is None:
        require_language(generation, language)
        return
    with pytest.raises(InputError, match=fault):
        require_language(generation, language)
