"""Synthetic runs from a law and a design, with noise: the oracle that a fit is tested against.

Covers: every family that a design covers; log-normal noise of the fitted loss. Does not cover: noise in the inputs (a
teacher's loss is the law's own, taken as measured), outliers, runs that diverge.
"""

from __future__ import annotations

import math

import numpy as np

from tutelage.errors import InputError
from tutelage.laws.designs import Design
from tutelage.laws.law import Law, supervised_part
from tutelage.laws.table import RunTable


def simulate(law: Law, design: Design, noise: float = 0.0, seed: int = 0) -> RunTable:
    """Runs as `law` predicts them.

    Args:
        law: Of any family; a distillation law brings the supervised law that gives its teachers' losses, and gives the
            runs of that one under a design of ordinary training.
        design: Which sizes, tokens and teachers.
        noise: Standard deviation of the log of the loss; real reruns have about 1e-3.
        seed: Seed of the noise.

    Returns:
        The columns of the law's family, and N_T and D_T for a distillation law. The same arguments give the same runs.

    Raises:
        InputError: The design is of distillation and the law is not, or the noise is negative or not finite.

    Example:
        >>> from tutelage.laws.published import PUBLISHED
        >>> runs = simulate(PUBLISHED["besiroglu2024"], Design("isoflop", 40), noise=1e-3)
        >>> len(runs), sorted(runs.columns)
        (40, ['D', 'L', 'N'])
    """
    if not (math.isfinite(noise) and noise >= 0):
        raise InputError(f"noise is {noise}; it is the standard deviation of a log loss: 0 or a positive number")
    if design.kind == "supervised" and law.distillation is not None:
        law = supervised_part(law)
    family = law.family
    columns = design.inputs(law)
    if "L_T" in {column.letter for column in family.inputs}:
        columns["L_T"] = law.supervised.predict(columns["N_T"], columns["D_T"])
    drawn = np.random.default_rng(seed).standard_normal(design.runs)
    columns[family.loss] = family.predict(law.equation, columns) * np.exp(noise * drawn)
    return RunTable(
        {letter: tuple(values.tolist()) for letter, values in columns.items()},
        f"{design.runs} simulated runs of {law.name}, design {design.name}, noise {noise:g}, seed {seed}",
        {"params": law.counting.params, "tokens": law.counting.tokens},
    )
