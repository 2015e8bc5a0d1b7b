"""Which kernels and networks to time, so that a latency model of them can price whole spaces."""

from __future__ import annotations

import random
from collections.abc import Iterable, Iterator, Mapping, Sequence, Set
from itertools import cycle, islice, product

import numpy as np

from mvnas.errors import UnmeasuredError
from mvnas.graph import Kernel
from mvnas.latency.calibration import FEWEST_NETWORKS
from mvnas.latency.kinds import by_kind, dimensions, kind, spanning
from mvnas.latency.model import LatencyModel
from mvnas.latency.table import (
    Table,
)
from mvnas.latency.table_prices import FEWEST_TIMINGS
from mvnas.measuring.protocol import SUSPICIOUS
from mvnas.spaces.arch import Arch
from mvnas.spaces.space import Space
from mvnas.spaces.zoo import published

CLASSES = (2, 10, 37, 100, 200, 1000)  # class counts to span, so that a table serves any data
CORNERS = 32  # kernels of a kind that are timed because they span it,
SPANNING = 2000  # or fewer, where there are so many kinds that they would be more than this
POOL = 1000  # random networks that stand for the spaces,
EACH = 300  # or so many for each of many


def plan(spaces: Sequence[Space], ops: int | None = None, *, seed: int = 0) -> list[Kernel]:
    """Kernels that span the spaces: of each kind the extremes, then the farthest from all chosen so far.

    There are at most CORNERS of a kind, and about `ops` (or SPANNING) in all.
    """
    groups = by_kind(_runs(pool(spaces, seed) + _ends(spaces) + _one_way(spaces)))
    most = max(FEWEST_TIMINGS, min(CORNERS, (ops or SPANNING) // len(groups)))
    kernels = [kernel for name in sorted(groups) for kernel in spanning(groups[name], most)]
    random.Random(seed).shuffle(kernels)  # so that drift of the machine does not look like a property of a kind
    return kernels


def plan_networks(spaces: Sequence[Space], *, seed: int = 0) -> Iterator[Arch]:
    """Yield networks whose kernels span the spaces: extremes first, then random ones.

    The next extreme is the network with most kinds of kernels at sizes beyond those so far.
    """
    left = classed(_ends(spaces) + _one_way(spaces) + pool(spaces, seed))
    spans = {arch: _span(arch) for arch in left}
    most = _widest(spans.values())
    missing = set(most.items())
    while missing:
        arch = max(left, key=lambda arch: len(missing & spans[arch].items()))
        missing -= spans[arch].items()
        left.remove(arch)
        yield arch
    yield from random.Random(seed).sample(left, len(left))


def _span(arch: Arch) -> dict[tuple[str, str, int], int]:
    """Least and greatest size in each dimension of each kind of kernel, by kind, dimension and sign."""
    return _widest(
        {(kind(k), name, sign): sign * size for sign in (-1, 1) for name, size in dimensions(k).items()}
        for block in arch.summaries
        for k, _ in block.kernels
    )


def _widest(spans: Iterable[Mapping[tuple[str, str, int], int]]) -> dict[tuple[str, str, int], int]:
    widest: dict[tuple[str, str, int], int] = {}
    for span in spans:
        for key, size in span.items():
            widest[key] = max(widest.get(key, size), size)
    return widest


def refine(spaces: Sequence[Space], table: Table, ops: int, *, seed: int = 0) -> list[Kernel]:
    """Kernels that fill the table up to `ops`, drawn by their share of random networks' time and the error of their
    kind.
    """
    model = LatencyModel.of_kernels(table)
    runs = {kernel: count for kernel, count in _runs(pool(spaces, seed)).items() if kernel not in table.ops}
    kernels = [kernel for kernel in runs if kind(kernel) in model.errors]
    doubt = [runs[k] * model.prices.kernel(k) * model.errors[kind(k)] for k in kernels]
    draws = np.random.default_rng(seed + len(table.ops)).exponential(size=len(kernels)) / np.maximum(doubt, 1e-12)
    return [kernels[i] for i in np.argsort(draws)[: max(0, ops - len(table.ops))]]


def coverage(spaces: Sequence[Space], model: LatencyModel, *, seed: int = 0) -> float:
    """Share of random networks of the spaces that a model can price, in [0, 1]."""

    def priced(arch: Arch) -> bool:
        try:
            return model.prices.network(arch)[0] > 0
        except UnmeasuredError:
            return False

    archs = pool(spaces, seed + 2)
    return sum(map(priced, archs)) / len(archs)


def suspects(table: Table) -> list[Kernel]:
    """Kernels whose timing is well above the estimate from others of their kind: disturbed, or truly slow."""
    model = LatencyModel.of_kernels(table)
    known = [kernel for kernel in table.ops if kind(kernel) in model.prices.kinds]
    return [kernel for kernel in known if table.ops[kernel].min_ms > SUSPICIOUS * model.prices.price([kernel])[0]]


def calibrating(spaces: Sequence[Space], count: int, *, seed: int = 0) -> list[Arch]:
    """Networks to calibrate by: the published ones of the spaces, and `count` random ones.

    A space whose stages mix kinds of blocks counts as many spaces as a stage has kinds.
    """
    turns = [space for space in spaces for _ in range(max(len(row.stages) for row in space.rows))]
    return published_points(spaces) + sample(turns, count, seed=seed)


def _runs(archs: Sequence[Arch]) -> dict[Kernel, int]:
    """How often each kernel runs in some networks, which get the numbers of classes of CLASSES in turn."""
    runs: dict[Kernel, int] = {}
    for arch in classed(archs):
        for block in arch.summaries:
            for kernel, count in block.kernels:
                runs[kernel] = runs.get(kernel, 0) + count
    return runs


def holding(kernels: set[Kernel], runs: Mapping[Arch, Set[Kernel]]) -> list[Arch]:
    """Up to FEWEST_NETWORKS networks that together run `kernels`: the next is the one with most that are left."""
    found: list[Arch] = []
    while kernels and len(found) < FEWEST_NETWORKS:
        found.append(max(runs, key=lambda arch: len(kernels & runs[arch])))
        kernels = kernels - runs[found[-1]]
    return found


def classed(archs: Sequence[Arch]) -> list[Arch]:
    """The same networks with the numbers of classes of CLASSES in turn."""
    return [arch.with_classes(classes) for arch, classes in zip(archs, CLASSES * len(archs), strict=False)]


def _ends(spaces: Sequence[Space]) -> list[Arch]:
    """The two networks at the ends of each space: all first options, and all last."""
    return [space.at(picks) for space in spaces for picks in space.ends]


def _one_way(spaces: Sequence[Space]) -> list[Arch]:
    """Every option of every choice, with all other choices at their first option, and again at their last."""
    archs = []
    for space in spaces:
        for end, (name, values) in product(space.ends, space.choices.items()):
            archs += [space.at({**space.activated(end, name), name: value}) for value in values]
    return archs


def published_points(spaces: Sequence[Space]) -> list[Arch]:
    """The published networks that are points of a space."""
    archs = [Space.load(name).arch() for name in published()]
    return [arch for arch in archs if any(space.locate(arch) is not None for space in spaces)]


def pool(spaces: Sequence[Space], seed: int) -> list[Arch]:
    """Random networks that represent the spaces."""
    return sample(spaces, max(POOL, EACH * sum(bool(space.choices) for space in spaces)), seed=seed)


def sample(spaces: Sequence[Space], count: int, *, seed: int) -> list[Arch]:
    """Random networks of the spaces in turn; spaces without choices are left out if others have some."""
    generator = random.Random(seed)
    turns = cycle([space for space in spaces if space.choices] or spaces)
    return [space.sample(lambda name, values: generator.choice(values)) for space in islice(turns, count)]
