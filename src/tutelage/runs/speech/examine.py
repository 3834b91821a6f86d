"""Examining Whisper models that were found: every model on the same clips, then time and memory.

Covers loading one model after the other, the teacher's answers for agreement and divergence, and what is timed. Does
not cover what is examined and the document (`evaluate`), one model's row (`judge`) or timing itself (`runs.timing`).

Shape letters: B batch, T decoder positions, V vocabulary, H hidden.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from tutelage.evaluation.normalisers import whisper_normaliser
from tutelage.models.load import SpeechModel, load_speech_model
from tutelage.models.resolve import ResolvedModel
from tutelage.progress import Progress
from tutelage.records.document import Caution
from tutelage.runs.scoreboard import Examined, JudgedSystem
from tutelage.runs.speech.judge import Bench, Verdict, judge, transcriber
from tutelage.runs.speech.reading import Reading
from tutelage.runs.systems import Conditions, FoundSystem
from tutelage.runs.timing import Speeds, Timed, measure_footprint, time_systems
from tutelage.tasks.speech.audio import read_audio
from tutelage.tasks.speech.batch import SpeechBatch, SpeechExamples
from tutelage.tasks.speech.features import FrozenEncoder
from tutelage.tasks.speech.forward import decode
from tutelage.tasks.speech.labels import LabelCodec, require_language
from tutelage.tasks.speech.long import LongForm
from tutelage.tasks.speech.manifest import Manifest, Utterance
from tutelage.training.device import open_accelerator


class OutputsOnce(Mapping[str, Tensor]):
    """Encoder outputs (S, H) of clips by id, of the last batch asked for; another clip's are made when looked at."""

    def __init__(self, clips: Sequence[Utterance], speech: SpeechModel) -> None:
        self._clips = {clip.id: clip for clip in clips}
        self._encoder = FrozenEncoder(speech.model, speech.processor.feature_extractor)
        self._kept: dict[str, Tensor] = {}

    def encode(self, clips: Sequence[Utterance]) -> Tensor:
        """Outputs (B, S, H) of a batch, which are kept until the next one."""
        outputs_BSH = self._encoder([read_audio(clip.audio) for clip in clips])
        self._kept = {clip.id: output_SH for clip, output_SH in zip(clips, outputs_BSH, strict=True)}
        return outputs_BSH

    def __getitem__(self, name: str) -> Tensor:
        """Of one clip."""
        return self._kept[name] if name in self._kept else self.encode([self._clips[name]])[0]

    def __contains__(self, name: object) -> bool:
        return name in self._clips

    def __iter__(self) -> Iterator[str]:
        return iter(self._clips)

    def __len__(self) -> int:
        return len(self._clips)


@dataclass
class TeacherAnswers:
    """A teacher's final states at supervised positions, clip by clip, and the head that makes them logits again.

    Args:
        speech: The teacher while it is judged; let go afterwards.
        vocabulary: Its tokens with their ids.
    """

    speech: SpeechModel | None
    vocabulary: Mapping[str, int]
    _head: Any = None
    _states: dict[str, Tensor] = field(default_factory=dict)

    def record(self, batch: SpeechBatch) -> Tensor:
        """Keep the states of a batch; its logits (B, T, V)."""
        if self.speech is None:
            raise ValueError("the teacher was let go")
        model = self.speech.model
        self._head = model.get_output_embeddings()
        last = int(model.config.decoder_layers)
        states_BTH = decode(model, batch, (last,)).states[last]
        for row, name in enumerate(batch.ids):
            self._states[name] = states_BTH[row, batch.keep_BT[row]]
        logits_BTV: Tensor = self._head(states_BTH)
        return logits_BTV

    @torch.no_grad()
    def recall(self, batch: SpeechBatch) -> Tensor:
        """The logits (B, T, V) again; zeros' where nothing is supervised."""
        kept_NH = torch.cat([self._states[name] for name in batch.ids])
        states_BTH = kept_NH.new_zeros((*batch.keep_BT.shape, kept_NH.shape[-1]))
        states_BTH[batch.keep_BT] = kept_NH
        logits_BTV: Tensor = self._head(states_BTH)
        return logits_BTV

    def fits(self, speech: SpeechModel) -> bool:
        """Whether a model has the same classes, so that distributions can be compared."""
        return bool(
            self.vocabulary == speech.processor.tokenizer.get_vocab()
            and self._head is not None
            and speech.model.config.vocab_size == self._head.out_features
        )


class SpeechExaminer:
    """Judges and times found systems on one manifest."""

    def __init__(self, conditions: Conditions, manifest: Manifest, reading: Reading, progress: Progress) -> None:
        self._conditions, self._clips, self._progress = conditions, manifest.utterances, progress
        self._reading = reading
        self._device = str(open_accelerator(conditions.device).device)
        self._cautions: list[Caution] = []

    def examine(self, found: Sequence[FoundSystem]) -> Examined:
        """Judge the teacher first, then all others; then time.

        Raises:
            InputError: A model does not know the language, or a transcript is too long for it.
        """
        taught_by = None if self._reading.long else self._conditions.systems.taught_by
        verdicts: dict[str, JudgedSystem] = {}
        answers: TeacherAnswers | None = None
        row: Verdict | None = None
        for system in sorted(found, key=lambda one: one.name != taught_by):
            runs = []
            for number, model in enumerate(system.models, start=1):
                title = system.name if len(system.models) == 1 else f"{system.name} {number}"
                speech, bench = self._open(model)
                if system.name == taught_by:
                    answers = TeacherAnswers(speech, speech.processor.tokenizer.get_vocab())
                    row = self._judge(title, speech, dataclasses.replace(bench, told=answers.record), None)
                    row, answers.speech = _without_divergence(row), None
                    runs.append(row)
                else:
                    runs.append(self._judge_beside(title, speech, bench, answers, row))
            verdicts[system.name] = JudgedSystem(system.name, tuple(runs), system.seeds)
        in_order = {system.name: verdicts[system.name] for system in found}
        speeds = self._time(found, in_order)
        extras = {
            system.name: {
                **measure_footprint(self._order(system.models[0]), system.models[0].path),
                **(speeds.rows[system.name] if speeds else {}),
            }
            for system in found
        }
        cautions = [*self._cautions, *(speeds.cautions if speeds else ())]
        return Examined(in_order, extras, speeds.section if speeds else None, cautions)

    def _open(self, model: ResolvedModel) -> tuple[SpeechModel, Bench]:
        language, beams = self._reading.language, self._reading.beams
        speech = load_speech_model(model.path, self._device)
        require_language(speech.model.generation_config, language)
        bench = Bench(
            self._clips,
            LabelCodec(speech.processor.tokenizer, language),
            whisper_normaliser(language or "en", model.path),
            self._conditions.resampling,
            self._conditions.batch_size,
            progress=self._progress,
            beams=beams,
        )
        if self._reading.long:
            bench = dataclasses.replace(bench, long=LongForm(speech, bench.codec, language, beams))
        return speech, bench

    def _judge(self, title: str, speech: SpeechModel, bench: Bench, teacher: Verdict | None) -> Verdict:
        outputs = OutputsOnce(self._clips, speech)
        if self._reading.long:
            return judge(title, speech, outputs.encode, bench)
        examples = SpeechExamples(self._clips, outputs, bench.codec, speech.model.config.max_target_positions)
        return judge(title, speech, outputs.encode, bench, examples=examples, teacher=teacher)

    def _judge_beside(
        self, title: str, speech: SpeechModel, bench: Bench, answers: TeacherAnswers | None, row: Verdict | None
    ) -> Verdict:
        if answers is None or answers.fits(speech):
            told = None if answers is None else answers.recall
            return self._judge(title, speech, dataclasses.replace(bench, told=told), row)
        text = f"{title} has another vocabulary than the teacher, so their answers are not compared."
        self._cautions.append(Caution("other-vocabulary", title, None, None, text))
        return self._judge(title, speech, bench, None)

    def _timed_clips(self) -> list[Utterance]:
        fitting = [clip for clip in self._clips if clip.id not in self._reading.long]
        total = len(fitting)
        wanted = min(self._conditions.speed_items, total)
        return [fitting[index * total // wanted] for index in range(wanted)]

    def _time(self, found: Sequence[FoundSystem], verdicts: Mapping[str, JudgedSystem]) -> Speeds | None:
        """The first model of every system, all in memory at once."""
        clips = self._timed_clips()
        if not clips:
            return None
        tokens: dict[str, list[int]] = {}
        for name, system in verdicts.items():
            verdict = system.runs[0]
            assert isinstance(verdict, Verdict)
            tokens[name] = [len(verdict.transcripts[clip.id].tokens) for clip in clips]
        timed = Timed(
            clips,
            {system.name: transcriber(*self._open(system.models[0])) for system in found},
            tokens,
            self._conditions.systems.first_baseline,
            self._conditions.speed_rounds,
            [clip.duration for clip in clips],
            self._conditions.resampling,
        )
        return time_systems(timed, torch.get_num_threads(), self._progress)

    def _order(self, model: ResolvedModel) -> dict[str, Any] | None:
        """What a process does whose memory is measured."""
        clips = [{"id": clip.id, "audio": str(clip.audio), "duration": clip.duration} for clip in self._timed_clips()]
        if not clips:
            return None
        return {
            "task": "speech",
            "folder": str(model.path),
            "device": self._device,
            "language": self._reading.language,
            "beams": self._reading.beams,
            "clips": clips,
        }


def _without_divergence(row: Verdict) -> Verdict:
    """The teacher's own row: it is not compared with itself."""
    if row.answers is None:
        return row
    return dataclasses.replace(row, answers=dataclasses.replace(row.answers, divergence_N=None))
