"""Budgets: upper bounds or ranges on what a network costs."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from mvnas.costs import PREFIXES, cost, names
from mvnas.errors import BudgetError, CostError, quoted, unknown
from mvnas.spaces.zoo import published

GRAMMAR = (
    "bounds such as 6M-params, 600M-macs, 8ms, 30mJ, 20MB-size, 64MB-memory, a range 4M..6M-params, or a network's name"
)
OF_NETWORK = ("params", "latency")  # that the name of a network bounds

NUMBER = r"(\d+(?:\.\d+)?|\.\d+)([KMG]?)"
BOUND = re.compile(rf"(?:{NUMBER}\.\.)?{NUMBER}([A-Za-z]*)(?:-([\w.]+))?")

Costs = Mapping[str, float]


@dataclass(frozen=True)
class Bound:
    """One cost of a network by its name, held within `low` and `high` in its unit."""

    cost: str
    high: float
    low: float = 0.0

    def excess(self, value: float) -> float:
        """How far `value` is out of bounds, relative to the bound; 0 within."""
        return max(0.0, value / self.high - 1, 1 - value / self.low if self.low else 0.0)

    def __str__(self) -> str:
        of = cost(self.cost)
        low = f"{of.told(self.low)} .. " if self.low else "at most "
        return f"{self.cost} {low}{of.told(self.high)}"


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
    def parse(cls, text: str, network: Callable[[str], Costs] | None = None, *, foreign: bool = False) -> Budget:
        """The budget that `text` says; `network` gives the costs of a published network by its name.

        `foreign` says that a file holds the text, and not the user: it may name only costs that are trusted.

        Raises:
            BudgetError: the text is none.
            TrustError: it names a module that is not trusted.
        """
        bounds = [bound for item in text.split(",") for bound in _bounds(item.strip(), network, foreign)]
        seen = [bound.cost for bound in bounds]
        for name in seen:
            if seen.count(name) > 1:
                raise BudgetError(
                    f"a budget must bound each cost once, but {text!r} bounds {name} {seen.count(name)} times"
                )
        return cls(text, tuple(bounds))

    def excess(self, costs: Costs) -> float:
        """Sum of the relative excesses; 0 if `costs` are within the budget."""
        return sum([bound.excess(costs[bound.cost]) for bound in self.bounds])

    def __str__(self) -> str:
        return ", ".join(map(str, self.bounds))


def _bounds(item: str, network: Callable[[str], Costs] | None, foreign: bool) -> list[Bound]:
    if network and item in published():
        costs = network(item)
        return [Bound(name, costs[name]) for name in OF_NETWORK]
    match = BOUND.fullmatch(item)
    low, low_prefix, high, prefix, unit, name = match.groups(default="") if match else [""] * 6
    likely = [known for known in names() if cost(known).unit == unit]
    if not match or not (likely or "." in name):
        near = f"; {unknown('network', item, published())}" if re.fullmatch(r"[a-z_]\w*", item) else ""
        raise BudgetError(f"a budget must be {GRAMMAR}, but got {quoted(item)}{near}")
    name = name or (likely[0] if len(likely) == 1 else "")
    if not name:
        raise BudgetError(f"{item!r}: a budget must name its cost: {GRAMMAR}")
    try:
        wanted = cost(name, foreign=foreign).unit
    except CostError as error:
        raise BudgetError(f"{item!r}: {error}") from None
    if unit != wanted:
        raise BudgetError(
            f"{name} must be in {wanted or 'plain numbers'}, but {item!r} is in {unit or 'plain numbers'}"
        )
    least = round(float(low) * PREFIXES[low_prefix or prefix], 9) if low else 0.0  # 2.01 * 1e6 < 2010000
    most = round(float(high) * PREFIXES[prefix], 9)
    if most <= 0 or least > most:
        raise BudgetError(f"a bound must be positive and a range must rise, but got {item!r}")
    return [Bound(name, most, least)]
