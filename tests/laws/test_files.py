"""Law files and finding a law."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from tutelage.errors import InputError
from tutelage.laws.files import find_law, law_to_dict, read_law, write_law
from tutelage.laws.published import PUBLISHED


@pytest.mark.parametrize("name", PUBLISHED)
def test_a_law_survives_its_file(tmp_path: Path, name: str) -> None:
    law = replace(PUBLISHED[name], draws={"E": (1.2, 1.3), "A": (3355.0, 3356.5)})
    write_law(law, tmp_path / "law.json")
    assert read_law(tmp_path / "law.json") == law
    assert find_law(str(tmp_path / "law.json")) == law
    assert [file.name for file in tmp_path.iterdir()] == ["law.json"]


@pytest.mark.parametrize("name", PUBLISHED)
def test_published_laws_are_complete(name: str) -> None:
    law = find_law(name)
    assert law.name == name
    assert law.source.startswith(name)
    assert law.counting.params
    assert law.draws is None
    assert all(low < high for low, high in law.fitted.values())
    for coefficient, (low, high) in law.intervals.items():
        assert low <= law.equation.coefficients()[coefficient] <= high


def test_an_unknown_name_is_met_with_the_nearest() -> None:
    with pytest.raises(InputError, match=r"no law 'hofmann2022'; did you mean hoffmann2022\?"):
        find_law("hofmann2022")
    with pytest.raises(InputError, match=r"no law file 'missing\.json'"):
        find_law("missing.json")


def broken(path: Path, **changes: Any) -> Path:
    document = law_to_dict(PUBLISHED["busbridge2025"])
    path.write_text(json.dumps({**document, **changes}), "utf-8")
    return path


@pytest.mark.parametrize(
    ("changes", "fault"),
    [
        ({"schema": {"name": "tutelage.law", "version": 9}}, "schema must be"),
        ({"family": "quadratic"}, "family 'quadratic' is not known"),
        ({"coefficients": [1, 2]}, "coefficients must be an object"),
        ({"coefficients": {"E": 1.2}}, "coefficient gamma_prime is missing"),
        ({"fitted": {"student_params": [2.0, 1.0]}}, "fitted.student_params is"),
        ({"forward": {"contxt": 1}}, "forward.contxt is not known"),
        ({"rounding": {"E": -1.0}}, "rounding.E is -1.0"),
        ({"rounding": {"zeta": 1.0}}, "rounding.zeta is not known"),
        ({"draws": {"E": [1.0], "A": [1.0, 2.0]}}, "draws must be null or"),
    ],
)
def test_what_is_not_a_law_is_said_to_be_so(tmp_path: Path, changes: dict[str, Any], fault: str) -> None:
    with pytest.raises(InputError, match=fault):
        read_law(broken(tmp_path / "law.json", **changes))


def test_every_fault_of_a_file_is_reported_at_once(tmp_path: Path) -> None:
    coefficients = {**law_to_dict(PUBLISHED["busbridge2025"])["coefficients"], "E": "big", "A": -1, "zeta": 3}
    del coefficients["c0"]
    with pytest.raises(InputError) as caught:
        read_law(broken(tmp_path / "law.json", coefficients=coefficients))
    assert len(caught.value.faults) == 4


@pytest.mark.parametrize("content", [b"not json", b"\xff\xfe", b"[]", b"{}"])
def test_what_is_not_json_is_said_to_be_so(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "law.json").write_bytes(content)
    with pytest.raises(InputError, match=r"law\.json: not a"):
        read_law(tmp_path / "law.json")


def test_a_coefficient_that_is_not_finite_is_refused(tmp_path: Path) -> None:
    text = json.dumps(law_to_dict(PUBLISHED["besiroglu2024"])).replace("482.01", "NaN")
    (tmp_path / "law.json").write_text(text, "utf-8")
    with pytest.raises(InputError, match="coefficient A is nan; it must be a finite number greater than 0"):
        read_law(tmp_path / "law.json")


def test_the_hoffmann_family_fixes_gamma(tmp_path: Path) -> None:
    document = law_to_dict(PUBLISHED["hoffmann2022"])
    document["coefficients"]["gamma"] = 0.5
    (tmp_path / "law.json").write_text(json.dumps(document), "utf-8")
    with pytest.raises(InputError, match="family hoffmann has gamma = 1"):
        read_law(tmp_path / "law.json")
