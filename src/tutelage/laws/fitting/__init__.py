"""Fitting: from runs to a law with intervals and a status. Needs the extra `fit` (numba)."""

from tutelage.laws.fitting.fit import Fit, fit
from tutelage.laws.fitting.settings import FitSettings

__all__ = ["Fit", "FitSettings", "fit"]
