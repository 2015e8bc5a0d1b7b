"""Trainings on a machine that is at fault: what a worker unpickles as a schedule, and an engine that acts out what
it is told.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mvnas.engines import Event, Failed, Images, Job, engine
from mvnas.training import Schedule

LOST = "CUDA error: an illegal memory access was encountered"


@dataclass
class Flawed:
    """Stands for a schedule in a job: the first `times` processes that unpickle it fail as one does that has lost
    its GPU.
    """

    notes: Path
    times: int
    schedule: Schedule

    def __reduce__(self) -> Any:
        return _begin, (self.notes, self.times, self.schedule)


def _begin(notes: Path, times: int, schedule: Schedule) -> Schedule:
    """The schedule; each process is noted."""
    with notes.open("a") as file:
        file.write(f"{os.getpid()}\n")
    if len(notes.read_text().split()) <= times:
        raise RuntimeError(LOST)
    return schedule


class Moody:
    """Trains in this process, one at a time, but fails doubtfully for the reasons that it is given, None where it
    does not.
    """

    slots = 1

    def __init__(self, images: Images, moods: Sequence[str | None]) -> None:
        self._inner = engine("inline", images)
        self._moods = iter(moods)
        self._failed: list[Event] = []

    def start(self, key: int, job: Job) -> None:
        mood = next(self._moods, None)
        if mood is None:
            self._inner.start(key, job)
        else:
            self._failed.append(Failed(key, mood, doubtful=True))

    def wait(self, seconds: float) -> Sequence[Event]:
        failed, self._failed = self._failed, []
        return [*failed, *self._inner.wait(seconds)]

    def close(self) -> None:
        self._inner.close()
