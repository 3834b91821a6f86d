"""Machines that a training may run on: what they can compute, draw and cost.

Covers: presets with their assumptions and sources, the user's own numbers on top, compute from hours and from money.
Does not cover: memory, interconnect and the number of machines: hours are those of one device working alone, and ten
devices take a tenth of them at best.
"""

from __future__ import annotations

import difflib
from collections.abc import Mapping
from dataclasses import dataclass, field, fields, replace

from tutelage.errors import InputError
from tutelage.laws.validity import not_positive
from tutelage.units import Flops

SECONDS_PER_HOUR = 3600.0
CURRENCY = "USD"
PRICED = "2026-11"
"""The month for which the presets' prices are assumed."""
WORLD_CARBON = 473.0
"""Grams of CO2 equivalent per kWh."""
NEW_SITE_PUE = 1.3


@dataclass(frozen=True)
class Assumption:
    """One number that a cost rests on.

    Args:
        name: Which number.
        value: Its value; None where it is not known.
        unit: Its unit.
        source: A key of `docs/references.yaml`, "assumed" with its reason, or "given".
    """

    name: str
    value: float | None
    unit: str
    source: str

    def to_dict(self) -> dict[str, object]:
        """The JSON form."""
        return {item.name: getattr(self, item.name) for item in fields(self)}


@dataclass(frozen=True)
class Hardware:
    """One device.

    Args:
        name: What users call it.
        peak: Peak FLOPs per second of dense matrix products in the format that training uses (bf16 on a GPU).
        mfu: Share of the peak that training reaches (model FLOPs utilisation, `chowdhery2022`), in (0, 1].
        watts: Power that the board draws at work; None where it is not known.
        price: Price of an hour in `CURRENCY`; None where it is not known.
        pue: Power usage effectiveness, the site's power over that of the machines, at least 1.
        carbon: Grams of CO2 equivalent per kWh.
        text: What the device is, in a few words.
        sources: Where each number is from, by field; a field without one was given by the user.

    Raises:
        InputError: With every fault.

    Example:
        >>> f"{find_hardware('H100').flops_for_hours(1):.3g}"
        '1.42e+18'
    """

    name: str
    peak: float
    mfu: float
    watts: float | None = None
    price: float | None = None
    pue: float = NEW_SITE_PUE
    carbon: float = WORLD_CARBON
    text: str = ""
    sources: Mapping[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        faults = not_positive({f"hardware {self.name}: {key}": getattr(self, key) for key in UNITS})
        if self.mfu > 1.0:
            faults.append(f"hardware {self.name}: mfu is {self.mfu:g}; no device does more than its peak (1)")
        if self.pue < 1.0:
            faults.append(f"hardware {self.name}: pue is {self.pue:g}; a site draws at least what its machines do (1)")
        if faults:
            raise InputError(faults)

    @property
    def flops_per_second(self) -> float:
        """What training does: peak times utilisation."""
        return self.peak * self.mfu

    def hours_for(self, flops: Flops) -> float:
        """Device-hours that `flops` take."""
        return flops / (self.flops_per_second * SECONDS_PER_HOUR)

    def flops_for_hours(self, hours: float) -> Flops:
        """FLOPs that `hours` of this device do."""
        return hours * SECONDS_PER_HOUR * self.flops_per_second

    def flops_for_money(self, money: float) -> Flops:
        """FLOPs that `money`, in `CURRENCY`, buys.

        Raises:
            InputError: The price of an hour is not known.
        """
        if self.price is None:
            raise InputError(f"hardware {self.name} has no price; give the price of an hour as price=..")
        return self.flops_for_hours(money / self.price)

    def kwh_per_hour(self) -> float | None:
        """Energy of an hour, the site's share included; None where the power is not known."""
        return None if self.watts is None else self.watts * self.pue / 1000.0

    def assumptions(self) -> tuple[Assumption, ...]:
        """Every number with its unit and source."""
        return tuple(
            Assumption(key, getattr(self, key), unit, self.sources.get(key, "given")) for key, unit in UNITS.items()
        )

    def to_dict(self) -> dict[str, object]:
        """The JSON form."""
        return {"name": self.name, "text": self.text, "numbers": self.assumptions()}


UNITS = {
    "peak": "FLOPs per second, dense",
    "mfu": "share of the peak",
    "watts": "W, the board alone",
    "price": f"{CURRENCY} per hour",
    "pue": "site power over machine power",
    "carbon": "g CO2e per kWh",
}
"""The numbers that users may give, with their units."""

_COMMON = {
    "mfu": "assumed (grattafiori2024: 0.38 to 0.43)",
    "price": f"assumed, near list prices of {PRICED}",
    "pue": "assumed (institute2024: 1.3 in new sites)",
    "carbon": "world average of 2024 (graham2025)",
}


def _preset(name: str, peak: float, mfu: float, watts: float, price: float, text: str, source: str) -> Hardware:
    sources = {**_COMMON, "peak": source, "watts": source}
    return Hardware(name, peak, mfu, watts, price, text=text, sources=sources)


_CPU_PEAK = 32 * 2 * 16 * 2 * 2.6e9
"""32 cores x 2 units of fused multiply-add x 16 float32 lanes x 2 FLOPs x 2.6 GHz (its base clock)."""

PRESETS: dict[str, Hardware] = {
    each.name: each
    for each in (
        _preset("A100", 312e12, 0.40, 400, 2.0, "NVIDIA A100 SXM, 80 GB", "nvidia2021"),
        _preset("H100", 989e12, 0.40, 700, 3.0, "NVIDIA H100 SXM, 80 GB", "nvidia2023"),
        _preset("H200", 989e12, 0.40, 700, 4.0, "NVIDIA H200 SXM, 141 GB", "nvidia2024"),
        _preset("B200", 2250e12, 0.35, 1000, 6.0, "NVIDIA B200 SXM, 180 GB", "nvidia2024"),
        _preset("L4", 121e12, 0.30, 72, 0.8, "NVIDIA L4, 24 GB", "nvidia2023"),
        _preset("CPU", _CPU_PEAK, 0.40, 250, 1.5, "32-core server processor, float32", "intel2021"),
    )
}
"""The presets by name. Peaks are dense: datasheets that print "with sparsity" are halved."""


def find_hardware(name: str, changes: Mapping[str, float] | None = None) -> Hardware:
    """A preset, with the user's own numbers on top; or a device of the user's own.

    Args:
        name: A preset's name in either case, or any name where `changes` give at least `peak` and `mfu`.
        changes: Numbers by the keys of `UNITS`.

    Raises:
        InputError: No such preset and too few numbers, an unknown key, or numbers that cannot be.
    """
    own = dict(changes or {})
    unknown = [key for key in own if key not in UNITS]
    if unknown:
        raise InputError(f"hardware {name}: unknown {', '.join(map(repr, unknown))}; known are {', '.join(UNITS)}")
    preset = PRESETS.get(name.upper())
    if preset is not None:
        sources = {key: source for key, source in preset.sources.items() if key not in own}
        return replace(preset, **own, sources=sources)  # type: ignore[arg-type]
    missing = [key for key in ("peak", "mfu") if key not in own]
    if missing:
        near = difflib.get_close_matches(name.upper(), PRESETS, 1)
        hint = f" (near: {near[0]})" if near else ""
        raise InputError(
            f"no hardware {name!r}{hint}; presets are {', '.join(PRESETS)}; another device needs {', '.join(missing)}"
        )
    sources = {key: _COMMON[key] for key in ("pue", "carbon") if key not in own}
    sources |= {key: "not given" for key in ("watts", "price") if key not in own}
    return Hardware(name, **own, text="a device of the user's", sources=sources)
