"""How well two scores of the same candidates can agree at most, since luck moves both."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from mvnas.measuring.order import Array, tau

DRAWS = 2000


@dataclass(frozen=True)
class Ceiling:
    """Kendall's tau-b that a short and a long score of `candidates` reach though short trainings truly order them like
    long ones: on average, and from `tau_low` to `tau_high` in 95 of 100 trials of it.

    `short_noise` and `long_noise` are deviations of one score that luck alone makes, as shares.
    """

    candidates: int
    tau: float
    tau_low: float
    tau_high: float
    short_noise: float
    long_noise: float


def ceiling(short: Sequence[float], again: Sequence[float], long: Sequence[float], images: int) -> Ceiling:
    """The ceiling of candidates by their short scores, these from another seed, and their long scores, each judged on
    so many `images`; 0 if nobody knows.

    The noise of a short score is what differs between seeds. That of a long one is as large a part of the binomial
    deviation of its images, and no more than all of it: longer trainings repeat themselves better, and no training is
    made twice to know. Scores drawn together until they spread as they would without noise stand for the truth, in one
    order for both; noise drawn anew gives the taus.
    """
    one, other, late = (np.asarray(scores, float) for scores in (short, again, long))
    variance = float((one - other).var(ddof=1)) / 2
    spread = float(np.mean([one, other] * (1 - np.array([one, other]))))
    each = variance / max(spread, 1e-12)  # variance of one image's part in a score
    each = min(each, 1 / images) if images else each
    noises = variance**0.5, (each * float((late * (1 - late)).mean())) ** 0.5
    generator = np.random.default_rng(0)

    def drawn(scores: Array, noise: float) -> Array:
        return _without(np.sort(scores), noise) + noise * generator.normal(size=(DRAWS, len(scores)))

    taus = tau(drawn(one, noises[0]), drawn(late, noises[1]))
    low, high = np.quantile(taus, (0.025, 0.975))
    return Ceiling(len(one), float(taus.mean()), float(low), float(high), *noises)


def _without(scores: Array, noise: float) -> Array:
    """Scores as far apart as they would be without the noise in them."""
    centre, variance = float(scores.mean()), float(scores.var(ddof=1))
    return centre + (scores - centre) * float(max(0.0, 1 - noise**2 / max(variance, 1e-12)) ** 0.5)
