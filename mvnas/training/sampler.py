"""Which images a training step sees, and at what size."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from random import Random

import numpy as np

MINIMUM = 16


def factor_for(side: int, base: int = 256) -> float:
    """Share of a deployed size at which images of `side` pixels are trained: `base` pixels show all of it.

    >>> factor_for(32), factor_for(500)
    (0.125, 1.0)
    """
    return min(1.0, side / base)


def trained_size(size: int, factor: float) -> int:
    """Side, in pixels, of the images that stand for a deployed `size`; 16 at least, or no map would be left.

    >>> trained_size(320, 0.125), trained_size(96, 0.125)
    (40, 16)
    """
    return max(MINIMUM, round(size * factor))


@dataclass(frozen=True)
class Sampler:
    """Steps of one training, each a size drawn from `sizes` and the images to show at it.

    Every epoch is a fresh permutation of all `count` images. Its steps draw a size uniformly until at least
    `count` images are taken; the last one is completed from the first images of that permutation. The last
    of `epochs` = k + f, 0 < f < 1, ends once round(f * count) images are taken, one step at the least. No
    step shows more than `count` images. All of it depends on the fields alone, so `len`, iterations and
    candidates with the same sizes agree; the random generator is the sampler's own.
    """

    count: int
    sizes: tuple[tuple[int, int], ...]
    epochs: float
    seed: int

    def __len__(self) -> int:
        """Number of steps."""
        return sum(len(steps) for _, steps in self._plan())

    def __iter__(self) -> Iterator[tuple[int, np.ndarray]]:
        """Yield (size, indices) per step."""
        for rng, steps in self._plan():
            order = np.array(rng.sample(range(self.count), self.count))
            start = 0
            for size, images in steps:
                taken = order[start : start + images]
                yield size, np.concatenate([taken, order[: images - len(taken)]])
                start += images

    def _plan(self) -> Iterator[tuple[Random, list[tuple[int, int]]]]:
        """Yield each epoch's generator and its steps (size, images)."""
        for epoch in range(math.ceil(self.epochs)):
            rng = Random(f"{self.seed} {epoch}")
            wanted = round(min(1.0, self.epochs - epoch) * self.count)
            steps: list[tuple[int, int]] = []
            taken = 0
            while taken < max(1, wanted):
                size, images = rng.choice(self.sizes)
                steps.append((size, min(images, self.count)))
                taken += steps[-1][1]
            yield rng, steps
