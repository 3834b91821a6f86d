"""Designs and simulated runs: exactly the runs that were asked for, on the law, with the noise that was asked for."""

from __future__ import annotations

import numpy as np
import pytest

from tutelage.errors import InputError
from tutelage.laws.designs import DESIGNS, EPOCHS, RATIO, RATIOS, Design
from tutelage.laws.law import Law
from tutelage.laws.published import PUBLISHED
from tutelage.laws.simulate import simulate

SUPERVISED = [name for name, (kind, _) in DESIGNS.items() if kind == "supervised"]
DISTILLATION = [name for name, (kind, _) in DESIGNS.items() if kind == "distillation"]
ROUND_OFF = 1e-12
# Four standard errors of the standard deviation of 2,000 draws.
NOISE_ERROR = 4 / np.sqrt(2 * 2000)


def laws_of(name: str) -> list[Law]:
    kind = DESIGNS[name][0]
    return [law for law in PUBLISHED.values() if (law.distillation is not None) == (kind == "distillation")]


@pytest.mark.parametrize("runs", [1, 2, 7, 80])
@pytest.mark.parametrize("name", DESIGNS)
def test_as_many_different_runs_as_asked_for_within_the_range(name: str, runs: int) -> None:
    for law in laws_of(name):
        columns = Design(name, runs).inputs(law)
        assert {len(values) for values in columns.values()} == {runs}
        assert len(set(zip(*(values.tolist() for values in columns.values()), strict=True))) == runs
        for letter, input_name in (("N", "student_params"), ("N_S", "student_params"), ("N_T", "teacher_params")):
            if letter in columns:
                low, high = law.fitted[input_name]
                assert low * (1 - ROUND_OFF) <= columns[letter].min()
                assert columns[letter].max() <= high * (1 + ROUND_OFF)
                tokens = columns[letter.replace("N", "D")]
                low, high = law.fitted[input_name.replace("params", "tokens")]
                assert low * (1 - ROUND_OFF) <= tokens.min()
                assert tokens.max() <= high * (1 + ROUND_OFF)


def distinct(values: np.ndarray) -> list[float]:  # type: ignore[type-arg]
    return sorted({float(f"{value:.9e}") for value in values})


def test_what_the_designs_are() -> None:
    law, teacher = PUBLISHED["besiroglu2024"], PUBLISHED["busbridge2025"]
    lines = Design("isoflop", 80).inputs(law)
    assert len(distinct(lines["N"] * lines["D"])) == 8
    grid = Design("grid", 81).inputs(law)
    assert (len(distinct(grid["N"])), len(distinct(grid["D"]))) == (9, 9)
    fixed = Design("fixed-ratio", 30).inputs(law)
    assert distinct(fixed["D"] / fixed["N"]) == [RATIO]
    students = Design("student-isoflop", 90).inputs(teacher)
    assert distinct(students["D_T"] / students["N_T"]) == [RATIO]
    assert len(distinct(students["N_S"] * students["D_S"])) == 8
    teachers = Design("teacher-isoflop", 90).inputs(teacher)
    assert distinct(teachers["D_S"] / teachers["N_S"]) == [RATIO]
    assert len(distinct(teachers["N_T"] * teachers["D_T"])) == 8
    gap = Design("capacity-gap", 90).inputs(teacher)
    assert distinct(gap["D_S"] / gap["N_S"]) == distinct(gap["D_T"] / gap["N_T"]) == list(RATIOS)
    repeated = Design("isoflop", 90).inputs(PUBLISHED["muennighoff2023"])
    assert distinct(repeated["D"] / repeated["U"]) == list(EPOCHS)


@pytest.mark.parametrize("name", DESIGNS)
def test_without_noise_runs_lie_on_the_law(name: str) -> None:
    for law in laws_of(name):
        runs = simulate(law, Design(name, 20)).arrays()
        assert runs[law.family.loss] == pytest.approx(law.family.predict(law.equation, runs), rel=ROUND_OFF)
        if "L_T" in runs:
            assert runs["L_T"] == pytest.approx(law.supervised.predict(runs["N_T"], runs["D_T"]), rel=ROUND_OFF)


def test_the_noise_is_log_normal_and_seeded() -> None:
    law, design = PUBLISHED["besiroglu2024"], Design("isoflop", 2000)
    plain, noisy = simulate(law, design).arrays(), simulate(law, design, 0.01, seed=3)
    errors = np.log(noisy.arrays()["L"] / plain["L"])
    assert np.std(errors) == pytest.approx(0.01, rel=NOISE_ERROR)
    assert abs(np.mean(errors)) < 4 * 0.01 / np.sqrt(2000)
    assert simulate(law, design, 0.01, seed=3) == noisy
    assert simulate(law, design, 0.01, seed=4).columns != noisy.columns
    assert noisy.source == "2000 simulated runs of besiroglu2024, design isoflop, noise 0.01, seed 3"
    assert noisy.counting["params"] == law.counting.params


def test_what_cannot_be_simulated() -> None:
    with pytest.raises(InputError, match="no design 'line'") as caught:
        Design("line", 0)
    assert len(caught.value.faults) == 2
    with pytest.raises(InputError, match="use one of isoflop, grid, fixed-ratio"):
        simulate(PUBLISHED["hoffmann2022"], Design("capacity-gap", 9))
    with pytest.raises(InputError, match="noise is -1"):
        simulate(PUBLISHED["hoffmann2022"], Design("grid", 9), noise=-1)


def test_a_distillation_law_gives_ordinary_runs_of_its_supervised_law() -> None:
    law = PUBLISHED["busbridge2025"]
    runs = simulate(law, Design("isoflop", 40)).arrays()
    assert sorted(runs) == ["D", "L", "N"]
    assert runs["L"] == pytest.approx(law.supervised.predict(runs["N"], runs["D"]), rel=ROUND_OFF)
