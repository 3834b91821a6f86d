"""Fitting laws: time against scipy's recipes on the same runs and starts, with what each of them reaches.

    python benchmarks/fit.py [--quick] [--chinchilla PYTHON] [--out results/fit.json]

Baselines: scipy's L-BFGS-B with its own numeric gradient and log-sum-exp (the dumb one, and what most published fits
use), L-BFGS-B with an analytic gradient in plain numpy, the best scipy recipe that we know (`least_squares`, Huber,
analytic Jacobian, a dozen data-driven starts), and PyPI `chinchilla` 0.2.0 in an interpreter of its own. Runs are
simulated, seeded; the public Gemstones table is fitted too where $TUTELAGE_REFERENCE_DATA names its folder. A slow
baseline runs a part of the starts, stated, and is extrapolated; its interval is a bootstrap over starts. A gap
is (objective - best known) / best known: a ratio of times means something only where the faster one is not worse.
Times are CPU seconds of one thread, which a busy machine stretches less. Prints one JSON document.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import subprocess
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numba
import numpy as np
import scipy
from numpy.typing import NDArray
from scipy.optimize import least_squares, minimize
from scipy.special import huber, logsumexp

from tutelage.laws.designs import Design
from tutelage.laws.families import find_family
from tutelage.laws.fitting.bootstrap import bootstrap, draw_weights
from tutelage.laws.fitting.compilation import compile_solver
from tutelage.laws.fitting.objective import Objective, make_objective
from tutelage.laws.fitting.search import search
from tutelage.laws.fitting.settings import FitSettings
from tutelage.laws.fitting.starts import draw_starts
from tutelage.laws.law import Law
from tutelage.laws.published import PUBLISHED
from tutelage.laws.simulate import simulate
from tutelage.laws.table import RunTable
from tutelage.records.estimate import Estimate
from tutelage.records.files import write_json

Array = NDArray[np.float64]

STARTS = 4096
BOOTSTRAPS = 4096
JUDGED_DRAWS = 32
ROUNDS = 5
RESAMPLES = 2000
LEVEL = 0.95
NOISE = 1e-3
DOZEN = 12
CHINCHILLA_STARTS = 5**5  # its default grid


@dataclass(frozen=True)
class Case:
    """One law on one set of runs, and how many of the starts each slow baseline is given."""

    name: str
    objective: Objective
    predict: Callable[[Array, Array], tuple[Array, Array]]
    published: Callable[[Array, Array], Array]
    numeric_starts: int
    analytic_starts: int


def hoffmann(theta: Array, x: Array) -> tuple[Array, Array]:
    """Log losses and their Jacobian in numpy, all runs at once, as a user of scipy would write them."""
    terms = np.stack([np.full(len(x), theta[0]), theta[1] - theta[3] * x[:, 0], theta[2] - theta[4] * x[:, 1]])
    top = terms.max(axis=0)
    parts = np.exp(terms - top)
    whole = parts.sum(axis=0)
    floor, size, data = parts / whole
    return top + np.log(whole), np.stack([floor, size, data, -size * x[:, 0], -data * x[:, 1]], axis=1)


def eq8(theta: Array, x: Array) -> tuple[Array, Array]:
    """The same of the nine-parameter distillation law."""
    c0, strength, width, place, size, data, alpha, beta, gamma = theta
    size, data = size - alpha * x[:, 0], data - beta * x[:, 1]
    inner = np.logaddexp(size, data)
    f1 = np.exp(width)
    bend = (x[:, 2] - x[:, 3] - place) / f1
    transition, c1f1 = np.logaddexp(0.0, bend), np.exp(strength) * f1
    share = np.exp(-np.logaddexp(0.0, -bend))
    excess = -c0 * x[:, 2] - c1f1 * transition + gamma * inner
    log_loss = np.logaddexp(x[:, 2], excess)
    weight = np.exp(excess - log_loss)
    of_size, of_data = weight * gamma * np.exp(size - inner), weight * gamma * np.exp(data - inner)
    slopes = [
        -weight * x[:, 2],
        -weight * c1f1 * transition,
        -weight * c1f1 * (transition - share * bend),
        weight * c1f1 * share / f1,
        of_size,
        of_data,
        -of_size * x[:, 0],
        -of_data * x[:, 1],
        weight * inner,
    ]
    return log_loss, np.stack(slopes, axis=1)


def published_hoffmann(theta: Array, x: Array) -> Array:
    """Log losses alone, by scipy's log-sum-exp, as published replications write it."""
    terms = [np.full(len(x), theta[0]), theta[1] - theta[3] * x[:, 0], theta[2] - theta[4] * x[:, 1]]
    return np.asarray(logsumexp(terms, axis=0))


def published_eq8(theta: Array, x: Array) -> Array:
    """The same of the nine-parameter distillation law."""
    c0, strength, width, place, size, data, alpha, beta, gamma = theta
    inner = logsumexp([size - alpha * x[:, 0], data - beta * x[:, 1]], axis=0)
    f1 = np.exp(width)
    transition = logsumexp([np.zeros(len(x)), (x[:, 2] - x[:, 3] - place) / f1], axis=0)
    return np.asarray(logsumexp([x[:, 2], -c0 * x[:, 2] - np.exp(strength) * f1 * transition + gamma * inner], axis=0))


def loss_and_gradient(case: Case, theta: Array) -> tuple[float, Array]:
    """The objective and its gradient."""
    predicted, slopes = case.predict(theta, case.objective.x[0])
    residuals, delta = predicted - case.objective.y, case.objective.delta
    size = np.abs(residuals)
    loss = np.where(size <= delta, 0.5 * residuals**2, delta * (size - 0.5 * delta)).sum()
    return float(loss), np.clip(residuals, -delta, delta) @ slopes


def quasi_newton(case: Case, analytic: bool, start: Array) -> float:
    """The objective that L-BFGS-B ends at, at its defaults."""
    bounds = case.objective.bounds.T
    if analytic:
        return float(
            minimize(lambda q: loss_and_gradient(case, q), start, jac=True, method="L-BFGS-B", bounds=bounds).fun
        )
    x, y, delta = case.objective.x[0], case.objective.y, case.objective.delta
    return float(
        minimize(lambda q: huber(delta, case.published(q, x) - y).sum(), start, method="L-BFGS-B", bounds=bounds).fun
    )


def squares(case: Case, start: Array) -> float:
    """The objective that the best scipy recipe ends at."""
    x, y, delta = case.objective.x[0], case.objective.y, case.objective.delta
    low, high = case.objective.bounds
    found = least_squares(
        lambda q: case.predict(q, x)[0] - y,
        np.clip(start, low + 1e-9, high - 1e-9),
        lambda q: case.predict(q, x)[1],
        bounds=(low, high),
        loss="huber",
        f_scale=delta,
        x_scale="jac",
        max_nfev=1000,
    )
    return float(found.cost)


def timed(run: Callable[[Array], float], starts: Array) -> tuple[Array, Array]:
    """Seconds and objective of each start."""
    seconds, values = np.empty(len(starts)), np.empty(len(starts))
    with np.errstate(all="ignore"):
        for i, start in enumerate(starts):
            began = time.process_time()
            values[i] = run(start)
            seconds[i] = time.process_time() - began
    return seconds, values


def repeated(run: Callable[[], float], rounds: int) -> tuple[Array, float]:
    """Seconds of each round and the objective of the last."""
    seconds = np.empty(rounds)
    for i in range(rounds):
        began = time.process_time()
        value = run()
        seconds[i] = time.process_time() - began
    return seconds, value


def estimate(draws: Array, value: float, method: str) -> dict[str, Any]:
    """A number with the central interval of its draws."""
    low, high = np.quantile(draws, [(1 - LEVEL) / 2, (1 + LEVEL) / 2])
    numbers = {"value": value, "low": float(low), "high": float(high)}
    return {**{name: float(f"{number:.4g}") for name, number in numbers.items()}, "level": LEVEL, "method": method}


def extrapolated(seconds: Array, whole: int, ours: Array) -> dict[str, Any]:
    """A baseline's seconds for `whole` starts and their ratio to ours."""
    rng = np.random.default_rng(0)
    total = rng.choice(seconds, (RESAMPLES, len(seconds))).mean(axis=1) * whole
    own = np.median(rng.choice(ours, (RESAMPLES, len(ours))), axis=1)
    method = f"{len(seconds)} of {whole} starts, extrapolated; bootstrap over starts and our rounds"
    return {
        "starts": whole,
        "starts_run": len(seconds),
        "seconds": estimate(total, float(seconds.mean() * whole), method),
        "time_ratio": estimate(total / own, float(seconds.mean() * whole / np.median(ours)), method),
    }


def compare_starts(case: Case, rounds: int, share: float) -> dict[str, Any]:
    """The search from `STARTS` starts against scipy's recipes on the same starts."""
    starts = draw_starts(case.objective, STARTS, seed=0)
    spread = starts[np.random.default_rng(0).permutation(STARTS)]
    seconds, ours = repeated(lambda: search(case.objective, STARTS, 0).objective, rounds)
    counts = [max(4, int(share * count)) for count in (case.numeric_starts, case.analytic_starts)]
    numeric = timed(lambda q: quasi_newton(case, False, q), spread[: counts[0]])
    analytic = timed(lambda q: quasi_newton(case, True, q), spread[: counts[1]])
    recipe = timed(lambda q: squares(case, q), starts[:DOZEN])
    least = min(ours, *(float(values.min()) for _, values in (numeric, analytic, recipe)))
    document: dict[str, Any] = {
        "runs": len(case.objective.y),
        "ours": {
            "starts": STARTS,
            "seconds": estimate(seconds, float(np.median(seconds)), f"median of {rounds} rounds"),
        },
    }
    document["ours"] |= {"objective": ours, "gap": ours / least - 1.0}
    for name, (taken, values), whole in (
        ("scipy L-BFGS-B, numeric gradient", numeric, STARTS),
        ("scipy L-BFGS-B, analytic gradient", analytic, STARTS),
        ("scipy least_squares, Huber, analytic Jacobian", recipe, DOZEN),
    ):
        reached = {"objective": float(values.min()), "gap": float(values.min() / least - 1.0)}
        document[name] = {**extrapolated(taken, whole, seconds), **reached}
    return document


def one_fit(case: Case, rounds: int, python: str | None, points: int) -> dict[str, Any]:
    """One default fit against the best scipy recipe and `chinchilla`."""
    count = FitSettings().start_count(len(case.objective.bounds[0]))
    seconds, ours = repeated(lambda: search(case.objective, count, 0).objective, rounds)
    recipe = timed(lambda q: squares(case, q), draw_starts(case.objective, count, 0)[:DOZEN])
    least = min(ours, float(recipe[1].min()))
    theirs = {**extrapolated(recipe[0], DOZEN, seconds), "gap": float(recipe[1].min() / least - 1.0)}
    return {
        "runs": len(case.objective.y),
        "ours": {
            "starts": count,
            "seconds": estimate(seconds, float(np.median(seconds)), f"median of {rounds} rounds"),
            "objective": ours,
            "gap": ours / least - 1.0,
        },
        "scipy least_squares, Huber, analytic Jacobian": theirs,
        "chinchilla 0.2.0": chinchilla_fit(case, python, seconds, least, points) if python else None,
    }


def chinchilla_fit(case: Case, python: str, ours: Array, least: float, points: int) -> dict[str, Any]:
    """PyPI's `chinchilla` 0.2.0 on the same runs, extrapolated to its default grid of 5^5 starts."""
    columns = case.objective.columns
    with tempfile.TemporaryDirectory() as folder:
        runs = Path(folder) / "runs.csv"
        rows = zip(6.0 * columns["N"] * columns["D"], columns["N"], columns["D"], columns["L"], strict=True)
        runs.write_text(
            "C,N,D,loss\n" + "".join(f"{c!r},{n!r},{d!r},{loss!r}\n" for c, n, d, loss in map(_plain, rows))
        )
        (Path(folder) / "project").mkdir()
        words = [
            python,
            str(Path(__file__).with_name("chinchilla_baseline.py")),
            str(runs),
            f"{folder}/project",
            str(points),
        ]
        said = json.loads(subprocess.run(words, check=True, capture_output=True, text=True).stdout.splitlines()[-1])
    found = said["constants"]
    theta = np.array([*(np.log(found[name]) for name in ("E", "A", "B")), found["alpha"], found["beta"]])
    value = loss_and_gradient(case, theta)[0]
    whole = said["seconds"] / said["starts"] * CHINCHILLA_STARTS
    method = f"{said['starts']} of {CHINCHILLA_STARTS} starts, extrapolated; one run"
    return {
        "starts": CHINCHILLA_STARTS,
        "starts_run": said["starts"],
        "seconds": Estimate(float(f"{whole:.4g}"), method=method).to_dict(),
        "time_ratio": Estimate(float(f"{whole / np.median(ours):.4g}"), method=method).to_dict(),
        "objective": value,
        "gap": value / least - 1.0,
    }


def _plain(row: tuple[float, ...]) -> list[float]:
    return [float(value) for value in row]


def bootstraps(case: Case, draws: int, judged: int) -> dict[str, Any]:
    """Seconds of `draws` bootstrap draws, and the excess of some of them over many starts of the same weights."""
    objective = case.objective
    found = search(objective, FitSettings().start_count(len(objective.bounds[0])), 0)
    weights = draw_weights(len(objective.y), draws, 0)
    began = time.process_time()
    drawn = bootstrap(objective, found, weights, None)
    seconds = time.process_time() - began
    chosen = np.linspace(0, draws - 1, judged).round().astype(np.int64)
    starts = np.concatenate([found.minima, draw_starts(objective, 64, 1)])
    pairs = np.stack([np.zeros(judged, dtype=np.int64), chosen], axis=1)
    best = drawn.objectives[chosen].copy()
    for start in starts:
        _, reached = objective.minimise(np.tile(start, (judged, 1)), 1000, weights, pairs, tolerance=1e-13)
        best = np.minimum(best, reached)
    excess = drawn.objectives[chosen] / best - 1.0
    return {
        "runs": len(objective.y),
        "draws": draws,
        "seconds": round(seconds, 3),
        "seconds_for_4096": round(seconds * BOOTSTRAPS / draws, 3),
        "judged_draws": judged,
        "judged_against": f"{len(starts)} starts of each",
        "median_excess": float(np.median(excess)),
        "share_above_a_thousandth": float(np.mean(excess > 1e-3)),
    }


def cases() -> list[Case]:
    """The five-parameter law on 80 runs and the nine-parameter law on 300, simulated."""
    besiroglu, busbridge = PUBLISHED["besiroglu2024"], PUBLISHED["busbridge2025"]
    five = simulated(besiroglu, "isoflop", 80, "hoffmann")
    nine = simulated(busbridge, "distillation", 300, "distillation-eq8")
    return [
        Case("hoffmann", five, hoffmann, published_hoffmann, 64, 512),
        Case("distillation-eq8", nine, eq8, published_eq8, 24, 96),
    ]


def simulated(law: Law, design: str, runs: int, family: str) -> Objective:
    """The objective of fitting simulated runs."""
    inside = law.supervised if find_family(family).frozen else None
    return make_objective(simulate(law, Design(design, runs), NOISE, 0), find_family(family), FitSettings(), inside)


def gemstones(folder: str) -> Case:
    """The public Gemstones runs."""
    text = (Path(folder) / "gemstones_hot.jsonl").read_text("utf-8").splitlines()
    rows = [json.loads(line) for line in text]
    letters = {"N": "params_active_precise", "D": "tokens", "L": "final_loss"}
    table = RunTable({letter: [row[name] for row in rows] for letter, name in letters.items()})
    return Case(
        "gemstones", make_objective(table, find_family("hoffmann"), FitSettings()), hoffmann, published_hoffmann, 0, 0
    )


def main() -> int:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="an eighth of the baselines' starts and of the draws")
    parser.add_argument("--out", type=Path, help="write the document there too")
    parser.add_argument("--chinchilla", metavar="PYTHON", help="an interpreter that has PyPI's chinchilla 0.2.0")
    arguments = parser.parse_args()
    began = time.process_time()
    share, rounds = (0.125, 2) if arguments.quick else (1.0, ROUNDS)
    compiled = {name: compile_solver(find_family(name)) for name in ("hoffmann", "distillation-eq8")}
    five, nine = cases()
    folder = os.environ.get("TUTELAGE_REFERENCE_DATA")
    points = Case(
        "hoffmann",
        simulated(PUBLISHED["besiroglu2024"], "isoflop", 240, "hoffmann"),
        hoffmann,
        published_hoffmann,
        0,
        0,
    )
    document = {
        "benchmark": "fit",
        "noise": NOISE,
        "compile_seconds": {name: {"seconds": round(c.seconds, 2), "cached": c.cached} for name, c in compiled.items()},
        "many_starts": {case.name: compare_starts(case, rounds, share) for case in (five, nine)},
        "one_fit_of_240_runs": one_fit(points, ROUNDS, arguments.chinchilla, 2),
        "one_fit_of_gemstones": one_fit(gemstones(folder), ROUNDS, arguments.chinchilla, 2) if folder else None,
        "bootstrap": {
            case.name: bootstraps(case, int(BOOTSTRAPS * share), int(JUDGED_DRAWS * share) or 1)
            for case in (five, nine)
        },
        "cost_seconds": round(time.process_time() - began, 1),
        "environment": {
            "python": platform.python_version(),
            "numpy": np.__version__,
            "scipy": scipy.__version__,
            "numba": numba.__version__,
            "machine": platform.platform(),
            "load": round(os.getloadavg()[0], 2),
        },
    }
    print(json.dumps(document, indent=2))
    if arguments.out:
        write_json(arguments.out, document)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
