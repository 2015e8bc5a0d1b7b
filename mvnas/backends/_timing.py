"""The stopwatch of every runtime."""

from __future__ import annotations

from collections.abc import Callable
from time import perf_counter

WARM_UP = 0.1  # seconds at most


def milliseconds(call: Callable[[], object], *, seconds: float, runs: int) -> list[float]:
    """Milliseconds of single calls after a warm-up: at least `runs`, and at least `seconds` in all."""
    warm = perf_counter() + min(0.2 * seconds, WARM_UP)
    call()
    while perf_counter() < warm:
        call()
    taken: list[float] = []
    end = perf_counter() + seconds
    while len(taken) < runs or perf_counter() < end:
        start = perf_counter()
        call()
        taken.append(1e3 * (perf_counter() - start))
    return taken
