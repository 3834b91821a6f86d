"""The model card of a trained language model: what it is, what it was measured to do, and what was not tested.

Covers the text, from a result document alone. Does not cover printing to a terminal (`cli`).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from tutelage.runs.card import describe_objective, describe_teacher, ending_lines, shown


def write_card(document: Mapping[str, Any]) -> str:
    """The card as Markdown with the metadata block that model hubs read."""
    recipe, data, student = document["recipe"]["resolved"], document["data"], document["student"]
    held_out, trained = data["held_out"], document["trainable"]
    started = student["started_from"]
    base = [f"base_model: {started['reference']}"] if started else []
    teacher = f" Its teacher was {describe_teacher(recipe['teacher'])}." if _taught(recipe) else ""
    context = "documents apart" if held_out["isolated"] else "documents one after the other"
    lines = [
        "---",
        "library_name: transformers",
        "pipeline_tag: text-generation",
        *base,
        f"tags: [{'distillation' if _taught(recipe) else 'language-model'}]",
        "---",
        f"# {recipe['name']}",
        "",
        (
            f"A causal language model ({student['config']['model_type']}) that began as {_beginning(student)}."
            f"{teacher} {student['params']:,} parameters, {student['bytes'] / 1e6:.1f} MB."
        ),
        "",
        "## Scores",
        "",
        (
            f"{held_out['documents']} held-out documents ({held_out['supervised']:,} supervised tokens, "
            f"{held_out['groups']} groups) in rows of {held_out['length']}, {context}; 95 % intervals by group "
            "bootstrap. Bits per byte count the end of each document too."
        ),
        "",
        *score_lines(document["systems"]),
        "",
        "## Training",
        "",
        (
            f"{document['training']['steps']} steps, {document['training']['supervised_tokens']:,} supervised tokens "
            f"of {data['train']['documents']} documents. Trained parameters: {trained['params']:,}"
            f"{_share(trained)}; projectors are not in this folder."
        ),
        "",
        *ending_lines(document),
        f"Objective: {describe_objective(recipe['objective'])}.",
        "",
        "## Limits",
        "",
        (
            f"Trained on rows of {data['train']['length']} tokens. The scores hold for text like the held-out "
            "documents (see the data's own page); nothing else was tested."
        ),
        "",
        (
            f"Recipe SHA-256 `{document['recipe']['sha256']}`, seed {document['seeds']['recipe']}; every number with "
            "its provenance is in `result.json` of the run."
        ),
        "",
    ]
    return "\n".join(lines)


def score_lines(rows: list[Mapping[str, Any]]) -> list[str]:
    """The systems as a Markdown table."""
    lines = [
        "| system | parameters | nats per token | perplexity | bits per byte | agreement with the teacher % |",
        "|---|---|---|---|---|---|",
    ]
    for row in rows:
        metrics = row["metrics"]
        cells = [shown(metrics[name], 1.0, 3) for name in ("nats_per_token", "perplexity", "bits_per_byte")]
        cells.append(shown(metrics.get("agreement"), 100.0, 1))
        lines.append(f"| {row['name']} | {row['params']:,} | " + " | ".join(cells) + " |")
    return lines


def _taught(recipe: Mapping[str, Any]) -> bool:
    return recipe["teacher"] is not None and any(term["kind"] != "cross_entropy" for term in recipe["objective"])


def _beginning(student: Mapping[str, Any]) -> str:
    if student["started_from"] is None:
        return "random weights"
    blocks = ", ".join(str(layer) for layer in student["layers"])
    return f"blocks {blocks} (counted from 0) of `{student['started_from']['reference']}`"


def _share(trained: Mapping[str, Any]) -> str:
    return "" if trained.get("share") is None else f", {trained['share']:.3%} of the teacher's"
