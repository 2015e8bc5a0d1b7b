"""Propose many, train few: which architecture to train next, by a model of accuracy that learns from those that were
trained.

The costs of an architecture take microseconds to find and its accuracy minutes. So a model is fitted to the accuracies
that are there (`mvnas.accuracy`), thousands of untrained architectures within the budget are bred against what it says
(NSGA-II), and that training is proposed which promises the frontier of what is expected the most hypervolume: of a new
architecture, or of a trained one from another seed, where it would move what is expected of it most (the knowledge
gradient; Frazier, Powell and Dayanik 2009). Candidates in training count as if they had the accuracy that is expected
of them.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from math import prod
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from mvnas.accuracy import LEAST, MOST, AccuracyModel, Validation
from mvnas.strategies._points import Points, Row
from mvnas.strategies.pareto import Array, by_crowding, few, ranks
from mvnas.strategies.rungs import Accuracies, lift

POPULATION = 100
GENERATIONS = 20
NEWCOMERS = 20  # of the first population, that descend from no candidate
BEYOND = 3.0  # times the greatest cost, up to where volume counts: the best network within the budget adds to it too
NONE: Mapping[int, Sequence[float]] = {}
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


class Choice(NamedTuple):
    """What to train next: a new point, or the candidate with this number anew from another seed."""

    row: Row
    number: int | None = None


def propose(
    points: Points,
    rows: Mapping[int, Row],
    rungs: Sequence[Accuracies],
    pending: Collection[int],
    generator: random.Random,
    *,
    validation: Validation,
    repeats: Mapping[int, Sequence[float]] = NONE,
    begun: float = 1.0,
    count: int = 1,
) -> list[Choice]:
    """The `count` trainings, or none if no new point is left, that promise the most hypervolume together.

    `rows` are the candidates that there ever were, by number; `rungs` the accuracies of those that finished each rung
    of training length, the full length last; `repeats` those of their other full trainings; `pending` are those in
    training. `begun` is the share of a full training that a new candidate begins with, 0 if none is to be trained
    again. Of a candidate that has come to be over the budget, since predictions differ a little from machine to
    machine, the accuracy tells of others, but it is none of the frontier.
    """
    lifted = lift(rungs)
    numbers = sorted(lifted)
    trained = [rows[number] for number in numbers]
    accuracy, variance = np.array([lifted[number] for number in numbers]).T
    scores = [[score, *repeats.get(number, ())] for number, score in zip(numbers, accuracy.tolist(), strict=True)]
    costs = points.look(trained)[:, 0]
    kept = few(np.column_stack([-accuracy, costs]), MOST)
    model = AccuracyModel.fit(
        points.features([trained[i] for i in kept]), [scores[i] for i in kept], validation, variance[kept]
    )
    places = np.full(len(trained), -1)
    places[kept] = np.arange(len(kept))
    expected, learns = model.learns(points.features(trained), places)
    within = set(points.fitting(trained))
    fits = np.array([row in within for row in trained], bool)
    front = np.column_stack([expected, costs])[fits]

    waiting = points.fitting(rows[number] for number in sorted(pending) if number not in lifted)
    if waiting:
        features = points.features(waiting)
        front = np.vstack([front, np.column_stack([model.predict(features)[0], points.look(waiting)[:, 0]])])
        model = model.believing(features)

    met = _met(points, model, [trained[i] for i in kept], generator)
    seen = set(rows.values())
    fresh = [row for row in met if row not in seen]
    if not fresh:
        return []
    worst = BEYOND * max(front[:, 1].max(initial=0), points.look(met)[:, 0].max())
    again = [
        (begun * gain, Choice(trained[i], numbers[i]))
        for i, gain in _again(expected, learns, costs, worst, fits)
        if begun and numbers[i] in rungs[-1] and numbers[i] not in pending
    ]
    front = _best(front)
    gain = improvement(front, points.look(fresh)[:, 0], *model.learns(points.features(fresh)), worst)
    listed = [fresh[i] for i in (-gain).argsort(kind="stable")[: LISTED * count]]
    features = points.features(listed)
    mean, covariance = model.joint(features)
    told = model.learns(features)[1] / np.diag(covariance) ** 0.5
    chosen = _together(count, listed, points.look(listed)[:, 0], mean, covariance, told, front, worst)
    found = [(gain, Choice(row)) for gain, row in chosen]
    return [choice for _, choice in sorted(found + again, key=lambda one: -one[0])[:count]]


def _met(points: Points, model: AccuracyModel, trained: Sequence[Row], generator: random.Random) -> list[Row]:
    """Points within the budget that are worth a look: all, or of many those that are bred against the model."""
    if points.listed is not None or prod(map(int, points.sizes)) <= POPULATION * GENERATIONS:
        return points.fitting(points.all())

    def judge(some: Sequence[Row]) -> Array:
        mean, deviation = model.predict(points.features(some))
        return np.column_stack([-mean - deviation, points.look(some)[:, 0]])

    strangers = [row for _ in range(NEWCOMERS) if (row := points.draw(generator)) is not None]
    return evolve(points, judge, [*trained, *strangers], np.random.default_rng(generator.getrandbits(64)))


def _again(
    expected: Array, learns: Array, costs: Array, worst: float, fits: NDArray[np.bool_]
) -> Iterator[tuple[int, float]]:
    """Places of trained candidates, and how much volume the frontier is expected to gain by another training of each.

    The frontier is of what is expected. Another training moves what is expected of one candidate up or down by `learns`
    at a time; it is on the frontier then, or leaves it to those behind.
    """
    points, within = np.column_stack([expected, costs]), np.flatnonzero(fits)
    near = improvement(_best(points[within]), costs[within], expected[within], learns[within], worst)
    on = within[ranks(points[within] * (-1, 1)) == 0]
    for place in dict.fromkeys([*on.tolist(), *within[(-near).argsort(kind="stable")[:LISTED]].tolist()]):
        rest, one = _best(points[within[within != place]]), slice(place, place + 1)
        here = improvement(rest, costs[one], expected[one], np.array([LEAST**0.5]), worst)
        yield place, float((improvement(rest, costs[one], expected[one], learns[one], worst) - here)[0])


def _together(
    count: int,
    rows: Sequence[Row],
    costs: Array,
    mean: Array,
    covariance: Array,
    told: Array,
    front: Array,
    worst: float,
) -> list[tuple[float, Row]]:
    """`count` of the rows and the volume that each is expected to add beside those before it, as if these had the
    accuracy that is expected of them.

    `told` (n,) is the share of the deviation of each that a training of it tells.
    """
    chosen: list[int] = []
    found: list[tuple[float, Row]] = []
    for _ in range(min(count, len(rows))):
        deviation = np.maximum(np.diag(covariance), LEAST) ** 0.5  # of what is chosen nothing is left
        gain = improvement(front, costs, mean, told * deviation, worst)
        gain[chosen] = -1
        best = int(gain.argmax())
        chosen.append(best)
        found.append((float(gain[best]), rows[best]))
        front = np.vstack([front, (mean[best], costs[best])])
        covariance -= np.outer(covariance[best], covariance[best]) / covariance[best, best]
    return found


def _best(front: Array) -> Array:
    """Those of (accuracy, cost) that no other beats: (m, 2)."""
    return front[ranks(front * (-1, 1)) == 0]  # type: ignore[no-any-return]
