"""What a run's models are worth on held-out clips: error rates, loss and speed, each with its interval.

Covers transcribing and scoring one system, its cross-entropy, and the timing of the four corners (window and layers).
Does not cover what is compared with what (`distil`), or the statistics themselves (`evaluation`).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch

from tutelage.evaluation.bootstrap import Resampling, group_interval, sum_by_group
from tutelage.evaluation.speed import FourCorners, Timings, split_saving, time_alternately
from tutelage.evaluation.wer import Normaliser, TranscriptScore, score_transcripts
from tutelage.models.load import SpeechModel, count_params
from tutelage.objectives.likelihood import cross_entropy
from tutelage.progress import Progress, no_progress
from tutelage.records.estimate import Estimate
from tutelage.tasks.speech.batch import SpeechExamples
from tutelage.tasks.speech.features import FrozenEncoder
from tutelage.tasks.speech.forward import decode
from tutelage.tasks.speech.generate import EncodeClips, TokenCap, Transcript, from_audio, transcribe
from tutelage.tasks.speech.labels import LabelCodec
from tutelage.tasks.speech.manifest import Utterance


@dataclass(frozen=True)
class Bench:
    """What every system of a run is judged with, so that rows can be compared.

    Args:
        utterances: The held-out clips.
        codec: Prompt and decoding.
        normaliser: Applied to references and transcripts.
        resampling: How intervals are made.
        batch_size: Clips decoded together.
        cap: New tokens by duration, the same for every system.
        progress: Opens bars.
    """

    utterances: tuple[Utterance, ...]
    codec: LabelCodec
    normaliser: Normaliser
    resampling: Resampling
    batch_size: int = 16
    cap: TokenCap = field(default_factory=TokenCap)
    progress: Progress = no_progress


@dataclass(frozen=True)
class Verdict:
    """One system's row.

    Args:
        name: The system.
        window_seconds: Its audio window.
        params: Its parameters.
        score: Its error rates.
        transcripts: What it wrote, by utterance id.
        loss: Cross-entropy on the held-out transcripts in nats per token, teacher-forced; None where not measured.
    """

    name: str
    window_seconds: float
    params: int
    score: TranscriptScore
    transcripts: Mapping[str, Transcript]
    loss: Estimate | None = None

    def to_dict(self) -> dict[str, Any]:
        """The row as `result.json` has it."""
        score = self.score.to_dict()
        return {
            "name": self.name,
            "window_seconds": self.window_seconds,
            "params": self.params,
            "metrics": {**score.pop("metrics"), "nats_per_token": self.loss.to_dict() if self.loss else None},
            **score,
        }


def judge(
    name: str,
    speech: SpeechModel,
    encode: EncodeClips,
    bench: Bench,
    *,
    utterances: Sequence[Utterance] | None = None,
    examples: SpeechExamples | None = None,
) -> Verdict:
    """Transcribe and score one system.

    Args:
        name: The system.
        speech: Its model; left in evaluation mode.
        encode: Its encoder outputs.
        bench: The common conditions.
        utterances: The clips, where not all of the bench's.
        examples: The held-out clips as batches, to measure the loss on too.
    """
    clips = tuple(utterances or bench.utterances)
    model = speech.model.eval()
    written = transcribe(
        model,
        clips,
        encode,
        bench.codec,
        cap=bench.cap,
        batch_size=bench.batch_size,
        progress=lambda _title, total, unit, done=0: bench.progress(f"judge {name}", total, unit, done),
    )
    score = score_transcripts(
        [clip.text for clip in clips],
        [transcript.text for transcript in written],
        bench.normaliser,
        groups=[str(clip.group) for clip in clips],
        hit_cap=[transcript.hit_cap for transcript in written],
        ids=[clip.id for clip in clips],
        resampling=bench.resampling,
    )
    loss = None if examples is None else measure_loss(model, clips, examples, bench)
    transcripts = {clip.id: transcript for clip, transcript in zip(clips, written, strict=True)}
    return Verdict(name, speech.window_seconds, count_params(model), score, transcripts, loss)


@torch.no_grad()
def measure_loss(model: Any, clips: Sequence[Utterance], examples: SpeechExamples, bench: Bench) -> Estimate:
    """Cross-entropy of the reference transcripts, nats per token (end-of-text included), pooled over clips.

    Args:
        model: A Whisper model in evaluation mode.
        clips: The clips of `examples`, in its order.
        examples: The clips as batches.
        bench: Gives groups, resampling and batch size.
    """
    totals: list[float] = []
    counts: list[int] = []
    for start in range(0, len(examples), bench.batch_size):
        batch = examples.batch(range(start, min(start + bench.batch_size, len(examples)))).to(model.device)
        logits_BTV = decode(model, batch).logits_BTV
        for row in range(len(batch.ids)):  # clip by clip, since the bootstrap needs each clip's sum
            one = slice(row, row + 1)
            reduced = cross_entropy(logits_BTV[one], batch.labels_BT[one], batch.keep_BT[one])
            totals.append(float(reduced.total))
            counts.append(int(reduced.count))
    return group_interval(sum_by_group(totals, counts, [str(clip.group) for clip in clips]), bench.resampling)


@dataclass(frozen=True)
class Corners:
    """The four systems whose times tell the window's part of a saving from the layers'.

    Args:
        stock: The teacher as it came.
        window_only: The teacher with the student's window.
        layers_only: The student's layers with the teacher's window.
        both: The student, merged.
    """

    stock: SpeechModel
    window_only: SpeechModel
    layers_only: SpeechModel
    both: SpeechModel


def measure_speed(corners: Corners, clips: Sequence[Utterance], rounds: int, bench: Bench) -> dict[str, Any]:
    """Time from audio samples to text, one clip at a time, all systems in alternation with nothing else running.

    Returns:
        Real-time factors, each system's share of the stock model's time, the saving, and its split.
    """
    systems = {name: _transcriber(getattr(corners, name), bench) for name in Corners.__annotations__}
    timings: Timings = time_alternately(systems, list(clips), rounds=rounds, progress=bench.progress)
    durations = [clip.duration for clip in clips]
    split = split_saving(timings, FourCorners("stock", "window_only", "layers_only", "both"), bench.resampling)
    return {
        "timings": timings.to_dict(),
        "threads": torch.get_num_threads(),
        "real_time_factor": {
            name: timings.real_time_factor(name, durations, bench.resampling).to_dict() for name in systems
        },
        "share_of_stock_time": {
            name: timings.ratio(name, "stock", bench.resampling).to_dict() for name in systems if name != "stock"
        },
        **split.to_dict(),
    }


def _transcriber(speech: SpeechModel, bench: Bench) -> Any:
    encode = from_audio(FrozenEncoder(speech.model, speech.processor.feature_extractor))
    return lambda clip: transcribe(speech.model, [clip], encode, bench.codec, cap=bench.cap, batch_size=1)
