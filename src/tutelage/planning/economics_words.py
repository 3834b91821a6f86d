"""The economics of a plan in words and in rows of tables.

Covers: plain text that a terminal, a log or a report can show. Does not cover: drawing the tables, the plan's losses
(`words`).
"""

from __future__ import annotations

from tutelage.planning.cost import Cost
from tutelage.planning.economics import TRAIN_OPTIMAL, Economics
from tutelage.planning.hardware import CURRENCY, Hardware
from tutelage.records.estimate import Estimate
from tutelage.units import format_quantity

EVERY_WAY = "every way at this size"
ASSUMPTION_HEADERS = ("assumption", "value", "unit", "source")


def cost_headers(economics: Economics) -> tuple[str, ...]:
    """The columns of `cost_rows`."""
    served = ("lifetime\nFLOPs", f"lifetime\n{CURRENCY}") if economics.lifetime else ()
    return ("cost of", "FLOPs", "device-\nhours", CURRENCY, "kWh", "kg CO2e", *served)


def cost_rows(economics: Economics) -> list[list[str]]:
    """One row a way, or one for all where they cost the same; none without hardware and served tokens."""
    if economics.hardware is None and economics.lifetime is None:
        return []
    table = {name: _cost_row(economics, name, cost) for name, cost in economics.costs.items()}
    same_size = [row[1:] for name, row in table.items() if name != TRAIN_OPTIMAL]
    if len(same_size) > 1 and all(row == same_size[0] for row in same_size):
        optimal = table.get(TRAIN_OPTIMAL)
        return [[EVERY_WAY, *same_size[0]], *([optimal] if optimal else [])]
    return list(table.values())


def _cost_row(economics: Economics, name: str, cost: Cost) -> list[str]:
    parts = (cost.flops, cost.gpu_hours, cost.money, cost.energy_kwh, cost.co2e_kg)
    row = [name, _count(cost.flops), *(_amount(part) for part in parts[1:])]
    if economics.lifetime is None:
        return row
    lived = economics.lifetime.ways[name]
    return [*row, _count(lived.total), _amount(lived.money)]


def assumption_rows(hardware: Hardware | None) -> list[list[str]]:
    """One row a number that hours, money and energy rest on."""
    if hardware is None:
        return []
    return [
        [f"{hardware.name} {each.name}", _known(each.value), each.unit, each.source] for each in hardware.assumptions()
    ]


def economics_in_words(economics: Economics) -> list[str]:
    """A line for each part that the question asked for, with a heading."""
    lines = []
    if economics.cost.gpu_hours is not None and economics.hardware is not None:
        lines.append(f"Cost of the choice: {_spent(economics.cost)} on {economics.hardware.name}.")
    if economics.lifetime is not None:
        lines.append(f"Lifetime: {economics.lifetime.text}")
    if economics.repetition is not None:
        lines.append(f"Repeated data: {economics.repetition.text} ({economics.repetition.assumption}.)")
    if economics.lora is not None:
        chosen = economics.lora.flops
        then = f" The choice then costs {format_quantity(chosen.value)} FLOPs." if chosen else ""
        lines.append(f"LoRA: {economics.lora.text}.{then}")
    if economics.cache is not None:
        lines.append(f"Cached teacher: {economics.cache.text}")
    return lines


def _known(value: float | None) -> str:
    return "not known" if value is None else f"{value:.4g}"


def _spent(cost: Cost) -> str:
    named = (
        (cost.gpu_hours, "device-hours"),
        (cost.money, CURRENCY),
        (cost.energy_kwh, "kWh"),
        (cost.co2e_kg, "kg CO2e"),
    )
    return ", ".join(f"{_interval(part)} {unit}" for part, unit in named if part is not None)


def _interval(estimate: Estimate) -> str:
    if estimate.low is None or estimate.high is None:
        return _written(estimate.value)
    return f"{_written(estimate.value)} [{_written(estimate.low)}, {_written(estimate.high)}]"


def _amount(estimate: Estimate | None) -> str:
    return "" if estimate is None else _written(estimate.value)


def _written(amount: float) -> str:
    """Hours and money as people write them: to three digits, or to one of them."""
    return f"{amount:,.0f}" if 100.0 <= amount < 1e9 else format_quantity(amount)


def _count(estimate: Estimate | None) -> str:
    return "" if estimate is None else format_quantity(estimate.value)
