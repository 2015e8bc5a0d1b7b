"""By which angle a digit is rotated: data and task in one file.

mvnas search --budget 2M-params --data examples.rotation --task examples.rotation
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image
from sklearn.datasets import load_digits
from torch import Tensor
from torch.nn.functional import mse_loss

from mvnas import tasks
from mvnas.data import Data, Item
from mvnas.errors import DataError


class Dataset:
    """The digits of scikit-learn, each turned by a random angle; the target is its cosine and sine."""

    classes = None  # targets are numbers
    note = "digits of scikit-learn, turned by random angles"
    files: tuple[Path, ...] = ()
    flip = False  # the mirror image is turned by another angle

    def items(self, split: str) -> Iterator[Item] | None:
        return self._turned() if split == "train" else None

    def _turned(self) -> Iterator[Item]:
        images = np.round(load_digits().images * (255 / 16)).astype(np.uint8)
        for image, angle in zip(images, np.random.default_rng(0).uniform(0, 360, len(images)), strict=True):
            turned = Image.fromarray(image).resize((32, 32), Image.Resampling.BICUBIC).rotate(angle)
            yield Item(np.asarray(turned), np.array([np.cos(np.radians(angle)), np.sin(np.radians(angle))], np.float32))


class Task(tasks.Task):
    """Two outputs, of which the direction is the angle; the metric is the mean error of it."""

    metric = tasks.Metric("angle error", worst=180, best=0, unit="degrees")

    def check(self, data: Data) -> None:
        if data.train.targets.shape[1:] != (2,):
            raise DataError(f"targets must be a cosine and a sine, but are {data.train.targets.shape[1:]} numbers")

    def outputs(self, data: Data) -> int:
        return 2

    def chance(self, data: Data) -> float:
        return 0.5  # who guesses is off by 90 degrees

    def loss(self, output: Any, targets: Tensor, *, smoothing: float) -> Tensor:
        return mse_loss(output, targets)

    def tally(self, output: Any, targets: np.ndarray) -> np.ndarray:
        angle, wanted = (np.degrees(np.arctan2(pair[:, 1], pair[:, 0])) for pair in (output, targets))
        return np.array([np.abs((angle - wanted + 180) % 360 - 180).sum(), len(targets)])

    def value(self, tally: np.ndarray) -> float:
        return float(tally[0] / tally[1])
