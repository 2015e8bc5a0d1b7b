"""A Gaussian process whose covariance is a sum of parts, with what is special to each network and the noise of a
training apart.

    score of a training = mean + parts(features) + special(network) + noise(training)

`special` is what no feature explains and every training of one network shares; a second training of it has other noise
and the same special. Which is which shows only where networks were trained more than once; before, priors divide them.
Variances and lengths are the most probable ones under log-normal priors (Rasmussen and Williams 2006, chapters 2 and
5).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]
Places = NDArray[np.int64]

JITTER = 1e-8  # added to variances, so that factors exist
STEPS = 60  # of the optimizer


class Prior(NamedTuple):
    """A log-normal prior: the logarithm of its median, and the deviation of logarithms."""

    median: float
    deviation: float

    @classmethod
    def at(cls, value: float, factor: float) -> Prior:
        """With its median at `value`, and two thirds of it within a factor."""
        return cls(float(np.log(value)), float(np.log(factor)))


VARIANCE, LENGTH = Prior.at(0.3, 4.5), Prior.at(2.0, 2.0)  # of a part, of standardised scores and features


class Part(NamedTuple):
    """A part of the covariance, of one group of features: a line, or smooth (Matern 5/2) over a length."""

    group: int
    smooth: bool

    def of(self, one: Array, other: Array, length: float) -> tuple[Array, Array]:
        """Covariance at variance 1 of features (n, f) and (m, f), and its derivative by log length: (n, m), (n, m)."""
        width = one.shape[1]
        product = one @ other.T / width
        if not self.smooth:
            return product, product
        squares = (one**2).mean(1)[:, None] + (other**2).mean(1) - 2 * product
        apart = np.sqrt(5 * np.maximum(squares, 1e-12)) / length
        falling = np.exp(-apart)
        return (1 + apart + apart**2 / 3) * falling, apart**2 * (1 + apart) / 3 * falling

    def diagonal(self, features: Array) -> Array:
        """Variance at variance 1 of each of the features (n, f): (n,)."""
        return np.ones(len(features)) if self.smooth else (features**2).mean(1)


class Observations(NamedTuple):
    """Scores of n networks: means (n,) of `counts` (n,) trainings each, and variances (n,) of what is unsure beyond
    noise.

    `spread` is the sum of the squares by which single trainings differ from the mean of their network, `freedom` how
    many independent squares that is.
    """

    means: Array
    counts: Array
    unsure: Array
    spread: float
    freedom: int


@dataclass(frozen=True)
class Process:
    """The posterior of a process by what was observed: made by `fit` or `of`.

    `theta` are the logarithms of what `parts` need in turn, a variance and of a smooth one a length, then the variance
    of what is special to a network, and that of noise.
    """

    parts: tuple[Part, ...]
    theta: Array
    groups: tuple[Array, ...]
    observed: Observations
    factor: Array
    weights: Array

    @classmethod
    def fit(
        cls,
        parts: Sequence[Part],
        groups: Sequence[Array],
        observed: Observations,
        special: Prior,
        noise: Prior,
    ) -> Process:
        """The process that explains best what was observed, by priors of what is special to a network and of noise."""
        return cls.of(parts, groups, observed, _most_probable(parts, groups, observed, special, noise))

    @classmethod
    def of(cls, parts: Sequence[Part], groups: Sequence[Array], observed: Observations, theta: Array) -> Process:
        """The process of these variances and lengths."""
        covariance, _ = _covariance(parts, theta, groups, groups)
        covariance[np.diag_indices_from(covariance)] += _own(theta, observed)
        factor: Array = np.linalg.cholesky(covariance).astype(float)
        return cls(tuple(parts), theta, tuple(groups), observed, factor, _solve(factor, observed.means))

    @property
    def special(self) -> float:
        """Variance of what is special to a network."""
        return float(np.exp(self.theta[-2]))

    @property
    def noise(self) -> float:
        """Variance between trainings of one network."""
        return float(np.exp(self.theta[-1]))

    def predict(self, groups: Sequence[Array], places: Places | None = None) -> tuple[Array, Array]:
        """Mean and variance of what is expected of networks' trainings, without their noise: (n,), (n,).

        `places` (n,) are those of the networks among the observed ones, -1 of others; None: all are others.
        """
        across = self._across(groups, places)
        solved = _half(self.factor, across.T)
        return across @ self.weights, np.maximum(self._prior(groups) - (solved**2).sum(0), JITTER)

    def joint(self, groups: Sequence[Array], places: Places | None = None) -> tuple[Array, Array]:
        """Mean and covariance of the same, of networks that all differ: (n,), (n, n)."""
        across = self._across(groups, places)
        covariance, _ = _covariance(self.parts, self.theta, groups, groups)
        covariance[np.diag_indices_from(covariance)] += self.special + JITTER
        solved = _half(self.factor, across.T)
        return across @ self.weights, covariance - solved.T @ solved

    def _across(self, groups: Sequence[Array], places: Places | None) -> Array:
        """Covariance of networks and the observed ones: (n, m)."""
        across, _ = _covariance(self.parts, self.theta, groups, self.groups)
        if places is not None:
            rows = np.flatnonzero(places >= 0)
            across[rows, places[rows]] += self.special
        return across

    def _prior(self, groups: Sequence[Array]) -> Array:
        """Variance of networks before anything was observed: (n,)."""
        total, place = np.full(len(groups[0]), self.special + JITTER), 0
        for part in self.parts:
            total += np.exp(self.theta[place]) * part.diagonal(groups[part.group])
            place += 1 + part.smooth
        return total


def _covariance(
    parts: Sequence[Part], theta: Array, one: Sequence[Array], other: Sequence[Array], derived: bool = False
) -> tuple[Array, list[Array]]:
    """The sum of the parts, and if asked for its derivatives by the parts of `theta`."""
    total = np.zeros((len(one[0]), len(other[0])))
    slopes: list[Array] = []
    place = 0
    for part in parts:
        variance = float(np.exp(theta[place]))
        length = float(np.exp(theta[place + 1])) if part.smooth else 1.0
        value, slope = part.of(one[part.group], other[part.group], length)
        total += variance * value
        if derived:
            slopes += [variance * value, variance * slope][: 1 + part.smooth]
        place += 1 + part.smooth
    return total, slopes


def _own(theta: Array, observed: Observations) -> Array:
    """Variance of each observed mean that it shares with no other: (n,)."""
    special, noise = np.exp(theta[-2:])
    own: Array = special + noise / observed.counts + observed.unsure + JITTER
    return own


def _most_probable(
    parts: Sequence[Part], groups: Sequence[Array], observed: Observations, special: Prior, noise: Prior
) -> Array:
    """The most probable variances and lengths."""
    from scipy.optimize import minimize

    priors = [prior for part in parts for prior in (VARIANCE, LENGTH)[: 1 + part.smooth]] + [special, noise]
    medians, deviations = np.array(priors).T

    def surprise(theta: Array) -> tuple[float, Array]:
        covariance, slopes = _covariance(parts, theta, groups, groups, derived=True)
        covariance[np.diag_indices_from(covariance)] += _own(theta, observed)
        try:
            factor: Array = np.linalg.cholesky(covariance).astype(float)
        except np.linalg.LinAlgError:
            return 1e12, np.zeros_like(theta)
        inverse = _solve(factor, np.eye(len(factor)))
        weights = inverse @ observed.means
        pull = (inverse - np.outer(weights, weights)) / 2
        own, (kept, noisy) = np.diag(pull), np.exp(theta[-2:])
        rises = [float((pull * slope).sum()) for slope in slopes]
        rises += [float(own.sum() * kept), float((own / observed.counts).sum() * noisy)]
        rises[-1] += (observed.freedom - observed.spread / noisy) / 2
        off = (theta - medians) / deviations
        value = observed.means @ weights / 2 + np.log(np.diag(factor)).sum()
        value += (observed.freedom * theta[-1] + observed.spread / noisy + off @ off) / 2
        return float(value), np.array(rises) + off / deviations

    found: Array = minimize(surprise, medians, jac=True, method="L-BFGS-B", options={"maxiter": STEPS}).x
    return found


def _half(factor: Array, values: Array) -> Array:
    """The values by the inverse of a lower factor."""
    from scipy.linalg import solve_triangular

    found: Array = solve_triangular(factor, values, lower=True, check_finite=False)
    return found


def _solve(factor: Array, values: Array) -> Array:
    """The values by the inverse of the covariance of a factor."""
    from scipy.linalg import cho_solve

    found: Array = cho_solve((factor, True), values, check_finite=False)
    return found
