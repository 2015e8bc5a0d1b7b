"""Kernels as the latency model sees them: of which kind they are, and what they do."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from math import prod

import numpy as np

from mvnas.graph import Kernel
from mvnas.latency.regression import Workload


def kind(kernel: Kernel) -> str:
    """What kernels are regressed together, such as `conv1`, `depthwise3.stride2.silu` or `attention` (`Op.kind`)."""
    op, shapes = kernel
    return op.kind(*shapes)


def by_kind(kernels: Iterable[Kernel]) -> dict[str, list[Kernel]]:
    """Kernels of each kind, in their order."""
    groups: dict[str, list[Kernel]] = {}
    for kernel in kernels:
        groups.setdefault(kind(kernel), []).append(kernel)
    return groups


def dimensions(kernel: Kernel) -> dict[str, int]:
    """The sizes of a kernel by name: what a kind's timings must span (`Op.dimensions`)."""
    op, shapes = kernel
    return op.dimensions(*shapes)


def workload(kernel: Kernel) -> Workload:
    """What a kernel does, as the regression of its kind sees it."""
    op, shapes = kernel
    elements = op.elements(*shapes)
    moved = sum(map(prod, shapes)) + prod(op.shape(*shapes))
    sizes = tuple(dimensions(kernel).values())
    return Workload(op.products(*shapes), (elements,) if elements else (), moved, op.params(*shapes), sizes)


def spanning(kernels: Sequence[Kernel], count: int) -> list[Kernel]:
    """Up to `count` kernels that span every dimension and lie far from one another on logarithmic scales."""
    if len(kernels) <= count:
        return list(kernels)
    sizes = np.log([list(dimensions(kernel).values()) for kernel in kernels])
    extremes = np.unique(np.concatenate([sizes.argmin(0), sizes.argmax(0)]))
    chosen = list(extremes)
    span = np.ptp(sizes, 0)
    sizes = sizes / np.where(span > 0, span, 1)
    gaps = np.min([np.abs(sizes - sizes[i]).sum(1) for i in chosen], 0)
    while len(chosen) < count:
        chosen.append(int(gaps.argmax()))
        gaps = np.minimum(gaps, np.abs(sizes - sizes[chosen[-1]]).sum(1))
    return [kernels[i] for i in chosen]
