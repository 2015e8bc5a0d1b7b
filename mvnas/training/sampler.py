"""Which images a training step sees, and at what size: the multi-scale sampler of MobileViT."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from random import Random

import numpy as np

LOWEST, HIGHEST, COUNT, STRIDE = 0.625, 1.25, 5, 32
MINIMUM = 16


def scales(base: int = 256, batch: int = 128) -> tuple[tuple[int, int], ...]:
    """Pairs (size, images), ascending: square sizes around `base` with about the same pixels a step.

    Five sizes evenly from 0.625 to 1.25 of the base, and the base, each rounded to a multiple of 32; at 256
    these are the published 160 to 320. Images a step are as in the released `VariableBatchSampler`
    (apple/ml-cvnets; arXiv:2110.02178, section 3.2): rounded to two decimals, then cut.

    >>> scales(256, 128)
    ((160, 327), (192, 227), (256, 128), (288, 101), (320, 81))
    """
    gap = (HIGHEST - LOWEST) / (COUNT - 1)
    sizes = [base * (LOWEST + i * gap) for i in range(COUNT)] + [base]
    return tuple(
        (side, max(1, int(round(base * base * batch / (side * side), 2))))
        for side in sorted({_divisible(size) for size in sizes})
    )


def _divisible(size: float) -> int:
    """Nearest multiple of 32, halves up, at least 32, and not more than a tenth below `size`."""
    near = max(STRIDE, int(size + STRIDE / 2) // STRIDE * STRIDE)
    return near if near >= 0.9 * size else near + STRIDE


def factor_for(side: int, base: int = 256) -> float:
    """Share of a deployed size at which images of `side` pixels are trained: `base` pixels show all of it.

    >>> factor_for(32), factor_for(500)
    (0.125, 1.0)
    """
    return min(1.0, side / base)


def pixels(size: int, factor: float) -> int:
    """Side, in pixels, of the images that stand for a deployed `size`; 16 at least, or no map would be left.

    >>> pixels(320, 0.125), pixels(96, 0.125)
    (40, 16)
    """
    return max(MINIMUM, round(size * factor))


@dataclass(frozen=True)
class MultiScaleSampler:
    """Steps of one training, each a size drawn from `scales` and the images to show at it.

    Every epoch is a fresh permutation of all `count` images. Its steps draw a size uniformly until at least
    `count` images are taken; the last one is completed from the first images of that permutation. The last
    of `epochs` = k + f, 0 < f < 1, ends once round(f * count) images are taken, one step at the least. No
    step shows more than `count` images. All of it depends on the fields alone, so `len`, iterations and
    candidates with the same scales agree; the random generator is the sampler's own.
    """

    count: int
    scales: tuple[tuple[int, int], ...]
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
                size, images = rng.choice(self.scales)
                steps.append((size, min(images, self.count)))
                taken += steps[-1][1]
            yield rng, steps
