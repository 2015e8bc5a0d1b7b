"""The stopwatch of every runtime."""

from __future__ import annotations

from collections.abc import Callable
from time import perf_counter

Stopwatch = Callable[[], float]


def stopwatch(call: Callable[[], object]) -> Stopwatch:
    """Function that calls `call` once and returns the milliseconds it took; `call` has been warmed up by then."""

    def run() -> float:
        start = perf_counter()
        call()
        return 1e3 * (perf_counter() - start)

    call()
    return run
