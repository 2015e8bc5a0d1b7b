"""Rungs of training length: many candidates are trained a little, and only the promising ones on to the full length.

Multi-objective asynchronous successive halving (Schmucker et al., arXiv:2106.12639): of the candidates that finished a rung
the best 1 / ETA may go on to the next, as soon as they are that good among those finished so far; nobody waits for a rung to
fill. Best is by non-dominated rank in error and cost, and within a front by the epsilon-net.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence

import numpy as np

from mvnas.pareto import by_net

ETA = 3
SHARES = (1 / 9, 1 / 3, 1.0)  # of the full length, that a candidate has been trained after each rung

Point = tuple[float, float]  # accuracy and cost


def promote(rungs: Sequence[Mapping[int, Point]], begun: Sequence[Collection[int]]) -> tuple[int, int] | None:
    """The candidate to train on, and the rung it is to reach; None if a new one should begin.

    `rungs` hold the points of the candidates that finished each rung, by number; `begun` are the numbers that ever began each,
    whatever became of them. Candidates far up go first.
    """
    for rung in range(len(rungs) - 2, -1, -1):
        numbers = list(rungs[rung])
        points = np.array([(-accuracy, cost) for accuracy, cost in rungs[rung].values()], float).reshape(-1, 2)
        for place in by_net(points)[: len(numbers) // ETA]:
            if numbers[place] not in begun[rung + 1]:
                return numbers[place], rung + 1
    return None
