"""Training of one candidate, from its first step to its quality on held-out images."""

from __future__ import annotations

import math
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from statistics import fmean

import torch
from torch import Tensor
from torch.nn import Module

from mvnas.data import Data
from mvnas.spaces.arch import Arch
from mvnas.system.progress import Progress
from mvnas.tasks import Task
from mvnas.tasks import task as task_of
from mvnas.training.judging import inputs, tallied
from mvnas.training.loop import Checkpoint, Loop, OnStep
from mvnas.training.numerics import float32, memory, reproducible
from mvnas.training.sampler import Sampler, trained_size
from mvnas.training.schedule import Schedule
from mvnas.training.technique import Technique, Training
from mvnas.training.weights import calibrate, copied

CALIBRATION = 512  # images that batch norms are calibrated on


@dataclass(frozen=True, eq=False)
class Trained:
    """Result of a training: quality on held-out images in [0, 1], averaged weights on the CPU, and what it took.

    Of a training that is to go on there is a checkpoint too. `measures` are other figures, by name: what the task
    counts of validation images beside (`Task.measures`), and `training loss`, the mean of the last epoch's steps.
    """

    quality: float
    state: dict[str, Tensor]
    steps: int
    seconds: float
    images: int
    checkpoint: Checkpoint | None = None
    measures: Mapping[str, float] = field(default_factory=dict)


def fit(
    module: Module,
    data: Data,
    *,
    resolution: int,
    factor: float,
    schedule: Schedule,
    seed: int,
    task: Task | None = None,
    techniques: Sequence[Technique] = (),
    device: str = "cpu",
    progress: OnStep | None = None,
    tell: Progress | None = None,
    until: float = 1.0,
    begin: Checkpoint | None = None,
    arch: Arch | None = None,
) -> Trained:
    """Train `module`, (B, 3, H, W) -> (B, K), to be deployed at `resolution`, from the weights it has.

    A training may rest at the share `until` of its steps, and go on where it rested with `begin`: in the end it is the
    same. With `until` 0 nothing is trained: the module is judged as techniques begin it.

    Images have `resolution` times `factor` pixels, where no technique says otherwise. The result has the averaged
    weights, with batch norms calibrated in float32 on whole training images of that size, and their quality on
    validation images of it; the module is left with these weights, in evaluation mode. On one machine with a given
    number of threads, the same arguments give the same bits on the CPU.

    Args:
        task: what the network is for; None: classification.
        techniques: what the training does beyond plain, in this order.
        progress: called after each step with the step (from 1), the number of steps, and the loss; what it
            raises ends the training.
        tell: called with what is done beside steps, how many images of it, and of how many.
        arch: what `module` was built of, for techniques that ask.

    Raises:
        TrainingError: the loss is not finite or memory is exhausted.
    """
    begun = time.monotonic()
    for technique in techniques:
        schedule = technique.schedule(schedule)
    training = Training(module, data, task or task_of(), schedule, resolution, factor, seed, arch)
    with memory(), reproducible(torch.device(device), seed):
        module.to(device, memory_format=torch.channels_last)  # type: ignore[call-overload]
        loop = Loop(training, techniques)
        if begin:
            loop.resume(begin)
        stop = math.ceil(until * len(loop))
        losses = []
        for loss in loop.run(stop):
            losses.append(loss)
            if progress:
                progress(loop.step, len(loop), loss)
        checkpoint = loop.rest() if 0 < stop < len(loop) else None
        loop.average.store()
        _calibrate(training, device, tell)
        side = trained_size(resolution, factor)
        aim = training.task
        tally = tallied(module, data.val, aim, side=side, batch=schedule.batch, tell=tell)
    measures = dict(aim.measures(tally))
    if losses:
        measures["training loss"] = fmean(losses[-math.ceil(len(loop) / max(1.0, schedule.epochs)) :])
    seconds = time.monotonic() - begun
    return Trained(aim.quality(tally), copied(module), len(loop), seconds, loop.images, checkpoint, measures)


def _calibrate(training: Training, device: str, tell: Progress | None) -> None:
    """Calibrate the batch norms of a module on `CALIBRATION` whole images or a few more, or on all, in full batches."""
    split, batch = training.data.train, training.schedule.batch
    total, side = min(CALIBRATION, len(split)), trained_size(training.resolution, training.factor)

    def batches() -> Iterator[Tensor]:
        done = 0
        epochs = min(1.0, CALIBRATION / len(split))
        for _, indices in Sampler(len(split), ((side, batch),), epochs=epochs, seed=training.seed):
            yield inputs(training.task, split.images[indices], side, device)
            done += len(indices)
            if tell:
                tell("calibrating norms", min(done, total), total)

    with float32(torch.device(device)):
        calibrate(training.module, batches())
