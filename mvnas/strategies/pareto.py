"""Order among points with two objectives, both to be minimised: who dominates whom, who stands apart, what they cover.

One point dominates another if it is no worse in both and better in one. Points are (n, 2).
"""

from __future__ import annotations

from bisect import bisect_right

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]
Places = NDArray[np.int64]


def ranks(points: Array) -> Places:
    """Number of the front of each point: 0 if no other dominates it, 1 if only points of front 0 do, and so on: (n,)."""
    found = np.zeros(len(points), int)
    tails: list[float] = []  # least second objective of each front so far
    before, front = None, 0
    for place in np.lexsort((points[:, 1], points[:, 0])):
        point = tuple(points[place])
        if point != before:
            front = bisect_right(tails, point[1])
            tails[front : front + 1] = [point[1]]
        found[place], before = front, point
    return found


def by_crowding(points: Array) -> Places:
    """Places of the points, best first: by rank, and within a front those in sparse company first (NSGA-II, Deb et al. 2002)."""
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


def by_net(points: Array) -> Places:
    """Places of the points, best first: by rank, and within a front each the farthest from those before it.

    This is the epsilon-net order of arXiv:2106.12639, section 3; a front begins with its least first objective, and distances are
    those of objectives scaled to the unit square.
    """
    fronts = ranks(points)
    span = np.ptp(points, 0) if len(points) else np.ones(2)
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
