"""What a network is for. One file a task; the file name is the name, and the class it defines is `Task`.

A task says what the network's last layer puts out, how images and their targets are shown in training, what the loss
is, how well a network does on held-out images, and when a file does as torch does. It never sees an architecture but to
set its last layer, and knows nothing of studies. `mvnas.tasks.classification` is the first.

Yours is a module with one class, and this is all of it:

    from mvnas import tasks

    class Task(tasks.Task):
        metric = tasks.Metric("error", worst=10, best=0, unit="years")

        def outputs(self, data):
            return 1                                                   # numbers that the last layer puts out

        def loss(self, output, targets, *, smoothing):
            return (output[:, 0] - targets).abs().mean()

        def tally(self, output, targets):                              # arrays; tallies of all images are summed
            return np.array([abs(output[:, 0] - targets).sum(), len(targets)])

        def value(self, tally):                                        # of the sum: the metric's value
            return tally[0] / tally[1]

`mvnas search --task mine.age --data mine.faces` searches with it, and `mvnas.testing.task` checks it. A task of several
metrics says so in `metrics`, and which of them suits data in `suited`; its tallies tell of all, and `value` of the one
that `self.metric` is (`mvnas.tasks.classification`).
"""

from __future__ import annotations

from collections.abc import Mapping
from copy import copy
from dataclasses import asdict, dataclass
from math import inf
from typing import TYPE_CHECKING, Any

import numpy as np

from mvnas.errors import DataError, quoted, unknown
from mvnas.spaces.arch import Arch
from mvnas.spaces.space import Space
from mvnas.system.marks import code_mark, mark
from mvnas.system.plugins import load_class

if TYPE_CHECKING:
    from torch import Generator, Tensor

    from mvnas.data import Data

DEFAULT = "classification"
SHOWN, LONGEST = 8000, 4.0  # images that a training of the default length shows, and its most epochs
CLOSE = 0.1  # how near outputs of two forms of one network are to be, to the largest output


@dataclass(frozen=True)
class Metric:
    """How good a network is at a task, by its `name`: the values at which it is `worst` and `best`, and their `unit`.

    Inside mvnas all is the quality, the share of the way from the worst value to the best: 0 to 1, higher is better.

    >>> error = Metric("error", worst=180, best=0, unit="degrees")
    >>> error.quality(45), error.value(0.75), error.told(0.75)
    (0.75, 45.0, '45 degrees')
    """

    name: str
    worst: float = 0.0
    best: float = 1.0
    unit: str = ""

    def quality(self, value: float) -> float:
        """The quality of a value; of one beyond the worst or the best, that of these."""
        return min(max((value - self.worst) / (self.best - self.worst), 0.0), 1.0)

    def value(self, quality: float) -> float:
        return self.worst + (self.best - self.worst) * quality

    def told(self, quality: float) -> str:
        """The value of a quality for people: a share in per cent, where it has no unit."""
        value = self.value(quality)
        return f"{value:.3g} {self.unit}" if self.unit else f"{value:.1%}"

    @property
    def label(self) -> str:
        """What a quality is, where its numbers are shown as they are."""
        return self.name if (self.worst, self.best) == (0, 1) else f"quality by {self.name}"

    def to_json(self) -> dict[str, Any]:
        return asdict(self)

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> Metric:
        """The metric that `to_json` wrote.

        Raises:
            ValueError: it is none.
        """
        made = cls(**data)
        numbers = all(isinstance(value, int | float) and -inf < value < inf for value in (made.worst, made.best))
        if not (numbers and made.worst != made.best and isinstance(made.name, str) and isinstance(made.unit, str)):
            raise ValueError(f"a metric must have a name, a worst and a best value, and a unit, but is {quoted(data)}")
        return made


ACCURACY = Metric("accuracy")


class Task:
    """What every task offers; a class `Task` of yours derives from it, and says at least `outputs`, `loss`, `tally` and
    `value`.

    Where nothing else is said, images are float (B, 3, side, side) in [0, 1], an output is what the network's module
    puts out, (B, outputs), and targets are as the data has them, (B, ...); of a network of several outputs, `output` is
    a tuple, whose `last` is that of the last layer.
    """

    metric: Metric  # what networks are judged by
    agreement = 0.8  # least `agree` of an int8 file and torch
    agreed = "outputs near torch's"  # what `agree` is a share of, in words

    def check(self, data: Data) -> None:
        """Return if data is such as the task needs.

        Raises:
            DataError: it is not.
        """

    def metrics(self, data: Data) -> Mapping[str, Metric]:
        """All metrics that networks may be judged by, by the names that `--metric` gives them; one, if a task has no
        others.
        """
        return {self.metric.name: self.metric}

    def suited(self, data: Data) -> tuple[str, str]:
        """The name of the metric that suits data where the user names none, and why, if it is not the usual one."""
        return self.metric.name, ""

    def by(self, name: str, data: Data) -> Task:
        """The task with networks judged by a metric of `metrics`, by its name here or its own; its tallies are of all.

        Raises:
            DataError: there is no such metric.
        """
        known = self.metrics(data)
        found = known.get(name) or next((one for one in known.values() if one.name == name), None)
        if found is None:
            raise DataError(unknown("metric", name, known))
        made = copy(self)
        made.metric = found
        return made

    def outputs(self, data: Data) -> int:
        """How many numbers the network's last layer puts out."""
        raise NotImplementedError

    def space(self, space: Space, data: Data) -> Space:
        """The space with the last layer that the task needs."""
        return space.with_classes(self.outputs(data))

    def arch(self, arch: Arch, data: Data) -> Arch:
        """The network with the last layer that the task needs."""
        return arch.with_classes(self.outputs(data))

    def epochs(self, data: Data) -> float:
        """Length of a candidate's training where the user says nothing: what shows SHOWN images, LONGEST epochs at
        most.
        """
        return min(LONGEST, float(f"{SHOWN / len(data.train):.3g}"))

    def length(self, epochs: float, data: Data) -> str:
        """The length of a training in words."""
        return f"{epochs:g} epochs of each candidate, {epochs * len(data.train):.0f} images"

    def chance(self, data: Data) -> float:
        """The quality of a network that has learnt nothing; 0 is never wrong, and makes the search's model less
        sharp.
        """
        return 0.0

    def augment(
        self, images: Tensor, targets: Tensor, side: int, *, crop: float, flip: bool, generator: Generator
    ) -> tuple[Tensor, Tensor]:
        """Stored images, uint8 (B, 3, S, S), as training shows them, (B, 3, side, side), and their targets then.

        Random crops of at least the share `crop` of the image, half of them mirrored where the data allows it (`flip`).
        Whatever is random comes from `generator`, which is on the CPU: all devices see the same.
        """
        from mvnas.tasks._images import random_crops

        return random_crops(images, side, area=crop, flip=flip, generator=generator), targets

    def inputs(self, images: Tensor, side: int) -> Tensor:
        """Stored images, uint8 (B, 3, S, S), as a network is judged on and its files are checked with: (B, 3, side,
        side).
        """
        from mvnas.tasks._images import whole

        return whole(images, side)

    def loss(self, output: Any, targets: Tensor, *, smoothing: float) -> Tensor:
        """What training makes small, a scalar; `smoothing` is the share of a target that is spread over all others."""
        raise NotImplementedError

    def tally(self, output: Any, targets: np.ndarray) -> np.ndarray:
        """What is counted of some held-out images, by arrays of outputs and targets; tallies are added."""
        raise NotImplementedError

    def value(self, tally: np.ndarray) -> float:
        """The metric's value, by the tally of all held-out images."""
        raise NotImplementedError

    def measures(self, tally: np.ndarray) -> Mapping[str, float]:
        """What else a tally tells, by name: a search notes it of every candidate, and chooses by none of it."""
        return {}

    def quality(self, tally: np.ndarray) -> float:
        """The quality, 0 to 1, by the tally of all held-out images."""
        return self.metric.quality(self.value(tally))

    def agree(self, output: np.ndarray, truth: np.ndarray) -> float:
        """Share of images, (B, ...) each, on which a coarser form of a network does as torch's does."""
        apart = np.abs(output - truth).reshape(len(truth), -1).max(1)
        return float((apart <= CLOSE * max(1e-9, float(np.abs(truth).max()))).mean())


def last(output: Any) -> Any:
    """What the last layer of a network puts out, (B, outputs), of all that its module does, one or several."""
    return output[-1] if isinstance(output, tuple) else output


def task(name: str = DEFAULT, *, foreign: bool = False) -> Task:
    """The task `name` of this folder, or of any importable module if the name is dotted.

    `foreign` says that a file named it, such as a study: a module is then run only if it is trusted.

    Raises:
        DataError: there is no such task.
        TrustError: it is not trusted.
    """
    made = load_class("task", name, __name__, "Task", DataError, foreign=foreign)()
    if not isinstance(made, Task) or not isinstance(getattr(made, "metric", None), Metric):
        raise DataError(f"a task must derive from mvnas.tasks.Task and have a Metric, but {name} does not")
    return made


def marks(name: str) -> dict[str, str]:
    """Marks by which a study holds to a task of the user's; none for ours."""
    return {"task": mark(name), "task.code": code_mark(name)} if "." in name else {}
