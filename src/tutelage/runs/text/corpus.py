"""The documents of a run as rows of tokens.

Covers encoding both sets with one codec, conversations that do not fit a row, packing, and the checks on lengths. Does
not cover reading the files (`materials`).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from tutelage.errors import InputError
from tutelage.progress import Talk
from tutelage.records.hashing import sha256_json
from tutelage.runs.text.recipe import TextData
from tutelage.tasks.text.batch import TextExamples
from tutelage.tasks.text.codec import Encoded, TextCodec
from tutelage.tasks.text.documents import Corpus
from tutelage.tasks.text.packing import pack

_NAMED = 5  # examples written out in one line


@dataclass(frozen=True)
class TokenSet:
    """One corpus in rows.

    Args:
        examples: The rows as batches.
        dropped: Conversations that did not fit a row.
    """

    examples: TextExamples
    dropped: tuple[str, ...]

    @property
    def sha256(self) -> str:
        """Hash of every row as a model is shown it: what two losses must share to be compared."""
        return sha256_json([row.token_hash for row in self.examples.packed.rows])

    @property
    def token_ids(self) -> set[int]:
        """Every id that the rows hold."""
        documents = self.examples.documents
        return {int(token) for document in documents for part in (document.inputs, document.labels) for token in part}


def tokenise(corpus: Corpus, name: str, codec: TextCodec, data: TextData, positions: int, talk: Talk) -> TokenSet:
    """Encode and pack one corpus.

    Args:
        corpus: The documents.
        name: "train" or "held_out", for messages.
        codec: Tokenizer and template.
        data: Length, packing, and what to do with conversations that are too long.
        positions: The longest sequence that every model takes.
        talk: Told what was done.

    Raises:
        InputError: Documents that cannot be encoded, conversations that are too long, or nothing to learn from.
    """
    encoded = codec.encode_all(corpus.documents)
    talking = {document.id for document in corpus.documents if document.messages}
    if talking and data.packing == "stream":
        raise InputError(
            f"data.{name} holds {len(talking)} conversations, which a row's end would cut; choose packing: documents."
        )
    long = tuple(document.id for document in encoded if document.id in talking and len(document) > data.length)
    if long and data.overlong == "error":
        raise InputError(
            f"{len(long)} conversations of data.{name} are longer than data.length {data.length}, such as "
            f"{', '.join(long[:_NAMED])}; raise it, or drop them (data.overlong: drop)."
        )
    kept = _without(encoded, long)
    if not kept:
        raise InputError(f"Every document of data.{name} is longer than data.length {data.length}.")
    packed = pack(kept, data.length, data.packing)
    talk(f"{name}: {packed.describe()}" + (f"; {len(long)} too long, dropped" if long else ""))
    return TokenSet(TextExamples(packed, kept, codec.end, positions), long)


def _without(encoded: Sequence[Encoded], dropped: Sequence[str]) -> list[Encoded]:
    gone = set(dropped)
    return [document for document in encoded if document.id not in gone]
