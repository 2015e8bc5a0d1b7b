"""Which of several classes an image is of."""

from __future__ import annotations

from typing import Any

import numpy as np
from torch import Tensor
from torch.nn.functional import cross_entropy

from mvnas import tasks
from mvnas.data import Data
from mvnas.errors import DataError

EACH, FEWEST = 800, 10  # images of a class, and classes, that a training of the default length has at least


class Task(tasks.Task):
    """Cross-entropy with smoothed labels; the metric is the share of held-out images whose highest logit is at their
    label.

    Of a network of several outputs the last one tells the class; no loss is of the others.
    """

    metric = tasks.ACCURACY
    agreed = "the class of torch"

    def check(self, data: Data) -> None:
        if not data.classes:
            raise DataError(f"classification must have classes, but {data.name} has none; name another --task")

    def outputs(self, data: Data) -> int:
        return len(data.classes)

    def epochs(self, data: Data) -> float:
        return default_epochs(len(data.train), len(data.classes))

    def length(self, epochs: float, data: Data) -> str:
        each = epochs * len(data.train) / len(data.classes)
        return f"{epochs:g} epochs of each candidate, {each:.0f} images of a class"

    def chance(self, data: Data) -> float:
        return 1 / len(data.classes)

    def loss(self, output: Any, targets: Tensor, *, smoothing: float) -> Tensor:
        return cross_entropy(tasks.last(output), targets, label_smoothing=smoothing)

    def tally(self, output: Any, targets: np.ndarray) -> np.ndarray:
        """How many are right, of how many."""
        return np.array([(tasks.last(output).argmax(1) == targets).sum(), len(targets)])

    def value(self, tally: np.ndarray) -> float:
        return float(tally[0] / tally[1])

    def agree(self, output: np.ndarray, truth: np.ndarray) -> float:
        return float((output.argmax(1) == truth.argmax(1)).mean())


def default_epochs(images: int, classes: int) -> float:
    """What shows EACH images of every class, 2 epochs at most; few classes count as FEWEST.

    A candidate on small data takes seconds, one on photos minutes, on a CPU. Were it so many images in all, a thousand
    classes would be seen eight times each, and candidates differ by luck.
    """
    return min(tasks.LONGEST, float(f"{EACH * max(FEWEST, classes) / images:.3g}"))
