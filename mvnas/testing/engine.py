"""Laws of an engine, for whoever writes one. In a test file of yours:

from mvnas.testing.engine import EngineContract

class TestMine(EngineContract):
    engine = "mine.cluster"  # as --engine names it
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from typing import Any

import torch

from mvnas.data import load
from mvnas.engines import Done, Engine, Event, Failed, Images, Job, engine, train
from mvnas.spaces.arch import Arch
from mvnas.training import Schedule, Trained

PATIENCE = 300.0  # seconds after which it counts as hung
BLOCKS = [{"block": "stem", "channels": 8}, {"block": "head", "channels": 16}]


class EngineContract:
    """Each job that is begun ends once, with what it comes to anywhere else; what fails is an event and no
    exception.
    """

    engine: str
    data = "digits"
    settings: dict[str, Any] = {}  # noqa: RUF012

    def test_a_job_comes_to_what_it_comes_to_here(self) -> None:
        job = self._job()
        with self._made() as made:
            event = self._ends(made, {7: job})[7]
        wanted = train(job, load(self.data), device="cpu")
        assert isinstance(event, Done) and isinstance(event.trained, Trained), event
        assert event.trained.state.keys() == wanted.state.keys()
        if not torch.cuda.is_available():
            assert event.trained.quality == wanted.quality
            assert all(torch.equal(value, wanted.state[name]) for name, value in event.trained.state.items())

    def test_what_fails_is_an_event_and_the_next_job_runs(self) -> None:
        with self._made() as made:
            events = self._ends(made, {0: self._job(lr=1e30)}) | self._ends(made, {1: self._job()})
        assert isinstance(events[0], Failed) and "finite" in events[0].reason
        assert isinstance(events[1], Done)

    def test_as_many_run_as_there_are_slots(self) -> None:
        with self._made() as made:
            assert made.slots >= 1
            jobs = {key: self._job() for key in range(min(made.slots, 3))}
            assert all(isinstance(event, Done) for event in self._ends(made, jobs).values())

    def test_closing_ends_what_runs(self) -> None:
        with self._made() as made:
            made.start(0, self._job())
            made.close()
            made.close()

    @contextmanager
    def _made(self) -> Iterator[Engine]:
        with closing(engine(self.engine, Images(self.data), **self.settings)) as made:
            yield made

    def _job(self, **schedule: float) -> Job:
        outputs = len(load(self.data).classes)
        arch = Arch.from_json({"resolution": 128, "blocks": BLOCKS}).with_classes(outputs)
        return Job(arch, Schedule(**{"epochs": 0.3, "batch": 64, **schedule}), 0.25, seed=1)  # type: ignore[arg-type]

    def _ends(self, made: Engine, jobs: dict[int, Job]) -> dict[int, Event]:
        """How each of some jobs ends."""
        for key, job in jobs.items():
            made.start(key, job)
        ends: dict[int, Event] = {}
        until = time.monotonic() + PATIENCE
        while len(ends) < len(jobs):
            assert time.monotonic() < until, "a job must end"
            for event in made.wait(0.2):
                assert event.key in jobs and event.key not in ends, f"not a job's, or after its end: {event}"
                if isinstance(event, Done | Failed):
                    ends[event.key] = event
        return ends
