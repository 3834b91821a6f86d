"""Runs of a known law of each family, which a fit must find again."""

from __future__ import annotations

import numpy as np

from tutelage.laws.families import find_family
from tutelage.laws.families.data_constrained import DataConstrainedLaw
from tutelage.laws.families.distillation import KneeLaw
from tutelage.laws.family import Equation
from tutelage.laws.published import PUBLISHED
from tutelage.laws.table import RunTable

BUSBRIDGE = PUBLISHED["busbridge2025"].require_distillation()
TRUTHS: dict[str, Equation] = {
    "hoffmann": PUBLISHED["besiroglu2024"].equation,
    "gamma": BUSBRIDGE.supervised,
    "data-constrained": DataConstrainedLaw(PUBLISHED["besiroglu2024"].supervised, R_D=15.0, R_N=6.0),
    # The knee of busbridge2025, which prints c1 and d1 instead.
    "distillation": KneeLaw(
        BUSBRIDGE.supervised,
        **{name: value for name, value in BUSBRIDGE.coefficients().items() if name in KneeLaw.own_names},
        x0=BUSBRIDGE.knee,
    ),
    "distillation-eq8": BUSBRIDGE,
}
"""A law of each family."""


def inputs_for(name: str, runs: int, seed: int = 0) -> dict[str, np.ndarray]:
    """Sizes, tokens and teachers drawn over the range of `busbridge2025`."""
    rng = np.random.default_rng(seed)
    drawn = {
        "N": np.exp(rng.uniform(np.log(1e8), np.log(1e10), runs)),
        "D": np.exp(rng.uniform(np.log(2e9), np.log(5e11), runs)),
        "L_T": rng.uniform(1.8, 2.8, runs),
    }
    drawn |= {"N_S": drawn["N"], "D_S": drawn["D"], "U": drawn["D"] / rng.choice([1.0, 2.0, 8.0, 32.0], runs)}
    return {column.letter: drawn[column.letter] for column in find_family(name).inputs}


def simulated(name: str, runs: int, noise: float = 0.0, seed: int = 0) -> RunTable:
    """Runs of the true law of that family, with normal noise on the log of the loss."""
    family, columns = find_family(name), inputs_for(name, runs, seed)
    noisy = family.predict(TRUTHS[name], columns) * np.exp(
        noise * np.random.default_rng(seed + 1).standard_normal(runs)
    )
    return RunTable({**columns, family.loss: tuple(noisy)}, source=f"simulated {name}")
