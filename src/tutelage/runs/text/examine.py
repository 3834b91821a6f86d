"""Examining language models that were found: every model on the same documents, then time and memory.

Covers loading one model after the other, the teacher beside them for agreement and divergence, and what is timed:
writing a fixed number of tokens after the beginning of a document. Does not cover what is examined and the document
(`evaluate`), one model's row (`judge`) or timing itself (`runs.timing`).
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch

from tutelage.models.causal import TextModel, load_text_model
from tutelage.models.resolve import ResolvedModel
from tutelage.progress import Progress, Talk
from tutelage.records.document import Caution
from tutelage.runs.scoreboard import Examined, JudgedSystem
from tutelage.runs.systems import Conditions, FoundSystem
from tutelage.runs.text.corpus import TokenSet, tokenise
from tutelage.runs.text.judge import TextBench, TextVerdict, judge
from tutelage.runs.text.recipe import TextData
from tutelage.runs.timing import Speeds, Timed, measure_footprint, time_systems
from tutelage.tasks.text.codec import TextCodec
from tutelage.tasks.text.documents import Corpus
from tutelage.tasks.text.forward import read
from tutelage.tasks.text.generate import split_document, write_tokens
from tutelage.training.device import open_accelerator

PROMPT_TOKENS = 32
WRITTEN_TOKENS = 32
"""What is timed: so many tokens after a prompt of at most so many; end-of-text does not stop it."""


@dataclass(frozen=True)
class _Teacher:
    """The model that answers are compared with, kept in memory."""

    text: TextModel
    verdict: TextVerdict
    rows_sha256: str

    def reads_like(self, text: TextModel, rows_sha256: str) -> bool:
        """Whether a model reads the same tokens under the same names."""
        return rows_sha256 == self.rows_sha256 and text.tokenizer.get_vocab() == self.text.tokenizer.get_vocab()

    def beside(self, bench: TextBench, text: TextModel) -> TextBench:
        """The bench with the teacher's logits, where both have the same classes."""
        if text.model.config.vocab_size != self.text.model.config.vocab_size:
            return bench
        return dataclasses.replace(bench, told=lambda batch: read(self.text.model, batch).logits_BTV)


class TextExaminer:
    """Judges and times found systems on one corpus."""

    def __init__(self, conditions: Conditions, corpus: Corpus, data: TextData, progress: Progress, talk: Talk) -> None:
        self._conditions, self._corpus, self._data = conditions, corpus, data
        self._progress, self._talk = progress, talk
        self._device = str(open_accelerator(conditions.device).device)
        self._rows: dict[str, str] = {}
        self._prompts: dict[str, list[list[int]]] = {}
        self._cautions: list[Caution] = []

    def examine(self, found: Sequence[FoundSystem]) -> Examined:
        """Judge the teacher first, then all others; then time.

        Raises:
            InputError: The documents do not fit a model.
        """
        taught_by = self._conditions.systems.taught_by
        verdicts: dict[str, JudgedSystem] = {}
        teacher: _Teacher | None = None
        for system in sorted(found, key=lambda one: one.name != taught_by):
            runs = []
            for number, model in enumerate(system.models, start=1):
                title = system.name if len(system.models) == 1 else f"{system.name} {number}"
                text, tokens = self._open(model)
                self._rows.setdefault(system.name, tokens.sha256)
                self._prompts.setdefault(system.name, self._prompts_of(tokens, text))
                runs.append(self._judge(title, text, tokens, teacher))
                if system.name == taught_by:
                    teacher = _Teacher(text, runs[-1], tokens.sha256)
            verdicts[system.name] = JudgedSystem(system.name, tuple(runs), system.seeds)
        del teacher
        speeds = self._time(found)
        extras = {
            system.name: {
                "rows_sha256": self._rows[system.name],
                **measure_footprint(self._order(system), system.models[0].path),
                **(speeds.rows[system.name] if speeds else {}),
            }
            for system in found
        }
        cautions = [*self._cautions, *(speeds.cautions if speeds else ())]
        timing = None if speeds is None else {**speeds.section, "written_tokens": WRITTEN_TOKENS}
        return Examined({system.name: verdicts[system.name] for system in found}, extras, timing, cautions)

    def _open(self, model: ResolvedModel) -> tuple[TextModel, TokenSet]:
        text = load_text_model(model.path, self._device)
        codec = TextCodec(text.tokenizer)
        return text, tokenise(self._corpus, "held_out", codec, self._data, text.positions, self._talk)

    def _judge(self, title: str, text: TextModel, tokens: TokenSet, teacher: _Teacher | None) -> TextVerdict:
        conditions = self._conditions
        bench = TextBench(tokens.examples, conditions.resampling, conditions.batch_size, self._progress)
        if teacher is None:
            return judge(title, text.model, bench)
        if not teacher.reads_like(text, tokens.sha256):
            reason = f"{title} has another vocabulary than the teacher, so their answers are not compared."
            self._cautions.append(Caution("other-vocabulary", title, None, None, reason))
            return judge(title, text.model, bench)
        return judge(title, text.model, teacher.beside(bench, text), teacher.verdict)

    def _prompts_of(self, tokens: TokenSet, text: TextModel) -> list[list[int]]:
        documents = tokens.examples.documents
        wanted = min(self._conditions.speed_items, len(documents))
        room = max(1, text.positions - WRITTEN_TOKENS)
        chosen = [documents[index * len(documents) // wanted] for index in range(wanted)]
        return [split_document(document, PROMPT_TOKENS)[0][-room:] for document in chosen]

    def _time(self, found: Sequence[FoundSystem]) -> Speeds | None:
        """The first model of every system, all in memory at once."""
        items = range(min(len(prompts) for prompts in self._prompts.values()))
        if not items:
            return None
        systems = {system.name: self._writer(system) for system in found}
        timed = Timed(
            items,
            systems,
            dict.fromkeys(systems, [WRITTEN_TOKENS] * len(items)),
            self._conditions.systems.first_baseline,
            self._conditions.speed_rounds,
            resampling=self._conditions.resampling,
        )
        return time_systems(timed, torch.get_num_threads(), self._progress)

    def _writer(self, system: FoundSystem) -> Callable[[int], list[int]]:
        model = load_text_model(system.models[0].path, self._device).model
        prompts = self._prompts[system.name]
        return lambda item: write_tokens(model, prompts[item], WRITTEN_TOKENS)

    def _order(self, system: FoundSystem) -> Mapping[str, Any] | None:
        """What a process does whose memory is measured."""
        prompts = self._prompts[system.name]
        if not prompts:
            return None
        return {
            "task": "text",
            "folder": str(system.models[0].path),
            "device": self._device,
            "prompts": prompts,
            "new_tokens": WRITTEN_TOKENS,
        }
