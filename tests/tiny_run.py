"""A whole run in miniature: a random teacher of 4 s, tones for speech, ten short sentences."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import soundfile

from tiny import shared_tiny_whisper

SENTENCES = (
    "una rana verde",
    "dos casas blancas",
    "el perro corre mucho",
    "la luna sale tarde",
    "un tren muy largo",
    "tres libros viejos",
    "agua fresca del mar",
    "mi hermana canta bien",
    "cuatro flores rojas",
    "nieve sobre la sierra",
)
TRAINED = 6


def write_manifest(folder: Path, name: str, rows: list[tuple[int, str]]) -> Path:
    lines = []
    for number, text in rows:
        seconds = 0.8 + 0.1 * (number % 4)
        time = np.arange(round(16000 * seconds)) / 16000
        tone = 0.3 * np.sin(2 * np.pi * (200 + 40 * number) * time)
        soundfile.write(folder / f"tone{number}.wav", tone.astype("float32"), 16000)
        row = {"id": f"tone{number}", "audio": f"tone{number}.wav", "text": text, "duration": seconds}
        lines.append(json.dumps(row, ensure_ascii=False))
    path = folder / name
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return path


def write_run(folder: Path, steps: int = 3, student: str = "", objective: str = "", extra: str = "") -> Path:
    """Write data and a recipe into `folder`; the texts are put into the recipe's parts."""
    data = folder / "data"
    data.mkdir(exist_ok=True)
    numbered = list(enumerate(SENTENCES))
    write_manifest(data, "train.jsonl", numbered[:TRAINED])
    write_manifest(data, "held_out.jsonl", numbered[TRAINED:])
    recipe = folder / "recipe.yaml"
    recipe.write_text(
        f"""
name: tiny
teacher: {{model: {shared_tiny_whisper()}}}
student:
  decoder_layers: 2
  window_seconds: 2
  lora: {{rank: 2, targets: [q_proj, v_proj]}}
  projector: {{kind: linear}}
  budget_share: 0.5
  {student}
objective:
  - {{kind: cross_entropy, weight: 1.0}}
  - {{kind: kl, weight: 0.8, temperature: 2.0}}
  - {{kind: angle, weight: 0.5}}
  {objective}
data: {{train: data/train.jsonl, held_out: data/held_out.jsonl, language: es}}
training: {{steps: {steps}, batch_size: 2, learning_rate: 1e-2, checkpoint_every: 2, threads: 1}}
evaluation: {{bootstrap_draws: 100, stock_clips: 2, speed_clips: 1, speed_repeats: 2, show_clips: 1}}
{extra}
""",
        encoding="utf-8",
    )
    return recipe


def tutelage(*words: str | Path, cwd: Path) -> subprocess.CompletedProcess[str]:
    """Run the command as a user does, in a process of its own."""
    command = [sys.executable, "-m", "tutelage.cli.main", *map(str, words)]
    return subprocess.run(command, cwd=cwd, capture_output=True, text=True, timeout=300, check=False)
