"""Trainings on a Ray cluster that is there: one task each, with a core, and a GPU where the cluster has any.

The images are put into the object store once, and each node fetches them once. The driver keeps no state here: killed
and started again, it goes on from its study.
"""

from __future__ import annotations

import logging
import pickle
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import ray
from ray import exceptions

from mvnas.data import Data, Split, load
from mvnas.engines import Event, Failed, Images, Job, artifact
from mvnas.engines._task import sent
from mvnas.errors import StudyError

CPUS = 1  # of a training; Ray gives torch as many threads
RETRIES = 3  # of a training whose node or process was lost; one that exhausted its node's memory has none
TRIES = 2  # of one whose failure may be the machine's


@dataclass
class _Task:
    """A training somewhere in the cluster."""

    job: Job
    ref: ray.ObjectRef
    begun: float
    losses: int = 0
    doubts: int = 0


class Engine:
    """Trainings on the Ray cluster at `address`, as many at a time as it has resources for, as nodes come and go.

    `limit` is the seconds that a training may take, the start of a process for it included. Steps are not told.

    Raises:
        StudyError: there is no cluster at the address.
    """

    def __init__(self, images: Images, *, address: str = "auto", limit: float | None = None) -> None:
        try:
            ray.init(address, log_to_driver=False, logging_level=logging.ERROR, ignore_reinit_error=True)
        except (ConnectionError, ValueError, RuntimeError) as error:
            told = str(error).splitlines()[0]
            raise StudyError(
                f"a Ray cluster must run at --address {address}, but {told}; start one with `ray start --head`"
            ) from None
        self.limit = limit
        self._images = ray.put(_plain(load(images.source, skip_broken=images.skip_broken, flip=images.flip)))
        self._artifacts: dict[str, ray.ObjectRef] = {}  # what techniques have prepared, by its file here
        self._tasks: dict[int, _Task] = {}
        self._look()

    @property
    def slots(self) -> int:
        return self._slots

    def _look(self) -> None:
        """See what resources the cluster has now."""
        there = ray.cluster_resources()
        self._gpus = int(there.get("GPU", 0))
        self._slots = self._gpus or int(there.get("CPU", 0)) // CPUS

    def start(self, key: int, job: Job) -> None:
        self._tasks[key] = _Task(job, self._submit(job), time.monotonic())

    def _submit(self, job: Job) -> ray.ObjectRef:
        remote = ray.remote(num_cpus=CPUS, num_gpus=min(self._gpus, 1), max_retries=0)(sent())
        return remote.remote(pickle.dumps(job), [self._images, *(self._stored(file) for file in job.artifacts)])

    def _stored(self, file: str | None) -> ray.ObjectRef | None:
        """What a technique has prepared, in the object store, from which each node fetches it once."""
        if file and file not in self._artifacts:
            self._artifacts[file] = ray.put(artifact(file))
        return self._artifacts[file] if file else None

    def wait(self, seconds: float) -> Sequence[Event]:
        self._look()
        refs = {task.ref: key for key, task in self._tasks.items()}
        if not refs:
            time.sleep(seconds)
        ready = ray.wait(list(refs), timeout=seconds)[0] if refs else []
        events = [event for ref in ready if (event := self._read(refs[ref]))]
        return events + [event for key in list(self._tasks) if (event := self._overdue(key))]

    def _read(self, key: int) -> Event | None:
        """What became of a training that has ended; None if it was lost, and has begun again."""
        task = self._tasks[key]
        event: Event
        try:
            event = ray.get(task.ref)
        except exceptions.OutOfMemoryError:
            event = Failed(0, "training must fit in memory, but its node ran out of it")
        except exceptions.RayTaskError as error:
            event = Failed(0, f"workers must have what the driver has, but one says: {error.cause!r}", broken=True)
        except exceptions.RayError as error:
            if task.losses < RETRIES:
                self._begin_again(key, replace(task, losses=task.losses + 1))
                return None
            event = Failed(0, f"its process was lost {RETRIES + 1} times: {str(error).splitlines()[0]}", doubtful=True)
        else:
            if isinstance(event, Failed) and event.doubtful and task.doubts + 1 < TRIES:
                self._begin_again(key, replace(task, doubts=task.doubts + 1))
                return None
        del self._tasks[key]
        return event._replace(key=key)

    def _begin_again(self, key: int, task: _Task) -> None:
        self._tasks[key] = replace(task, ref=self._submit(task.job), begun=time.monotonic())

    def _overdue(self, key: int) -> Event | None:
        """Failure of a training that has taken too long, which is ended."""
        task = self._tasks[key]
        if self.limit is None or time.monotonic() - task.begun <= self.limit:
            return None
        ray.cancel(task.ref, force=True)
        del self._tasks[key]
        return Failed(key, f"training must end within {self.limit:g} s, but did not; raise --limit")

    def close(self) -> None:
        for task in self._tasks.values():
            ray.cancel(task.ref, force=True)
        self._tasks = {}
        ray.shutdown()


def _plain(data: Data) -> Data:
    """Data whose arrays are no maps of files, so that workers map those of the object store; no test images."""
    train, val = (Split(np.asarray(part.images), part.targets) for part in (data.train, data.val))
    return replace(data, train=train, val=val, test=Split(val.images[:0], val.targets[:0]))
