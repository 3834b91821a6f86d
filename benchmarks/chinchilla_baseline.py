"""One fit by PyPI's `chinchilla` 0.2.0, in an interpreter of its own because its dependencies are not ours.

    PYTHON -I chinchilla_baseline.py RUNS.csv FOLDER POINTS

Fits the five-parameter law by its default algorithm (BFGS with a numeric gradient) and its log-Huber loss, from a grid
of POINTS^5 starts over the ranges of its documentation, one process. Prints the constants, seconds and starts as JSON.
Started by `benchmarks/fit.py --chinchilla PYTHON`.
"""

from __future__ import annotations

import json
import shutil
import sys
import time

import numpy as np
from chinchilla import Chinchilla  # type: ignore[import-not-found]

RANGES = {"e": (-1.0, 1.0), "a": (0.0, 25.0), "b": (0.0, 25.0), "alpha": (0.0, 1.0), "beta": (0.0, 1.0)}
DELTA = 1e-3


def log_huber(true: np.ndarray, predicted: np.ndarray) -> np.ndarray:
    """Huber's loss on log losses."""
    residual = np.abs(np.log(predicted) - np.log(true))
    return np.where(residual <= DELTA, 0.5 * residual**2, DELTA * (residual - 0.5 * DELTA))


def main() -> int:
    """Fit and print."""
    runs, folder, points = sys.argv[1:]
    shutil.copy(runs, f"{folder}/df.csv")
    grid = {name: np.linspace(*ends, int(points) + 2)[1:-1] for name, ends in RANGES.items()}
    model = Chinchilla(folder, param_grid=grid, loss_fn=log_huber, log_level=40)
    began = time.process_time()
    model.fit(parallel=False)
    seconds = time.process_time() - began
    constants = {name: float(getattr(model, name)) for name in ("E", "A", "B", "alpha", "beta")}
    print(json.dumps({"constants": constants, "seconds": seconds, "starts": int(points) ** 5}))
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
