"""The model card of a distilled speech model: what it is, what it was measured to do, and what was not tested.

Covers the text, from a result document alone. Does not cover printing to a terminal (`cli`).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from tutelage.runs.card import copied_from, describe_objective, describe_teacher, ending_lines, shown


def write_card(document: Mapping[str, Any]) -> str:
    """The card as Markdown with the metadata block that model hubs read."""
    recipe, data, student = document["recipe"]["resolved"], document["data"], document["student"]
    language = data["language"] or "en"
    layers = ", ".join(str(layer) for layer in student["decoder_layers"])
    trained, normaliser = document["trainable"], document["systems"][-1]["normaliser"]
    base = recipe["student"]["model"] or copied_from(recipe["teacher"])["model"]
    lines = [
        "---",
        f"language: {language}",
        "library_name: transformers",
        "pipeline_tag: automatic-speech-recognition",
        f"base_model: {base}",
        "tags: [distillation, whisper, lora]",
        "---",
        f"# {document['recipe']['name']}",
        "",
        (
            f"A student of {describe_teacher(recipe['teacher'])}: decoder layers {layers} (counted from 0) of "
            f"`{base}`, an audio window of {student['window_seconds']:g} s, trained by distillation through LoRA and "
            f"merged. {student['params']:,} parameters, {student['bytes'] / 1e6:.0f} MB."
        ),
        "",
        "## Scores",
        "",
        (
            f"{data['held_out']['clips']} held-out clips ({data['held_out']['seconds']:.0f} s, "
            f"{data['held_out']['groups']} groups), normaliser `{normaliser}`; 95 % intervals by group bootstrap."
        ),
        "",
        *score_lines(document),
        "",
        "## Training",
        "",
        (
            f"{document['training']['steps']} steps on {data['train']['clips']} clips "
            f"({data['train']['seconds']:.0f} s). Trained parameters: {trained['params']:,}, "
            f"{trained['share']:.3%} of the teacher's ({trained['lora_share']:.3%} without the "
            "projectors, which are not in this folder)."
        ),
        "",
        *ending_lines(document),
        f"Objective: {describe_objective(recipe['objective'])}.",
        "",
        "## Limits",
        "",
        (
            f"Audio longer than {student['window_seconds']:g} s must be cut into pieces. The scores hold for speech "
            "like the held-out clips (see the data's own page for who speaks, and how many); nothing else was tested."
        ),
        "",
        (
            f"Recipe SHA-256 `{document['recipe']['sha256']}`, seed {document['seeds']['recipe']}; every number with "
            "its provenance is in `result.json` of the run."
        ),
        "",
    ]
    return "\n".join(lines)


def score_lines(document: Mapping[str, Any]) -> list[str]:
    """The systems as a Markdown table."""
    lines = [
        "| system | clips | WER % | CER % | clip-capped WER % | loops % | nats per token |",
        "|---|---|---|---|---|---|---|",
    ]
    for row in document["systems"]:
        metrics = row["metrics"]
        cells = [_percent(metrics.get(name)) for name in ("wer", "cer", "capped_wer", "loop_rate")]
        loss = metrics.get("nats_per_token")
        lines.append(f"| {row['name']} | {row['utterances']} | " + " | ".join(cells) + f" | {_number(loss)} |")
    return lines


def _percent(estimate: Mapping[str, Any] | None) -> str:
    return shown(estimate, 100.0, 1)


def _number(estimate: Mapping[str, Any] | None) -> str:
    return shown(estimate, 1.0, 3)
