"""Time from work: how long a kind of kernel takes, learnt from timings of some of it.

The time of a workload is a sum of what it does, each part at its own cost, corrected by a smooth factor:

    ms = (c0 + c1 moved + c2 weights + c3 product + ...) * exp(polynomial of log sizes + line of log paddings)

The costs c are not negative. Matrix products are computed in tiles, so that 33 rows may take as long as 36: their rows and
columns are counted in whole tiles, of the size that explains the timings best. Nothing here knows of ops or of devices.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import product
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]
Tile = tuple[int, int]  # rows and columns

ROWS = (1, 4, 5, 6, 7, 8, 12)  # heights of tiles that runtimes use
COLUMNS = (1, 8, 16, 32)  # and widths
PENALTIES = (1e-4, 1e-3, 0.01, 0.1, 1.0, 10.0, 100.0)
SLACK = 0.3  # a correction stays this near, in logarithms, to those that the timings need
FEWEST_SQUARES = 30  # with fewer timings the polynomial is linear


class Workload(NamedTuple):
    """What a kernel does. Workloads of one kind have equally many products, others and sizes.

    `products` are matrix products as (how many, rows, inner size, columns); `others` are multiply-accumulates or elements
    that are computed outside of them; `moved` are elements of activations read and written, `weights` those of parameters.
    The logarithms of `sizes` are the features of the correction.
    """

    products: tuple[tuple[float, float, float, float], ...]
    others: tuple[float, ...]
    moved: float
    weights: float
    sizes: tuple[float, ...]


class _Numbers(NamedTuple):
    """Workloads of one kind: products (n, products, 4), other works (n, 3 + others), logarithms of sizes (n, sizes)."""

    products: Array
    plain: Array
    sizes: Array


class Regression(NamedTuple):
    """Milliseconds of workloads of one kind: the costs of what they do, and the correction."""

    tile: Tile
    costs: Array
    mean: Array
    scale: Array
    sizes: int
    squares: bool
    weights: Array
    intercept: float
    low: float
    high: float
    error: float  # leave-one-out, root mean square, of log ms

    def predict(self, loads: Sequence[Workload]) -> Array:
        """Milliseconds: (n,)."""
        works, features = _described(_numbers(loads), self.tile)
        rows = _expand((features - self.mean) / self.scale, self.sizes if self.squares else 0)
        correction = np.clip(rows @ self.weights + self.intercept, self.low - SLACK, self.high + SLACK)
        return works @ self.costs * np.exp(correction)


def fit(loads: Sequence[Workload], ms: Sequence[float]) -> Regression:
    """The regression of timings of one kind; tile, squares and penalty are those of least leave-one-out error."""
    times = np.asarray(ms, float)
    tiles = product(ROWS, COLUMNS) if loads[0].products else [(1, 1)]
    numbers = _numbers(loads)
    return min((_fit(numbers, times, tile) for tile in tiles), key=lambda made: made.error)


def _fit(numbers: _Numbers, ms: Array, tile: Tile) -> Regression:
    from scipy.optimize import nnls

    works, features = _described(numbers, tile)
    size = np.maximum(works.max(0), 1e-300)
    costs = nnls(works / size / ms[:, None], np.ones(len(ms)))[0] / size  # relative errors count, not milliseconds
    wanted = np.log(ms / (works @ costs))
    mean, deviation = features.mean(0), features.std(0)
    scale = np.where(deviation > 1e-9, deviation, 1.0)
    standard = (features - mean) / scale
    sizes = numbers.sizes.shape[1]
    forms = (False, True) if len(ms) >= FEWEST_SQUARES else (False,)
    fits = [(form, _ridge(_expand(standard, sizes * form), wanted)) for form in forms]
    squares, (weights, intercept, error) = min(fits, key=lambda pair: pair[1][-1])
    low, high = wanted.min(), wanted.max()
    return Regression(tile, costs, mean, scale, sizes, squares, weights, intercept, low, high, error)


def _ridge(rows: Array, wanted: Array) -> tuple[Array, float, float]:
    """Weights and intercept of ridge regression at the penalty of least leave-one-out error, and that error.

    By the principal axes of the centred rows; the intercept is not penalised. In closed form, so that a table's thousands of
    small fits take a fraction of a second, which checking the inputs of each would exceed.
    """
    centre, middle = rows.mean(0), wanted.mean()
    variances, axes = np.linalg.eigh((rows - centre).T @ (rows - centre))
    along = (rows - centre) @ axes  # (n, axes)
    target = along.T @ (wanted - middle)
    kept = 1 / (np.maximum(variances, 0)[:, None] + np.array(PENALTIES))  # (axes, penalties)
    hat = 1 / len(rows) + along**2 @ kept
    left_out = ((wanted - middle)[:, None] - along @ (kept * target[:, None])) / (1 - hat)
    errors = np.sqrt((left_out**2).mean(0))
    best = int(errors.argmin())
    weights = axes @ (kept[:, best] * target)
    return weights, float(middle - centre @ weights), float(errors[best])


def _numbers(loads: Sequence[Workload]) -> _Numbers:
    products = np.array([load.products for load in loads], float).reshape(len(loads), -1, 4)
    plain = np.array([(1.0, load.moved, load.weights, *load.others) for load in loads], float)
    return _Numbers(products, plain, np.log(np.array([load.sizes for load in loads], float)))


def _described(numbers: _Numbers, tile: Tile) -> tuple[Array, Array]:
    """Works (n, 3 + others + products) and features (n, sizes and the padding of each product)."""
    count, rows, inner, columns = np.moveaxis(numbers.products, -1, 0)
    padded = count * _whole(rows, tile[0]) * inner * _whole(columns, tile[1])
    padding = np.log(padded / (count * rows * inner * columns))
    return np.hstack([numbers.plain, padded]), np.hstack([numbers.sizes, padding])


def _whole(size: Array, tile: int) -> Array:
    return np.ceil(size / tile) * tile


def _expand(rows: Array, sizes: int) -> Array:
    """Features with the products of the first `sizes` of them: (n, f) -> (n, f + sizes (sizes + 1) / 2)."""
    i, j = np.triu_indices(sizes)
    return np.hstack([rows, rows[:, i] * rows[:, j]])
