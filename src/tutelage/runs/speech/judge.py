"""What a run's models are worth on held-out clips: error rates, loss and speed, each with its interval.

Covers transcribing and scoring one system, its cross-entropy, and the timing of the four corners (window and layers).
Does not cover what is compared with what (`distil`), or the statistics themselves (`evaluation`).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import numpy as np
import torch
from torch import Tensor

from tutelage.evaluation.bootstrap import GroupSums, Resampling, group_interval, group_intervals
from tutelage.evaluation.calibration import Calibration, measure_calibration
from tutelage.evaluation.likelihood import with_perplexity
from tutelage.evaluation.predictions import Part, Predictions
from tutelage.evaluation.speed import FourCorners, Timings, split_saving, time_alternately
from tutelage.evaluation.wer import Normaliser, TranscriptScore, score_transcripts
from tutelage.models.load import SpeechModel, count_params
from tutelage.progress import Progress, no_progress
from tutelage.records.estimate import Estimate
from tutelage.tasks.positions import Answers, answer, join_answers
from tutelage.tasks.speech.batch import SpeechBatch, SpeechExamples
from tutelage.tasks.speech.features import FrozenEncoder
from tutelage.tasks.speech.forward import decode
from tutelage.tasks.speech.generate import EncodeClips, TokenCap, Transcript, from_audio, transcribe
from tutelage.tasks.speech.labels import LabelCodec
from tutelage.tasks.speech.long import LongForm
from tutelage.tasks.speech.manifest import Utterance

PARTS: dict[str, Part] = {"nats_per_token": "nats", "accuracy": "right", "brier": "brier"}
"""Metrics of the answers, and the parts of predictions that they are made of."""


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
        beams: Transcripts that the search keeps; 1 is greedy.
        long: Reads clips that are longer than the model's window; None takes none.
        told: The teacher's logits of a batch, for a model's divergence from it; None does not measure it.
    """

    utterances: tuple[Utterance, ...]
    codec: LabelCodec
    normaliser: Normaliser
    resampling: Resampling
    batch_size: int = 16
    cap: TokenCap = field(default_factory=TokenCap)
    progress: Progress = no_progress
    beams: int = 1
    long: LongForm | None = None
    told: Callable[[SpeechBatch], Tensor] | None = None


@dataclass(frozen=True)
class Verdict:
    """One system's row.

    Args:
        name: The system.
        window_seconds: Its audio window.
        params: Its parameters.
        score: Its error rates.
        transcripts: What it wrote, by utterance id.
        answers: What it answers at every token of the held-out transcripts, teacher-forced; None where not measured.
        teacher: What the teacher answers; None where there is none. Of one with other tokens there is no agreement.
    """

    name: str
    window_seconds: float
    params: int
    score: TranscriptScore
    transcripts: Mapping[str, Transcript]
    answers: Answers | None = None
    teacher: Predictions | None = None

    @property
    def predictions(self) -> Predictions | None:
        """Its answers alone."""
        return None if self.answers is None else self.answers.predictions

    @cached_property
    def loss(self) -> Estimate | None:
        """Cross-entropy of the held-out transcripts, nats per token (end-of-text included), pooled over clips."""
        mine = self.predictions
        return None if mine is None else group_interval(mine.by_group("nats"), self.score.resampling)

    @cached_property
    def calibration(self) -> Calibration | None:
        """Whether its probabilities mean what they say."""
        mine = self.predictions
        return None if mine is None else measure_calibration(mine, resampling=self.score.resampling)

    def sums(self) -> dict[str, GroupSums]:
        """Sums within groups, by metric: what the row's estimates and comparisons are ratios of."""
        found = self.score.sums()
        mine = self.predictions
        if self.answers is None or mine is None:
            return found
        found |= {name: mine.by_group(part) for name, part in PARTS.items()}
        if self.teacher is not None and mine.same_positions(self.teacher):
            found["agreement"] = mine.sum_within_groups(mine.agreeing(self.teacher))
        if self.answers.divergence_N is not None:
            found["teacher_kl"] = mine.sum_within_groups(self.answers.divergence_N, bounded=False)
        return found

    def parts(self) -> Mapping[str, Mapping[str, GroupSums]]:
        """What can be pooled over seeds and compared, by the row's key."""
        return {"metrics": self.sums(), "kinds": self.score.kind_sums()}

    def to_dict(self) -> dict[str, Any]:
        """The row as `result.json` has it."""
        score = self.score.to_dict()
        rates = score.pop("metrics")
        likely = {name: sums for name, sums in self.sums().items() if name not in rates}
        found = dict(zip(likely, group_intervals(list(likely.values()), self.score.resampling), strict=True))
        losses = {name: estimate.to_dict() for name, estimate in with_perplexity(found).items()}
        return {
            "name": self.name,
            "window_seconds": self.window_seconds,
            "params": self.params,
            "metrics": {**rates, "nats_per_token": None, **losses},
            "agreement": losses.get("agreement"),
            "calibration": None if self.calibration is None else self.calibration.to_dict(),
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
    teacher: Verdict | None = None,
) -> Verdict:
    """Transcribe and score one system.

    Args:
        name: The system.
        speech: Its model; left in evaluation mode.
        encode: Its encoder outputs.
        bench: The common conditions.
        utterances: The clips, where not all of the bench's.
        examples: The clips as batches, in the same order, to measure the loss on too.
        teacher: The teacher's row on the same clips, for agreement; None where there is none.
    """
    clips = tuple(utterances or bench.utterances)
    model = speech.model.eval()
    longest_first = sorted(range(len(clips)), key=lambda number: -clips[number].duration)
    transcripts: dict[int, Transcript] = {}
    answers: list[Answers] = []
    with bench.progress(f"judge {name}", total=len(clips), unit="clip") as advance:
        # A batch is transcribed and read in one go, so that nothing keeps the encoder outputs of all clips.
        for start in range(0, len(clips), bench.batch_size):
            some = longest_first[start : start + bench.batch_size]
            written = write([clips[number] for number in some], model, encode, bench)
            transcripts.update(zip(some, written, strict=True))
            if examples is not None:
                answers.append(_read(model, [clips[number] for number in some], examples.batch(some), bench.told))
            advance(len(some))
    in_order = [transcripts[number] for number in range(len(clips))]
    score = score_transcripts(
        [clip.text for clip in clips],
        [transcript.text for transcript in in_order],
        bench.normaliser,
        groups=[str(clip.group) for clip in clips],
        hit_cap=[transcript.hit_cap for transcript in in_order],
        ids=[clip.id for clip in clips],
        resampling=bench.resampling,
    )
    return Verdict(
        name,
        speech.window_seconds,
        count_params(model),
        score,
        {clip.id: transcript for clip, transcript in zip(clips, in_order, strict=True)},
        join_answers(answers) if answers else None,
        None if teacher is None else teacher.predictions,
    )


def measure_loss(model: Any, clips: Sequence[Utterance], examples: SpeechExamples, bench: Bench) -> Estimate:
    """Cross-entropy of the reference transcripts alone, nats per token, pooled over clips.

    Args:
        model: A Whisper model in evaluation mode.
        clips: The clips of `examples`, in its order.
        examples: The clips as batches.
        bench: Gives resampling and batch size.
    """
    places = [
        range(start, min(start + bench.batch_size, len(clips))) for start in range(0, len(clips), bench.batch_size)
    ]
    answers = [_read(model, [clips[number] for number in some], examples.batch(some), None) for some in places]
    return group_interval(join_answers(answers).predictions.by_group("nats"), bench.resampling)


def write(clips: Sequence[Utterance], model: Any, encode: EncodeClips, bench: Bench) -> list[Transcript]:
    """Transcripts under the bench's decoding settings: the one place where a model writes for a score or a time."""
    if bench.long is not None and any(map(bench.long.takes, clips)):
        short = iter(write([clip for clip in clips if not bench.long.takes(clip)], model, encode, bench))
        return [bench.long.transcribe(clip) if bench.long.takes(clip) else next(short) for clip in clips]
    return transcribe(model, clips, encode, bench.codec, cap=bench.cap, batch_size=bench.batch_size, beams=bench.beams)


@torch.no_grad()
def _read(
    model: Any, clips: Sequence[Utterance], batch: SpeechBatch, told: Callable[[SpeechBatch], Tensor] | None
) -> Answers:
    """What a model answers at the tokens of the reference transcripts of a batch."""
    batch = batch.to(next(model.parameters()).device)
    groups = np.asarray([str(clip.group) for clip in clips])
    told_BTV = None if told is None else told(batch)
    return answer(decode(model, batch).logits_BTV, batch.labels_BT, batch.keep_BT, groups, told_BTV)


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
    systems = {name: transcriber(getattr(corners, name), bench) for name in Corners.__annotations__}
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


def transcriber(speech: SpeechModel, bench: Bench) -> Callable[[Utterance], list[Transcript]]:
    """From a clip's file to its transcript, nothing kept between clips: what is timed."""
    encode = from_audio(FrozenEncoder(speech.model, speech.processor.feature_extractor))
    return lambda clip: write([clip], speech.model, encode, bench)
