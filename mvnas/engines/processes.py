"""Trainings in processes of this machine: each has its share of the cores, and a GPU of its own where there are several."""

from __future__ import annotations

import os
import pickle
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from multiprocessing import Pipe
from multiprocessing.connection import Connection, wait

from mvnas.engines import Event, Failed, Images, Step
from mvnas.job import Job

STILL = 900.0  # seconds without a sign of life after which a training counts as hung


class Engine:
    """`workers` processes that train one job at a time; `limit` is the seconds that one may take.

    A worker that dies or is killed is started anew for the next job. Workers end when this process does, however it ends.
    """

    def __init__(self, images: Images, *, workers: int = 1, limit: float | None = None) -> None:
        self.images, self.limit = images, limit
        threads = max(1, len(os.sched_getaffinity(0)) // workers) if hasattr(os, "sched_getaffinity") else 0
        self._workers = [_Worker(images, place, threads) for place in range(workers)]

    @property
    def slots(self) -> int:
        return len(self._workers)

    def start(self, key: int, job: Job) -> None:
        next(worker for worker in self._workers if worker.key is None).start(key, job)

    def wait(self, seconds: float) -> Sequence[Event]:
        busy = [worker for worker in self._workers if worker.key is not None]
        ready = wait([worker.pipe for worker in busy if worker.pipe], seconds)
        events = [event for worker in busy if worker.pipe in ready for event in worker.read()]
        return events + [event for worker in busy if worker.key is not None for event in worker.overdue(self.limit)]

    def close(self) -> None:
        for worker in self._workers:
            worker.kill()


@dataclass
class _Worker:
    """One process, started when it is first needed."""

    images: Images
    place: int
    threads: int
    key: int | None = None
    pipe: Connection | None = None
    process: subprocess.Popen[bytes] | None = field(default=None, repr=False)
    begun: float = 0.0
    heard: float = 0.0

    def start(self, key: int, job: Job) -> None:
        if self.pipe is None or self.process is None or self.process.poll() is not None:
            self._spawn()
        assert self.pipe
        self.key, self.begun = key, time.monotonic()
        self.heard = self.begun
        with suppress(OSError):  # it has just died: reading will tell
            self.pipe.send_bytes(pickle.dumps(job))

    def _spawn(self) -> None:
        self.kill()
        self.pipe, theirs = Pipe()
        environment = {**os.environ, "OMP_WAIT_POLICY": "PASSIVE"}
        if self.threads:
            environment["OMP_NUM_THREADS"] = str(self.threads)
        with theirs:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "mvnas.engines._worker", str(theirs.fileno()), str(self.place)],
                pass_fds=[theirs.fileno()],
                env=environment,
                start_new_session=True,  # Ctrl-C is for the process that owns the study
            )
        with suppress(OSError):
            self.pipe.send_bytes(pickle.dumps(self.images))

    def read(self) -> list[Event]:
        """What the process says, or its death."""
        assert self.pipe and self.process and self.key is not None
        key, self.heard = self.key, time.monotonic()
        try:
            told = pickle.loads(self.pipe.recv_bytes())  # of a process that this one has started
        except (EOFError, OSError):
            code = self.process.wait()
            self.kill()
            why = f"signal {-code}" if code < 0 else f"exit {code}"
            hint = "; memory may have been exhausted" if code == -signal.SIGKILL else ""
            return [Failed(key, f"the process that trained it ended by {why}{hint}")]
        event: Event = told._replace(key=key)
        if not isinstance(event, Step):
            self.key = None
        return [event]

    def overdue(self, limit: float | None) -> list[Event]:
        """Failure of a training that has taken too long, or has hung."""
        assert self.key is not None
        key, now = self.key, time.monotonic()
        if limit is not None and now - self.begun > limit:
            reason = f"training must end within {limit:g} s, but did not; raise --limit"
        elif now - self.heard > STILL:
            reason = f"training must show a sign of life every {STILL:g} s, but did not"
        else:
            return []
        self.kill()
        return [Failed(key, reason)]

    def kill(self) -> None:
        """End the process, and whatever it does."""
        if self.process:
            self.process.kill()
            self.process.wait()
        if self.pipe:
            self.pipe.close()
        self.process, self.pipe, self.key = None, None, None
