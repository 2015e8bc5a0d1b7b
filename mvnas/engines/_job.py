"""A training as a job: what any worker, on any machine, is given and gives back."""

from __future__ import annotations

import json
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from hashlib import sha256

import torch
from safetensors.numpy import load_file

from mvnas import tasks, techniques
from mvnas.data import Data
from mvnas.errors import StudyError
from mvnas.nn import build
from mvnas.spaces.arch import PRECISIONS, Arch
from mvnas.system.machine import threads
from mvnas.system.progress import Progress
from mvnas.training import Artifact, Checkpoint, OnStep, Schedule, Trained, fit, initialise, tallied_file, trained_size


@dataclass(frozen=True, eq=False)
class Job:
    """One training of `arch` at its resolution times `factor`, to the share `until` of its schedule.

    It begins with fresh weights, or where an earlier part of it rested. `task` and `techniques` are names, with
    settings, which the worker looks up, and `metric` is one of the task's, by its name, or its usual one if empty.
    `artifacts` are files of what each technique prepared once for the study, in their order.
    """

    arch: Arch
    schedule: Schedule
    factor: float
    seed: int
    until: float = 1.0
    begin: Checkpoint | None = None
    task: str = tasks.DEFAULT
    techniques: str = techniques.DEFAULT
    artifacts: tuple[str | None, ...] = ()
    metric: str = ""


def train(
    job: Job,
    data: Data,
    *,
    device: str | None = None,
    artifacts: Sequence[Artifact | None] | None = None,
    progress: OnStep | None = None,
    tell: Progress | None = None,
) -> Trained:
    """The trained network of a job, with its quality on validation images at the precision that it is deployed in.

    `device` is CUDA where there is one, if None; `artifacts` are the contents of the job's files, if they are at hand.
    Of whatever takes long `progress` or `tell` is called again and again. Threads are no more than this process has
    cores for, or its user says.

    Raises:
        TrainingError: the loss is not finite or memory is exhausted.
        ExportError: the precision needs a file, which cannot be made.
        StudyError: a file of what a technique prepared is not there.
    """
    torch.set_num_threads(min(torch.get_num_threads(), threads()))
    task = tasks.task(job.task)
    if job.metric:
        task = task.by(job.metric, data)
    module = build(job.arch.graph())
    initialise(module, job.seed)
    trained = fit(
        module,
        data,
        resolution=job.arch.resolution,
        factor=job.factor,
        schedule=job.schedule,
        seed=job.seed,
        task=task,
        techniques=techniques.techniques(
            job.techniques, artifacts or [artifact(file) if file else None for file in job.artifacts]
        ),
        device=device or at_hand(),
        progress=progress,
        tell=tell,
        until=job.until,
        begin=job.begin,
        arch=job.arch,
    )
    if PRECISIONS[job.arch.precision] > 1:  # in 8 bits quality is not that of torch
        return trained
    begun = time.monotonic()
    side = trained_size(job.arch.resolution, job.factor)
    tally = tallied_file(job.arch, trained.state, data, side, data.val, task, tell)
    measures = {**trained.measures, **task.measures(tally)}
    seconds = trained.seconds + time.monotonic() - begun
    return replace(trained, quality=task.quality(tally), measures=measures, seconds=seconds)


def at_hand() -> str:
    """Where torch computes if nobody says otherwise."""
    return "cuda" if torch.cuda.is_available() else "cpu"


@lru_cache(4)
def artifact(file: str) -> Artifact:
    """What a technique prepared, read once a process.

    Raises:
        StudyError: the file is not there.
    """
    try:
        return load_file(file)
    except OSError as error:
        raise StudyError(
            f"what a technique prepared must be where workers find it, but {file} is not: {error}"
        ) from None


def seed_of(arch: Arch, seed: int, repeat: int = 0) -> int:
    """Seed of an architecture's training in a study of `seed`; each repeat has another."""
    words = json.dumps([arch.identity(), seed, *[f"repeat {repeat}"] * bool(repeat)])
    return int(sha256(words.encode()).hexdigest()[:8], 16) % 2**31
