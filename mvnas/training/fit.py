"""Training of one candidate and its accuracy on held-out images."""

from __future__ import annotations

import copy
import io
import math
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import IO, Any

import numpy as np
import torch
from torch import Generator, Tensor
from torch.nn import Module
from torch.nn.functional import cross_entropy

from mvnas.data import Data, Split, Tell
from mvnas.errors import TrainingError
from mvnas.training.augment import random_crops, whole
from mvnas.training.sampler import MultiScaleSampler, pixels, scales
from mvnas.training.schedule import Schedule
from mvnas.training.weights import Average, calibrate, groups, kept

CALMER = "search with a lower --lr, or with --clip 1"
CALIBRATION = 512  # images that batch norms are calibrated on


@dataclass(frozen=True, eq=False)
class Checkpoint:
    """A training that rests after `step` steps: all that it takes to go on as if it had not."""

    step: int
    weights: dict[str, Tensor]
    average: list[Tensor]
    optimizer: dict[str, Any]
    crops: Tensor
    random: Tensor

    def save(self, path: Path) -> None:
        """Write it to a file, about 16 bytes a parameter."""
        stream = io.BytesIO()  # torch does not tell a full disk from any other mistake
        torch.save(vars(self), stream)
        path.write_bytes(stream.getbuffer())

    @classmethod
    def load(cls, source: Path | IO[bytes]) -> Checkpoint:
        return cls(**torch.load(source, map_location="cpu", weights_only=True))


@dataclass(frozen=True, eq=False)
class Trained:
    """Result of a training: held-out accuracy in [0, 1], averaged weights on the CPU, and what it took.

    Of a training that is to go on there is a checkpoint too.
    """

    accuracy: float
    state: dict[str, Tensor]
    steps: int
    seconds: float
    images: int
    checkpoint: Checkpoint | None = None


def fit(
    module: Module,
    data: Data,
    *,
    resolution: int,
    factor: float,
    schedule: Schedule,
    seed: int,
    device: str = "cpu",
    progress: Callable[[int, int, float], None] | None = None,
    tell: Tell | None = None,
    until: float = 1.0,
    begin: Checkpoint | None = None,
) -> Trained:
    """Train `module`, (B, 3, H, W) -> (B, K), to be deployed at `resolution`, from the weights it has.

    A training may rest at the share `until` of its steps, and go on where it rested with `begin`: in the end it is the same.

    Sizes are those of `scales(resolution)` times `factor`. The result has the averaged weights, with batch
    norms calibrated in float32 on whole training images of `resolution` times `factor` pixels, and their accuracy on
    validation images of that size; the module is left with these weights, in evaluation mode. On one machine
    with a given number of threads, the same arguments give the same bits on the CPU.

    Args:
        progress: called after each step with the step (from 1), the number of steps, and the loss; what it
            raises ends the training.
        tell: called with what is done beside steps, how many images of it, and of how many.

    Raises:
        TrainingError: the loss is not finite or memory is exhausted.
    """
    begun = time.monotonic()
    sampler = MultiScaleSampler(
        len(data.train.labels), scales(resolution, schedule.batch), epochs=schedule.epochs, seed=seed
    )
    steps, images = len(sampler), 0
    stop = math.ceil(until * steps)
    with _memory(), _reproducible(torch.device(device), seed):
        module.to(device, memory_format=torch.channels_last).train()  # type: ignore[call-overload]
        average = Average(module, schedule.ema)
        crops = Generator().manual_seed(seed)
        optimizer = torch.optim.AdamW(groups(module, schedule.weight_decay), fused=True)
        learn = _learner(module, data, schedule, optimizer, crops)
        if begin:
            _resume(begin, module, average, optimizer, crops)
        for step, (size, indices) in islice(enumerate(sampler, 1), begin.step if begin else 0, stop):
            loss = learn(pixels(size, factor), indices, schedule.rate(step - 1, steps))
            if not math.isfinite(loss):
                told = f"the loss must be finite, but is {loss} at step {step} of {steps}; {CALMER}"
                raise TrainingError(told)
            average.update(step)
            images += len(indices)
            if progress:
                progress(step, steps, loss)
        checkpoint = _rest(stop, module, average, optimizer, crops) if stop < steps else None
        average.store()
        side = pixels(resolution, factor)
        with _float32(torch.device(device)):
            sample = _sample(data.train, side, batch=schedule.batch, seed=seed, device=device)
            calibrate(module, _told(sample, tell, min(CALIBRATION, len(data.train.labels))))
        accuracy = evaluate(module, data.val, side=side, batch=schedule.batch, tell=tell)
    return Trained(accuracy, kept(module), steps, time.monotonic() - begun, images, checkpoint)


def _rest(
    step: int, module: Module, average: Average, optimizer: torch.optim.Optimizer, crops: Generator
) -> Checkpoint:
    """Where a training stands, on the CPU; of torch's generators it has that of the CPU."""
    values = [value.cpu() for value in average.values]
    told = optimizer.state_dict()
    moments = {
        place: {name: value.to("cpu", copy=True) for name, value in known.items()}
        for place, known in told["state"].items()
    }
    state = {"state": moments, "param_groups": copy.deepcopy(told["param_groups"])}
    return Checkpoint(step, kept(module), values, state, crops.get_state(), torch.get_rng_state())


def _resume(
    begin: Checkpoint, module: Module, average: Average, optimizer: torch.optim.Optimizer, crops: Generator
) -> None:
    """Put a training back where it rested."""
    module.load_state_dict(begin.weights)
    for value, known in zip(average.values, begin.average, strict=True):
        value.copy_(known)
    optimizer.load_state_dict(begin.optimizer)
    crops.set_state(begin.crops)
    torch.set_rng_state(begin.random)


def _learner(
    module: Module, data: Data, schedule: Schedule, optimizer: torch.optim.Optimizer, generator: Generator
) -> Callable[[int, np.ndarray, float], float]:
    """Function (side, indices, rate) -> loss that takes one optimisation step."""
    device = next(module.parameters()).device

    def learn(side: int, indices: np.ndarray, rate: float) -> float:
        images = torch.from_numpy(data.train.images[indices]).to(device)
        labels = torch.from_numpy(data.train.labels[indices]).to(device)
        x = random_crops(images, side, area=schedule.crop, flip=data.flip, generator=generator)
        with _precision(device):
            logits = module(x.contiguous(memory_format=torch.channels_last))
        loss = cross_entropy(logits.float(), labels, label_smoothing=schedule.label_smoothing)
        optimizer.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        if schedule.clip:
            torch.nn.utils.clip_grad_norm_(module.parameters(), schedule.clip)
        for group in optimizer.param_groups:
            group["lr"] = rate
        optimizer.step()
        return loss.item()

    return learn


def _sample(split: Split, side: int, *, batch: int, seed: int, device: str) -> Iterator[Tensor]:
    """Full batches of `CALIBRATION` whole images or a few more, or of all: (batch, 3, side, side) each."""
    count = len(split.labels)
    for _, indices in MultiScaleSampler(count, ((side, batch),), epochs=min(1.0, CALIBRATION / count), seed=seed):
        yield _whole(split.images[indices], side, device)


def _told(batches: Iterator[Tensor], tell: Tell | None, total: int) -> Iterator[Tensor]:
    """Batches of images, told of as they are taken."""
    done = 0
    for batch in batches:
        yield batch
        done += len(batch)
        if tell:
            tell("calibrating norms", min(done, total), total)


def _whole(images: np.ndarray, side: int, device: str | torch.device) -> Tensor:
    """`whole` images on `device`, channels last."""
    return whole(torch.from_numpy(images).to(device), side).contiguous(memory_format=torch.channels_last)


@torch.inference_mode()
def evaluate(module: Module, split: Split, *, side: int, batch: int = 128, tell: Tell | None = None) -> float:
    """Share of the images of `split`, resized to `side`, whose highest logit is at their label, all computed in float32.

    The module computes on the device it is on, and is left in evaluation mode.

    Raises:
        TrainingError: a logit is not finite.
    """
    device = next(module.parameters()).device
    module.eval()
    right = 0
    for start in range(0, len(split.labels), batch):
        part = slice(start, start + batch)
        with _float32(device):
            logits = module(_whole(np.array(split.images[part]), side, device))
        if not logits.isfinite().all():
            raise TrainingError(f"logits must be finite, but are not on held-out images; {CALMER}")
        right += int((logits.argmax(1).cpu().numpy() == split.labels[part]).sum())
        if tell:
            tell("judging images", min(start + batch, len(split.labels)), len(split.labels))
    return right / len(split.labels)


def _precision(device: torch.device) -> torch.autocast:
    """Of training steps: bfloat16 where it is fast, on CUDA; float32 elsewhere."""
    return torch.autocast(device.type, torch.bfloat16, enabled=device.type == "cuda")


@contextmanager
def _float32(device: torch.device) -> Iterator[None]:
    """What networks are judged in, as their files compute: no lower precision, nor TensorFloat-32, which cuDNN convolves in unasked."""
    plain = torch.backends.cudnn.flags(enabled=True, allow_tf32=False) if device.type == "cuda" else nullcontext()
    with torch.autocast(device.type, enabled=False), plain:
        yield


@contextmanager
def _reproducible(device: torch.device, seed: int) -> Iterator[None]:
    """Seed what draws from torch's global generators (dropout), and give them back as they were."""
    cuda = [device] if device.type == "cuda" else []
    with torch.random.fork_rng(cuda):
        torch.default_generator.manual_seed(seed)  # torch.manual_seed would seed all devices
        for one in cuda:
            with torch.cuda.device(one):
                torch.cuda.manual_seed(seed)
        yield


@contextmanager
def _memory() -> Iterator[None]:
    """Turn exhausted memory into a TrainingError."""
    try:
        yield
    except (RuntimeError, MemoryError) as error:
        spent = isinstance(error, torch.OutOfMemoryError | MemoryError) or "can't allocate memory" in str(error)
        if not spent:
            raise
        told = str(error).partition("\n")[0][:150]
        raise TrainingError(
            f"training must fit in memory, but ran out of memory: {told}; search with a smaller --batch"
        ) from error
