"""What a model heard, and how many tokens it may take to say it.

Covers the values alone. Does not cover searching (`generate`, `beams`). Torch-free.
"""

from __future__ import annotations

import math
from dataclasses import dataclass


@dataclass(frozen=True)
class TokenCap:
    """How many new tokens a clip may take, end-of-text included: ceil(base + per_second * seconds).

    A model that does not stop repeats itself, and repetitions dominate a word error rate; so every system that is
    compared gets this one cap.

    The defaults leave every one of the 489 training transcripts of the Spanish captions at least 1.4 times its length
    (Whisper's tokenizer; the fastest takes 12.4 tokens a second, 99.9 % fewer than 11.6; least squares 1.8 + 4.3 a
    second).

    Args:
        base: Tokens for a clip of no length.
        per_second: Tokens a second.

    Raises:
        ValueError: A number is negative, or both are 0.
    """

    base: float = 10.0
    per_second: float = 10.0

    def __post_init__(self) -> None:
        if not (self.base >= 0 and self.per_second >= 0 and math.isfinite(self.base + self.per_second)):
            raise ValueError(
                f"the token cap {self.base} + {self.per_second} per second must be finite and not negative."
            )
        if self.base + self.per_second == 0:
            raise ValueError("the token cap is 0 for every clip: nothing could be transcribed.")

    def tokens(self, seconds: float) -> int:
        """The cap of a clip of this duration, at least 1."""
        return max(1, math.ceil(self.base + self.per_second * seconds))


@dataclass(frozen=True)
class Transcript:
    """What a model heard.

    Args:
        text: Without special tokens and outer space.
        tokens: Generated ids, without prompt and end-of-text.
        hit_cap: True when the model was cut off before it said end-of-text.
    """

    text: str
    tokens: tuple[int, ...]
    hit_cap: bool
