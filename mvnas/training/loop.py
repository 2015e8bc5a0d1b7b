"""A training, step by step: whoever drives it decides when it rests and when it ends."""

from __future__ import annotations

import copy
import io
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import IO, Any

import numpy as np
import torch
from torch import Generator, Tensor

from mvnas.errors import TrainingError
from mvnas.training.judging import CALMER
from mvnas.training.numerics import mixed
from mvnas.training.sampler import Sampler, trained_size
from mvnas.training.technique import Step, Technique, Training
from mvnas.training.weights import Average, copied, groups

OnStep = Callable[[int, int, float], None]  # told of each step: its number from 1, how many in all, and the loss


@dataclass(frozen=True, eq=False)
class Checkpoint:
    """A training that rests after `step` steps: all that it takes to go on as if it had not.

    `techniques` is what each of them keeps, by its place among them.
    """

    step: int
    weights: dict[str, Tensor]
    average: list[Tensor]
    optimizer: dict[str, Any]
    crops: Tensor
    random: Tensor
    techniques: list[dict[str, Tensor]] = field(default_factory=list)

    def save(self, path: Path) -> None:
        """Write it to a file, about 16 bytes a parameter."""
        stream = io.BytesIO()  # torch does not tell a full disk from any other mistake
        torch.save(vars(self), stream)
        path.write_bytes(stream.getbuffer())

    @classmethod
    def load(cls, source: Path | IO[bytes]) -> Checkpoint:
        return cls(**torch.load(source, map_location="cpu", weights_only=True))


class Loop:
    """One training between two of its steps, on the device that its module is on.

    `step` have been taken, of `len`, and `images` been shown by this loop. Techniques get the module as it begins, then
    take part in every loss, in their order. Random numbers are torch's global ones and a generator of crops of the
    loop's own.
    """

    def __init__(self, training: Training, techniques: Sequence[Technique] = ()) -> None:
        self.training, self.techniques = training, tuple(techniques)
        schedule, module = training.schedule, training.module
        sizes: tuple[tuple[int, int], ...] = ((training.resolution, schedule.batch),)
        for technique in self.techniques:
            sizes = technique.sizes(sizes, training.resolution, schedule.batch)
        self.sampler = Sampler(len(training.data.train), sizes, epochs=schedule.epochs, seed=training.seed)
        self.step, self.images = 0, 0
        self._length = len(self.sampler)
        module.train()
        for technique in self.techniques:
            technique.begin(training)
        self.average = Average(module, schedule.ema)
        self.crops = Generator().manual_seed(training.seed)
        self.optimizer = torch.optim.AdamW(groups(module, schedule.weight_decay), fused=True)
        self.device = next(module.parameters()).device

    def __len__(self) -> int:
        """Number of steps of the whole training."""
        return self._length

    def run(self, until: int) -> Iterator[float]:
        """Take steps until so many are taken; yields the loss of each.

        Raises:
            TrainingError: a loss is not finite.
        """
        for number, (size, indices) in islice(enumerate(self.sampler, 1), self.step, until):
            loss = self._take(number, size, indices)
            if not math.isfinite(loss):
                raise TrainingError(f"the loss must be finite, but is {loss} at step {number} of {len(self)}; {CALMER}")
            self.average.update(number)
            self.step, self.images = number, self.images + len(indices)
            yield loss

    def _take(self, number: int, size: int, indices: np.ndarray) -> float:
        """One step of the optimizer; the loss before it."""
        module, task, schedule, data = (
            self.training.module,
            self.training.task,
            self.training.schedule,
            self.training.data,
        )
        x, targets = task.augment(
            torch.from_numpy(data.train.images[indices]).to(self.device),
            torch.from_numpy(data.train.targets[indices]).to(self.device),
            trained_size(size, self.training.factor),
            crop=schedule.crop,
            flip=data.flip,
            generator=self.crops,
        )
        with mixed(self.device):
            output = module(x.contiguous(memory_format=torch.channels_last))
        output = each(output, lambda one: one.float())
        loss = task.loss(output, targets, smoothing=schedule.label_smoothing)
        step = Step(module, number, len(self), indices, x, targets, output)
        for technique in self.techniques:
            loss = technique.loss(loss, step)
        self.optimizer.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        if schedule.clip:
            torch.nn.utils.clip_grad_norm_(module.parameters(), schedule.clip)
        for group in self.optimizer.param_groups:
            group["lr"] = schedule.rate(number - 1, len(self))
        self.optimizer.step()
        return loss.item()

    def rest(self) -> Checkpoint:
        """Where the training stands, on the CPU; of torch's generators it has that of the CPU."""
        told = self.optimizer.state_dict()
        moments = {
            place: {name: value.to("cpu", copy=True) for name, value in known.items()}
            for place, known in told["state"].items()
        }
        return Checkpoint(
            self.step,
            copied(self.training.module),
            [value.cpu() for value in self.average.values],
            {"state": moments, "param_groups": copy.deepcopy(told["param_groups"])},
            self.crops.get_state(),
            torch.get_rng_state(),
            [dict(technique.state()) for technique in self.techniques],
        )

    def resume(self, rest: Checkpoint) -> None:
        """Put the training where another loop of the same training rested."""
        self.step = rest.step
        module = self.training.module
        module.load_state_dict(
            dict(zip(module.state_dict(), rest.weights.values(), strict=True))
        )  # by order, not by name
        for value, known in zip(self.average.values, rest.average, strict=True):
            value.copy_(known)
        self.optimizer.load_state_dict(rest.optimizer)
        self.crops.set_state(rest.crops)
        states: Sequence[Mapping[str, Tensor]] = rest.techniques or [{} for _ in self.techniques]
        for technique, state in zip(self.techniques, states, strict=True):
            technique.restore(state)
        torch.set_rng_state(rest.random)


def each(output: Any, change: Callable[[Tensor], Any]) -> Any:
    """What a module put out, a tensor or several, with each of them changed."""
    return change(output) if isinstance(output, Tensor) else tuple(map(change, output))
