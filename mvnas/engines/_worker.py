"""A worker process: trains what comes through its pipe until its parent is gone.

What it unpickles comes from the process that started it, by a pipe that no other has.
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

from mvnas.datasets import load
from mvnas.engines import Done, Event, Step, failure
from mvnas.job import train

TELLING = 0.2  # seconds between two signs of life


def serve(pipe: Connection, place: int) -> None:
    """Train jobs from `pipe`; the worker of a `place` has the GPU of that place, counted around."""
    import torch

    warnings.filterwarnings("ignore")
    count = torch.cuda.device_count()
    device = f"cuda:{place % count}" if count else "cpu"
    images = pickle.loads(pipe.recv_bytes())
    told = 0.0

    def progress(step: int, steps: int, loss: float) -> None:
        nonlocal told
        if time.monotonic() - told > TELLING or step == steps:
            told = time.monotonic()
            pipe.send_bytes(pickle.dumps(Step(0, step, steps, loss)))

    data = None
    while True:
        job = pickle.loads(pipe.recv_bytes())
        event: Event
        try:
            data = data or load(images.source, skip_broken=images.skip_broken, flip=images.flip)
            event = Done(0, train(job, data, device=device, progress=progress))
        except Exception as error:
            event = failure(error)
        pipe.send_bytes(pickle.dumps(event))  # plain bytes: torch would share memory, which dies with its owner


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
        serve(Connection(int(sys.argv[1])), int(sys.argv[2]))


if __name__ == "__main__":
    main()
