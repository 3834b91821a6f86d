"""What every family of laws keeps: a new file in `tutelage.laws.families` gets these tests."""

from __future__ import annotations

import math
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest

import tutelage.laws.families
from tutelage.laws.compute import ForwardCost
from tutelage.laws.designs import DESIGNS, Design
from tutelage.laws.families import families, find_family
from tutelage.laws.family import Equation, Family
from tutelage.laws.files import read_law, write_law
from tutelage.laws.fitting import FitSettings, fit
from tutelage.laws.law import Counting, Law, make_equation, supervised_part
from tutelage.laws.numbers import FloatArray
from tutelage.laws.published import PUBLISHED
from tutelage.laws.simulate import simulate

# A dozen operations in float64, on losses in logarithms.
ROUND_OFF = 1e-11
# Central differences of step 1e-6: error of the third derivative and of rounding.
DIFFERENCE = 1e-6
# Of predictions, from noise-free runs.
RECOVERED = 1e-6

EQ8 = PUBLISHED["busbridge2025"].require_distillation()
FROZEN = EQ8.supervised
RANGES = {
    "N": (1e7, 1e11),
    "D": (1e9, 1e12),
    "U": (1e8, 1e12),
    "N_S": (1e7, 1e11),
    "D_S": (1e9, 1e12),
    "L_T": (1.5, 3.5),
}
TRUTH = {
    "hoffmann": PUBLISHED["besiroglu2024"].equation.coefficients(),
    "gamma": FROZEN.coefficients(),
    "data-constrained": PUBLISHED["muennighoff2023"].equation.coefficients(),
    "distillation": {
        **{name: value for name, value in EQ8.coefficients().items() if name not in ("c1", "d1")},
        "x0": EQ8.knee,
    },
    "distillation-eq8": EQ8.coefficients(),
}
"""Laws to simulate from; a family that is not here is tested at the middle of its starts."""


@pytest.fixture(params=list(families()))
def family(request: pytest.FixtureRequest) -> Family:
    return find_family(str(request.param))


def columns(family: Family, runs: int, seed: int = 0) -> dict[str, FloatArray]:
    """Random inputs."""
    random = np.random.default_rng(seed)
    return {column.letter: np.exp(random.uniform(*np.log(RANGES[column.letter]), runs)) for column in family.inputs}


def thetas(family: Family, count: int, seed: int = 0) -> FloatArray:
    """Random points in the range of the starts."""
    random = np.random.default_rng(seed)
    ends = np.array([parameter.starts for parameter in family.parameters])
    return random.uniform(ends[:, 0], ends[:, 1], (count, len(ends)))


def equation_at(family: Family, theta: FloatArray) -> Equation:
    fitted = {
        parameter.name: math.exp(value) if parameter.log else float(value)
        for parameter, value in zip(family.parameters, theta, strict=True)
    }
    frozen = {name: FROZEN.coefficients()[name] for name in family.frozen}
    return family.build({**frozen, **fitted, **family.constants})


def law_of(family: Family) -> Law:
    """A plausible law of the family, with a few joint draws."""
    middle = equation_at(family, np.array([sum(parameter.starts) / 2 for parameter in family.parameters]))
    truth = TRUTH.get(family.name, middle.coefficients())
    random = np.random.default_rng(1)
    fitted = [parameter.name for parameter in family.parameters]
    draws = {name: tuple((truth[name] * np.exp(random.normal(0, 1e-3, 7))).tolist()) for name in fitted}
    return Law(
        name=f"a-{family.name}-law",
        equation=family.build(truth),
        source=family.source,
        counting=Counting("parameters", "tokens"),
        forward=ForwardCost(0, 0),
        fitted={"student_params": (1e8, 1e10), "student_tokens": (4e9, 5e11)},
        draws=draws,
    )


def designs_of(law: Law) -> list[str]:
    kind = "distillation" if law.distillation is not None else "supervised"
    return [name for name, (of, _) in DESIGNS.items() if of == kind]


def test_the_kernel_is_the_log_of_the_prediction(family: Family) -> None:
    runs = columns(family, 20)
    x, slope = family.features(runs, FROZEN if family.frozen else None), np.empty(len(family.parameters))
    for theta in thetas(family, 20):
        predicted = np.log(family.predict(equation_at(family, theta), runs))
        assert [family.kernel(theta, row, slope) for row in x] == pytest.approx(predicted, rel=ROUND_OFF, abs=ROUND_OFF)


def test_the_kernels_slope_is_the_derivative(family: Family) -> None:
    x = family.features(columns(family, 10, seed=1), FROZEN if family.frozen else None)
    slope, unused = np.empty(len(family.parameters)), np.empty(len(family.parameters))
    for theta in thetas(family, 10, seed=1):
        for row in x:
            family.kernel(theta, row, slope)
            for index in range(len(theta)):
                step = np.zeros(len(theta))
                step[index] = 1e-6
                above, below = family.kernel(theta + step, row, unused), family.kernel(theta - step, row, unused)
                difference = (above - below) / 2e-6
                assert slope[index] == pytest.approx(difference, rel=DIFFERENCE, abs=DIFFERENCE)


def test_the_starts_lie_within_the_bounds(family: Family) -> None:
    for parameter in family.parameters:
        assert parameter.low < parameter.high
        assert parameter.low <= parameter.starts[0] < parameter.starts[1] <= parameter.high


def test_more_size_and_more_tokens_never_hurt(family: Family) -> None:
    law, runs = law_of(family), columns(family, 200, seed=2)
    before = family.predict(law.equation, runs)
    for letter in {"N", "D", "U", "N_S", "D_S"} & set(runs):
        more = {**runs, letter: runs[letter] * 1.5}
        assert (family.predict(law.equation, more) <= before * (1 + ROUND_OFF)).all(), letter


def test_coefficients_build_the_same_equation(family: Family) -> None:
    law = law_of(family)
    assert set(law.equation.coefficients()) == set(family.names)
    assert family.build(law.equation.coefficients()) == law.equation
    assert make_equation(law.equation.coefficients()).coefficients() == law.equation.coefficients()
    assert law.family is family


def test_a_law_survives_its_file(family: Family, tmp_path: Path) -> None:
    law = law_of(family)
    write_law(law, tmp_path / "law.json")
    assert read_law(tmp_path / "law.json") == law


def test_draws_predict_as_each_law_alone(family: Family) -> None:
    law, runs = law_of(family), columns(family, 5)
    ensemble = law.ensemble()
    assert ensemble is not None
    assert law.draws is not None
    together = family.predict(ensemble, runs)
    assert together.shape == (7, 5)
    for index in range(7):
        drawn = {name: values[index] for name, values in law.draws.items()}
        alone = family.build({**law.equation.coefficients(), **drawn})
        assert together[index] == pytest.approx(family.predict(alone, runs), rel=ROUND_OFF)


def test_every_design_simulates_runs(family: Family) -> None:
    law = law_of(family)
    for design in designs_of(law):
        runs = simulate(law, Design(design, 9), noise=0.01).arrays()
        assert np.isfinite(runs[family.loss]).all()
        assert (runs[family.loss] > 0).all()


def test_noise_free_runs_are_recovered(family: Family) -> None:
    law = law_of(family)
    design = "distillation" if law.distillation is not None else "isoflop"
    runs = simulate(law, Design(design, 90))
    frozen = supervised_part(PUBLISHED["busbridge2025"]) if family.frozen else None
    found = fit(runs, family, FitSettings(bootstrap=0), frozen).law
    assert family.predict(found.equation, runs.arrays()) == pytest.approx(runs.arrays()[family.loss], rel=RECOVERED)


PAGE = Path(__file__).resolve().parents[2] / "docs" / "howto" / "add-a-law-family.md"


@pytest.fixture
def new_family(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Family]:
    """The family of the how-to page, whose file lies in a folder of the user's."""
    page = PAGE.read_text("utf-8")
    (tmp_path / "one_exponent.py").write_text(page.partition("```python quick\n")[2].partition("```")[0], "utf-8")
    monkeypatch.setattr(tutelage.laws.families, "__path__", [*tutelage.laws.families.__path__, str(tmp_path)])
    families.cache_clear()
    try:
        yield find_family("one-exponent")
    finally:
        families.cache_clear()
        sys.modules.pop("tutelage.laws.families.one_exponent", None)


CONTRACT: list[Callable[[Family], None]] = [
    test_the_kernel_is_the_log_of_the_prediction,
    test_the_kernels_slope_is_the_derivative,
    test_the_starts_lie_within_the_bounds,
    test_coefficients_build_the_same_equation,
    test_draws_predict_as_each_law_alone,
    test_every_design_simulates_runs,
    test_noise_free_runs_are_recovered,
]


def test_a_new_file_is_a_new_family_with_the_same_contract(new_family: Family, tmp_path: Path) -> None:
    assert "one-exponent" in families()
    for contract in CONTRACT:
        contract(new_family)
    test_a_law_survives_its_file(new_family, tmp_path)


def test_the_new_family_is_gone_afterwards() -> None:
    assert "one-exponent" not in families()
