"""How alike two figures order the same things."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray

Array = NDArray[np.float64]


def tau(one: ArrayLike, other: ArrayLike) -> Array:
    """Kendall's tau-b of rows, (..., n) each: (...); 0 where all values of a row are equal.

    >>> float(tau([1, 2, 3, 4], [1, 2, 4, 3]).round(3))
    0.667
    """
    a, b = (np.sign(rows[..., :, None] - rows[..., None, :]) for rows in map(np.asarray, (one, other)))
    pairs = np.sqrt((a * a).sum((-2, -1)) * (b * b).sum((-2, -1)))
    return np.asarray((a * b).sum((-2, -1)) / np.maximum(pairs, 1))


def rho(one: ArrayLike, other: ArrayLike) -> Array:
    """Spearman's rho of rows, (..., n) each: (...); 0 where all values of a row are equal."""
    from scipy.stats import rankdata

    a, b = (rankdata(rows, axis=-1) - (np.shape(rows)[-1] + 1) / 2 for rows in (one, other))
    return np.asarray((a * b).sum(-1) / np.sqrt(np.maximum((a * a).sum(-1) * (b * b).sum(-1), 1e-9)))
