"""Networks within a budget: whether a space has any, and the way to one from any point."""

from __future__ import annotations

import random
from collections.abc import Callable, Mapping
from math import ceil, floor, inf, log10
from typing import Any

from mvnas.budgets import Budget
from mvnas.costs import Price, cost
from mvnas.errors import BudgetError
from mvnas.latency.model import Latency
from mvnas.spaces.arch import Arch
from mvnas.spaces.space import Space


def repair(
    picks: Mapping[str, Any],
    space: Space,
    excess: Callable[[Arch], float],
    generator: random.Random,
    *,
    tries: int = 400,
) -> tuple[dict[str, Any], float, int]:
    """A walk from `picks` into the budget: (picks, excess, architectures that were over it on the way).

    Each step redraws one choice that matters and is kept unless it makes matters worse, so that the walk ends near
    where it began.
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
    """Return if some point of the space meets the budget; it is looked for by descent from the corners and from random
    points.

    Raises:
        BudgetError: none was found; the message gives the nearest feasible budget found.
    """
    generator = random.Random(seed)
    points: list[dict[str, Any]] = [*space.ends]
    points += [{name: generator.choice(values) for name, values in space.choices.items()} for _ in range(starts)]

    def excess(picks: Mapping[str, Any]) -> float:
        return budget.excess(Price(space.at(picks), model))

    nearest, least = points[0], inf
    for point in points:
        here, found = _descend(point, space, excess)
        if found < least:
            nearest, least = here, found
        if least == 0:
            return
    costs = Price(space.at(nearest), model)
    told = {bound.cost: cost(bound.cost).told(_above(costs[bound.cost])).replace(" ", "") for bound in budget.bounds}
    reach = ",".join(f"{value}-{name}" for name, value in told.items())
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
