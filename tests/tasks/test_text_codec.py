"""Which tokens are supervised: of a text all and its end, of a conversation what the assistant says, never one off."""

from __future__ import annotations

import pytest

from tiny_text import tiny_tokenizer
from tutelage.errors import InputError
from tutelage.tasks.text.codec import Encoded, TextCodec
from tutelage.tasks.text.documents import Message, TextDocument
from tutelage.tasks.text.generate import split_document

CODEC = TextCodec(tiny_tokenizer())
TURNS = (
    Message("system", "be kind"),
    Message("user", "who runs?"),
    Message("assistant", "the dog"),
    Message("user", "and año?"),
    Message("assistant", "el año, ¡sí!"),
)
REWRITES = "{% for m in messages %}{{ m['content'] if loop.last else m['content'] | upper }}|{% endfor %}"


def supervised(encoded: Encoded) -> str:
    return str(CODEC.tokenizer.decode(encoded.labels[encoded.keep], skip_special_tokens=False))


def test_every_token_of_a_text_is_predicted_once_and_so_is_its_end() -> None:
    encoded = CODEC.encode(TextDocument("a", "the green año"))
    ids = CODEC.tokenizer("the green año")["input_ids"]
    assert encoded.inputs.tolist() == [CODEC.start, *ids]
    assert encoded.labels.tolist() == [*ids, CODEC.end]
    assert encoded.keep.all()
    assert encoded.bytes == len("the green año".encode())


def test_special_tokens_spelled_in_a_text_stay_text() -> None:
    encoded = CODEC.encode(TextDocument("a", "an <|endoftext|> in the middle"))
    assert (encoded.labels == CODEC.end).sum() == 1
    assert CODEC.decode(encoded.labels) == "an <|endoftext|> in the middle"


def test_only_what_the_assistant_says_is_supervised() -> None:
    encoded = CODEC.encode(TextDocument("a", "", TURNS))
    assert supervised(encoded) == "the dog<|stop|>\nel año, ¡sí!<|stop|>\n"
    assert encoded.bytes == len("the dog<|stop|>\nel año, ¡sí!<|stop|>\n".encode())
    # The label of the last position of the prompt is the first token of the answer.
    first = int(encoded.keep.argmax())
    assert CODEC.tokenizer.decode(encoded.inputs[: first + 1]).endswith("<|start|>assistant\n")


def test_inputs_and_labels_are_one_sequence() -> None:
    for document in (TextDocument("a", "the dog runs"), TextDocument("b", "", TURNS)):
        encoded = CODEC.encode(document)
        assert encoded.inputs[1:].tolist() == encoded.labels[:-1].tolist()


def test_a_template_that_rewrites_earlier_turns_is_refused() -> None:
    with pytest.raises(InputError, match="rewrites earlier turns of the conversation a"):
        TextCodec(tiny_tokenizer(), REWRITES).encode(TextDocument("a", "", TURNS))


def test_all_conversations_that_cannot_be_encoded_are_named() -> None:
    def spelling(name: str) -> TextDocument:
        return TextDocument(name, "", (Message("user", "<|stop|>"), Message("assistant", "x")))

    with pytest.raises(InputError) as refused:
        CODEC.encode_all([spelling("one"), TextDocument("a", "fine"), spelling("two")])
    assert [fault.split()[2] for fault in refused.value.faults] == ["one", "two"]
    with pytest.raises(InputError, match="no chat template"):
        TextCodec(tiny_tokenizer(chat=None)).encode(TextDocument("a", "", TURNS))


def test_identity_follows_tokenizer_and_template_and_nothing_else() -> None:
    other = tiny_tokenizer()
    other.add_tokens(["xyz"])
    used = tiny_tokenizer()
    used(["a", "b c d"], padding=True, truncation=True, max_length=2)
    assert TextCodec(used).identity == CODEC.identity
    assert TextCodec(other).identity["tokenizer"] != CODEC.identity["tokenizer"]
    assert TextCodec(tiny_tokenizer(), "{{ messages }}").identity["template"] != CODEC.identity["template"]


def test_a_prompt_and_what_follows_it() -> None:
    text = CODEC.encode(TextDocument("a", "the dog runs through the garden"))
    prompt, rest = split_document(text, 3)
    assert [*prompt[1:], *rest] == text.labels.tolist()
    assert len(prompt) == 3
    chat = CODEC.encode(TextDocument("b", "", TURNS[:3]))
    prompt, rest = split_document(chat, 1)
    assert CODEC.tokenizer.decode(rest) == "the dog<|stop|>\n"
