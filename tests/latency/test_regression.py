"""Laws of the regression: what is made of its parts is found again, also between and beyond the sizes it has seen."""

from __future__ import annotations

from math import ceil

import numpy as np
import pytest
from scipy.optimize import nnls
from sklearn.linear_model import RidgeCV

from mvnas.latency.regression import PENALTIES, Workload, _ridge, fit, left_out, nonnegative


def matmul(rows: int, inner: int, columns: int) -> Workload:
    moved = rows * (inner + columns)
    return Workload(((1, rows, inner, columns),), (), moved, inner * columns, (rows, inner, columns))


def truth(load: Workload, tile: tuple[int, int]) -> float:
    ((_, rows, inner, columns),) = load.products
    return 3e-3 + 2e-8 * load.moved + 1e-8 * ceil(rows / tile[0]) * tile[0] * inner * ceil(columns / tile[1]) * tile[1]


def draw(count: int, seed: int) -> list[Workload]:
    generator = np.random.default_rng(seed)
    return [matmul(*generator.integers((4, 16, 8), (400, 256, 300)).tolist()) for _ in range(count)]


@pytest.mark.parametrize("tile", [(7, 16), (6, 8), (1, 1)])
def test_tile_and_costs_are_found(tile: tuple[int, int]) -> None:
    loads = draw(40, 0)
    made = fit(loads, [truth(load, tile) for load in loads])
    assert made.tile == tile
    assert np.abs(left_out(loads, [truth(load, tile) for load in loads])).max() < 0.02
    unseen = draw(100, 1)
    assert made.predict(unseen) == pytest.approx([truth(load, tile) for load in unseen], rel=0.02)


def test_what_takes_more_never_costs_less_beyond_the_timings() -> None:
    loads = draw(40, 2)
    made = fit(loads, [truth(load, (7, 16)) for load in loads])
    assert (made.costs >= 0).all()
    small, large = made.predict([matmul(100, 64, 64), matmul(2000, 64, 64)])
    assert large > 10 * small


def test_noise_shows_in_the_errors() -> None:
    loads, noise = draw(60, 3), np.random.default_rng(3).normal(0, 0.05, 60)
    errors = left_out(loads, [truth(load, (7, 16)) * np.exp(e) for load, e in zip(loads, noise, strict=True)])
    assert 0.035 < np.sqrt((errors**2).mean()) < 0.08
    assert np.corrcoef(errors, noise)[0, 1] > 0.9


def test_what_is_left_out_is_left_out_of_the_costs_too() -> None:
    """Of few timings one asks for costs of its own, as of attention of a form that only nine sizes of were timed."""
    loads, generator = draw(9, 4), np.random.default_rng(4)
    loads.append(matmul(3000, 900, 1200))
    ms = [truth(load, (7, 16)) * np.exp(e) for load, e in zip(loads, generator.normal(0, 0.3, 10), strict=True)]
    wanted = []
    for i, load in enumerate(loads):
        others = [j for j in range(10) if j != i]
        wanted.append(np.log(ms[i] / fit([loads[j] for j in others], [ms[j] for j in others]).predict([load])[0]))
    assert left_out(loads, ms) == pytest.approx(wanted)


def test_work_without_products_needs_no_tile() -> None:
    loads = [Workload((), (), moved, 0, (moved,)) for moved in range(1000, 21000, 1000)]
    made = fit(loads, [1e-3 + 1e-7 * load.moved for load in loads])
    assert made.tile == (1, 1)
    assert made.predict([Workload((), (), 5500, 0, (5500,))]) == pytest.approx([1e-3 + 5.5e-4], rel=0.01)


def test_of_tiles_that_pad_in_proportion_the_smallest_is_taken() -> None:
    loads = [matmul(1, inner, 32 * columns) for inner in range(16, 256, 24) for columns in range(1, 6)]
    assert fit(loads, [truth(load, (7, 16)) for load in loads]).tile == (1, 1)


@pytest.mark.parametrize("columns", [2, 3, 6])
def test_costs_explain_as_much_as_those_of_scipy_and_of_equal_columns_the_first_has_all(columns: int) -> None:
    generator = np.random.default_rng(columns)
    rows = generator.uniform(0, 1, (50, 20, columns)) ** 4
    rows[0, :, -1] = 0
    rows[1, :, -1] = 3 * rows[1, :, 0]
    wanted = generator.normal(0.5, 1, 20)
    found = nonnegative(rows, wanted)
    assert (found >= 0).all() and found[1, -1] == 0
    for one, costs in zip(rows, found, strict=True):
        assert one @ costs == pytest.approx(one @ nnls(one, wanted)[0], abs=1e-9)


@pytest.mark.parametrize("count", [12, 200])
def test_its_ridge_regression_is_that_of_scikit_learn(count: int) -> None:
    generator = np.random.default_rng(count)
    rows = generator.normal(size=(3, count, 9))
    wanted = rows @ generator.normal(size=9) + generator.normal(size=(3, count))
    for one, goal, weights, intercept, error in zip(rows, wanted, *_ridge(rows, wanted), strict=True):
        known = RidgeCV(alphas=PENALTIES).fit(one, goal)
        assert weights == pytest.approx(known.coef_) and intercept == pytest.approx(known.intercept_)
        assert error == pytest.approx((-known.best_score_) ** 0.5)
