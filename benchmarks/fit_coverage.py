"""How often the 90 % intervals of a fitted law hold the truth, on simulated runs of a known law.

    python benchmarks/fit_coverage.py [--simulations 600] [--bootstrap 512] [--out FILE]

Every simulation draws its own noise, is fitted from scratch and bootstrapped; what is judged is what a user reads:
`estimate` of a prediction, and the identified quantities of the fit. The baseline is what one gets from a table of
coefficients with an interval each: the same draws, each coefficient's shuffled by itself. Prints one JSON document: a
row for every law and quantity, with coverage, its binomial interval, and both widths.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from scipy.stats import binomtest

from tutelage.laws.designs import Design
from tutelage.laws.families import find_family
from tutelage.laws.fitting import FitSettings, fit
from tutelage.laws.law import Law
from tutelage.laws.published import PUBLISHED
from tutelage.laws.simulate import simulate
from tutelage.laws.uncertainty import estimate
from tutelage.records.document import Status
from tutelage.records.files import write_json
from tutelage.records.provenance import collect_provenance

LEVEL = 0.9
RUNS = 80
DESIGN = "isoflop"
SPAN = {"student_params": (1e8, 5e9), "student_tokens": (2e9, 2e11)}
NOISE = 2e-3  # standard deviation of the log of the loss; real reruns have about 1e-3
COMPUTE = 1.5e21  # FLOPs at which the compute-optimal size is judged: those of the largest runs
POINTS = {
    "loss of 0.3B on 10B tokens": (3e8, 1e10),
    "loss of 1B on 20B tokens": (1e9, 2e10),
    "loss of 2B on 100B tokens": (2e9, 1e11),
    "loss of 10B on 400B tokens, 14 times the compute": (1e10, 4e11),
}

Ends = tuple[float, float]


@dataclass(frozen=True)
class Truth:
    """A law that runs are simulated from, fitted as the family that it belongs to."""

    family: str
    law: Law

    def quantities(self) -> dict[str, float]:
        """The true value of everything that is judged, by name."""
        equation = self.law.supervised
        c = equation.coefficients()
        # at C = 6 N D the optimum is N* = G (C / 6)^(beta / (alpha + beta)), whatever gamma is
        g = (c["alpha"] * c["A"] / (c["beta"] * c["B"])) ** (1 / (c["alpha"] + c["beta"]))
        params = g * (COMPUTE / 6) ** (c["beta"] / (c["alpha"] + c["beta"]))
        return {
            **{name: float(equation.predict(*point)) for name, point in POINTS.items()},
            "tokens_per_param": COMPUTE / 6 / params**2,
            "alpha_gamma": c["alpha"] * c["gamma"],
            "beta_gamma": c["beta"] * c["gamma"],
        }


def truths() -> list[Truth]:
    """The gamma form with the published constants of `busbridge2025`, and the Hoffmann form with `besiroglu2024`'s."""
    gamma = replace(
        PUBLISHED["busbridge2025"],
        name="supervised part of busbridge2025",
        equation=PUBLISHED["busbridge2025"].supervised,
        fitted=SPAN,
        rounding={},
        intervals={},
        status=Status(),
    )
    return [Truth("gamma", gamma), Truth("hoffmann", replace(PUBLISHED["besiroglu2024"], fitted=SPAN))]


def fitted_ends(truth: Truth, seed: int, bootstrap: int) -> tuple[dict[str, Ends], dict[str, Ends], str]:
    """The intervals of one simulation: ours, the baseline's of the predictions, and the kind of the fit's status."""
    runs = simulate(truth.law, Design(DESIGN, RUNS), noise=NOISE, seed=seed)
    settings = FitSettings(bootstrap=bootstrap, level=LEVEL, seed=seed, compute=COMPUTE)
    law = fit(runs, find_family(truth.family), settings).law
    identified: Any = law.diagnostics["identified"]
    ours = {name: prediction_ends(law, point) for name, point in POINTS.items()}
    for name in ("tokens_per_param", "alpha_gamma", "beta_gamma"):
        ours[name] = (identified[name]["low"], identified[name]["high"])
    alone = replace(law, draws=shuffled(law.draws or {}, seed))
    return ours, {name: prediction_ends(alone, point) for name, point in POINTS.items()}, law.status.kind


def prediction_ends(law: Law, point: tuple[float, float]) -> Ends:
    """The interval of one predicted loss, as every verb reports it."""
    found = estimate(law, lambda equation: equation.supervised.predict(*point), LEVEL)
    if found.low is None or found.high is None:
        raise ValueError("the fit left no draws")
    return found.low, found.high


def shuffled(draws: Mapping[str, tuple[float, ...]], seed: int) -> dict[str, tuple[float, ...]]:
    """The draws with each coefficient's in an order of its own, so that no coefficient knows of another."""
    generator = np.random.default_rng(seed)
    return {name: tuple(generator.permutation(values).tolist()) for name, values in draws.items()}


def measure(truth: Truth, simulations: int, bootstrap: int) -> dict[str, Any]:
    """Coverage of one law's intervals over `simulations`."""
    start = time.process_time()
    every: dict[str, list[Ends]] = {}
    baseline: dict[str, list[Ends]] = {}
    kinds: dict[str, int] = {}
    for seed in range(simulations):
        ours, alone, kind = fitted_ends(truth, seed, bootstrap)
        for name, ends in ours.items():
            every.setdefault(name, []).append(ends)
        for name, ends in alone.items():
            baseline.setdefault(name, []).append(ends)
        kinds[kind] = kinds.get(kind, 0) + 1
    values = truth.quantities()
    quantities = {name: judge(ends, values[name]) for name, ends in every.items()}
    return {
        "family": truth.family,
        "law": truth.law.name,
        "coefficients": truth.law.supervised.coefficients(),
        "statuses": kinds,
        "quantities": quantities,
        "baseline": {name: judge(ends, values[name]) for name, ends in baseline.items()},
        "seconds": time.process_time() - start,
    }


def judge(ends: list[Ends], truth: float) -> dict[str, Any]:
    """How often intervals hold the truth, on which side they miss it, and how wide they are as a share of it."""
    low, high = np.array(ends).T
    inside = int(((low <= truth) & (truth <= high)).sum())
    exact = binomtest(inside, len(ends)).proportion_ci(0.95, method="exact")
    return {
        "truth": truth,
        "coverage": {
            "value": inside / len(ends),
            "low": float(exact.low),
            "high": float(exact.high),
            "level": 0.95,
            "method": f"Clopper-Pearson, {len(ends)} simulations",
        },
        "too_low": float((high < truth).mean()),
        "too_high": float((low > truth).mean()),
        "median_width": float(np.median(high - low)) / abs(truth),
    }


def main() -> None:
    """Both laws."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--simulations", type=int, default=600)
    parser.add_argument("--bootstrap", type=int, default=512)
    parser.add_argument("--out", type=Path)
    arguments = parser.parse_args()
    if arguments.simulations < 1 or arguments.bootstrap < 2:
        parser.error("there must be 1 or more --simulations and 2 or more draws a --bootstrap")
    document = {
        "schema": {"name": "tutelage.benchmarks.fit_coverage", "version": 1},
        "nominal": LEVEL,
        "simulations": arguments.simulations,
        "bootstrap": arguments.bootstrap,
        "design": {"name": DESIGN, "runs": RUNS, "span": SPAN, "noise": NOISE, "compute": COMPUTE},
        "laws": [measure(truth, arguments.simulations, arguments.bootstrap) for truth in truths()],
        "provenance": collect_provenance().to_dict(),
    }
    if arguments.out:
        write_json(arguments.out, document)
    print(json.dumps(document, indent=2))


if __name__ == "__main__":
    main()
