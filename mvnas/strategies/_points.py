"""Points of a space as rows of option numbers, with what is known of them before they are trained."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterable, Sequence
from functools import lru_cache
from itertools import product

import numpy as np

from mvnas.accuracy import Features, Groups
from mvnas.budgets.feasible import repair
from mvnas.spaces.arch import Arch
from mvnas.spaces.rows import Picks
from mvnas.spaces.space import Space
from mvnas.strategies.pareto import Array

Row = tuple[int, ...]  # a point of a space: for each of its choices the number of the option

REMEMBERED = 1 << 17


class Points:
    """The points of a space as rows of option numbers, with what is known of them before they are trained.

    `cost` is what a network costs beside its accuracy, `excess` how far it is over the budget, 0 if it fits; `listed`
    are the only points that there are, None: all of the space.
    """

    def __init__(
        self,
        space: Space,
        cost: Callable[[Arch], float],
        excess: Callable[[Arch], float],
        listed: Sequence[Picks] | None = None,
    ) -> None:
        self.space, self.cost, self.excess = space, cost, excess
        self.sizes = np.array([len(values) for values in space.choices.values()])
        self._features = Features(space.choices)
        self.listed = None if listed is None else [self.row(picks) for picks in listed]
        self._within = lru_cache(REMEMBERED)(self._facts)
        self._over = lru_cache(REMEMBERED)(lambda row: self._costs(self.space.at(self.picks(row))))

    def row(self, picks: Picks) -> Row:
        return tuple([values.index(picks[name]) for name, values in self.space.choices.items()])

    def picks(self, row: Sequence[int]) -> dict[str, object]:
        return {name: values[i] for i, (name, values) in zip(row, self.space.choices.items(), strict=True)}

    def all(self) -> list[Row]:
        """Every row, in order."""
        if self.listed is not None:
            return self.listed
        return list(dict.fromkeys(map(self.settled, product(*map(range, self.sizes)))))

    def settled(self, row: Sequence[int]) -> Row:
        """The row of the same network that stands for all of them."""
        return self.row(self.space.settled(self.picks(row))) if self.space.mixed else tuple(row)

    def look(self, rows: Sequence[Row]) -> Array:
        """Cost, params and macs of each row, whether it is within the budget or not: (n, 3)."""
        return np.array([self._within(row) or self._over(row) for row in rows], float).reshape(-1, 3)

    def fitting(self, rows: Iterable[Row]) -> list[Row]:
        """Those of the rows that are within the budget."""
        return [row for row in rows if self._within(row)]

    def _facts(self, row: Row) -> tuple[float, float, float] | None:
        """Cost, params and macs of a row that is within the budget."""
        arch = self.space.at(self.picks(row))
        return self._costs(arch) if self.excess(arch) == 0 else None

    def _costs(self, arch: Arch) -> tuple[float, float, float]:
        return self.cost(arch), arch.params, arch.macs

    def features(self, rows: Sequence[Row]) -> Groups:
        """What the model of accuracy sees of each row."""
        return self._features.of(rows, self.look(rows))

    def draw(self, generator: random.Random) -> Row | None:
        """A random row that fits; None if the walk from a random point found none."""
        if self.listed is not None:
            fitting = self.fitting(self.listed)
            return generator.choice(fitting) if fitting else None
        picks = {name: generator.choice(values) for name, values in self.space.choices.items()}
        found, excess, _ = repair(picks, self.space, self.excess, generator)
        return None if excess else self.row(found)
