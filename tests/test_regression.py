"""Laws of the regression: what is made of its parts is found again, also between and beyond the sizes it has seen."""

from __future__ import annotations

from math import ceil

import numpy as np
import pytest
from sklearn.linear_model import RidgeCV

from mvnas.regression import PENALTIES, Workload, _ridge, fit


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
    assert made.error < 0.01
    unseen = draw(100, 1)
    assert made.predict(unseen) == pytest.approx([truth(load, tile) for load in unseen], rel=0.02)


def test_what_takes_more_never_costs_less_beyond_the_timings() -> None:
    loads = draw(40, 2)
    made = fit(loads, [truth(load, (7, 16)) for load in loads])
    assert (made.costs >= 0).all()
    small, large = made.predict([matmul(100, 64, 64), matmul(2000, 64, 64)])
    assert large > 10 * small


def test_noise_shows_in_the_error() -> None:
    loads, noise = draw(60, 3), np.random.default_rng(3).normal(0, 0.05, 60)
    made = fit(loads, [truth(load, (7, 16)) * np.exp(e) for load, e in zip(loads, noise, strict=True)])
    assert 0.035 < made.error < 0.08


def test_work_without_products_needs_no_tile() -> None:
    loads = [Workload((), (), moved, 0, (moved,)) for moved in range(1000, 21000, 1000)]
    made = fit(loads, [1e-3 + 1e-7 * load.moved for load in loads])
    assert made.tile == (1, 1)
    assert made.predict([Workload((), (), 5500, 0, (5500,))]) == pytest.approx([1e-3 + 5.5e-4], rel=0.01)


@pytest.mark.parametrize("count", [12, 200])
def test_its_ridge_regression_is_that_of_scikit_learn(count: int) -> None:
    generator = np.random.default_rng(count)
    rows = generator.normal(size=(count, 9))
    wanted = rows @ generator.normal(size=9) + generator.normal(size=count)
    weights, intercept, error = _ridge(rows, wanted)
    known = RidgeCV(alphas=PENALTIES).fit(rows, wanted)
    assert weights == pytest.approx(known.coef_) and intercept == pytest.approx(known.intercept_)
    assert error == pytest.approx((-known.best_score_) ** 0.5)
