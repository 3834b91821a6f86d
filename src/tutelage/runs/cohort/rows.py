"""The rows of a cohort that are no single model's: the mean member and its spread, and paired comparisons.

Covers pooling what the members' rows are ratios of. Does not cover judging a model (the tasks' `judge`).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from tutelage.evaluation.bootstrap import GroupSums, Resampling, group_intervals, stack_seeds
from tutelage.evaluation.compare import compare_sums
from tutelage.evaluation.likelihood import with_perplexity

COMPARED = ("wer", "nats_per_token")
CHOOSES = "nats_per_token"


def stack_members(verdicts: Sequence[Any]) -> dict[str, GroupSums]:
    """Sums within groups of every metric that all members have, a row a member."""
    found = [verdict.sums() for verdict in verdicts]
    return {name: stack_seeds([sums[name] for sums in found]) for name in found[0] if all(name in one for one in found)}


def mean_row(verdicts: Sequence[Any], stacked: Mapping[str, GroupSums], resampling: Resampling) -> dict[str, Any]:
    """The mean member's row: every metric averaged over these members, with its interval over held-out groups.

    Args:
        verdicts: The members'.
        stacked: From `stack_members`.
        resampling: How intervals are made.
    """
    estimates = dict(zip(stacked, group_intervals(list(stacked.values()), resampling), strict=True))
    like = verdicts[0].to_dict()
    metrics = {name: estimate.to_dict() for name, estimate in with_perplexity(estimates).items()}
    kept = ("window_seconds", "params", "utterances", "documents", "tokens", "bytes", "groups", "normaliser", "status")
    return {
        "name": f"mean of {len(verdicts)} members",
        **{name: like[name] for name in kept if name in like},
        "metrics": {**dict.fromkeys(like["metrics"]), **metrics},
    }


def spread_of(stacked: Mapping[str, GroupSums]) -> dict[str, dict[str, float]]:
    """Lowest and highest member and the standard deviation between members (0 for one), by metric."""
    found = {}
    for name, sums in stacked.items():
        each = sums.errors_SG.sum(axis=1) / sums.units_G.sum()
        spread = float(each.std(ddof=1)) if each.size > 1 else 0.0
        found[name] = {"lowest": float(each.min()), "highest": float(each.max()), "standard_deviation": spread}
    return found


def compare_together(
    stacked: Mapping[str, GroupSums], together: Sequence[Any], name: str, resampling: Resampling
) -> list[dict[str, Any]]:
    """What all members are together less the mean member, paired by held-out group, over these groups and members.

    Args:
        stacked: From `stack_members`.
        together: Verdicts on the ensemble and the vote.
        name: The mean member's.
        resampling: How intervals are made.
    """
    return [
        {
            "baseline_name": name,
            "candidate_name": verdict.name,
            **compare_sums(metric, stacked[metric], theirs[metric], resampling).to_dict(),
        }
        for verdict in together
        for theirs in [verdict.sums()]
        for metric in COMPARED
        if metric in stacked and metric in theirs
    ]


def best_of(verdicts: Mapping[str, Any]) -> str:
    """The member of the lowest loss on the held-out data: chosen on what it is judged on, so its row is optimistic."""
    return min(verdicts, key=lambda name: verdicts[name].sums()[CHOOSES].ratio)
