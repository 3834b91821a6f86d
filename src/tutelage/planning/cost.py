"""FLOPs as hours, money, energy and CO2e.

Covers: what FLOPs cost on one kind of device. Does not cover: the devices and their numbers (`hardware`), failed runs,
storage, staff, or the hardware's own making.
"""

from __future__ import annotations

from dataclasses import dataclass

from tutelage.planning.hardware import Hardware
from tutelage.planning.parts import as_document
from tutelage.records.estimate import Estimate

_GRAMS = 1000.0


@dataclass(frozen=True)
class Cost:
    """What some work costs; without hardware its FLOPs alone are known.

    Args:
        flops: FLOPs.
        gpu_hours: Hours of one device.
        money: In `hardware.CURRENCY`; None where the price is not known.
        energy_kwh: The site's share included; None where the power is not known.
        co2e_kg: From the energy; None likewise.
    """

    flops: Estimate | None = None
    gpu_hours: Estimate | None = None
    money: Estimate | None = None
    energy_kwh: Estimate | None = None
    co2e_kg: Estimate | None = None

    def to_dict(self) -> dict[str, object]:
        """The JSON form."""
        return as_document(self)


def cost_of(flops: Estimate | None, hardware: Hardware | None) -> Cost:
    """What `flops` cost on `hardware`; every interval is that of the FLOPs.

    Example:
        >>> from tutelage.planning.hardware import PRESETS
        >>> cost = cost_of(Estimate(1e21), PRESETS["H100"])
        >>> f"{cost.gpu_hours.value:.0f} h, {cost.money.value:.0f} USD, {cost.energy_kwh.value:.0f} kWh"
        '702 h, 2107 USD, 639 kWh'
    """
    if flops is None or hardware is None:
        return Cost(flops)
    hours = scaled(flops, hardware.hours_for(1.0))
    energy = hardware.kwh_per_hour()
    used = None if energy is None else scaled(hours, energy)
    return Cost(
        flops,
        hours,
        None if hardware.price is None else scaled(hours, hardware.price),
        used,
        None if used is None else scaled(used, hardware.carbon / _GRAMS),
    )


def scaled(estimate: Estimate, factor: float) -> Estimate:
    """`estimate` in another unit."""
    low, high = (None if end is None else end * factor for end in (estimate.low, estimate.high))
    return Estimate(estimate.value * factor, low, high, estimate.level, estimate.method)


def added(one: Estimate, exact: float) -> Estimate:
    """`one` plus a number that is known exactly."""
    low, high = (None if end is None else end + exact for end in (one.low, one.high))
    return Estimate(one.value + exact, low, high, one.level, one.method)
