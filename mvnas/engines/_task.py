"""What workers of a Ray cluster run."""

from __future__ import annotations

import os
import pickle
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

import ray

from mvnas.engines import Done, Event, failure, train


def sent() -> Callable[[bytes, list[ray.ObjectRef | None]], Event]:
    """The task that a driver sends: as code, which takes a job as bytes, and images and what techniques have prepared
    by references.

    So nothing is imported before the folders that Ray puts first, the driver's working folder and that of its script,
    are the last ones: a `random.py` of the user's is not taken for Python's. mvnas is the driver's, where that is
    there.
    """
    early = [os.getcwd(), os.path.dirname(os.path.realpath(sys.argv[0]))]
    home = str(Path(__file__).parents[2])

    def run(job: bytes, stored: list[ray.ObjectRef | None]) -> Event:
        import sys

        for folder in early:
            if folder in sys.path:
                sys.path.remove(folder)
                sys.path.append(folder)
        sys.path.insert(0, home)
        import mvnas  # noqa: F401

        sys.path.remove(home)
        from mvnas.engines._task import train_here

        return train_here(job, stored)

    return run


def train_here(job: bytes, stored: Sequence[ray.ObjectRef | None]) -> Event:
    """The training itself, in a worker of the cluster."""
    try:
        artifacts = [None if ref is None else ray.get(ref) for ref in stored[1:]]
        return Done(
            0, train(pickle.loads(job), ray.get(stored[0]), artifacts=artifacts)
        )  # the job is of the driver, by Ray
    except Exception as error:
        return failure(error)
