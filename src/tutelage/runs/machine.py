"""How fast this machine is, for an estimate of a run's time.

Covers the speed of a matrix product, and durations in words. Does not cover the FLOPs of a run (the tasks' `cost`).
"""

from __future__ import annotations

import time

import torch

_PRODUCT = 1024
_REPEATS = 5


def measure_product() -> float:
    """FLOP/s of a float32 matrix product on this machine now: the best of a few."""
    left, right = torch.ones(_PRODUCT, _PRODUCT), torch.ones(_PRODUCT, _PRODUCT)
    best = 0.0
    for _ in range(_REPEATS):
        start = time.perf_counter()
        left @ right
        best = max(best, 2.0 * _PRODUCT**3 / (time.perf_counter() - start))
    return best


def duration(seconds: float) -> str:
    """Seconds in words."""
    minutes = seconds / 60
    return f"{minutes:.0f} minutes" if minutes < 120 else f"{minutes / 60:.0f} hours"
