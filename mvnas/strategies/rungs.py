"""Rungs of training length: many candidates are trained a little, and only the promising ones on to the full length.

Multi-objective asynchronous successive halving (Schmucker et al., arXiv:2106.12639): of the candidates that finished a
rung the best 1 / ETA may go on to the next, as soon as they are that good among those finished so far; nobody waits for
a rung to fill. Best is by non-dominated rank in error and cost, and within a front by the epsilon-net.

A short training may say nothing of a long one. So a rung holds nobody back until enough candidates have gone on to the
last rung to show that it tells who will be good there.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction

import numpy as np

from mvnas.errors import StudyError
from mvnas.strategies.pareto import Array, by_net

ETA = 3
SHARES = (1 / 3, 1.0)  # of the full length, that a candidate has been trained after each rung
FEWEST_FINISHED = 10  # candidates that finished a rung and the last one, before it is trusted
TRUST = 0.5  # least correlation with the last rung

Point = tuple[float, float]  # accuracy and cost
Accuracies = Mapping[int, float]  # by a candidate's number


@dataclass(frozen=True)
class Rungs:
    """After which shares of the full training length candidates may rest, by the names that users give them.

    Raises:
        StudyError: they do not rise to 1.

    >>> Rungs.parse("1/4,0.5,1").shares
    (0.25, 0.5, 1.0)
    """

    names: tuple[str, ...] = ("1",)

    def __post_init__(self) -> None:
        try:
            found = self.shares
        except (ValueError, ZeroDivisionError):
            found = ()
        if not found or found[0] <= 0 or found[-1] != 1 or list(found) != sorted(set(found)):
            raise StudyError(
                f"rungs must be shares of the epochs that rise to 1, such as 1/9,1/3,1, but got {str(self)!r}"
            )

    @classmethod
    def parse(cls, text: str) -> Rungs:
        """The rungs that a text names with commas."""
        return cls(tuple(text.split(",")))

    @property
    def shares(self) -> tuple[float, ...]:
        """The rungs as numbers, the last of them 1."""
        return tuple(float(Fraction(name)) for name in self.names)

    def __str__(self) -> str:
        return ",".join(self.names)


def lift(rungs: Sequence[Accuracies]) -> dict[int, tuple[float, float]]:
    """The accuracy at the last rung that is expected of each candidate by its last score, and the variance of that.

    From rung to rung leads the regression line of the candidates that finished both; of few it is drawn towards slope
    1.
    """
    found = {number: (accuracy, 0.0) for number, accuracy in rungs[-1].items()}
    slope, shift, unsure = 1.0, 0.0, 0.0  # from a rung to the last
    for lower, upper in zip(rungs[-2::-1], rungs[:0:-1], strict=True):
        x, y = _pairs(lower, upper)
        middle, height = (float(x.mean()), float(y.mean())) if len(x) else (0.0, 0.0)
        doubt = 2 * float(np.var(list(lower.values()) or [0.0])) + 1e-9
        rise = float((x - middle) @ (y - height) + doubt) / float((x - middle) @ (x - middle) + doubt)
        residuals = y - height - rise * (x - middle)
        unsure += slope**2 * (float(residuals @ residuals) + doubt / 2) / (len(x) + 2)
        shift += slope * (height - rise * middle)
        slope *= rise
        for number, accuracy in lower.items():
            found.setdefault(number, (shift + slope * accuracy, unsure))
    return found


def rivals(rungs: Sequence[Accuracies]) -> list[int]:
    """Of how many candidates of each rung one may go on: ETA where the rung is trusted, else 1.

    It is trusted if the correlation of its scores with the last rung's is TRUST or more, less its standard error
    (Fisher's).
    """
    found = []
    for rung in rungs:
        x, y = _pairs(rung, rungs[-1])
        known = len(x) >= FEWEST_FINISHED and x.std() > 0 and y.std() > 0
        sure = np.arctanh(np.clip(np.corrcoef(x, y)[0, 1], -0.999, 0.999)) - (len(x) - 3) ** -0.5 if known else -np.inf
        found.append(ETA if np.tanh(sure) >= TRUST else 1)
    return found


def _pairs(lower: Accuracies, upper: Accuracies) -> tuple[Array, Array]:
    """Scores of the candidates that finished both rungs."""
    both = [number for number in lower if number in upper]
    return np.array([lower[number] for number in both]), np.array([upper[number] for number in both])


def promote(
    rungs: Sequence[Mapping[int, Point]], begun: Sequence[Collection[int]], rivals: Sequence[int]
) -> tuple[int, int] | None:
    """The candidate to train on, and the rung it is to reach; None if a new one should begin.

    `rungs` hold the points of the candidates that finished each rung, by number; `begun` are the numbers that ever
    began each, whatever became of them; one of so many `rivals` goes on from each. Candidates far up go first.
    """
    for rung in range(len(rungs) - 2, -1, -1):
        for number in _best_first(rungs[rung])[: len(rungs[rung]) // rivals[rung]]:
            if number not in begun[rung + 1]:
                return number, rung + 1
    return None


def resting(rungs: Sequence[Mapping[int, Point]], begun: Sequence[Collection[int]]) -> list[list[int]]:
    """Of each rung but the last those who finished it and have not gone on, the next to be promoted first."""
    return [
        [number for number in _best_first(finished) if number not in after]
        for finished, after in zip(rungs[:-1], begun[1:], strict=True)
    ]


def _best_first(rung: Mapping[int, Point]) -> list[int]:
    numbers = list(rung)
    points = np.array([(-accuracy, cost) for accuracy, cost in rung.values()], float).reshape(-1, 2)
    return [numbers[place] for place in by_net(points)]
