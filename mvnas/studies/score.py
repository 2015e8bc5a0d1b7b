"""What is known of candidates, and the frontier of those that no other beats."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from math import log
from typing import Any

from mvnas.errors import StudyError, unknown
from mvnas.spaces.arch import FLOAT, Arch

OBJECTIVES: Mapping[str, int] = {
    "accuracy": 1,
    "latency_ms": -1,
}  # name of a field of Score -> sign of better

COSTS: Mapping[str, tuple[str, str, str]] = {
    "latency": ("latency_ms", "latency_low_ms", "latency_high_ms"),
    "energy": ("energy_mj", "energy_low_mj", "energy_high_mj"),
}  # what a search may minimise beside accuracy -> fields of Score: the estimate and its 90 % interval

PICKS = ("knee", "best", "fastest")


@dataclass(frozen=True)
class Score:
    """What is known of one Arch. `sources` says of accuracy, latency and energy where they come from.

    `number` is the trial it was scored in, `name` that of a published network or ""; energy is None where it was not asked for.
    """

    arch: Arch
    accuracy: float
    latency_ms: float
    latency_low_ms: float
    latency_high_ms: float
    params: int
    macs: int
    memory_bytes: int
    number: int = 0
    name: str = ""
    sources: Mapping[str, str] = field(default_factory=dict)
    energy_mj: float | None = None
    energy_low_mj: float | None = None
    energy_high_mj: float | None = None

    def to_json(self) -> dict[str, Any]:
        """Plain data, the architecture last."""
        rest = {key: value for key, value in vars(self).items() if key not in ("arch", "sources")}
        return rest | {"sources": dict(self.sources), "arch": self.arch.to_json()}

    @property
    def label(self) -> str:
        """The published name, or the trial; and the precision unless it is float32."""
        precision = "" if self.arch.precision == FLOAT else f" {self.arch.precision}"
        return (self.name or f"trial {self.number}") + precision


@dataclass(frozen=True)
class Frontier:
    """The Scores that no other Score beats, from the fastest to the slowest, or by what else is minimised first.

    One score beats another if it is no worse in every objective and better in one.
    """

    scores: tuple[Score, ...]
    objectives: Mapping[str, int] = field(default_factory=lambda: OBJECTIVES)

    @classmethod
    def of(cls, scores: Iterable[Score], objectives: Mapping[str, int] = OBJECTIVES) -> Frontier:
        """Frontier of any scores: from the best in the first objective on, each is compared with those kept so far."""
        rows = [(tuple(sign * getattr(score, name) for name, sign in objectives.items()), score) for score in scores]
        kept: list[tuple[tuple[float, ...], Score]] = []
        for mine, score in sorted(rows, key=lambda row: row[0], reverse=True):
            if not any(_beats(values, mine) for values, _ in reversed(kept)):  # of two objectives the last decides
                kept.append((mine, score))
        order = sorted((score for _, score in kept), key=lambda score: (_cost(score, objectives), score.number))
        return cls(tuple(order), objectives)

    def cost(self, score: Score) -> float:
        """What the frontier minimises first, of a score: ms of latency, or mJ of energy."""
        return _cost(score, self.objectives)

    def hypervolume(self, *, worst: float) -> float:
        """Share of the rectangle accuracy 0..1 by cost 0..`worst` that the frontier covers, in [0, 1].

        Larger is better; figures compare only at the same `worst`. Scores that cost more cover nothing.
        """
        area, best = 0.0, 0.0
        for score in self.scores:
            if self.cost(score) < worst and score.accuracy > best:
                area += (score.accuracy - best) * (worst - self.cost(score))
                best = score.accuracy
        return area / worst

    def pick(self, what: str) -> Score:
        """The `knee`, the `best` (most accurate) or the `fastest` of the frontier.

        The knee lies highest above the line from the first to the best, in accuracy against the logarithm of the cost.

        Raises:
            StudyError: the frontier is empty, or there is no such pick.
        """
        if not self.scores:
            raise StudyError(
                "a frontier must have a finished candidate to pick from, but has none; run the search first"
            )
        if what not in PICKS:
            raise StudyError(unknown("pick", what, (*PICKS, "a trial's number")))
        first, best = self.scores[0], max(self.scores, key=lambda score: score.accuracy)
        if what == "fastest":
            return min(self.scores, key=lambda score: score.latency_ms)
        if what == "best":
            return best
        if first.accuracy == best.accuracy or self.cost(first) == self.cost(best):
            return first
        rise, run = best.accuracy - first.accuracy, log(self.cost(best) / self.cost(first))

        def height(score: Score) -> float:
            return (score.accuracy - first.accuracy) / rise - log(self.cost(score) / self.cost(first)) / run

        return max(self.scores, key=height)


def objectives(cost: str) -> Mapping[str, int]:
    """The objectives of a search that minimises `cost`, a key of COSTS."""
    return {"accuracy": 1, COSTS[cost][0]: -1}


def _cost(score: Score, objectives: Mapping[str, int]) -> float:
    value: float = getattr(score, next(name for name, sign in objectives.items() if sign < 0))
    return value


def _beats(one: Sequence[float], other: Sequence[float]) -> bool:
    return one != other and all(a >= b for a, b in zip(one, other, strict=True))
