"""How often the 95 % intervals of error rates hold the truth, on simulated corpora.

    python benchmarks/interval_coverage.py [--corpora 200] [--out FILE]

The baseline is the plain percentile interval, as most toolkits report it; for several seeds, the interval that draws
groups alone. Prints one JSON document: a row for every setting, with each method's coverage and mean width.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import numpy.typing as npt

from tutelage.evaluation.bootstrap import GroupSums, Resampling, draw_ratios, group_interval, seed_interval
from tutelage.records.files import write_json
from tutelage.records.provenance import collect_provenance

Floats = npt.NDArray[np.float64]
Ends = tuple[float, float]

RESAMPLING = Resampling(draws=1000)
SPEECH_WORDS = 5.0  # mean of 2-8 words an utterance
MEAN_ERROR = 2 / 7  # of the beta(2, 5) that a group's chance of an error is drawn from
LOOP_ERRORS = 16.0  # mean of 8-24 words too many


def simulate_groups(generator: np.random.Generator, groups: int, looping: float) -> GroupSums:
    """Groups of 1-5 utterances of 2-8 words; a share `looping` of the utterances adds 8-24 errors."""
    index = np.repeat(np.arange(groups), generator.integers(1, 6, groups))
    words = generator.integers(2, 9, index.size)
    errors = generator.binomial(words, generator.beta(2, 5, groups)[index])
    errors = errors + (generator.random(index.size) < looping) * generator.integers(8, 25, index.size)
    return GroupSums(np.bincount(index, errors)[None, :], np.bincount(index, words))


def simulate_seeds(generator: np.random.Generator, groups: int, seeds: int, spread: float) -> GroupSums:
    """Utterances of 3-19 words that are easy or hard for every seed; how often a seed loops is drawn on the logits."""
    words = generator.integers(3, 20, groups)
    often = 1 / (1 + np.exp(3.5 - generator.normal(0, spread, (seeds, 1))))
    errors = generator.binomial(words, generator.beta(2, 5, groups), (seeds, groups))
    loops = (generator.random((seeds, groups)) < often) * generator.integers(8, 25, (seeds, groups))
    return GroupSums((errors + loops).astype(float), words.astype(float))


def true_rate_over_seeds(spread: float) -> float:
    """The mean rate over all seeds that could be drawn."""
    logits = np.random.default_rng(5).normal(0, spread, 2_000_000) - 3.5
    return MEAN_ERROR + float((1 / (1 + np.exp(-logits))).mean()) * LOOP_ERRORS / 11.0


def plain(sums: GroupSums) -> Ends:
    """The percentile interval over groups, unexpanded."""
    low, high = np.quantile(draw_ratios([sums], RESAMPLING)[0].mean(axis=1), [0.025, 0.975])
    return float(low), float(high)


def ours(interval: Callable[..., object]) -> Callable[[GroupSums], Ends]:
    """An interval of the package as its two ends."""

    def ends(sums: GroupSums) -> Ends:
        found = interval(sums, RESAMPLING)
        return found.low, found.high  # type: ignore[attr-defined]

    return ends


def measure(
    draw: Callable[[np.random.Generator], GroupSums],
    truth: float,
    methods: dict[str, Callable[[GroupSums], Ends]],
    corpora: int,
) -> dict[str, dict[str, float]]:
    """Coverage, its standard error, and mean width of each method on the same simulated corpora."""
    generator = np.random.default_rng(0)
    ends: dict[str, list[Ends]] = {name: [] for name in methods}
    for _ in range(corpora):
        sums = draw(generator)
        for name, method in methods.items():
            ends[name].append(method(sums))
    table = {}
    for name, found in ends.items():
        low, high = np.array(found).T
        coverage = float(((low <= truth) & (truth <= high)).mean())
        error = float(np.sqrt(coverage * (1 - coverage) / corpora))
        table[name] = {"coverage": coverage, "standard_error": error, "width": float((high - low).mean())}
    return table


def main() -> None:
    """Run the whole table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--corpora", type=int, default=200)
    parser.add_argument("--out", type=Path)
    arguments = parser.parse_args()
    rows: list[dict[str, object]] = []
    for looping in (0.0, 0.03):
        truth = MEAN_ERROR + looping * LOOP_ERRORS / SPEECH_WORDS
        for groups in (5, 10, 20, 30, 50, 150):
            table = measure(
                lambda generator, g=groups, p=looping: simulate_groups(generator, g, p),  # type: ignore[misc]
                truth,
                {"plain": plain, "expanded": ours(group_interval)},
                arguments.corpora,
            )
            rows.append({"factors": "groups", "groups": groups, "looping": looping, **table})
    for spread in (0.0, 1.0):
        for seeds in (3, 5, 8):
            for groups in (30, 150):
                table = measure(
                    lambda generator, g=groups, s=seeds, d=spread: simulate_seeds(generator, g, s, d),  # type: ignore[misc]
                    true_rate_over_seeds(spread),
                    {"groups alone": ours(group_interval), "groups and seeds": ours(seed_interval)},
                    arguments.corpora,
                )
                rows.append({"factors": "groups, seeds", "groups": groups, "seeds": seeds, "spread": spread, **table})
    document = {"nominal": RESAMPLING.level, "corpora": arguments.corpora, "rows": rows}
    document["provenance"] = collect_provenance().to_dict()
    if arguments.out:
        write_json(arguments.out, document)
    print(json.dumps(document, indent=2))


if __name__ == "__main__":
    main()
