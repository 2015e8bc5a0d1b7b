"""Which of several classes an image is of."""

from __future__ import annotations

from collections.abc import Mapping
from math import log
from typing import Any

import numpy as np
from torch import Tensor
from torch.nn.functional import cross_entropy

from mvnas import tasks
from mvnas.data import Data
from mvnas.errors import DataError
from mvnas.tasks import Metric

FEWEST, GROWTH = 10, 0.7  # classes that a training of the default length has at least; how its images grow with them

FIVE, IMBALANCED = 5, 3
TOP, BALANCED, LOSS = Metric("top-5 accuracy"), Metric("balanced accuracy"), "log-loss"


class Task(tasks.Task):
    """Cross-entropy with smoothed labels. Of a network of several outputs the last one tells the class; no loss is of
    the others.

    Networks are judged by one of these:

    - `accuracy`, top-1: the share of images whose highest logit is at their label.
    - `top5`: the share whose label is among the five highest; of more than five classes.
    - `balanced`: the mean over classes of the share of their images that are right (recall). It suits data whose
      largest class has IMBALANCED times the images of its smallest in training, or more: there a network is often right
      that says the largest class of everything.
    - `logloss`: the mean of minus the logarithm of the probability (softmax) at the label, in nats. Its worst is that
      of equal probabilities, log(classes): who is surer and wrong is no better than who knows nothing; its best is 0.
    """

    metric = tasks.ACCURACY
    agreed = "the class of torch"

    def metrics(self, data: Data) -> Mapping[str, Metric]:
        count = len(data.classes)
        loss = Metric(LOSS, worst=log(count), best=0.0, unit="nats")
        return {
            "accuracy": tasks.ACCURACY,
            **({"top5": TOP} if count > FIVE else {}),
            "balanced": BALANCED,
            "logloss": loss,
        }

    def suited(self, data: Data) -> tuple[str, str]:
        counts = np.bincount(data.train.targets, minlength=len(data.classes))
        ratio = counts.max() / max(1, counts.min())
        if ratio < IMBALANCED:
            return "accuracy", ""
        return "balanced", (
            f"balanced accuracy, the mean over classes of what is right of each: the largest has {ratio:.3g} times the"
            " images of the smallest; --metric accuracy counts all images alike"
        )

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
        count = len(data.classes)
        return {TOP.name: min(1.0, FIVE / count), LOSS: 0.0}.get(self.metric.name, 1 / count)

    def loss(self, output: Any, targets: Tensor, *, smoothing: float) -> Tensor:
        return cross_entropy(tasks.last(output), targets, label_smoothing=smoothing)

    def tally(self, output: Any, targets: np.ndarray) -> np.ndarray:
        """Of images of each class, (classes, 4): how many, right, with the label among the five highest, and the sum
        of log-losses.
        """
        logits = tasks.last(output).astype(np.float64)
        label = np.take_along_axis(logits, targets[:, None], 1)
        highest = logits.max(1)
        losses = np.log(np.exp(logits - highest[:, None]).sum(1)) + highest - label[:, 0]
        right, near = logits.argmax(1) == targets, (logits > label).sum(1) < FIVE
        rows = (np.ones(len(targets)), right, near, losses)
        return np.stack([np.bincount(targets, row, logits.shape[1]) for row in rows], 1)

    def value(self, tally: np.ndarray) -> float:
        if self.metric == BALANCED:
            there = tally[tally[:, 0] > 0]
            return float((there[:, 1] / there[:, 0]).mean())
        images, right, near, loss = tally.sum(0)
        return float({TOP.name: near, LOSS: loss}.get(self.metric.name, right) / images)

    def measures(self, tally: np.ndarray) -> Mapping[str, float]:
        images, *_, loss = tally.sum(0)
        return {LOSS: float(loss / images)}

    def agree(self, output: np.ndarray, truth: np.ndarray) -> float:
        return float((output.argmax(1) == truth.argmax(1)).mean())


def default_epochs(images: int, classes: int) -> float:
    """What shows tasks.SHOWN images of ten classes or fewer, and five times as many of ten times as many classes
    (docs/proxy.md); of few images `tasks.LONGEST` epochs of ten classes at most, and so many times as many of more.

    More classes need more steps before networks differ by more than luck, but not so many images of each: what tells
    classes apart is learnt of all of them.
    """
    more = (max(FEWEST, classes) / FEWEST) ** GROWTH
    return float(f"{more * min(tasks.LONGEST, tasks.SHOWN / images):.3g}")
