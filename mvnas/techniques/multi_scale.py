"""Training at several sizes, as MobileViT does (arXiv:2110.02178, section 3.2)."""

from __future__ import annotations

from mvnas import training
from mvnas.training import Sizes

LOWEST, HIGHEST, COUNT, STRIDE = 0.625, 1.25, 5, 32


class Technique(training.Technique):
    """Each step is of one of up to six sizes around the deployed one, and of about the same number of pixels."""

    def sizes(self, sizes: Sizes, resolution: int, batch: int) -> Sizes:
        return scales(resolution, batch)


def scales(base: int = 256, batch: int = 128) -> Sizes:
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
