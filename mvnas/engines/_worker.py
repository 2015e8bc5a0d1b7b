"""A worker process: trains what comes through its pipe until its parent is gone.

It is started by the path of this file, without the folders that Python would put before its library: a `random.py` of
the user's is not taken for Python's. What it unpickles comes from the process that started it, by a pipe that no other
has.
"""

from __future__ import annotations

import os
import pickle
import sys
import threading
import time
import warnings
from contextlib import suppress
from multiprocessing.connection import Connection
from pathlib import Path

TELLING = 0.2  # seconds between two signs of life


def serve(pipe: Connection, place: int) -> None:
    """Train jobs from `pipe`; the worker of a `place` has the GPU of that place, counted around.

    Whatever is raised that is not ours ends it: a process whose GPU has failed trains nothing any more.
    """
    from mvnas.engines import Doing, Done, Event, Failed, Step, failure

    told = 0.0

    def send(event: Event) -> None:
        pipe.send_bytes(pickle.dumps(event))  # plain bytes: torch would share memory, which dies with its owner

    def sign(event: Step | Doing, *, last: bool) -> None:
        nonlocal told
        if time.monotonic() - told > TELLING or last:
            told = time.monotonic()
            send(event)

    def progress(step: int, steps: int, loss: float) -> None:
        sign(Step(0, step, steps, loss), last=step in (1, steps))

    def tell(what: str, done: int, total: int) -> None:
        sign(Doing(0, what, done, total), last=False)

    images = pickle.loads(pipe.recv_bytes())
    data = None
    while True:
        job = pipe.recv_bytes()
        event: Event
        try:
            import torch

            from mvnas.data import load
            from mvnas.engines import train

            warnings.filterwarnings("ignore")
            count = torch.cuda.device_count()
            device = f"cuda:{place % count}" if count else "cpu"
            data = data or load(images.source, skip_broken=images.skip_broken, flip=images.flip, tell=tell)
            event = Done(0, train(pickle.loads(job), data, device=device, progress=progress, tell=tell))
        except Exception as error:
            event = failure(error)
        send(event)
        if isinstance(event, Failed) and event.doubtful:
            return


def find(folders: list[str]) -> None:
    """Find modules where this process's parent does, after Python's own; and mvnas where its own is."""
    sys.path.insert(0, str(Path(__file__).parents[2]))
    import mvnas  # noqa: F401

    sys.path[:1] = []
    sys.path += [folder for folder in folders if folder not in sys.path]


def _watch(parent: int) -> None:
    """End this process when its parent has ended."""
    while os.getppid() == parent:
        time.sleep(0.5)
    os._exit(1)


def main() -> None:
    threading.Thread(target=_watch, args=(os.getppid(),), daemon=True).start()
    with suppress(OSError):  # if memory runs out, this process is to go, and not the one that owns the study
        Path("/proc/self/oom_score_adj").write_text("1000")
    with suppress(EOFError, OSError):
        pipe = Connection(int(sys.argv[1]))
        find(pickle.loads(pipe.recv_bytes()))
        serve(pipe, int(sys.argv[2]))


if __name__ == "__main__":
    main()
