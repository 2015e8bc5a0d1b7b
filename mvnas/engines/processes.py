"""Trainings in processes of this machine: each has its share of the cores, and a GPU of its own where there are
several.
"""

from __future__ import annotations

import os
import pickle
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from multiprocessing import Pipe
from multiprocessing.connection import Connection, wait
from pathlib import Path

from mvnas.engines import Event, Failed, Images, Job, Step, ended
from mvnas.system.machine import THREADS, threads

STILL = 900.0  # seconds without a sign of life after which a training counts as hung
TRIES = 2  # of a training whose failure may be the machine's
WORKER = Path(__file__).with_name("_worker.py")


class Engine:
    """`workers` processes that train one job at a time; `limit` is the seconds that one may take.

    A worker that dies, is killed or raises what is not ours is started anew for the next job. A training whose failure
    is doubtful is tried once more, where there are several workers in another one, since each may have a GPU of its
    own. Workers end when this process does, however it ends, and hear no signals that ask them to: who stops them is
    the process that owns the study.
    """

    def __init__(self, images: Images, *, workers: int = 1, limit: float | None = None) -> None:
        self.limit = limit
        self._workers = [_Worker(images, place, threads(workers)) for place in range(workers)]
        self._again: list[_Task] = []  # what is to be tried once more

    @property
    def slots(self) -> int:
        return len(self._workers)

    def start(self, key: int, job: Job) -> None:
        self._begin_again()  # first, since not every worker will do
        self._begin(_Task(key, pickle.dumps(job)))

    def _begin(self, task: _Task) -> bool:
        """Begin a training in a worker that is free, and where there are several not in that which it failed in."""
        for worker in self._workers:
            if worker.task is None and (len(self._workers) == 1 or worker.place != task.place):
                worker.start(task)
                return True
        return False

    def _begin_again(self) -> None:
        self._again = [task for task in self._again if not self._begin(task)]

    def wait(self, seconds: float) -> Sequence[Event]:
        self._begin_again()
        busy = [worker for worker in self._workers if worker.task is not None]
        ready = wait([worker.pipe for worker in busy if worker.pipe], seconds)
        events = [event for worker in busy if worker.pipe in ready for event in self._read(worker)]
        return events + [event for worker in busy if worker.task is not None for event in worker.overdue(self.limit)]

    def _read(self, worker: _Worker) -> list[Event]:
        """What a worker says, unless it is to be tried once more."""
        task, event = worker.task, worker.read()
        assert task
        if isinstance(event, Failed) and event.doubtful:
            worker.kill()  # a process that has lost its GPU trains nothing any more
            task.tries += 1
            task.place = worker.place
            if task.tries < TRIES:
                self._again.append(task)
                return []
        return [event]

    def close(self) -> None:
        self._again = []
        for worker in self._workers:
            worker.kill()


@dataclass
class _Task:
    """A training, as often as it takes: the job in bytes, how often it has failed by whoever's fault, and where the
    last time.
    """

    key: int
    job: bytes = field(repr=False)
    tries: int = 0
    place: int = -1


@dataclass
class _Worker:
    """One process, started when it is first needed."""

    images: Images
    place: int
    threads: int
    task: _Task | None = None
    pipe: Connection | None = None
    process: subprocess.Popen[bytes] | None = field(default=None, repr=False)
    begun: float = 0.0
    heard: float = 0.0
    stepped: bool = False

    def start(self, task: _Task) -> None:
        if self.pipe is None or self.process is None or self.process.poll() is not None:
            self._spawn()
        assert self.pipe
        self.task, self.begun, self.stepped = task, time.monotonic(), False
        self.heard = self.begun
        with suppress(OSError):  # it has just died: reading will tell
            self.pipe.send_bytes(task.job)

    def _spawn(self) -> None:
        self.kill()
        self.pipe, theirs = Pipe()
        with theirs, _deaf():
            self.process = subprocess.Popen(
                [sys.executable, "-P", str(WORKER), str(theirs.fileno()), str(self.place)],
                pass_fds=[theirs.fileno()],
                env={**os.environ, "OMP_WAIT_POLICY": "PASSIVE", THREADS: str(self.threads)},
                start_new_session=True,  # Ctrl-C is for the process that owns the study
            )
        with suppress(OSError):
            self.pipe.send_bytes(pickle.dumps([os.path.abspath(folder) for folder in sys.path]))
            self.pipe.send_bytes(pickle.dumps(self.images))

    def read(self) -> Event:
        """What the process says, or its death."""
        assert self.pipe and self.process and self.task is not None
        key, self.heard = self.task.key, time.monotonic()
        try:
            told: Event = pickle.loads(self.pipe.recv_bytes())  # of a process that this one has started
        except (EOFError, OSError):
            code, early = self.process.wait(), not self.stepped
            self.kill()
            why = f"signal {-code}" if code < 0 else f"exit {code}"
            hint = "; memory may have been exhausted" if code == -signal.SIGKILL else ""
            return Failed(key, f"the process that trained it ended by {why}{hint}", doubtful=early)
        self.stepped |= isinstance(told, Step)
        if ended(told):
            self.task = None
        return told._replace(key=key)

    def overdue(self, limit: float | None) -> list[Event]:
        """Failure of a training that has taken too long, or has hung."""
        assert self.task is not None
        key, now = self.task.key, time.monotonic()
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
        self.process, self.pipe, self.task = None, None, None


@contextmanager
def _deaf() -> Iterator[None]:
    """Have processes that are started never hear what a service manager, a batch system or a terminal sends to all
    at once.
    """
    asks = {signal.SIGINT, signal.SIGTERM, signal.SIGHUP}
    before = signal.pthread_sigmask(signal.SIG_BLOCK, asks)
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
