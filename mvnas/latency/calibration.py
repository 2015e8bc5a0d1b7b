"""From sums of kernels to whole networks: what networks that were timed say of these, with an interval."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime
from itertools import accumulate
from math import ceil, exp, hypot
from typing import NamedTuple, TypeVar

import numpy as np
from numpy.typing import NDArray

from mvnas.latency.regression import nonnegative
from mvnas.latency.table import Table
from mvnas.spaces.arch import Arch

Array = NDArray[np.float64]
Number = TypeVar("Number", float, Array)

CONFIDENCE = 0.9
NORMAL = 1.645  # deviations of a normal distribution that hold CONFIDENCE of it
# Deviation of log latency of one sitting from the mean of many, where a table does not tell it (benchmarks/sittings.py)
SITTING = 0.011
WORTH = 2  # sittings that SITTING counts as, beside those of a table
PAUSE = 3600.0  # seconds without a timing that part one sitting from the next
TURNS = 4  # of fitting the levels of sittings and what reading takes, each by the other
UNSTEADY = 0.5  # deviation from sitting to sitting of what it takes to read weights, as a share of it (docs/latency.md)
KEPT = tuple(0.5 * step for step in range(17))  # millions of parameters whose weights caches may keep
FEWEST_NETWORKS = 8  # networks that a calibration needs


@dataclass(frozen=True)
class Calibration:
    """What whole networks that were timed say of sums of kernels; as it stands, that they are right, and no interval.

    Latency = factor * (sum of kernels + reading * millions of parameters that are read) ** power, and a network lies
    within exp(+-spread) of that with the confidence of the interval. What is read are weights that are in the caches
    where a kernel alone runs again and again. Those of a network of up to `kept` millions are too, and of one twice
    that size none: each run has evicted what the next needs first.

    Of the spread, `shift` is the deviation of one more sitting: hours differ for all networks at once. How much of the
    caches is left for weights differs too: `unsteady` milliseconds a million parameters widen the interval of networks
    that are mostly weights.
    """

    factor: float = 1.0
    power: float = 1.0
    spread: float = float("nan")
    reading: float = 0.0
    kept: float = 0.0
    shift: float = 0.0
    unsteady: float = 0.0

    @classmethod
    def fit(cls, sums: Array, millions: Array, ms: Array, sitting: Sequence[int] = ()) -> Calibration:
        """The calibration by networks, (n,) each: sums of kernels, millions of parameters, and ms, of one sitting or
        several.

        Each sitting has a factor of its own, of which the mean counts. The spread is the conformal quantile of absolute
        log errors, each left out of the fit that it is judged by, and beside it the deviation of a sitting to come, by
        those that were seen.
        """
        wanted, indices = np.log(ms), np.array(sitting or [0] * len(ms))
        fits = (_Fit.of(sums, millions, wanted, kept, indices) for kept in KEPT)
        factor, power, reading, kept, shift, errors = min(fits, key=lambda fit: float((fit.errors**2).sum()))
        rank = min(ceil((len(errors) + 1) * CONFIDENCE), len(errors))
        spread = hypot(np.sort(np.abs(errors))[rank - 1], NORMAL * shift)
        return cls(factor, power, spread, reading, kept, shift, UNSTEADY * reading)

    def estimate(self, sums: Number, timed: Number, millions: Number) -> tuple[Number, Number, Number, Number]:
        """Milliseconds of networks, low, high, and the share that was timed.

        Of sums of kernels, how much of these was timed, and millions of parameters.
        """
        every = sums + self.read(millions)
        ms = self.factor * every**self.power
        margin = np.exp(np.hypot(self.spread, NORMAL * self.unsteady * millions / every))
        return ms, ms / margin, ms * margin, timed / sums

    def read(self, millions: Number) -> Number:
        """Milliseconds that so many millions of parameters take to be read anew."""
        return self.reading * _evicted(millions, self.kept)

    def shared(self, blocks: Sequence[tuple[float, float, float]]) -> list[tuple[float, float]]:
        """Milliseconds of the blocks of a network, which add up to the network's, and the share of each that was
        timed.
        """
        every = sum([millions for _, _, millions in blocks])
        read = float(self.read(every)) / every if every else 0.0  # a million parameters of this network
        costs = [(ms + read * millions, measured / ms if ms else 1.0) for ms, measured, millions in blocks]
        scale = self.factor * sum([ms for ms, _ in costs]) ** (self.power - 1)
        return [(scale * ms, share) for ms, share in costs]


class _Fit(NamedTuple):
    """What is fitted to whole networks where caches keep the weights of so many, and what is left unexplained.

    `shift` is the deviation of a sitting to come, `errors` are those of the log ms of each network by what the others
    alone ask for, beside its own sitting's factor: (n,).
    """

    factor: float
    power: float
    reading: float
    kept: float
    shift: float
    errors: Array

    @classmethod
    def of(cls, sums: Array, millions: Array, wanted: Array, kept: float, sitting: NDArray[np.int64]) -> _Fit:
        """What explains the `wanted` log ms best, of networks of one sitting or several."""
        evicted = _evicted(millions, kept)
        if np.count_nonzero(evicted) < FEWEST_NETWORKS:  # too few networks would tell
            evicted = np.zeros_like(evicted)
        own = (sitting[:, None] == np.unique(sitting)).astype(float)
        ms, reading = sums, 0.0
        for _ in range(TURNS if own.shape[1] > 1 else 1):
            level = own @ (own.T @ (wanted - np.log(ms)) / own.sum(0))  # of each sitting
            steady = np.exp(wanted - level)[:, None]
            plain, read = nonnegative(np.column_stack([sums, evicted]) / steady, np.ones(len(sums)))
            reading = float(read / plain)
            ms = sums + reading * evicted
        columns = np.column_stack([own, np.log(ms)])
        (*offsets, power), *_ = np.linalg.lstsq(columns, wanted)
        slopes = np.column_stack([columns, evicted / ms]) if reading else columns
        errors = (wanted - columns @ (*offsets, power)) / (1 - np.diag(slopes @ np.linalg.pinv(slopes)))
        count = len(offsets)
        variance = (WORTH * SITTING**2 + count * float(np.var(offsets))) / (WORTH + count - 1)
        return cls(exp(np.mean(offsets)), float(power), reading, kept, (variance * (1 + 1 / count)) ** 0.5, errors)


def sittings(table: Table, archs: Iterable[Arch]) -> list[int]:
    """The sitting that each of a table's networks was timed in, by its fastest pass.

    One ends where nothing is timed for PAUSE. One of fewer than FEWEST_NETWORKS networks, which would tell little of
    it, counts to that before or after it.
    """
    networks = table.networks
    times = np.array([_seconds(networks[arch].time) for arch in archs])
    order = np.argsort(times, kind="stable")
    parts = np.split(order, np.flatnonzero(np.diff(times[order]) > PAUSE) + 1)
    found, number = np.zeros(len(times), int), 0
    for part, rest in zip(parts, reversed(list(accumulate(map(len, parts[::-1])))), strict=True):
        found[part] = number
        number += int((found[order] == number).sum() >= FEWEST_NETWORKS <= rest - len(part))
    return found.tolist()


def _seconds(time: str) -> float:
    """Seconds of a time in UTC as tables have it; 0 of any other text."""
    try:
        return datetime.fromisoformat(time).timestamp()
    except (ValueError, OverflowError):
        return 0.0


def _evicted(millions: Number, kept: float) -> Number:
    """How many of a network's millions of parameters are read in each run, where caches keep those of `kept`
    millions.
    """
    return millions * np.clip(millions / kept - 1, 0.0, 1.0) if kept else millions
