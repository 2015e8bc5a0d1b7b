"""What the model of accuracy sees of a network."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from mvnas.accuracy.process import Array


@dataclass(frozen=True)
class Groups:
    """Features of n networks, in groups that the model weighs apart.

    `orders` (n, o) are places of numeric options in the order of their values; `kinds` (n, k) are 1 where an option was
    chosen, of choices with three options or more and of those that are no numbers; `costs` (n, c) are logarithms.
    """

    orders: Array
    kinds: Array
    costs: Array

    def __len__(self) -> int:
        return len(self.costs)

    def __iter__(self) -> Iterator[Array]:
        return iter((self.orders, self.kinds, self.costs))

    def rows(self, places: Any) -> Groups:
        """The groups of some of the networks."""
        return Groups(*(group[places] for group in self))


class Features:
    """Features of the points of a space, by its choices.

    A column for each option tells what the order of the options does not: a kernel of 5 pixels may be better than both
    3 and 7. Costs, such as parameters and multiply-accumulates, are a group of their own, since one of them may tell
    more of accuracy than any choice, of which there are many.
    """

    def __init__(self, choices: Mapping[str, Sequence[Any]]) -> None:
        self._choices = choices
        self._orders = [_order(options) for options in choices.values()]
        self._kinds = [_kinds(options) for options in choices.values()]

    def at(self, points: Sequence[Mapping[str, Any]], costs: Array) -> Groups:
        """Features of networks by the options that were picked, and their costs, (n, c)."""
        names = self._choices.items()
        return self.of([[options.index(picks[name]) for name, options in names] for picks in points], costs)

    def of(self, places: Array | Sequence[Sequence[int]], costs: Array) -> Groups:
        """Features of networks by the number of their option in each choice, (n, choices), and their costs, (n, c)."""
        rows = np.asarray(places, int).reshape(len(costs), len(self._orders))
        orders = [column[rows[:, i]] for i, column in enumerate(self._orders)]
        kinds = [column[rows[:, i]] for i, column in enumerate(self._kinds)]
        empty = [np.zeros((len(costs), 0))]
        return Groups(np.hstack(orders + empty), np.hstack(kinds + empty), np.log(costs))


def _order(options: Sequence[Any]) -> Array:
    """Places of options in the order of their values, (options, 1); of what is no number nothing, (options, 0)."""
    if not _numeric(options):
        return np.zeros((len(options), 0))
    return np.argsort(np.argsort(options))[:, None].astype(float)


def _kinds(options: Sequence[Any]) -> Array:
    """A column for each option; none where the order tells as much: (options, k)."""
    return np.zeros((len(options), 0)) if _numeric(options) and len(options) < 3 else np.eye(len(options))


def _numeric(options: Sequence[Any]) -> bool:
    return all(isinstance(value, int | float) for value in options)
