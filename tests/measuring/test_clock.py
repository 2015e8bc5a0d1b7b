"""Laws of the clock, on a runtime whose runs take what it says they take."""

from __future__ import annotations

import resource
from collections.abc import Callable
from itertools import chain, count, repeat
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest

from mvnas.backends import Runtime
from mvnas.measuring.clock import LOOKS, Clock

REFERENCE, OP = Path("reference"), Path("op")


class Counted:
    """A reference op that takes no time and whose runs are counted, and an op that takes 0.01 ms."""

    looked = 0

    def conditions(self) -> dict[str, Any]:
        return {"threads": 1}

    def stopwatch(self, path: Path) -> Callable[[], float]:
        def run() -> float:
            self.looked += path == REFERENCE
            return 0.0 if path == REFERENCE else 0.01

        return run


def looks(interruptions: Callable[[int], int], monkeypatch: pytest.MonkeyPatch) -> int:
    """Looks at the reference op for one timing of one burst or more; `interruptions` counts those of a RUSAGE_*."""
    monkeypatch.setattr(resource, "getrusage", lambda who: SimpleNamespace(ru_nivcsw=interruptions(who)))
    runtime = Counted()
    clock = Clock(cast(Runtime, runtime), [REFERENCE])
    before = runtime.looked
    clock.time(OP, openings=1, runs=12, seconds=0.005, patience=60)
    return (runtime.looked - before) // LOOKS


def test_a_cheap_op_is_timed_between_two_looks(monkeypatch: pytest.MonkeyPatch) -> None:
    assert looks(lambda who: 0, monkeypatch) == 2


@pytest.mark.skipif(not hasattr(resource, "RUSAGE_THREAD"), reason="this system counts whole processes only")
def test_only_interruptions_of_the_own_thread_spoil_a_burst(monkeypatch: pytest.MonkeyPatch) -> None:
    process, thread = count(), chain([0], repeat(1))  # the process all along, the thread in its first burst
    assert looks(lambda who: next(process) if who == resource.RUSAGE_SELF else 0, monkeypatch) == 2
    assert looks(lambda who: next(thread) if who == resource.RUSAGE_THREAD else 0, monkeypatch) == 3
