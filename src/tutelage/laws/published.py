"""Published laws with the coefficients as their papers print them.

Covers: coefficients, their printed precision and intervals, what each paper counts, the range of its runs. Does not
cover: joint draws of the coefficients, which none of the papers published: a prediction of these laws has a band from
rounding at most, and no probability.
"""

from __future__ import annotations

import math
from decimal import Decimal

from tutelage.laws.compute import ForwardCost
from tutelage.laws.law import Counting, Law, Range, make_equation


def _values(printed: dict[str, str]) -> dict[str, float]:
    return {name: float(text) for name, text in printed.items()}


def _half_units(printed: dict[str, str]) -> dict[str, float]:
    """Half a unit of the last printed digit; a coefficient that a family fixes (printed as "1") has none."""
    return {
        name: 0.5 * 10.0 ** float(Decimal(text).as_tuple().exponent) for name, text in printed.items() if text != "1"
    }


_BUSBRIDGE = {
    "E": "1.220",
    "A": "3355",
    "B": "18186",
    "alpha": "0.408",
    "beta": "0.431",
    "gamma": "0.452",
    "c0": "2.549",
    "c1": "522.6",
    "f1": "0.090",
    "d1": "1.315",
    "A_prime": "2243",
    "B_prime": "24181",
    "alpha_prime": "0.321",
    "beta_prime": "0.637",
    "gamma_prime": "0.764",
}
_BUSBRIDGE_INTERVALS: dict[str, Range] = {
    "E": (1.190, 1.247),
    "A": (3346, 3360),
    "B": (18157, 18236),
    "alpha": (0.405, 0.411),
    "beta": (0.428, 0.433),
    "gamma": (0.442, 0.461),
    "c0": (2.425, 2.615),
    "c1": (522.6, 522.6),
    "f1": (0.088, 0.093),
    "d1": (1.302, 1.327),
    "A_prime": (2227, 2255),
    "B_prime": (24084, 24266),
    "alpha_prime": (0.319, 0.324),
    "beta_prime": (0.634, 0.640),
    "gamma_prime": (0.732, 0.788),
}
_HOFFMANN = {"E": "1.69", "A": "406.4", "B": "410.7", "alpha": "0.34", "beta": "0.28", "gamma": "1"}
_BESIROGLU = {"E": "1.8172", "A": "482.01", "B": "2085.43", "alpha": "0.3478", "beta": "0.3658", "gamma": "1"}
_MUENNIGHOFF = {
    "E": str(math.exp(0.6254804)),
    "A": str(math.exp(6.255414)),
    "B": str(math.exp(7.3049974)),
    "alpha": "0.3526596",
    "beta": "0.3526596",
    "gamma": "1",
    "R_D": "15.387756",
    "R_N": "5.309743",
}

_ALL_PARAMETERS = Counting(
    params="all parameters, embeddings included", tokens="tokens of MassiveText, the Chinchilla data, in one epoch"
)
_SIX_N_D = ForwardCost(context=0, vocabulary=0)
"""2N forward, hence 6ND for training, as `hoffmann2022` relates size and compute."""

PUBLISHED: dict[str, Law] = {
    "busbridge2025": Law(
        name="busbridge2025",
        equation=make_equation(_values(_BUSBRIDGE)),
        source="busbridge2025 Eq. 1 and Eq. 8 (supervised: 73 runs, distillation: 697 runs)",
        counting=Counting(params="non-embedding parameters", tokens="tokens of the English part of C4"),
        forward=ForwardCost(context=4096, vocabulary=32768),
        fitted={
            "student_params": (143e6, 12.6e9),
            "student_tokens": (4e9, 512e9),
            "teacher_params": (143e6, 12.6e9),
            "teacher_tokens": (4e9, 512e9),
            "teacher_loss": (1.9, 2.8),
            "loss_ratio": (0.69, 1.34),
        },
        rounding=_half_units(_BUSBRIDGE),
        intervals=_BUSBRIDGE_INTERVALS,
        interval_level=0.90,
        note="Distillation by forward KL at temperature 1 without labels. The intervals are of single coefficients.",
    ),
    "hoffmann2022": Law(
        name="hoffmann2022",
        equation=make_equation(_values(_HOFFMANN)),
        source="hoffmann2022 Eq. 10 (approach 3)",
        counting=_ALL_PARAMETERS,
        forward=_SIX_N_D,
        fitted={"student_params": (70e6, 16e9), "student_tokens": (5e9, 500e9)},
        rounding=_half_units(_HOFFMANN),
        note="The printed exponents are rounded so far that besiroglu2024 could not reproduce the paper's own figures.",
    ),
    "besiroglu2024": Law(
        name="besiroglu2024",
        equation=make_equation(_values(_BESIROGLU)),
        source="besiroglu2024, refit of points read off a figure of hoffmann2022",
        counting=_ALL_PARAMETERS,
        forward=_SIX_N_D,
        fitted={"student_params": (57e6, 16.2e9), "student_tokens": (1.4e9, 318e9)},
        rounding=_half_units(_BESIROGLU),
        note="The same runs as hoffmann2022, as far as they could be read off its figure.",
    ),
    "muennighoff2023": Law(
        name="muennighoff2023",
        equation=make_equation(_values(_MUENNIGHOFF)),
        source="muennighoff2023 (its published fit, in logarithms of E, A and B)",
        counting=Counting(params="all parameters, embeddings included", tokens="tokens of C4, repeats included"),
        forward=_SIX_N_D,
        fitted={"student_params": (7e6, 8.67e9), "student_tokens": (1e8, 900e9), "unique_tokens": (1e8, 178e9)},
        note="For repeated data. The coefficients are printed in full, so they carry no rounding band.",
    ),
}
"""The published laws by name."""

DEFAULT_LAW = "busbridge2025"
