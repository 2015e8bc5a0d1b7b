"""Strategies: what to train next, told what was trained and what is in training.

A strategy remembers nothing: the same history gives the same proposal, so that an interrupted study goes on as if it had not been.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from typing import NamedTuple, Protocol

import numpy as np

from mvnas.arch import Arch
from mvnas.rungs import promote, rivals
from mvnas.space import Picks, Space
from mvnas.surrogate import Points, Row, propose

FIRST = 5  # candidates that fill the space before a model chooses
DRAWS = 20  # of which each of them is the one farthest from all before


class Asked(NamedTuple):
    """A candidate in training: its number, its point of the space, and the rung that it is to reach."""

    number: int
    picks: Picks
    rung: int


class Told(NamedTuple):
    """A candidate that was trained to a rung, and its accuracy there; None if that failed."""

    number: int
    picks: Picks
    rung: int
    accuracy: float | None


class Proposal(NamedTuple):
    """A point to train to a rung: as a new candidate, or the one with this number on from where it is."""

    picks: Picks
    rung: int
    number: int | None = None


class Strategy(Protocol):
    """Chooses candidates; `shares` are the rungs, as shares of the full training length, the last of them 1."""

    shares: Sequence[float]

    def next(self, history: Sequence[Told], pending: Sequence[Asked], seed: int) -> Proposal | None:
        """What to train next, a function of the arguments alone; None if nothing new within the budget is left."""


class Surrogate:
    """The strategy of `mvnas.surrogate`: a space-filling start, then what promises the most hypervolume.

    With several rungs candidates begin at the first, and are promoted by `mvnas.rungs`.
    """

    def __init__(
        self,
        space: Space,
        cost: Callable[[Arch], float],
        excess: Callable[[Arch], float],
        *,
        shares: Sequence[float] = (1.0,),
    ) -> None:
        self.points, self.shares = Points(space, cost, excess), shares

    def next(self, history: Sequence[Told], pending: Sequence[Asked], seed: int) -> Proposal | None:
        points = self.points
        every: list[Told | Asked] = [*history, *pending]
        picks = {one.number: one.picks for one in every}
        rows = {number: points.row(picks[number]) for number in sorted(picks)}
        rungs: list[dict[int, float]] = [{} for _ in self.shares]
        begun: list[set[int]] = [set() for _ in self.shares]
        for one in every:
            begun[one.rung].add(one.number)
        for one in sorted(history, key=lambda one: one.number):
            if one.accuracy is not None:
                rungs[one.rung][one.number] = one.accuracy
        costs = dict(zip(rows, points.look(list(rows.values()))[:, 0], strict=True))
        finished = [{number: (accuracy, costs[number]) for number, accuracy in rung.items()} for rung in rungs]
        promoted = promote(finished, begun, rivals(rungs))
        if promoted:
            number, rung = promoted
            return Proposal(picks[number], rung, number)
        generator = random.Random(f"{seed} {len(history)} {len(pending)}")
        scored = sum(map(len, rungs))
        found = self._apart(set(rows.values()), generator) if len(rows) < FIRST or scored < 2 else []
        if not found and scored >= 2:
            found = propose(points, rows, rungs, {one.number for one in pending}, generator)
        return Proposal(points.picks(found[0]), 0) if found else None

    def _apart(self, seen: set[Row], generator: random.Random) -> list[Row]:
        """Of DRAWS random points within the budget and new, the one farthest from the seen ones."""
        drawn = [row for _ in range(DRAWS) if (row := self.points.draw(generator)) is not None and row not in seen]
        if not drawn:
            return []
        features = self.points.features([*drawn, *seen])
        spread = features.std(0)
        scaled = features / np.where(spread > 0, spread, 1)
        new, old = scaled[: len(drawn)], scaled[len(drawn) :]
        gaps = np.linalg.norm(new[:, None] - old, axis=2).min(1, initial=np.inf)
        return [drawn[int(gaps.argmax())]]
