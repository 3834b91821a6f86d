"""A whole run on text in miniature: a random teacher, fourteen short documents."""

from __future__ import annotations

import json
from pathlib import Path

from tiny_text import shared_tiny_text

SUBJECTS = ("the dog", "a blue train", "the word", "the people", "a green house", "the garden", "the children")
ENDINGS = ("runs through the garden and sings.", "passes the house in the beginning and goes on.")
TRAINED = 10
DEV_TEXTS = ("a dog passes the green garden.", "the word sings in the house.")


def write_documents(folder: Path) -> tuple[Path, Path]:
    """Training and held-out documents as JSON lines."""
    texts = [f"{subject} {ending}" for ending in ENDINGS for subject in SUBJECTS]
    rows = [json.dumps({"id": f"text{number}", "text": text}) + "\n" for number, text in enumerate(texts)]
    paths = folder / "train.jsonl", folder / "held_out.jsonl"
    for path, part in zip(paths, (rows[:TRAINED], rows[TRAINED:]), strict=True):
        path.write_text("".join(part), encoding="utf-8")
    return paths


def write_dev(folder: Path, texts: tuple[str, ...] = DEV_TEXTS) -> str:
    """A dev split in `folder`, and the override that names it."""
    lines = [json.dumps({"id": f"dev{number}", "text": text}) + "\n" for number, text in enumerate(texts)]
    (folder / "dev.jsonl").write_text("".join(lines), encoding="utf-8")
    return "data.dev=dev.jsonl"


def write_text_run(
    folder: Path,
    *,
    steps: int = 3,
    layout: str = "llama",
    student: str = "layers: 2",
    objective: str = "- {kind: kl, weight: 0.8, temperature: 2.0}",
    data: str = "",
    extra: str = "",
    teacher: bool = True,
) -> Path:
    """Write data and a recipe into `folder`; the texts are put into the recipe's parts."""
    write_documents(folder)
    recipe = folder / "recipe.yaml"
    named = f"teacher: {{model: {shared_tiny_text(layout)}}}" if teacher else ""
    recipe.write_text(
        f"""
name: tiny-text
task: text
{named}
student:
  {student}
objective:
  - {{kind: cross_entropy, weight: 1.0}}
  {objective}
data:
  train: train.jsonl
  held_out: held_out.jsonl
  length: 24
  {data}
training: {{steps: {steps}, batch_size: 2, learning_rate: 1e-2, checkpoint_every: 2, threads: 1}}
evaluation: {{bootstrap_draws: 100, batch_size: 4, show_documents: 1, prompt_tokens: 4, new_tokens: 5}}
{extra}
""",
        encoding="utf-8",
    )
    return recipe
