"""Trainings in the process that owns the study, one at a time: to debug, and for tests."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property

from mvnas.data import Data, load
from mvnas.engines import Doing, Done, Event, Images, Job, Step, failure, train


class Engine:
    """Trains when it is waited for; steps are told when the training has ended."""

    slots = 1

    def __init__(self, images: Images) -> None:
        self.images = images
        self._queue: list[tuple[int, Job]] = []

    @cached_property
    def _data(self) -> Data:
        return load(self.images.source, skip_broken=self.images.skip_broken, flip=self.images.flip)

    def start(self, key: int, job: Job) -> None:
        self._queue.append((key, job))

    def wait(self, seconds: float) -> Sequence[Event]:
        events: list[Event] = []
        for key, job in self._queue:
            try:
                trained = train(
                    job,
                    self._data,
                    progress=lambda *step: events.append(Step(key, *step)),  # noqa: B023
                    tell=lambda *doing: events.append(Doing(key, *doing)),  # noqa: B023
                )
            except Exception as error:
                events.append(failure(error)._replace(key=key))
            else:
                events.append(Done(key, trained))
        self._queue = []
        return events

    def close(self) -> None:
        self._queue = []
