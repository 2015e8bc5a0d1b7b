"""How runtimes are timed: a stopwatch for those of this machine, samples from devices that time themselves."""

from __future__ import annotations

from collections.abc import Callable
from time import perf_counter
from typing import NamedTuple

Stopwatch = Callable[[], float]


class Sample(NamedTuple):
    """Some runs of one file in a row on a device: milliseconds of the fastest and of the median, and how many they
    were.
    """

    min_ms: float
    median_ms: float
    runs: int


def stopwatch(call: Callable[[], object]) -> Stopwatch:
    """Function that calls `call` once and returns the milliseconds it took; `call` has been warmed up by then."""

    def run() -> float:
        start = perf_counter()
        call()
        return 1e3 * (perf_counter() - start)

    call()
    return run
