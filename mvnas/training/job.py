"""A training as a job: what any worker, on any machine, is given and gives back."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from hashlib import sha256

import torch

from mvnas.data import Data, Tell
from mvnas.export import accuracy_at
from mvnas.nn import build
from mvnas.spaces.arch import PRECISIONS, Arch
from mvnas.system.machine import threads
from mvnas.training import Checkpoint, Schedule, Trained, fit, initialise, pixels

Progress = Callable[[int, int, float], None]  # of the step (from 1), the steps in all, and the loss


@dataclass(frozen=True, eq=False)
class Job:
    """One training of `arch` at its resolution times `factor`, to the share `until` of its schedule.

    It begins with fresh weights, or where an earlier part of it rested.
    """

    arch: Arch
    schedule: Schedule
    factor: float
    seed: int
    until: float = 1.0
    begin: Checkpoint | None = None


def train(
    job: Job, data: Data, *, device: str | None = None, progress: Progress | None = None, tell: Tell | None = None
) -> Trained:
    """The trained network of a job, with its accuracy on validation images at the precision that it is deployed in.

    `device` is CUDA where there is one, if None. Of whatever takes long `progress` or `tell` is called again and again. Threads are
    no more than this process has cores for, or its user says.

    Raises:
        TrainingError: the loss is not finite or memory is exhausted.
        ExportError: the precision needs a file, which cannot be made.
    """
    torch.set_num_threads(min(torch.get_num_threads(), threads()))
    module = build(job.arch.graph())
    initialise(module, job.seed)
    trained = fit(
        module,
        data,
        resolution=job.arch.resolution,
        factor=job.factor,
        schedule=job.schedule,
        seed=job.seed,
        device=device or ("cuda" if torch.cuda.is_available() else "cpu"),
        progress=progress,
        tell=tell,
        until=job.until,
        begin=job.begin,
    )
    if PRECISIONS[job.arch.precision] > 1:  # in 8 bits accuracy is not that of torch
        return trained
    begun = time.monotonic()
    accuracy = accuracy_at(job.arch, trained.state, data, pixels(job.arch.resolution, job.factor), tell=tell)
    return replace(trained, accuracy=accuracy, seconds=trained.seconds + time.monotonic() - begun)


def seed_of(arch: Arch, seed: int) -> int:
    """Seed of an architecture's training in a study of `seed`."""
    words = json.dumps([arch.to_json(), seed])
    return int(sha256(words.encode()).hexdigest()[:8], 16) % 2**31
