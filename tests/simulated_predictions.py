"""Simulated predictions whose calibration is known, since labels are drawn from the distributions themselves."""

from __future__ import annotations

from dataclasses import fields

import numpy as np
import numpy.typing as npt

from tutelage.evaluation.predictions import Predictions, read_logits

VOCABULARY = 12
LENGTH = 20


def simulate(positions: int, seed: int = 0, sharpness: float = 1.0, groups: int = 40) -> Predictions:
    """Labels drawn from random distributions; the model says these, to the power of `sharpness`.

    At 1 it is perfectly calibrated; above it is too sure of itself. Draws of labels do not depend on the sharpness.
    """
    generator = np.random.default_rng(seed)
    rows = positions // LENGTH
    logits_BTV = generator.normal(0, 2, (rows, LENGTH, VOCABULARY))
    gumbel_BTV = generator.gumbel(size=logits_BTV.shape)
    labels_BT = (logits_BTV + gumbel_BTV).argmax(axis=-1)
    names = [f"g{row % groups:03}" for row in range(rows)]
    return read_logits(sharpness * logits_BTV, labels_BT, np.ones_like(labels_BT, dtype=bool), names)


def take(predictions: Predictions, order: npt.NDArray[np.int64]) -> Predictions:
    """The same positions in another order."""
    return Predictions(**{item.name: getattr(predictions, item.name)[order] for item in fields(predictions)})
