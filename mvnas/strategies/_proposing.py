"""Propose many, train few: which architecture to train next, by a model of accuracy that learns from those that were
trained.

The costs of an architecture take microseconds to find and its accuracy minutes. So a Gaussian process is fitted to the
logits of the accuracies that are there, thousands of untrained architectures within the budget are bred against what it
says (NSGA-II), and that one is proposed whose training promises the frontier the most hypervolume. Candidates in
training count as if they had the accuracy that is expected of them.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from math import prod
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from mvnas.strategies.pareto import Array, by_crowding, ranks
from mvnas.strategies.rungs import Accuracies, lift

if TYPE_CHECKING:
    pass
from mvnas.strategies import Validation
from mvnas.strategies._accuracy import LEAST, Model
from mvnas.strategies._points import Points, Row

POPULATION = 100
GENERATIONS = 20
NEWCOMERS = 20  # of the first population, that descend from no candidate
SCORES = 500  # most that the process holds: half the best by rank, half evenly from the others
LISTED = 10  # for each point to propose, those of most promise by itself that it is chosen from


def improvement(front: Array, costs: Array, mean: Array, deviation: Array, worst: float) -> Array:
    """Expected growth of the hypervolume by networks of known cost and uncertain accuracy, in closed form: (n,).

    `front` are (accuracy, cost) of what is there, (m, 2). The volume is that of accuracy from 0 by cost up to `worst`.
    """
    from scipy.special import ndtr

    steps = _best(front)
    steps = steps[steps[:, 1].argsort(kind="stable")]
    levels = np.concatenate([[0.0], steps[:, 0]])  # above each accuracy, what costs more than `bounds` is new
    bounds = np.append(steps[:, 1], worst)
    z = (mean[:, None] - levels) / deviation[:, None]
    above = deviation[:, None] * (z * ndtr(z) + np.exp(-(z**2) / 2) / np.sqrt(2 * np.pi))  # expected excess of a level
    between = above - np.hstack([above[:, 1:], np.zeros((len(above), 1))])
    return (np.maximum(bounds - costs[:, None], 0) * between).sum(1)  # type: ignore[no-any-return]


def evolve(
    points: Points, judge: Callable[[Sequence[Row]], Array], first: Iterable[Row], generator: np.random.Generator
) -> list[Row]:
    """Every point within the budget that NSGA-II meets on its way from the `first` ones.

    `judge` gives two values of each row, both to be minimised: (n, 2). Children over the budget are not born.
    """
    met = dict.fromkeys(points.fitting(first))
    here = list(met)
    if not here:
        return []
    values = judge(here)
    rates = 1 / len(points.sizes)
    for _ in range(GENERATIONS):
        best = by_crowding(values)[:POPULATION]
        here, values = [here[i] for i in best], values[best]
        parents = np.array(here)[generator.integers(len(here), size=(2, POPULATION, 2)).min(2)]  # tournaments of two
        children = np.where(generator.random(parents[0].shape) < 0.5, *parents)
        redrawn = generator.integers(points.sizes, size=children.shape)
        children = np.where(generator.random(children.shape) < rates, redrawn, children)
        settled = dict.fromkeys(map(points.settled, children.tolist()))
        born = points.fitting(row for row in settled if row not in met)
        if born:
            met |= dict.fromkeys(born)
            here, values = here + born, np.vstack([values, judge(born)])
    return list(met)


def propose(
    points: Points,
    rows: Mapping[int, Row],
    rungs: Sequence[Accuracies],
    pending: Collection[int],
    generator: random.Random,
    *,
    validation: Validation,
    count: int = 1,
) -> list[Row]:
    """The `count` new points, or fewer if there are no more, whose training promises the most hypervolume together.

    `rows` are the candidates that there ever were, by number; `rungs` the accuracies of those that finished each rung
    of training length, the full length last; `pending` are those in training. Of a candidate that has come to be over
    the budget, since predictions differ a little from machine to machine, the accuracy tells of others, but it is none
    of the frontier.
    """
    lifted = lift(rungs)
    numbers = sorted(lifted)
    trained = [rows[number] for number in numbers]
    accuracy, variance = np.array([lifted[number] for number in numbers]).T
    costs = points.look(trained)[:, 0]
    front = np.column_stack([accuracy, costs])
    kept = _few(front)
    model = Model.fit(points.features([trained[i] for i in kept]), accuracy[kept], variance[kept], validation)
    fits = set(points.fitting(trained))
    front = front[[row in fits for row in trained]]

    waiting = points.fitting(rows[number] for number in sorted(pending) if number not in lifted)
    if waiting:
        features = points.features(waiting)
        front = np.vstack([front, np.column_stack([model.predict(features)[0], points.look(waiting)[:, 0]])])
        model = model.believing(features)

    def judge(some: Sequence[Row]) -> Array:
        mean, deviation = model.predict(points.features(some))
        return np.column_stack([-mean - deviation, points.look(some)[:, 0]])

    seen = set(rows.values())
    if prod(map(int, points.sizes)) <= POPULATION * GENERATIONS:
        met = points.fitting(points.all())
    else:
        strangers = [row for _ in range(NEWCOMERS) if (row := points.draw(generator)) is not None]
        met = evolve(
            points, judge, [*(trained[i] for i in kept), *strangers], np.random.default_rng(generator.getrandbits(64))
        )
    fresh = [row for row in met if row not in seen]
    if not fresh:
        return []
    worst = max(front[:, 1].max(initial=0), points.look(met)[:, 0].max())
    front = _best(front)
    gain = improvement(front, points.look(fresh)[:, 0], *model.predict(points.features(fresh)), worst)
    listed = [fresh[i] for i in (-gain).argsort(kind="stable")[: LISTED * count]]
    return _together(count, listed, points.look(listed)[:, 0], *model.joint(points.features(listed)), front, worst)


def _together(
    count: int, rows: Sequence[Row], costs: Array, mean: Array, covariance: Array, front: Array, worst: float
) -> list[Row]:
    """`count` of the rows, each the one that promises most beside those before it, as if these had the accuracy that is
    expected of them.
    """
    chosen: list[int] = []
    for _ in range(min(count, len(rows))):
        deviation = np.maximum(np.diag(covariance), LEAST) ** 0.5  # of what is chosen nothing is left
        gain = improvement(front, costs, mean, deviation, worst)
        gain[chosen] = -1
        best = int(gain.argmax())
        chosen.append(best)
        front = np.vstack([front, (mean[best], costs[best])])
        covariance -= np.outer(covariance[best], covariance[best]) / covariance[best, best]
    return [rows[i] for i in chosen]


def _best(front: Array) -> Array:
    """Those of (accuracy, cost) that no other beats: (m, 2)."""
    return front[ranks(front * (-1, 1)) == 0]  # type: ignore[no-any-return]


def _few(front: Array) -> NDArray[np.int64]:
    """Indices of at most SCORES of (accuracy, cost): half the best by rank, the others evenly from the rest."""
    order = by_crowding(front * (-1, 1))
    best, rest = order[: SCORES // 2], np.sort(order[SCORES // 2 :])
    return np.sort(np.append(best, rest[np.linspace(0, len(rest) - 1, min(SCORES // 2, len(rest))).astype(int)]))
