"""Write a finished run's student as a folder of its own, or convert it for another engine.

hf and adapter copy files that are still what the run wrote. ctranslate2 converts the student, compares the result with
it on held-out data, greedily and on the CPU, and says what was not compared. The last line of stdout is the folder.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tutelage.cli.options import add_options, data_for

if TYPE_CHECKING:
    from tutelage.records.document import Document


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The arguments of `tutelage export`."""
    parser.add_argument("run", type=Path, metavar="RUN", help="folder of a finished run of tutelage distill")
    parser.add_argument(
        "--to",
        choices=("hf", "adapter", "ctranslate2"),
        required=True,
        help="the merged student, its PEFT adapter, or the student for CTranslate2 and faster-whisper",
    )
    parser.add_argument("--out", type=Path, required=True, metavar="DIR", help="the folder; must not exist yet")
    parser.add_argument("--quantization", metavar="TYPE", help="ctranslate2: int8, float16, ... (default: float32)")
    parser.add_argument(
        "--samples", type=int, default=32, metavar="N", help="clips or documents compared (default: %(default)s)"
    )
    add_options(parser, "--data", "--force", "--dry-run")


def run(arguments: argparse.Namespace) -> int:
    """Export; returns the exit code."""
    from tutelage.cli.output import print_document, progress, talk
    from tutelage.records.document import Document
    from tutelage.runs.export import ExportOrder, export_run, plan_export

    order = ExportOrder(
        arguments.run,
        arguments.to,
        arguments.out,
        arguments.quantization,
        data_for(arguments),
        arguments.samples,
        arguments.force,
    )
    plan = plan_export(order)
    if arguments.dry_run:
        document = Document("export.dry-run", plan.body(), warnings=plan.cautions)
    else:
        document = export_run(plan, progress(arguments.quiet), talk(arguments.quiet))
    print_document(document, as_json=arguments.json, human=_lines(document))
    return 0


def _lines(document: Document) -> str:
    body = document.body
    lines = [f"{body['source']['path']}: {len(body['source']['sha256'])} files, as the run wrote them"]
    if "bytes" in body:
        lines.append(f"{body['bytes']:,} bytes written")
    if body.get("agreement"):
        lines += _agreement_lines(body["agreement"])
    return "\n".join([*lines, str(body["path"])])


def _agreement_lines(agreement: dict[str, Any]) -> list[str]:
    """How far the converted model agrees with the student, and what nobody compared."""
    if "clips" in agreement:
        same = f"{agreement['same_transcripts']} of {agreement['clips']} transcripts are the student's"
        compared, unit, scale = agreement["wer"], "points of WER", 100
    else:
        same = f"{agreement['same_most_likely']} of {agreement['positions']} most likely tokens are the student's"
        compared, unit, scale = agreement["nats_per_token"], "nats per token", 1
    value, low, high = (compared["difference"][name] for name in ("value", "low", "high"))
    interval = "" if low is None or high is None else f" [{scale * low:+.4f}, {scale * high:+.4f}]"
    return [
        f"{same} (computed in {agreement['compute_type']})",
        f"converted against student: {scale * value:+.4f}{interval} {unit}",
        f"not compared: {', '.join(agreement['not_compared'])}",
    ]
