"""Hardware presets, the user's numbers on top, hours and money as FLOPs."""

from __future__ import annotations

from pathlib import Path

import pytest
from ruamel.yaml import YAML

from tutelage.errors import InputError
from tutelage.planning.hardware import PRESETS, UNITS, Hardware, find_hardware

ROOT = Path(__file__).resolve().parents[2]
# Vendors' datasheets: dense bf16 FLOPs per second (float32 on the processor) and board power.
DATASHEETS = {
    "A100": (312e12, 400),
    "H100": (1979e12 / 2, 700),
    "H200": (1979e12 / 2, 700),
    "B200": (4.5e15 / 2, 1000),
    "L4": (242e12 / 2, 72),
    "CPU": (5.3248e12, 250),
}
# The printed peaks are rounded to three digits.
PRINTED = 1e-3


@pytest.mark.parametrize("name", DATASHEETS)
def test_a_preset_has_the_dense_peak_and_the_power_of_its_datasheet(name: str) -> None:
    peak, watts = DATASHEETS[name]
    assert PRESETS[name].peak == pytest.approx(peak, rel=PRINTED)
    assert PRESETS[name].watts == watts


def test_every_number_of_a_preset_names_a_source_that_is_listed() -> None:
    listed = YAML(typ="safe").load((ROOT / "docs" / "references.yaml").read_text("utf-8"))
    for preset in PRESETS.values():
        assert set(preset.sources) == set(UNITS)
        for key in ("peak", "watts"):
            assert preset.sources[key] in listed
        assert "assumed" in preset.sources["mfu"]
        assert "assumed" in preset.sources["price"]


def test_hours_money_and_flops_are_one_conversion() -> None:
    device = Hardware("mine", peak=1e15, mfu=0.5, watts=1000, price=4.0, pue=1.25)
    assert device.flops_for_hours(2.0) == pytest.approx(2 * 3600 * 5e14)
    assert device.hours_for(device.flops_for_hours(7.0)) == pytest.approx(7.0)
    assert device.flops_for_money(8.0) == pytest.approx(device.flops_for_hours(2.0))
    assert device.kwh_per_hour() == pytest.approx(1.25)


def test_the_users_numbers_replace_the_presets_and_are_told_as_such() -> None:
    device = find_hardware("h100", {"mfu": 0.25, "price": 2.5})
    assert (device.name, device.mfu, device.price, device.peak) == ("H100", 0.25, 2.5, 989e12)
    told = {each.name: each.source for each in device.assumptions()}
    assert told["mfu"] == told["price"] == "given"
    assert told["peak"] == "nvidia2023"


def test_a_device_of_the_users_own_needs_peak_and_mfu_and_no_more() -> None:
    device = find_hardware("TPU", {"peak": 2e14, "mfu": 0.5})
    assert device.kwh_per_hour() is None
    assert {each.name: each.source for each in device.assumptions()}["price"] == "not given"
    with pytest.raises(InputError, match=r"has no price; give the price of an hour as price=\.\."):
        device.flops_for_money(1.0)
    with pytest.raises(InputError, match=r"no hardware 'mine'; presets are A100, .*; another device needs peak, mfu"):
        find_hardware("mine")
    with pytest.raises(InputError, match=r"no hardware 'H10' \(near: H100\)"):
        find_hardware("H10")


def test_numbers_that_cannot_be_are_told_at_once() -> None:
    with pytest.raises(InputError) as caught:
        Hardware("mine", peak=-1.0, mfu=1.5, pue=0.9, carbon=float("nan"))
    assert [fault.partition(": ")[2].split(" is ")[0] for fault in caught.value.faults] == [
        "peak",
        "carbon",
        "mfu",
        "pue",
    ]
    with pytest.raises(InputError, match="unknown 'colour'; known are peak"):
        find_hardware("A100", {"colour": 1.0})
