"""A converted student beside the student it was made from, on the same clips, both greedy and with the same features.

Covers encoder outputs, transcripts and error rates of a CTranslate2 Whisper on the CPU. Does not cover beam search,
timestamps, long audio, speed or memory.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from tutelage.errors import TutelageError
from tutelage.evaluation.bootstrap import Resampling
from tutelage.evaluation.compare import compare_scores
from tutelage.evaluation.normalisers import whisper_normaliser
from tutelage.evaluation.wer import score_transcripts
from tutelage.models.load import SpeechModel, load_speech_model
from tutelage.progress import Progress
from tutelage.students.ctranslate2_export import open_converted
from tutelage.tasks.speech.audio import read_audio
from tutelage.tasks.speech.features import FrozenEncoder, encode_clips, log_mel
from tutelage.tasks.speech.generate import TokenCap, Transcript, from_audio, transcribe
from tutelage.tasks.speech.labels import LabelCodec
from tutelage.tasks.speech.manifest import Utterance

EXACT = 1e-3
"""Largest difference, of the largest value, that float32 in another order may make (seen: 5e-5 at width 512)."""
NOT_COMPARED = ("beam search", "timestamps", "audio longer than the window", "speed and memory")


def compare_converted(
    student: Path,
    converted: Path,
    quantization: str,
    clips: Sequence[Utterance],
    spoken: tuple[str | None, str],
    progress: Progress,
) -> dict[str, Any]:
    """Both models' transcripts and error rates on `clips`, and how far their encoders are apart.

    Args:
        student: The student's folder.
        converted: The folder made from it.
        quantization: How its weights are stored.
        clips: What both hear; at least one.
        spoken: The language of the clips, None for a model that knows English alone; and the task.
        progress: Told of each clip.

    Raises:
        TutelageError: float32 weights were converted, and the encoders differ by more than `EXACT`.
    """
    speech = load_speech_model(student)
    codec = LabelCodec(speech.processor.tokenizer, *spoken)
    model = open_converted(converted, quantization, "speech")
    longest = int(speech.model.config.max_target_positions) // 2  # CTranslate2 generates no more
    caps = [min(longest, TokenCap().tokens(clip.duration)) for clip in clips]
    encode = from_audio(FrozenEncoder(speech.model, speech.processor.feature_extractor))
    original = [
        _cut(found, cap, codec) for found, cap in zip(transcribe(speech.model, clips, encode, codec), caps, strict=True)
    ]
    written, distance = [], 0.0
    with progress("compare", total=len(clips), unit="clip") as advance:
        for clip, cap in zip(clips, caps, strict=True):
            tokens, apart = _hear(model, speech, codec, clip, cap)
            written.append(_cut(tokens, cap, codec))
            distance = max(distance, apart)
            advance(1)
    if quantization == "float32" and distance > EXACT:
        raise TutelageError(
            f"the converted encoder differs from the student's by {distance:.2g} of its largest value, more than "
            f"{EXACT:g}: the conversion is wrong, and nothing was kept."
        )
    same = sum(a.tokens == b.tokens for a, b in zip(original, written, strict=True))
    return {
        "clips": len(clips),
        "same_transcripts": same,
        "encoder_difference": distance,
        "compute_type": model.compute_type,
        "wer": _compare_errors(clips, original, written, spoken[0], student),
        "differing": _differing(clips, original, written),
        "not_compared": list(NOT_COMPARED),
    }


def _hear(model: Any, speech: SpeechModel, codec: LabelCodec, clip: Utterance, cap: int) -> tuple[Transcript, float]:
    """The converted model's transcript, and the largest difference of the encoders' outputs."""
    import ctranslate2

    features = log_mel(speech.processor.feature_extractor, [read_audio(clip.audio)], speech.window_seconds)
    wanted = encode_clips(speech.model, features).cpu().numpy()
    encoded = model.encode(ctranslate2.StorageView.from_array(features.numpy()), to_cpu=True)
    found = np.array(encoded, dtype=np.float32)
    # Its length counts the prompt as well, and half of it is left for the answer.
    (answer,) = model.generate(encoded, [list(codec.prompt)], beam_size=1, max_length=2 * max(cap, len(codec.prompt)))
    tokens = tuple(answer.sequences_ids[0])
    return Transcript(codec.decode(tokens), tokens, False), float(np.abs(found - wanted).max() / np.abs(wanted).max())


def _cut(transcript: Transcript, cap: int, codec: LabelCodec) -> Transcript:
    """The first `cap` tokens, end-of-text left out."""
    tokens = tuple(token for token in transcript.tokens if token != codec.end_of_text)[:cap]
    return Transcript(codec.decode(tokens), tokens, len(tokens) == cap)


def _compare_errors(
    clips: Sequence[Utterance],
    original: Sequence[Transcript],
    written: Sequence[Transcript],
    language: str | None,
    folder: Path,
) -> dict[str, Any]:
    """Word error rates of the student (baseline) and of the converted model (candidate), paired by clip."""
    normaliser = whisper_normaliser(language or "en", folder)
    resampling = Resampling()
    scores = [
        score_transcripts(
            [clip.text for clip in clips],
            [transcript.text for transcript in transcripts],
            normaliser,
            groups=[str(clip.group) for clip in clips],
            hit_cap=[transcript.hit_cap for transcript in transcripts],
            ids=[clip.id for clip in clips],
            resampling=resampling,
        )
        for transcripts in (original, written)
    ]
    return compare_scores(scores[0], scores[1], "wer", resampling).to_dict()


def _differing(
    clips: Sequence[Utterance], original: Sequence[Transcript], written: Sequence[Transcript]
) -> list[dict[str, str]]:
    """Every clip whose two transcripts are not the same tokens."""
    rows = zip(clips, original, written, strict=True)
    return [
        {"id": clip.id, "student": before.text, "converted": after.text}
        for clip, before, after in rows
        if before.tokens != after.tokens
    ]
