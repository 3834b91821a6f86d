"""One model alone in a process: loads it and handles a few items, so that its peak memory can be told.

Covers the work of the process that `timing` starts. It prints nothing; what it cannot do is an error of the process.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

PROGRAM = "import sys; from tutelage.runs.alone import handle; handle(sys.argv[1])"


def handle(order: str) -> None:
    """Do what the JSON file `order` says, then write the GPU's peak memory beside it.

    An order has "task", "folder", "device" and, for speech, "language", "beams" and "clips" (id, audio, duration);
    for text "prompts" (token ids) and "new_tokens".
    """
    wanted: Mapping[str, Any] = json.loads(Path(order).read_bytes())
    work = _transcribe if wanted["task"] == "speech" else _continue
    work(wanted)
    from tutelage.evaluation.footprint import gpu_peak_memory
    from tutelage.records.document import jsonable

    Path(order).with_suffix(".gpu").write_text(json.dumps(jsonable(gpu_peak_memory().to_dict())), encoding="utf-8")


def _transcribe(wanted: Mapping[str, Any]) -> None:
    from tutelage.evaluation.bootstrap import Resampling
    from tutelage.evaluation.wer import RAW
    from tutelage.models.load import load_speech_model
    from tutelage.runs.speech.judge import Bench, transcriber
    from tutelage.tasks.speech.labels import LabelCodec
    from tutelage.tasks.speech.manifest import Utterance

    speech = load_speech_model(Path(wanted["folder"]), wanted["device"])
    clips = tuple(Utterance(clip["id"], Path(clip["audio"]), "", clip["duration"]) for clip in wanted["clips"])
    codec = LabelCodec(speech.processor.tokenizer, wanted["language"])
    bench = Bench(clips, codec, RAW, Resampling(), beams=wanted.get("beams", 1))
    transcribe = transcriber(speech, bench)
    for clip in clips:
        transcribe(clip)


def _continue(wanted: Mapping[str, Any]) -> None:
    from tutelage.models.causal import load_text_model
    from tutelage.tasks.text.generate import write_tokens

    text = load_text_model(Path(wanted["folder"]), wanted["device"])
    for prompt in wanted["prompts"]:
        write_tokens(text.model, prompt, wanted["new_tokens"])
