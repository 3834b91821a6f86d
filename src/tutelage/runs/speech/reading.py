"""How an evaluation has clips read. Nothing here imports torch."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Reading:
    """Settings of decoding, and the clips that need more than one pass.

    Args:
        language: Language code as in Whisper's tokens; None for English-only models.
        beams: Transcripts that the search keeps; 1 is greedy.
        long: Ids of clips longer than the shortest window of all models. With any, transcripts alone are judged (a
            loss needs one pass over a clip), and other clips are timed.
    """

    language: str | None = None
    beams: int = 1
    long: tuple[str, ...] = ()
