"""What is known of candidates, and the frontier of those that no other beats."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from math import log
from statistics import fmean
from typing import Any

import numpy as np

from mvnas.costs import to_json
from mvnas.errors import StudyError, unknown
from mvnas.latency.estimate import Estimate
from mvnas.spaces.arch import FLOAT, Arch
from mvnas.strategies.pareto import ranks

PICKS = ("knee", "best", "fastest")


@dataclass(frozen=True)
class Quality:
    """How well a network does its task, by the metric of this `name`: 0 at its worst, 1 at its best.

    `value` is what its trainings are expected to come to, `low` and `high` are the ends of the 90 % interval of that,
    None where nobody knows them; `observed` is what each of its trainings came to.
    """

    value: float
    low: float | None = None
    high: float | None = None
    name: str = "accuracy"
    observed: tuple[float, ...] = ()

    @property
    def ends(self) -> tuple[float, float]:
        """The ends of the interval, the value itself where nobody knows them."""
        return (self.value if self.low is None else self.low), (self.value if self.high is None else self.high)

    @property
    def kept(self) -> float:
        """What the training came to whose weights are kept: the best of them."""
        return max(self.observed, default=self.value)

    def to_json(self) -> dict[str, float]:
        """Plain data: the value by the metric's name, the ends that are known, and the mean and number of trainings."""
        known = {self.name: self.value, f"{self.name}_low": self.low, f"{self.name}_high": self.high}
        if self.observed:
            known |= {f"{self.name}_observed": fmean(self.observed), "trainings": len(self.observed)}
        return {key: value for key, value in known.items() if value is not None}


@dataclass(frozen=True)
class Score:
    """What is known of one Arch: its quality, and its costs by their names. `sources` says where these come from.

    `number` is the trial that first scored it, `name` that of a published network or "".
    """

    arch: Arch
    quality: Quality
    costs: Mapping[str, Estimate]
    number: int = 0
    name: str = ""
    sources: Mapping[str, str] = field(default_factory=dict)

    def to_json(self) -> dict[str, Any]:
        """Plain data, the architecture last."""
        known = {**self.quality.to_json(), **to_json(self.costs), "number": self.number, "name": self.name}
        return known | {"sources": dict(self.sources), "arch": self.arch.to_json()}

    @property
    def label(self) -> str:
        """The published name, or the trial; and the precision unless it is float32."""
        precision = "" if self.arch.precision == FLOAT else f" {self.arch.precision}"
        return (self.name or f"trial {self.number}") + precision


@dataclass(frozen=True)
class Frontier:
    """The Scores that no other Score beats, from the least of the first cost that is minimised to the most.

    One score beats another if it is no worse in quality and in each of `costs`, and better in one.
    """

    scores: tuple[Score, ...]
    costs: tuple[str, ...] = ("latency",)

    @classmethod
    def of(cls, scores: Iterable[Score], costs: Sequence[str] = ("latency",)) -> Frontier:
        """Frontier of any scores."""
        every = list(scores)
        points = [(-one.quality.value, *(one.costs[name].value for name in costs)) for one in every]
        ranked = ranks(np.array(points).reshape(len(every), 1 + len(costs)))
        front = [one for one, rank in zip(every, ranked, strict=True) if rank == 0]
        return cls(tuple(sorted(front, key=lambda one: (one.costs[costs[0]].value, one.number))), tuple(costs))

    def cost(self, score: Score) -> float:
        """What the frontier minimises first, of a score, such as its ms of latency."""
        return score.costs[self.costs[0]].value

    def rivals(self, scores: Iterable[Score], most: int) -> list[Score]:
        """At most so many others that would be on the frontier at the upper end of their interval, the widest first."""
        apart = []
        for score in scores:
            high = score.quality.ends[1]
            near = [one.quality.value for one in self.scores if self.cost(one) <= self.cost(score)]
            if score not in self.scores and high > max(near, default=0.0):
                apart.append((high - max(near, default=0.0), -score.number, score))
        return [score for _, _, score in sorted(apart, key=lambda row: row[:2], reverse=True)[:most]]

    def hypervolume(self, *, worst: float) -> float:
        """Share of the rectangle quality 0..1 by cost 0..`worst` that the frontier covers, in [0, 1].

        Larger is better; figures compare only at the same `worst`. Scores that cost more cover nothing.
        """
        area, best = 0.0, 0.0
        for score in self.scores:
            if self.cost(score) < worst and score.quality.value > best:
                area += (score.quality.value - best) * (worst - self.cost(score))
                best = score.quality.value
        return area / worst

    def pick(self, what: str) -> Score:
        """The `knee`, the `best` in quality or the `fastest` of the frontier.

        The knee lies highest above the line from the first to the best, in quality against the logarithm of the cost.

        Raises:
            StudyError: the frontier is empty, or there is no such pick.
        """
        if not self.scores:
            raise StudyError(
                "a frontier must have a finished candidate to pick from, but has none; run the search first"
            )
        if what not in PICKS:
            raise StudyError(unknown("pick", what, (*PICKS, "a trial's number")))
        first, best = self.scores[0], max(self.scores, key=lambda score: score.quality.value)
        if what == "fastest":
            return min(self.scores, key=lambda score: score.costs["latency"].value)
        if what == "best":
            return best
        if first.quality.value == best.quality.value or self.cost(first) == self.cost(best):
            return first
        rise, run = best.quality.value - first.quality.value, log(self.cost(best) / self.cost(first))

        def height(score: Score) -> float:
            return (score.quality.value - first.quality.value) / rise - log(self.cost(score) / self.cost(first)) / run

        return max(self.scores, key=height)
