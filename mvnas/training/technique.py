"""What a training may do beyond plain: the hooks that a technique has."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any, ClassVar, Protocol

import numpy as np
from torch import Tensor
from torch.nn import Module

from mvnas.data import Data, Split
from mvnas.spaces.arch import Arch
from mvnas.spaces.space import Space
from mvnas.system.progress import Progress
from mvnas.tasks import Task
from mvnas.training.schedule import Schedule

Sizes = tuple[tuple[int, int], ...]  # pairs of a deployed size in pixels and images of a step at it
Artifact = Mapping[str, np.ndarray]  # what a technique prepares once a study: arrays by name

NOTHING: Artifact = MappingProxyType({})


@dataclass(frozen=True, eq=False)
class Training:
    """One training, as techniques see it before its first step.

    `module` has names of weights by nodes of `arch.graph()`; the architecture is None where whoever trains has none.
    """

    module: Module
    data: Data
    task: Task
    schedule: Schedule
    resolution: int
    factor: float
    seed: int
    arch: Arch | None = None


@dataclass(frozen=True, eq=False)
class Step:
    """One step of a training, after the forward pass: `number` from 1 among `steps`.

    `indices` (B,) are places in `data.train`; `images` (B, 3, side, side) and `targets` (B, ...) are as they were
    shown, `output` is the module's, in float32, a tuple if there are several.
    """

    module: Module
    number: int
    steps: int
    indices: np.ndarray
    images: Tensor
    targets: Tensor
    output: Any


class Preparation(Protocol):
    """A study before its first training, with what a technique needs to prepare: plain trainings and their outputs.

    The `schedule`, `factor`, and `seed` are the study's; `device` is where torch computes. `space` is what is searched,
    with the study's classes, and `excess` how far a network of it is over the budget, 0 if it fits. `tell` is told of
    what is done, how much of it, and of how much.
    """

    @property
    def data(self) -> Data: ...
    @property
    def task(self) -> Task: ...
    @property
    def schedule(self) -> Schedule: ...
    @property
    def factor(self) -> float: ...
    @property
    def seed(self) -> int: ...
    @property
    def device(self) -> str: ...
    @property
    def space(self) -> Space: ...
    @property
    def tell(self) -> Progress | None: ...

    def excess(self, arch: Arch) -> float: ...

    def keep(self, state: Mapping[str, Tensor]) -> None:
        """Keep how far a long preparation has come, on the CPU, so that it can go on if it is interrupted."""

    def kept(self) -> Mapping[str, Tensor] | None:
        """What was kept last; None if nothing was, or not whole."""

    def train(self, arch: Arch, *, epochs: float) -> Module:
        """The trained network of an architecture, in evaluation mode, by a plain training of so many epochs."""

    def outputs(self, module: Module, split: Split, resolution: int) -> np.ndarray:
        """What the last layer puts out for all whole images of a split, at the size that stands for a deployed
        resolution: (N, ...).
        """


class Technique:
    """A training with nothing beyond plain; a class `Technique` of yours derives from it, and overrides what it needs.

    If it is a dataclass its fields, each with a default that is a text, int, float or bool, are settings for the user.
    There is one object a training. Whatever is random must come from torch's global generators, which are seeded, or
    from seeds that are given: the same arguments give the same bits.
    """

    artifact: Artifact = NOTHING  # what `prepare` gave, in every training of the study
    defaults: ClassVar[Mapping[str, float]] = MappingProxyType({})  # of the schedule, where the user says nothing

    def contents(self) -> Mapping[str, str]:
        """Of each setting that is the name of a file a mark of what the file holds: a study is held to that, whatever
        the name.

        Raises:
            TrainingError: a file cannot be read, or a setting cannot be.
        """
        return {}

    def check(self, space: Space) -> None:
        """Return if networks of a space can be trained so; asked before a search reads its images.

        Raises:
            MvnasError: they cannot.
        """

    def prepare(self, study: Preparation) -> Artifact:
        """Arrays that all trainings of a study share, such as a teacher's outputs; asked for once, before the first
        of them.
        """
        return NOTHING

    def schedule(self, schedule: Schedule) -> Schedule:
        """The schedule that is trained by, in place of the study's."""
        return schedule

    def sizes(self, sizes: Sizes, resolution: int, batch: int) -> Sizes:
        """Sizes that steps draw from, for a network deployed at `resolution` with `batch` images at it."""
        return sizes

    def begin(self, training: Training) -> None:
        """Set the weights that the module begins with, in place of fresh ones; and whatever else is to be ready."""

    def loss(self, loss: Tensor, step: Step) -> Tensor:
        """What is made small in a step, in place of the task's `loss` (or of that of the techniques before), a
        scalar.
        """
        return loss

    def state(self) -> Mapping[str, Tensor]:
        """What a training that rests must keep beside its weights, on the CPU."""
        return {}

    def restore(self, state: Mapping[str, Tensor]) -> None:
        """Go on with what `state` gave."""
