"""Transcripts as label ids and back, for one language and task of a Whisper tokenizer.

Covers: the prompt, the text ids, the closing end-of-text, and the check that transcripts fit the decoder.
Does not cover: batches (`batch`), normalising text for scoring (`evaluation.normalisers`).

Torch-free; the tokenizer is handed in.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from tutelage.errors import InputError
from tutelage.tasks.speech.manifest import Utterance


def require_language(generation: Any, language: str | None) -> None:
    """Refuse a prompt that the model does not know: its tokenizer has every language's token, whatever it was taught.

    Args:
        generation: The model's generation settings.
        language: Language code, or None.

    Raises:
        InputError: No language for a multilingual model, or another than English for an English-only one.
    """
    multilingual = bool(getattr(generation, "is_multilingual", False))
    if multilingual and language is None:
        raise InputError("The model knows several languages; name the one that is spoken, for example es.")
    if not multilingual and language is not None:
        raise InputError(f"The model knows English alone and takes no language; leave out {language!r}.")


class LabelCodec:
    """Text to label ids and back, for one language and task.

    The prompt is `<|startoftranscript|><|es|><|transcribe|><|notimestamps|>`, without language and task for a model
    that knows English alone. Transcripts are encoded with one space in front, as Whisper itself writes them: without
    it the first token is one that the teacher never says.

    Args:
        tokenizer: A WhisperTokenizer or WhisperTokenizerFast.
        language: Two- or three-letter code as in the token; None for an English-only model.
        task: "transcribe" or "translate".

    Attributes:
        prompt: Ids that open the decoder's input; never supervised.
        end_of_text: The id that closes a transcript, and pads.

    Raises:
        InputError: The tokenizer lacks a token of the prompt.
    """

    def __init__(self, tokenizer: Any, language: str | None, task: str = "transcribe") -> None:
        self._tokenizer = tokenizer
        middle = () if language is None else (f"<|{language}|>", f"<|{task}|>")
        tokens = ("<|startoftranscript|>", *middle, "<|notimestamps|>", "<|endoftext|>")
        vocabulary: Mapping[str, int] = tokenizer.get_vocab()
        missing = [token for token in tokens if token not in vocabulary]
        if missing:
            raise InputError(
                f"The tokenizer has no token {', '.join(missing)}: {language!r} is not a language (a code such as "
                f"'es') or {task!r} not a task that this model knows, or it is no Whisper tokenizer."
            )
        *prompt, self.end_of_text = (vocabulary[token] for token in tokens)
        self.prompt: tuple[int, ...] = tuple(prompt)

    def encode(self, text: str) -> tuple[int, ...]:
        """Ids of a transcript, without prompt and end-of-text; special tokens spelled in the text stay text."""
        ids = self._tokenizer(
            " " + text.strip(), add_special_tokens=False, return_attention_mask=False, split_special_tokens=True
        )["input_ids"]
        return tuple(int(token) for token in ids)

    def decode(self, tokens: Sequence[int]) -> str:
        """Text of generated ids, special tokens and outer space removed."""
        return str(self._tokenizer.decode(list(tokens), skip_special_tokens=True)).strip()

    def encode_all(self, utterances: Sequence[Utterance], max_positions: int) -> dict[str, tuple[int, ...]]:
        """Ids of every transcript by utterance id.

        Args:
            utterances: What is to be trained on.
            max_positions: Decoder positions of the model (448 in Whisper); prompt, text and end-of-text must fit.

        Raises:
            InputError: Transcripts that do not fit, all of them.
        """
        encoded = {utterance.id: self.encode(utterance.text) for utterance in utterances}
        room = max_positions - len(self.prompt) - 1
        faults = [
            f"The transcript of {name} has {len(ids)} tokens; the decoder has room for {room}."
            for name, ids in encoded.items()
            if len(ids) > room
        ]
        if faults:
            raise InputError(faults)
        return encoded
