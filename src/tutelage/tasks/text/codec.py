"""Documents as token ids, shifted once and for all, with the positions that are supervised.

A text t1 .. tn becomes the inputs  start t1 .. tn  and the labels  t1 .. tn end:  every token of it is predicted once,
and so is its end. `start` is the tokenizer's beginning-of-text, or its end-of-text where it has none. A conversation is
written by the chat template; only what the assistant says is supervised (its end of turn among it), which is found in
the text as what the template adds for that turn behind its own prompt for an answer.

Covers text and conversations. Does not cover cutting or packing (`packing`). Nothing here imports torch; the tokenizer
is handed in.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tutelage.errors import InputError
from tutelage.tasks.text.documents import TextDocument

Ids = NDArray[np.int32]
Flags = NDArray[np.bool_]


@dataclass(frozen=True)
class Encoded:
    """One document, ready to be cut.

    Args:
        id: The document's.
        group: The document's.
        inputs: What the model reads.
        labels: The token that follows each input.
        keep: True where the label is supervised.
        bytes: UTF-8 bytes of the supervised text.
    """

    id: str
    group: str
    inputs: Ids
    labels: Ids
    keep: Flags
    bytes: int

    def __len__(self) -> int:
        return int(self.inputs.size)


class TextCodec:
    """Text to ids and back for one tokenizer and one chat template.

    Args:
        tokenizer: A fast tokenizer.
        template: A chat template (Jinja) instead of the tokenizer's own.

    Attributes:
        start: The id that opens a text.
        end: The id that closes it, and pads.
        identity: Hashes of everything that the ids depend on beside the text.

    Raises:
        InputError: The tokenizer has no end-of-text token.
    """

    def __init__(self, tokenizer: Any, template: str | None = None) -> None:
        if tokenizer.eos_token_id is None:
            raise InputError("The tokenizer has no end-of-text token, so documents could not be told apart.")
        self.tokenizer = tokenizer
        self._template = template if template is not None else tokenizer.chat_template
        self.end = int(tokenizer.eos_token_id)
        self.start = self.end if tokenizer.bos_token_id is None else int(tokenizer.bos_token_id)
        settings = json.loads(tokenizer.backend_tokenizer.to_str())
        for name in ("padding", "truncation"):  # of a call, not of the tokenizer
            settings.pop(name, None)
        self.identity: Mapping[str, str] = {
            "tokenizer": _sha256(json.dumps([settings, self.start, self.end], sort_keys=True)),
            "template": _sha256(self._template or ""),
        }

    def encode(self, document: TextDocument) -> Encoded:
        """One document.

        Raises:
            InputError: A conversation, and there is no template or it rewrites what was said before.
        """
        return self._encode_chat(document) if document.messages else self._encode_text(document)

    def encode_all(self, documents: Iterable[TextDocument]) -> tuple[Encoded, ...]:
        """Every document, in order.

        Raises:
            InputError: All documents that cannot be encoded.
        """
        encoded: list[Encoded] = []
        faults: list[str] = []
        for document in documents:
            try:
                encoded.append(self.encode(document))
            except InputError as error:
                faults += error.faults
        if faults:
            raise InputError(dict.fromkeys(faults))
        return tuple(encoded)

    def decode(self, ids: Iterable[int]) -> str:
        """Text of ids, special tokens removed."""
        return str(self.tokenizer.decode([int(token) for token in ids], skip_special_tokens=True))

    def _encode_text(self, document: TextDocument) -> Encoded:
        ids = self.tokenizer(
            document.text,
            add_special_tokens=False,
            return_attention_mask=False,
            split_special_tokens=True,
            verbose=False,  # no remark on documents longer than a model: they are cut into rows
        )["input_ids"]
        sequence = np.asarray([self.start, *ids, self.end], dtype=np.int32)
        keep = np.ones(sequence.size - 1, dtype=np.bool_)
        return Encoded(
            document.id, document.group, sequence[:-1], sequence[1:], keep, len(document.text.encode("utf-8"))
        )

    def _encode_chat(self, document: TextDocument) -> Encoded:
        self._refuse_special_tokens(document)
        text, spans = self._write(document)
        encoded = self.tokenizer(
            text, add_special_tokens=False, return_attention_mask=False, return_offsets_mapping=True, verbose=False
        )
        sequence = np.asarray(encoded["input_ids"], dtype=np.int32)
        # A token that begins before the answer does is never generated, so it is not supervised.
        said = [
            begin < end and any(low <= begin and end <= high for low, high in spans)
            for begin, end in encoded["offset_mapping"]
        ]
        keep = np.asarray(said[1:], dtype=np.bool_)
        size = sum(len(text[low:high].encode("utf-8")) for low, high in spans)
        return Encoded(document.id, document.group, sequence[:-1], sequence[1:], keep, size)

    def _write(self, document: TextDocument) -> tuple[str, list[tuple[int, int]]]:
        """The conversation as the template writes it, and where the assistant speaks."""
        if not self._template:
            raise InputError("The tokenizer has no chat template, and the data holds conversations; name one.")
        messages = [{"role": message.role, "content": message.content} for message in document.messages]
        whole = self._render(messages)
        spans = []
        for index, message in enumerate(messages):
            if message["role"] != "assistant":
                continue
            before = self._render(messages[:index], prompt=True)
            after = self._render(messages[: index + 1])
            if not after.startswith(before) or not whole.startswith(after):
                raise InputError(
                    f"The chat template rewrites earlier turns of the conversation {document.id} (at turn {index + 1}),"
                    " so what the assistant said cannot be told from the rest. End conversations with one answer each,"
                    " or name a template that only adds."
                )
            spans.append((len(before), len(after)))
        return whole, spans

    def _render(self, messages: list[dict[str, str]], *, prompt: bool = False) -> str:
        return str(
            self.tokenizer.apply_chat_template(
                messages, chat_template=self._template, tokenize=False, add_generation_prompt=prompt
            )
        )

    def _refuse_special_tokens(self, document: TextDocument) -> None:
        spelled = [
            token
            for token in self.tokenizer.all_special_tokens
            if any(token in message.content for message in document.messages)
        ]
        if spelled:
            raise InputError(
                f"The conversation {document.id} spells the special token {', '.join(spelled)}, which would be read as "
                "one; remove it."
            )


def _sha256(text: str) -> str:
    return hashlib.sha256(text.encode("utf-8")).hexdigest()
