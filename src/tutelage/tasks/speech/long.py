"""Transcripts of recordings longer than a model's window, by the library's own chunking.

Covers one recording: overlapping pieces of the model's window (a sixth on either side), whose tokens the library joins
where they agree. Does not cover recordings that fit (`generate`), timestamps, or the loss, which needs one pass over
the whole.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from tutelage.models.load import SpeechModel
from tutelage.tasks.speech.audio import SAMPLE_RATE, read_audio
from tutelage.tasks.speech.labels import LabelCodec
from tutelage.tasks.speech.manifest import Utterance
from tutelage.tasks.speech.transcript import TokenCap, Transcript


@dataclass(frozen=True)
class LongForm:
    """How one model reads recordings longer than its window.

    Args:
        speech: The model; its own window is the length of the pieces.
        codec: Its prompt counts among a piece's tokens.
        language: As in the codec.
        beams: As in `generate.transcribe`, for each piece.
        cap: New tokens of a piece, by the window's duration.
    """

    speech: SpeechModel
    codec: LabelCodec
    language: str | None
    beams: int = 1
    cap: TokenCap = field(default_factory=TokenCap)

    def takes(self, clip: Utterance) -> bool:
        """Whether a clip is longer than the window."""
        return clip.duration > self.speech.window_seconds

    def transcribe(self, clip: Utterance) -> Transcript:
        """One recording's text. Its tokens, and whether a piece reached its cap, are not told by the library."""
        from transformers import AutomaticSpeechRecognitionPipeline

        speech, window = self.speech, self.speech.window_seconds
        length = min(int(speech.model.config.max_target_positions), len(self.codec.prompt) + self.cap.tokens(window))
        spoken: dict[str, Any] = {} if self.language is None else {"language": self.language, "task": "transcribe"}
        pipeline: Any = AutomaticSpeechRecognitionPipeline(
            model=speech.model,
            tokenizer=speech.processor.tokenizer,
            feature_extractor=speech.processor.feature_extractor,
        )
        found = pipeline(
            {"raw": read_audio(clip.audio), "sampling_rate": SAMPLE_RATE},
            chunk_length_s=window,
            ignore_warning=True,  # its advice is the model's own long-form reading, which cut windows do not have
            generate_kwargs={**spoken, "num_beams": self.beams, "max_length": length},
        )
        text = str(found["text"]).strip()
        return Transcript(text, (), hit_cap=False)
