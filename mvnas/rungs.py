"""Rungs of training length: many candidates are trained a little, and only the promising ones on to the full length.

Multi-objective asynchronous successive halving (Schmucker et al., arXiv:2106.12639): of the candidates that finished a rung
the best 1 / ETA may go on to the next, as soon as they are that good among those finished so far; nobody waits for a rung to
fill. Best is by non-dominated rank in error and cost, and within a front by the epsilon-net.

A short training may say nothing of a long one. So a rung holds nobody back until enough candidates have gone on to the last
rung to show that it tells who will be good there.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import NamedTuple

import numpy as np

from mvnas.pareto import by_net

ETA = 3
SHARES = (1 / 9, 1 / 3, 1.0)  # of the full length, that a candidate has been trained after each rung
FEWEST = 10  # candidates of the last rung, before any other rung is trusted
TRUST = 0.25  # least share of the variance at the last rung that one must explain: a correlation of 0.5

Point = tuple[float, float]  # accuracy and cost
Accuracies = Mapping[int, float]  # by a candidate's number


class Reading(NamedTuple):
    """What accuracies of a rung say of those of the last one: a line, the variance around it, and the share it explains."""

    slope: float
    shift: float
    unsure: float
    explained: float


def read(rungs: Sequence[Accuracies]) -> list[Reading]:
    """What each rung says of the last, by regression from rung to rung; with few pairs it is drawn towards slope 1."""
    found = [Reading(1.0, 0.0, 0.0, 1.0)]
    for lower, upper in zip(rungs[-2::-1], rungs[:0:-1], strict=True):
        both = np.array([(accuracy, upper[number]) for number, accuracy in lower.items() if number in upper], float)
        spread = float(np.var(list(lower.values()))) if lower else 0.0
        x, y = both.reshape(-1, 2).T
        middle, height = (x.mean(), y.mean()) if len(both) else (0.0, 0.0)
        rise = ((x - middle) @ (y - height) + 2 * spread) / max((x - middle) @ (x - middle) + 2 * spread, 1e-12)
        residual = (((y - height - rise * (x - middle)) ** 2).sum() + spread) / (len(both) + 2)
        after = found[0]
        slope, unsure = after.slope * rise, after.unsure + after.slope**2 * residual
        explained = slope**2 * spread / max(slope**2 * spread + unsure, 1e-12)
        found.insert(0, Reading(slope, after.shift + after.slope * (height - rise * middle), unsure, explained))
    return found


def lift(rungs: Sequence[Accuracies]) -> dict[int, tuple[float, float]]:
    """The accuracy at the last rung that is expected of each candidate by its last score, and the variance of that."""
    pairs = zip(rungs, read(rungs), strict=True)
    return {
        number: (reading.shift + reading.slope * accuracy, reading.unsure)
        for accuracies, reading in pairs
        for number, accuracy in accuracies.items()
    }


def rivals(rungs: Sequence[Accuracies]) -> list[int]:
    """Of how many candidates of each rung one may go on: ETA, or 1 where the rung is not trusted."""
    trained = len(rungs[-1]) >= FEWEST
    return [ETA if trained and reading.explained >= TRUST else 1 for reading in read(rungs)]


def promote(
    rungs: Sequence[Mapping[int, Point]], begun: Sequence[Collection[int]], rivals: Sequence[int]
) -> tuple[int, int] | None:
    """The candidate to train on, and the rung it is to reach; None if a new one should begin.

    `rungs` hold the points of the candidates that finished each rung, by number; `begun` are the numbers that ever began each,
    whatever became of them; one of so many `rivals` goes on from each. Candidates far up go first.
    """
    for rung in range(len(rungs) - 2, -1, -1):
        numbers = list(rungs[rung])
        points = np.array([(-accuracy, cost) for accuracy, cost in rungs[rung].values()], float).reshape(-1, 2)
        for place in by_net(points)[: len(numbers) // rivals[rung]]:
            if numbers[place] not in begun[rung + 1]:
                return numbers[place], rung + 1
    return None
