"""The quantities of a law that runs identify, as functions of its equation: one number for each draw.

Covers: the compute-optimal size, products of exponents, the knee, the best teacher. Does not cover: their intervals
(`tutelage.laws.uncertainty`), a plan (`tutelage.planning`).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from tutelage.laws.compute import ForwardCost
from tutelage.laws.families.distillation import DistillationLaw
from tutelage.laws.family import Columns, Equation, Family
from tutelage.laws.minimum import minimise
from tutelage.laws.numbers import FloatArray
from tutelage.laws.uncertainty import Quantity

_SIZES = (0.0, np.log(1e20))
"""Natural logarithms of the sizes among which the compute-optimal one is looked for."""


@dataclass(frozen=True)
class Setting:
    """At what the quantities are stated.

    Args:
        forward: The forward cost.
        compute: FLOPs of training, for the compute-optimal size.
        params: Size of the student that the best teacher is for, and of the largest run.
        tokens: Its training tokens.
    """

    forward: ForwardCost
    compute: float
    params: float
    tokens: float


def sizes_of(family: Family, columns: Columns) -> tuple[FloatArray, FloatArray]:
    """The parameters and tokens of each run, whatever the family calls them."""
    return (columns["N_S"], columns["D_S"]) if "N_S" in columns and family.frozen else (columns["N"], columns["D"])


def training_compute(family: Family, columns: Columns, forward: ForwardCost) -> FloatArray:
    """FLOPs of training each run's model; the teacher's are not counted."""
    params, tokens = sizes_of(family, columns)
    return forward.training_per_token(params) * tokens


def make_setting(family: Family, columns: Columns, forward: ForwardCost, compute: float | None) -> Setting:
    """Compute as asked, else that of the largest run; the student is the largest run's."""
    params, tokens = sizes_of(family, columns)
    spent = training_compute(family, columns, forward)
    largest = int(np.argmax(spent))
    at = float(spent[largest]) if compute is None else compute
    return Setting(forward, at, float(params[largest]), float(tokens[largest]))


def optimal_params(equation: Equation, setting: Setting) -> FloatArray:
    """The size of lowest loss at `setting.compute`, shape () for one equation, (draws, 1) for draws."""
    law = equation.supervised
    rows = np.size(law.alpha)
    low, high = np.full((rows, 1), _SIZES[0]), np.full((rows, 1), _SIZES[1])

    def inner(log_params: FloatArray) -> FloatArray:
        size = log_params[..., 0]
        tokens = np.log(setting.compute) - np.log(setting.forward.training_per_token(np.exp(size)))
        both: FloatArray = np.logaddexp(np.log(law.A) - law.alpha * size, np.log(law.B) - law.beta * tokens)
        return both

    best, _ = minimise(inner, low, high)
    return np.exp(best).reshape(np.shape(law.alpha))


def identified_quantities(family: Family, setting: Setting) -> Mapping[str, Quantity]:
    """The identified quantities of a family, by name."""
    if family.frozen:
        return _of_distillation(setting)

    def tokens(equation: Equation) -> FloatArray:
        return setting.compute / setting.forward.training_per_token(optimal_params(equation, setting))

    return {
        "largest_run_loss": lambda equation: equation.supervised.predict(setting.params, setting.tokens),
        "optimal_params": lambda equation: optimal_params(equation, setting),
        "optimal_tokens": tokens,
        "tokens_per_param": lambda equation: tokens(equation) / optimal_params(equation, setting),
        "alpha_gamma": lambda equation: np.asarray(equation.supervised.alpha * equation.supervised.gamma),
        "beta_gamma": lambda equation: np.asarray(equation.supervised.beta * equation.supervised.gamma),
    }


def _of_distillation(setting: Setting) -> Mapping[str, Quantity]:
    def law(equation: Equation) -> DistillationLaw:
        if not isinstance(equation, DistillationLaw):
            raise TypeError("these are quantities of a distillation law")
        return equation

    return {
        "knee": lambda equation: np.asarray(law(equation).knee),
        "alpha_prime_gamma_prime": lambda equation: np.asarray(law(equation).alpha_prime * law(equation).gamma_prime),
        "c0": lambda equation: np.asarray(law(equation).c0),
        "f1": lambda equation: np.asarray(law(equation).f1),
        "best_teacher_loss": lambda equation: law(equation).best_teacher_loss(setting.params, setting.tokens)[0],
        "best_student_loss": lambda equation: law(equation).best_teacher_loss(setting.params, setting.tokens)[1],
    }
