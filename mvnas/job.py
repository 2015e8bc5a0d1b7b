"""A training as a job: what any worker, on any machine, is given and gives back."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from hashlib import sha256

import torch
from torch import Tensor

from mvnas.arch import PRECISIONS, Arch
from mvnas.datasets import Data
from mvnas.export import accuracy_at
from mvnas.nn import build
from mvnas.training import Schedule, Trained, fit, initialise, pixels

Progress = Callable[[int, int, float], None]  # of the step (from 1), the steps in all, and the loss


@dataclass(frozen=True, eq=False)
class Job:
    """One training of `arch` at its resolution times `factor`, from the weights `start`, or from fresh ones."""

    arch: Arch
    schedule: Schedule
    factor: float
    seed: int
    start: Mapping[str, Tensor] | None = None


def train(job: Job, data: Data, *, device: str | None = None, progress: Progress | None = None) -> Trained:
    """The trained network of a job, with its accuracy on validation images at the precision that it is deployed in.

    `device` is CUDA where there is one, if None.

    Raises:
        TrainingError: the loss is not finite or memory is exhausted.
        ExportError: the precision needs a file, which cannot be made.
    """
    module = build(job.arch.graph())
    initialise(module, job.seed)
    if job.start is not None:
        module.load_state_dict(job.start)
    trained = fit(
        module,
        data,
        resolution=job.arch.resolution,
        factor=job.factor,
        schedule=job.schedule,
        seed=job.seed,
        device=device or ("cuda" if torch.cuda.is_available() else "cpu"),
        progress=progress,
    )
    if PRECISIONS[job.arch.precision] > 1:  # in 8 bits accuracy is not that of torch
        return trained
    begun = time.monotonic()
    accuracy = accuracy_at(job.arch, trained.state, data, pixels(job.arch.resolution, job.factor))
    return replace(trained, accuracy=accuracy, seconds=trained.seconds + time.monotonic() - begun)


def seed_of(arch: Arch, seed: int, *, turn: int = 0) -> int:
    """Seed of an architecture's training in a study of `seed`; each `turn` of its training draws anew."""
    words = json.dumps([arch.to_json(), seed, turn])
    return int(sha256(words.encode()).hexdigest()[:8], 16) % 2**31
