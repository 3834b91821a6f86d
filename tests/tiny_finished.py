"""Run folders that look finished, made without training: random students with the hashes that a run writes."""

from __future__ import annotations

import hashlib
import json
import shutil
from pathlib import Path
from typing import Any

from tiny import tiny_whisper
from tiny_run import SENTENCES, write_manifest
from tiny_text import shared_tiny_text
from tiny_text_run import write_documents
from tutelage.tasks.speech.manifest import read_manifest
from tutelage.tasks.text.documents import read_documents

HELD_OUT = 6  # clips


def hashes(folder: Path) -> dict[str, str]:
    return {file.name: hashlib.sha256(file.read_bytes()).hexdigest() for file in sorted(folder.iterdir())}


def finished_speech(folder: Path, window_seconds: float = 2.0) -> Path:
    """A run on speech: a Whisper of two layers that hears `window_seconds`, an adapter's file, held-out tones."""
    run = folder / "run"
    tiny_whisper(run / "student", decoder_layers=2, window_seconds=window_seconds)
    (run / "adapter").mkdir()
    (run / "adapter" / "adapter_config.json").write_text("{}")
    write_manifest(folder, "held_out.jsonl", list(enumerate(SENTENCES[:HELD_OUT])))
    data = {"held_out": str(folder / "held_out.jsonl"), "language": "es", "task": "transcribe", "overlong": "error"}
    return _finish(run, "speech", data, read_manifest(folder / "held_out.jsonl").sha256)


def finished_text(folder: Path, layout: str = "llama") -> Path:
    """A run on text, whose student was trained whole."""
    run = folder / "run"
    shutil.copytree(shared_tiny_text(layout), run / "student")
    _, held_out = write_documents(folder)
    return _finish(run, "text", {"held_out": str(held_out), "length": 16}, read_documents(held_out).sha256)


def _finish(run: Path, task: str, data: dict[str, Any], held_out: str) -> Path:
    adapter = run / "adapter"
    result = {
        "recipe": {"name": "tiny", "resolved": {"task": task, "data": data}},
        "student": {"sha256": hashes(run / "student")},
        "adapter": {"sha256": hashes(adapter)} if adapter.is_dir() else None,
        "data": {"held_out": {"sha256": held_out}},
    }
    (run / "result.json").write_text(json.dumps(result))
    (run / "run.json").write_text("{}")
    (run / "student" / "README.md").write_text("# tiny\n")  # after the hashes, as runs do
    return run
