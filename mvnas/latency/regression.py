"""Time from work: how long a kind of kernel takes, learnt from timings of some of it.

The time of a workload is a sum of what it does, each part at its own cost, corrected by a smooth factor:

    ms = (c0 + c1 moved + c2 weights + c3 product + ...) * exp(polynomial of log sizes + line of log paddings)

The costs c are not negative. Matrix products are computed in tiles, so that 33 rows may take as long as 36: their rows
and columns are counted in whole tiles, of the size that explains the timings best. Nothing here knows of ops or of
devices.
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
SINGULAR = 1e-13  # added to the squares of unit columns, of which some may be equal
SAME = 1e-12  # share of what is explained that tells nothing
PARTS = 10  # of the timings of a kind, each of which is judged by the others
FEWEST_SQUARES = 30  # with fewer timings the polynomial is linear


class Workload(NamedTuple):
    """What a kernel does. Workloads of one kind have equally many products, others and sizes.

    `products` are matrix products as (how many, rows, inner size, columns); `others` are multiply-accumulates or
    elements that are computed outside of them; `moved` are elements of activations read and written, `weights` those of
    parameters. The logarithms of `sizes` are the features of the correction.
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

    def predict(self, loads: Sequence[Workload]) -> Array:
        """Milliseconds: (n,)."""
        works, features = _described(_numbers(loads), np.array(self.tile))
        rows = _expand((features - self.mean) / self.scale, self.sizes if self.squares else 0)
        correction = np.clip(rows @ self.weights + self.intercept, self.low - SLACK, self.high + SLACK)
        return works @ self.costs * np.exp(correction)


def fit(loads: Sequence[Workload], ms: Sequence[float]) -> Regression:
    """The regression of timings of one kind; tile, squares and penalty are those of least leave-one-out error, of the
    costs of all.

    All tiles are tried at once, of those that pad these workloads in proportion the first alone.
    """
    numbers, times = _numbers(loads), np.asarray(ms, float)
    tiles = list(product(ROWS, COLUMNS)) if loads[0].products else [(1, 1)]
    works, features = _described(numbers, np.array(tiles))
    size = np.maximum(works.max(1), 1e-300)  # (tiles, works)
    shares = works / size[:, None]
    unlike = sorted({rows.tobytes(): i for i, rows in reversed([*enumerate(shares.round(12))])}.values())
    works, features, size = works[unlike], features[unlike], size[unlike]
    relative = shares[unlike] / times[:, None]  # relative errors count, not milliseconds
    costs = nonnegative(relative, np.ones(len(times))) / size
    wanted = np.log(times / (works @ costs[..., None])[..., 0])  # (tiles, n)
    mean, deviation = features.mean(1), features.std(1)
    scale = np.where(deviation > 1e-9, deviation, 1.0)
    standard = (features - mean[:, None]) / scale[:, None]
    sizes = numbers.sizes.shape[1]
    forms = (False, True) if len(times) >= FEWEST_SQUARES else (False,)
    fits = [_ridge(_expand(standard, sizes * form), wanted) for form in forms]
    errors = np.column_stack([error for *_, error in fits])  # (tiles, forms)
    best, form = np.unravel_index(errors.argmin(), errors.shape)
    weights, intercept = [each[best] for each in fits[form][:2]]
    low, high = wanted[best].min(), wanted[best].max()
    described = tiles[unlike[best]], costs[best], mean[best], scale[best], sizes, forms[form]
    return Regression(*described, weights, intercept, low, high)


def left_out(loads: Sequence[Workload], ms: Sequence[float]) -> Array:
    """Errors of log ms of timings of one kind, each by the regression of the others, fitted anew without its part of
    PARTS: (n,).

    Costs, tile and penalty are found without it too: those of few timings, or of the largest of them, may change
    several times over.
    """
    places = np.random.default_rng(0).permutation(len(loads))
    errors = np.empty(len(loads))
    for part in range(min(PARTS, len(loads))):
        others = np.setdiff1d(places, judged := places[part::PARTS])
        made = fit([loads[i] for i in others], [ms[i] for i in others])
        errors[judged] = np.log([ms[i] for i in judged]) - np.log(made.predict([loads[i] for i in judged]))
    return errors


def nonnegative(columns: Array, wanted: Array) -> Array:
    """The costs, none of them negative, with which `columns` (..., n, k) come nearest to `wanted` (n,): (..., k).

    They are the best among the least squares of all 2 ** k sets of columns; of sets that explain the same, the first
    with the fewest columns. For a handful of columns and many problems at once this takes no longer than scipy's
    `nnls`, of which the import takes as long as fitting the largest table.
    """
    size = np.maximum(np.linalg.norm(columns, axis=-2), 1e-300)[..., None, :]
    turned = np.swapaxes(columns / size, -1, -2)
    products, aim = turned @ (columns / size), (turned @ wanted)[..., None, :]
    sets = np.array(sorted(product((1.0, 0.0), repeat=columns.shape[-1]), key=sum))
    alone = np.eye(sets.shape[1]) * (1 - sets + SINGULAR)[:, None]
    within = products[..., None, :, :] * sets[:, :, None] * sets[:, None]  # (..., sets, k, k)
    found: Array = np.linalg.solve(within + alone, (aim * sets)[..., None])[..., 0]
    explained = np.where((found >= 0).all(-1), (found * aim).sum(-1), -1.0)
    best = (explained >= (1 - SAME) * explained.max(-1, keepdims=True)).argmax(-1)[..., None, None]
    costs: Array = np.take_along_axis(found, best, -2) / size
    return costs[..., 0, :]


def _ridge(rows: Array, wanted: Array) -> tuple[Array, Array, Array]:
    """Weights and intercept of ridge regression at the penalty of least leave-one-out error, and that error.

    Of rows (..., n, f) and what is wanted of each (..., n). By the principal axes of the centred rows; the intercept is
    not penalised. In closed form, so that a table's thousands of small fits take a fraction of a second, which checking
    the inputs of each would exceed.
    """
    centre, middle = rows.mean(-2, keepdims=True), wanted.mean(-1)
    centred, errors = rows - centre, (wanted - middle[..., None])[..., None]
    variances, axes = np.linalg.eigh(np.swapaxes(centred, -1, -2) @ centred)
    along = centred @ axes  # (..., n, axes)
    target = np.swapaxes(along, -1, -2) @ errors  # (..., axes, 1)
    kept = 1 / (np.maximum(variances, 0)[..., None] + np.array(PENALTIES))  # (..., axes, penalties)
    hat = 1 / rows.shape[-2] + along**2 @ kept
    left_out = np.sqrt((((errors - along @ (kept * target)) / (1 - hat)) ** 2).mean(-2))  # (..., penalties)
    best = left_out.argmin(-1)[..., None, None]
    weights = axes @ (np.take_along_axis(kept, best, -1) * target)
    return weights[..., 0], middle - (centre @ weights)[..., 0, 0], left_out.min(-1)


def _numbers(loads: Sequence[Workload]) -> _Numbers:
    products = np.array([load.products for load in loads], float).reshape(len(loads), -1, 4)
    plain = np.array([(1.0, load.moved, load.weights, *load.others) for load in loads], float)
    return _Numbers(products, plain, np.log(np.array([load.sizes for load in loads], float)))


def _described(numbers: _Numbers, tiles: NDArray[np.int64]) -> tuple[Array, Array]:
    """Works (..., n, 3 + others + products) and features (..., n, sizes and the padding of each product), of tiles
    (..., 2).
    """
    count, rows, inner, columns = np.moveaxis(numbers.products, -1, 0)
    tall, wide = np.moveaxis(tiles, -1, 0)[..., None, None]
    padded = count * _whole(rows, tall) * inner * _whole(columns, wide)
    padding = np.log(padded / (count * rows * inner * columns))
    return _beside(numbers.plain, padded), _beside(numbers.sizes, padding)


def _whole(size: Array, tile: NDArray[np.int64]) -> Array:
    return np.ceil(size / tile) * tile


def _beside(known: Array, more: Array) -> Array:
    """(n, a) and (..., n, b) -> (..., n, a + b)."""
    return np.concatenate([np.broadcast_to(known, (*more.shape[:-1], known.shape[-1])), more], -1)


def _expand(rows: Array, sizes: int) -> Array:
    """Features with the products of the first `sizes` of them: (..., n, f) -> (..., n, f + sizes (sizes + 1) / 2)."""
    i, j = np.triu_indices(sizes)
    return np.concatenate([rows, rows[..., i] * rows[..., j]], -1)
