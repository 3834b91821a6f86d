"""Make one student of a cohort's members: their exact sum, its best approximation at their rank, or the best member.

The merged student is judged on the run's held-out data beside the members it is made of. A and B of adapters are never
averaged apart. The last line of stdout is the folder.
"""

from __future__ import annotations

import argparse
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from tutelage.cli.options import add_options, data_for


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The arguments of `tutelage merge`."""
    parser.add_argument("run", type=Path, metavar="RUN", help="folder of a finished run of a cohort")
    parser.add_argument(
        "--how",
        choices=("exact", "svd", "best"),
        required=True,
        help="ranks added up, the members' rank, or one member",
    )
    parser.add_argument("--out", type=Path, required=True, metavar="DIR", help="the folder; must not exist yet")
    parser.add_argument("--rank", type=int, metavar="R", help="svd: the rank (default: each layer's own)")
    parser.add_argument(
        "--weights", choices=("uniform", "score"), default="uniform", help="score: one over the held-out perplexity"
    )
    parser.add_argument("--members", default="", metavar="A,B", help="which members (default: all that finished)")
    parser.add_argument("--no-judge", action="store_true", help="write the folder without judging it")
    add_options(parser, "--data", "--dry-run", "--device")


def run(arguments: argparse.Namespace) -> int:
    """Merge; returns the exit code."""
    from tutelage.cli.output import print_document, progress, talk
    from tutelage.records.document import Document
    from tutelage.runs.merge import MergeOrder, merge_run, plan_merge

    order = MergeOrder(
        arguments.run,
        arguments.how,
        arguments.out,
        arguments.rank,
        arguments.weights,
        tuple(name.strip() for name in arguments.members.split(",") if name.strip()),
        data_for(arguments),
        judge=not arguments.no_judge,
        device=arguments.device or "auto",
    )
    plan = plan_merge(order)
    if arguments.dry_run:
        document = Document("merge.dry-run", plan.body(), warnings=plan.cautions)
    else:
        document = merge_run(plan, progress(arguments.quiet), talk(arguments.quiet))
    print_document(document, as_json=arguments.json, human="\n".join(_lines(document.body)))
    return 0


def _lines(body: Mapping[str, Any]) -> list[str]:
    from tutelage.cli.scores import comparison_table, score_table

    shares = ", ".join(f"{name} {share:.3f}" for name, share in body["weights"].items())
    lines = [f"{body['how']}: {shares}"]
    if "rank" in body:
        lines.append(f"rank {body['rank']}, {body['params']:,} parameters, {body['lost']:.1%} of the update left out")
    if body.get("evaluation"):
        lines += ["", score_table(body["evaluation"]["models"]), ""]
        lines += [comparison_table(body["evaluation"]["comparisons"]), ""]
    return [*lines, body["path"]]
