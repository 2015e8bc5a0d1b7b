"""Budgets: upper bounds or ranges on what a network costs, and the search for networks that meet them."""

from __future__ import annotations

import random
import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from math import ceil, floor, inf, log10
from typing import Any, ClassVar

from mvnas.costs.filesize import file_bytes
from mvnas.errors import BudgetError, told, unknown
from mvnas.latency.model import Latency
from mvnas.spaces.arch import Arch
from mvnas.spaces.space import Space, published

UNITS = {"params": "", "macs": "", "latency": "ms", "energy": "mJ", "size": "B", "memory": "B"}  # cost -> unit
PREFIXES = {"": 1.0, "K": 1e3, "M": 1e6, "G": 1e9}
GRAMMAR = (
    "bounds such as 6M-params, 600M-macs, 8ms, 30mJ, 20MB-size, 64MB-memory, a range 4M..6M-params, or a network's name"
)

NUMBER = r"(\d+(?:\.\d+)?|\.\d+)([KMG]?)"
BOUND = re.compile(rf"(?:{NUMBER}\.\.)?{NUMBER}(ms|mJ|B)?(?:-(\w+))?")

Costs = Mapping[str, float]


@dataclass(frozen=True)
class Bound:
    """One cost of a network, held within `low` and `high`: a number, milliseconds, millijoules or bytes."""

    cost: str
    high: float
    low: float = 0.0

    def excess(self, value: float) -> float:
        """How far `value` is out of bounds, relative to the bound; 0 within."""
        return max(0.0, value / self.high - 1, 1 - value / self.low if self.low else 0.0)

    def __str__(self) -> str:
        low = f"{show(self.cost, self.low)} .. " if self.low else "at most "
        return f"{self.cost} {low}{show(self.cost, self.high)}"


@dataclass(frozen=True)
class Budget:
    """Bounds that all must hold.

    >>> budget = Budget.parse("4M..6M-params,8ms")
    >>> print(budget)
    params 4M .. 6M, latency at most 8 ms
    >>> budget.excess({"params": 9e6, "latency": 4.0})
    0.5
    """

    text: str
    bounds: tuple[Bound, ...]

    @classmethod
    def parse(cls, text: str, network: Callable[[str], Costs] | None = None) -> Budget:
        """The budget that `text` says; `network` gives the costs of a published network by its name.

        Raises:
            BudgetError: the text is none.
        """
        bounds = [bound for item in text.split(",") for bound in _bounds(item.strip(), network)]
        seen = [bound.cost for bound in bounds]
        for cost in seen:
            if seen.count(cost) > 1:
                raise BudgetError(
                    f"a budget must bound each cost once, but {text!r} bounds {cost} {seen.count(cost)} times"
                )
        return cls(text, tuple(bounds))

    def excess(self, costs: Costs) -> float:
        """Sum of the relative excesses; 0 if `costs` are within the budget."""
        return sum([bound.excess(costs[bound.cost]) for bound in self.bounds])

    def __str__(self) -> str:
        return ", ".join(map(str, self.bounds))


def _bounds(item: str, network: Callable[[str], Costs] | None) -> list[Bound]:
    if network and item in published():
        costs = network(item)
        return [Bound(cost, costs[cost]) for cost in ("params", "latency")]
    match = BOUND.fullmatch(item)
    if not match:
        near = f"; {unknown('network', item, published())}" if re.fullmatch(r"[a-z_]\w*", item) else ""
        raise BudgetError(f"a budget must be {GRAMMAR}, but got {told(item)}{near}")
    low, low_prefix, high, prefix, unit, cost = match.groups(default="")
    likely = [name for name, its in UNITS.items() if its == unit]
    cost = cost or (likely[0] if len(likely) == 1 else "")
    if cost not in UNITS:
        raise BudgetError(
            f"{item!r}: {unknown('cost', cost, UNITS) if cost else f'a budget must name its cost: {GRAMMAR}'}"
        )
    if unit != UNITS[cost]:
        raise BudgetError(
            f"{cost} must be in {UNITS[cost] or 'plain numbers'}, but {item!r} is in {unit or 'plain numbers'}"
        )
    least = round(float(low) * PREFIXES[low_prefix or prefix], 9) if low else 0.0  # 2.01 * 1e6 < 2010000
    most = round(float(high) * PREFIXES[prefix], 9)
    if most <= 0 or least > most:
        raise BudgetError(f"a bound must be positive and a range must rise, but got {item!r}")
    return [Bound(cost, most, least)]


def price(arch: Arch, model: Latency) -> Costs:
    """Costs of a network by the names that budgets use, each found when it is asked for; bytes of memory are those of float32.

    Raises:
        UnmeasuredError: latency or energy is asked for, and the model does not know one of the ops.
        TableError: energy is asked for, and the model's table has none.
    """
    return Price(arch, model)


class Price(Mapping[str, float]):
    """The costs of one network; energy is among them where it was measured."""

    FOUND: ClassVar[Mapping[str, Callable[[Arch, Latency], float]]] = {
        "params": lambda arch, model: arch.params,
        "macs": lambda arch, model: arch.macs,
        "latency": lambda arch, model: model.predict(arch).value,
        "energy": lambda arch, model: model.energy.predict(arch).value,
        "size": lambda arch, model: file_bytes(arch),
        "memory": lambda arch, model: arch.memory_bytes,
    }

    def __init__(self, arch: Arch, model: Latency) -> None:
        self.arch, self.model = arch, model

    def __getitem__(self, cost: str) -> float:
        return self.FOUND[cost](self.arch, self.model)

    def __iter__(self) -> Iterator[str]:
        return (cost for cost in self.FOUND if cost != "energy" or self.model.knows_energy)

    def __len__(self) -> int:
        return sum(1 for _ in self)


def show(cost: str, value: float) -> str:
    """A cost for people: `5.58M`, `12.3 ms`, `30.1 mJ`, `22.3 MB`."""
    unit = UNITS[cost]
    if unit.startswith("m"):
        return f"{value:.0f} {unit}" if value >= 100 else f"{value:.3g} {unit}"
    prefix = next((p for p in ("G", "M", "K") if value >= PREFIXES[p]), "")
    return f"{value / PREFIXES[prefix]:.4g}{' ' if unit else ''}{prefix}{unit}"


def repair(
    picks: Mapping[str, Any],
    space: Space,
    excess: Callable[[Arch], float],
    generator: random.Random,
    *,
    tries: int = 400,
) -> tuple[dict[str, Any], float, int]:
    """A walk from `picks` into the budget: (picks, excess, architectures that were over it on the way).

    Each step redraws one choice that matters and is kept unless it makes matters worse, so that the walk ends near where it began.
    """
    here = dict(picks)
    least, over = excess(space.at(here)), 0
    while least > 0 and over < tries and space.choices:
        over += 1
        name = generator.choice(space.active(here))
        step = here | {name: generator.choice(space.choices[name])}
        found = excess(space.at(step))
        if found <= least:
            here, least = step, found
    return space.settled(here), least, over


def check_feasible(budget: Budget, space: Space, model: Latency, *, seed: int = 0, starts: int = 4) -> None:
    """Return if some point of the space meets the budget; it is looked for by descent from the corners and from random points.

    Raises:
        BudgetError: none was found; the message gives the nearest feasible budget found.
    """
    generator = random.Random(seed)
    points: list[dict[str, Any]] = [*space.ends]
    points += [{name: generator.choice(values) for name, values in space.choices.items()} for _ in range(starts)]

    def excess(picks: Mapping[str, Any]) -> float:
        return budget.excess(price(space.at(picks), model))

    nearest, least = points[0], inf
    for point in points:
        here, found = _descend(point, space, excess)
        if found < least:
            nearest, least = here, found
        if least == 0:
            return
    costs = price(space.at(nearest), model)
    reach = ",".join(
        f"{show(bound.cost, _above(costs[bound.cost])).replace(' ', '')}-{bound.cost}" for bound in budget.bounds
    )
    raise BudgetError(
        f"a network of {space.name} must meet the budget {budget.text}, but none does; the nearest feasible is {reach}"
    )


def _above(value: float) -> float:
    """`value` rounded up to three digits, so that what is shown of it is a budget that it meets."""
    step = 10.0 ** (floor(log10(value)) - 2)
    return ceil(value / step) * step


def _descend(
    picks: Mapping[str, Any], space: Space, excess: Callable[[Mapping[str, Any]], float]
) -> tuple[dict[str, Any], float]:
    """The best option of each choice in turn, until none is better or the budget is met: (picks, excess)."""
    here, least = dict(picks), excess(picks)
    better = True
    while better and least > 0:
        better = False
        for name in space.active(here):
            values = space.choices[name]
            found, value = min(((excess(here | {name: value}), value) for value in values), key=lambda pair: pair[0])
            if found < least:
                here, least, better = here | {name: value}, found, True
    return here, least
