"""Order among points of two objectives or more, all to be minimised: who dominates whom, and who stands apart.

One point dominates another if it is no worse in every objective and better in one. Points are (n, objectives).
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]
Places = NDArray[np.int64]


def ranks(points: Array) -> Places:
    """Number of the front of each point: 0 if none dominates it, 1 if only points of front 0 do, and so on: (n,)."""
    found = np.zeros(len(points), int)
    edges: list[list[list[float]]] = []  # of each front so far, what is least in the objectives but the first
    before, front = None, 0
    order = np.lexsort(points.T[::-1])  # by the first objective, so that what comes later dominates nobody
    for place, point in zip(order.tolist(), points[order].tolist(), strict=True):
        if point != before:
            rest = point[1:]
            if len(rest) == 1:  # each edge is one number, and they rise
                front = bisect_right(edges, [rest])
            else:  # whoever is dominated in a front is so in all before it
                front = bisect_left(edges, True, key=lambda edge: not any(_no_worse(one, rest) for one in edge))
            kept = edges[front] if front < len(edges) else []
            edges[front : front + 1] = [[*(one for one in kept if not _no_worse(rest, one)), rest]]
        found[place], before = front, point
    return found


def _no_worse(one: list[float], other: list[float]) -> bool:
    return all(a <= b for a, b in zip(one, other, strict=True))


def by_crowding(points: Array) -> Places:
    """Places of the points, best first: by rank, within a front those in sparse company first (NSGA-II, Deb 2002)."""
    fronts = ranks(points)
    distance = np.zeros(len(points))
    for front in range(fronts.max(initial=-1) + 1):
        members = np.flatnonzero(fronts == front)
        for values in points[members].T:
            order = members[values.argsort(kind="stable")]
            along = np.sort(values)
            distance[order[[0, -1]]] = np.inf
            distance[order[1:-1]] += (along[2:] - along[:-2]) / max(along[-1] - along[0], 1e-300)
    return np.lexsort((-distance, fronts))


def few(points: Array, most: int) -> Places:
    """Places of at most `most` points, ascending: half the best by rank, the others evenly from the rest."""
    if len(points) <= most:
        return np.arange(len(points))
    order = by_crowding(points)
    best, rest = order[: most // 2], np.sort(order[most // 2 :])
    return np.sort(np.append(best, rest[np.linspace(0, len(rest) - 1, most - most // 2).astype(int)]))


def by_net(points: Array) -> Places:
    """Places of the points, best first: by rank, and within a front each the farthest from those before it.

    This is the epsilon-net order of arXiv:2106.12639, section 3; a front begins with its least first objective, and
    distances are those of objectives scaled to the unit cube.
    """
    fronts = ranks(points)
    span = np.ptp(points, 0) if len(points) else np.ones(points.shape[1])
    scaled = points / np.where(span > 0, span, 1)
    order: list[int] = []
    for front in range(fronts.max(initial=-1) + 1):
        members = np.flatnonzero(fronts == front)
        chosen = [members[scaled[members, 0].argmin()]]
        gaps = np.full(len(members), np.inf)
        for _ in members[1:]:
            gaps = np.minimum(gaps, np.linalg.norm(scaled[members] - scaled[chosen[-1]], axis=1))
            gaps[members == chosen[-1]] = -1
            chosen.append(members[gaps.argmax()])
        order += chosen
    return np.array(order, int)
