"""Propose many, train few: which architecture to train next, by a model of accuracy that learns from those that were trained.

The costs of an architecture take microseconds to find and its accuracy minutes. So a Gaussian process is fitted to the
logits of the accuracies that are there, thousands of untrained architectures within the budget are bred against what it says
(NSGA-II), and that one is proposed whose training promises the frontier the most hypervolume. Candidates in training count as
if they had the accuracy that is expected of them.
"""

from __future__ import annotations

import random
import warnings
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from functools import lru_cache
from itertools import product
from math import prod
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
from numpy.typing import NDArray

from mvnas.budgets.feasible import repair
from mvnas.spaces.arch import Arch
from mvnas.spaces.space import Picks, Space
from mvnas.strategies.pareto import Array, by_crowding, ranks
from mvnas.strategies.rungs import Accuracies, lift

if TYPE_CHECKING:
    from sklearn.gaussian_process import GaussianProcessRegressor

Row = tuple[int, ...]  # a point of a space: for each of its choices the number of the option

POPULATION = 100
GENERATIONS = 20
NEWCOMERS = 20  # of the first population, that descend from no candidate
SCORES = 500  # most that the process holds: half the best by rank, half evenly from the others
SHAPING = 100  # most, evenly from these, that its kernel is fitted to
LISTED = 10  # for each point to propose, those of most promise by itself that it is chosen from
NODES = 9  # of quadrature
LEAST = 1e-18  # variance of an accuracy, so that it can be divided by
REMEMBERED = 1 << 17


class Points:
    """The points of a space as rows of option numbers, with what is known of them before they are trained.

    `cost` is what a network costs beside its accuracy, `excess` how far it is over the budget, 0 if it fits.
    """

    def __init__(self, space: Space, cost: Callable[[Arch], float], excess: Callable[[Arch], float]) -> None:
        self.space, self.cost, self.excess = space, cost, excess
        self.sizes = np.array([len(values) for values in space.choices.values()])
        self._columns = [_columns(values) for values in space.choices.values()]
        self._within = lru_cache(REMEMBERED)(self._facts)
        self._over = lru_cache(REMEMBERED)(lambda row: self._costs(self.space.at(self.picks(row))))

    def row(self, picks: Picks) -> Row:
        return tuple([values.index(picks[name]) for name, values in self.space.choices.items()])

    def picks(self, row: Sequence[int]) -> dict[str, object]:
        return {name: values[i] for i, (name, values) in zip(row, self.space.choices.items(), strict=True)}

    def all(self) -> list[Row]:
        """Every row, in order."""
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

    def features(self, rows: Sequence[Row]) -> Array:
        """What the model of accuracy sees of each row, options and log costs: (n, f)."""
        places = np.array(rows, int).reshape(len(rows), -1)
        options = [column[places[:, i]] for i, column in enumerate(self._columns)]
        return np.hstack([*options, np.log(self.look(rows))])

    def draw(self, generator: random.Random) -> Row | None:
        """A random row that fits; None if the walk from a random point found none."""
        picks = {name: generator.choice(values) for name, values in self.space.choices.items()}
        found, excess, _ = repair(picks, self.space, self.excess, generator)
        return None if excess else self.row(found)


def _columns(values: Sequence[object]) -> Array:
    """Features of a choice's options: their order if they are numbers, else a column for each."""
    numbers = [value for value in values if isinstance(value, int | float)]
    if len(numbers) == len(values):
        return np.argsort(np.argsort(numbers))[:, None].astype(float)
    return np.eye(len(values))


class Validation(NamedTuple):
    """What qualities are shares of: so many validation images, of which a network that has learnt nothing has `chance`."""

    images: int
    chance: float

    def logits(self, accuracy: Array, variance: Array) -> tuple[Array, Array]:
        """Logits of accuracies (n,) and, by the variance of these, their own: (n,), (n,).

        Who is right on k of n images is so to half an image, at 0 and at 1 alike. Who is right less often than chance has learnt as
        little as chance.
        """
        half = 0.5 / self.images
        within = np.clip(np.maximum(accuracy, self.chance), half, 1 - half)
        return np.log(within / (1 - within)), variance / (within * (1 - within)) ** 2


class Model(NamedTuple):
    """Accuracy of networks by their features: a Gaussian process, linear and smooth, of its standardised logits.

    Accuracies lie between 0 and 1, and differ the less the nearer they are to 1; their logits are as uncertain everywhere.
    """

    process: GaussianProcessRegressor
    centre: Array
    scale: Array
    mean: float
    deviation: float

    @classmethod
    def fit(cls, features: Array, accuracy: Array, variance: Array, validation: Validation) -> Model:
        """The process that explains `accuracy` (n,), of which `variance` (n,) is unsure beyond the noise of trainings, best."""
        from sklearn.exceptions import ConvergenceWarning
        from sklearn.gaussian_process import GaussianProcessRegressor
        from sklearn.gaussian_process.kernels import ConstantKernel, DotProduct, Matern, WhiteKernel

        centre, spread = features.mean(0), features.std(0)
        scale = np.where(spread > 1e-9, spread, 1.0)
        logits, unsure = validation.logits(accuracy, variance)
        mean, deviation = float(logits.mean()), float(logits.std()) or 1.0
        x, y, alpha = (features - centre) / scale, (logits - mean) / deviation, unsure / deviation**2 + 1e-6
        width = features.shape[1]
        smooth = ConstantKernel(0.5, (0.01, 10)) * Matern(2 * width**0.5, (0.6 * width**0.5, 30 * width**0.5), nu=2.5)
        line = ConstantKernel(0.5 / width, (1e-3 / width, 10 / width)) * DotProduct(1.0, "fixed")
        kernel = smooth + line + WhiteKernel(0.1, (0.01, 1.0))
        part = np.linspace(0, len(x) - 1, min(SHAPING, len(x))).astype(int)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", ConvergenceWarning)  # a parameter at its bound is an answer too
            shaped = GaussianProcessRegressor(kernel, alpha=alpha[part]).fit(x[part], y[part])
        process = GaussianProcessRegressor(shaped.kernel_, alpha=alpha, optimizer=None).fit(x, y)
        return cls(process, centre, scale, mean, deviation)

    def predict(self, features: Array) -> tuple[Array, Array]:
        """Expected accuracy of a training and its standard deviation: (n,), (n,)."""
        mean, deviation = self.process.predict((features - self.centre) / self.scale, return_std=True)
        return self._accuracy(mean, deviation)

    def joint(self, features: Array) -> tuple[Array, Array]:
        """Expected accuracy of trainings and their covariance: (n,), (n, n)."""
        mean, covariance = self.process.predict((features - self.centre) / self.scale, return_cov=True)
        logits = np.diag(covariance) ** 0.5
        accuracy, deviation = self._accuracy(mean, logits)
        slope = deviation / logits
        return accuracy, slope[:, None] * covariance * slope

    def _accuracy(self, mean: Array, deviation: Array) -> tuple[Array, Array]:
        """Mean and deviation of accuracies whose standardised logits are normal, by Gauss-Hermite quadrature."""
        nodes, weights = np.polynomial.hermite_e.hermegauss(NODES)
        logits = self.mean + self.deviation * (mean[:, None] + deviation[:, None] * nodes)
        accuracies, weights = 1 / (1 + np.exp(-logits)), weights / weights.sum()
        middle = accuracies @ weights
        return middle, np.maximum((accuracies - middle[:, None]) ** 2 @ weights, LEAST) ** 0.5

    def believing(self, features: Array) -> Model:
        """The model that has seen networks with these features (n, f) reach what it expects of them."""
        from sklearn.gaussian_process import GaussianProcessRegressor

        process, x = self.process, (features - self.centre) / self.scale
        alpha = np.append(process.alpha, np.full(len(x), 1e-6))
        again = GaussianProcessRegressor(process.kernel_, alpha=alpha, optimizer=None)
        again.fit(np.vstack([process.X_train_, x]), np.append(process.y_train_, process.predict(x)))
        return self._replace(process=again)


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

    `rows` are the candidates that there ever were, by number; `rungs` the accuracies of those that finished each rung of
    training length, the full length last; `pending` are those in training. Of a candidate that has come to be over the budget,
    since predictions differ a little from machine to machine, the accuracy tells of others, but it is none of the frontier.
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
    """`count` of the rows, each the one that promises most beside those before it, as if these had the accuracy that is expected of them."""
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
    """Places of at most SCORES of (accuracy, cost): half the best by rank, the others evenly from the rest, in order."""
    order = by_crowding(front * (-1, 1))
    best, rest = order[: SCORES // 2], np.sort(order[SCORES // 2 :])
    return np.sort(np.append(best, rest[np.linspace(0, len(rest) - 1, min(SCORES // 2, len(rest))).astype(int)]))
