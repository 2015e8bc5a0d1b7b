"""The latency model: per-op estimates from a table, whole networks calibrated, with intervals.

A kernel that was timed costs its timing. Any other is priced by a regression for its kind on the logarithm of time per
multiply-accumulate (or per byte, where there are none), with the sizes of the kernel and the padding of its matrix
products to whole tiles as features. A network is the sum of its kernels times one factor, fitted to whole networks.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from math import ceil, exp, log, prod
from typing import Any, NamedTuple, cast

import numpy as np
from numpy.typing import NDArray

from mvnas.arch import Arch
from mvnas.errors import TableError, UnmeasuredError
from mvnas.graph import FLOAT_BYTES, Kernel, Summary
from mvnas.ops import Attention, Conv, Linear, Map, Tokens
from mvnas.table import Table, write_op, write_shapes

Array = NDArray[np.float64]

TILES = (16, 32)  # columns of a matrix product are computed in tiles; XNNPACK's for AVX-512 are 16 or 32 floats wide
CONFIDENCE = 0.9
DOMAIN_SLACK = 1.001  # rounding only: outside of what was measured there is no estimate
RATE_SLACK = 0.3  # an estimated log rate stays this near to the measured ones
FEWEST = 8  # timings of a kind that a regression needs
FEWEST_SQUARES = 30  # with fewer it has no squares
PENALTIES = (0.001, 0.01, 0.1, 1.0, 10.0)


def kind(kernel: Kernel) -> str:
    """What kernels are regressed together, such as `conv1`, `depthwise3.stride2.silu` or `attention`."""
    op, shapes = kernel
    name = type(op).__name__.lower()
    if isinstance(op, Conv):
        depthwise = op.groups > 1 and op.groups == op.out
        stride = f".stride{op.stride}" if op.stride > 1 else ""
        name = f"{'depthwise' if depthwise else 'conv'}{op.kernel}{stride}"
    elif len({type(shape) for shape in shapes} & {Map, Tokens}) == 1 and name in ("add", "linear"):
        name += f".{type(shapes[0]).__name__.lower()}"
    act = getattr(op, "act", "")
    return f"{name}.{act}" if act else name


def dimensions(kernel: Kernel) -> dict[str, int]:
    """The sizes of a kernel by name: what a kind's timings must span."""
    op, shapes = kernel
    output = op.shape(*shapes)
    sizes: dict[str, int] = {}
    for label, shape in (("input", shapes[0]), ("output", output)):
        sizes[f"{label} channels"] = shape.c
        sizes[f"{label} positions"] = prod(shape) // shape.c
        if isinstance(shape, Tokens):
            sizes[f"{label} patches"] = shape.n
    if isinstance(op, Attention):
        sizes["heads"] = op.heads
        sizes["head width"] = output.c // op.heads
    return sizes


def products(kernel: Kernel) -> list[tuple[int, int, int]]:
    """Rows, inner size and columns of each matrix product of a kernel."""
    op, x = kernel[0], cast(Any, kernel[1][0])
    if isinstance(op, Attention):
        return [(x.n, x.c // op.heads, x.n), (x.n, x.n, x.c // op.heads)]
    if isinstance(op, Conv | Linear):
        return [(prod(op.shape(x)) // op.out, x.c, op.out)]
    return []


def work(kernel: Kernel) -> float:
    """Multiply-accumulates, or the bytes moved of a kernel that has none."""
    op, shapes = kernel
    return op.macs(*shapes) or FLOAT_BYTES * (sum(map(prod, shapes)) + prod(op.shape(*shapes)))


def features(kernel: Kernel) -> list[float]:
    """Logarithms of the sizes, of the work, of the bytes, and of the padding of products to whole tiles."""
    op, shapes = kernel
    logs = [log(size) for size in dimensions(kernel).values()]
    moved = sum(map(prod, shapes)) + op.params(*shapes) + prod(op.shape(*shapes))
    padding = [log(ceil(n / tile) * tile / n) for _, _, n in products(kernel) for tile in TILES]
    return [*logs, log(work(kernel)), log(moved), *padding]


class Rate(NamedTuple):
    """Ridge regression of log(ms / work) on standardised features and, if `squares`, their products."""

    mean: Array
    scale: Array
    squares: bool
    weights: Array
    intercept: float
    low: float
    high: float
    domain: Mapping[str, tuple[int, int]]
    timings: int

    def log_rates(self, rows: Array) -> Array:
        """Predicted log(ms / work): (kernels, features) -> (kernels,)."""
        return np.clip(
            _expand((rows - self.mean) / self.scale, self.squares) @ self.weights + self.intercept,
            self.low - RATE_SLACK,
            self.high + RATE_SLACK,
        )


@dataclass(frozen=True)
class Estimate:
    """A network's latency in milliseconds: the estimate and its 90 % interval.

    `measured_share` is the share of the estimate that stems from kernels that were timed themselves.
    """

    ms: float
    low_ms: float
    high_ms: float
    measured_share: float


@dataclass(frozen=True, eq=False)
class LatencyModel:
    """Latency of any network made of what a table has measured.

    `factor` and `spread` are the calibration on whole networks: latency = factor * sum of kernels, and a network lies
    within exp(+-spread) of that with the confidence of the interval.
    """

    device: str
    timed: Mapping[Kernel, float]
    rates: Mapping[str, Rate]
    factor: float = 1.0
    spread: float = float("nan")
    _kernels: dict[Kernel, tuple[float, float]] = field(default_factory=dict, repr=False)
    _blocks: dict[int, tuple[Summary, float, float]] = field(default_factory=dict, repr=False)

    @classmethod
    def fit(cls, table: Table) -> LatencyModel:
        """The model of a table: a second's work, so that it is never stored.

        Raises:
            TableError: the table has no whole networks to calibrate on.
        """
        model = cls.of_kernels(table)
        if len(table.networks) < FEWEST:
            raise TableError(
                f"a table must hold {FEWEST} whole networks or more for an interval, but {table.path / 'networks.csv'} "
                f"has {len(table.networks)}; run `mvnas measure --table {table.path}` again, which continues it"
            )
        return model.calibrated({arch: timing.min_ms for arch, timing in table.networks.items()})

    @classmethod
    def of_kernels(cls, table: Table) -> LatencyModel:
        """The model without calibration: plain sums of kernels."""
        timed = {kernel: timing.min_ms for kernel, timing in table.ops.items()}
        groups: dict[str, list[Kernel]] = {}
        for kernel in timed:
            groups.setdefault(kind(kernel), []).append(kernel)
        rates = {name: _fit(rows, [timed[k] for k in rows]) for name, rows in groups.items() if len(rows) >= FEWEST}
        return cls(table.name, timed, rates)

    def calibrated(self, networks: Mapping[Arch, float]) -> LatencyModel:
        """This model with factor and spread fitted to measured networks, in ms.

        The spread is the split-conformal quantile of absolute log errors, each with the factor of the other networks.
        """
        errors = np.array([log(ms / self.sum_ms(arch)) for arch, ms in networks.items()])
        count = len(errors)
        left_out = (errors - errors.mean()) * count / max(count - 1, 1)
        rank = min(ceil((count + 1) * CONFIDENCE), count)
        return replace(self, factor=exp(errors.mean()), spread=float(np.sort(np.abs(left_out))[rank - 1]), _blocks={})

    def kernel_ms(self, kernel: Kernel) -> float:
        """Milliseconds of one kernel, timed or estimated.

        Raises:
            UnmeasuredError: the kernel was not timed and lies outside of what was.
        """
        return self._price(kernel)[0]

    def _price(self, kernel: Kernel) -> tuple[float, float]:
        """Milliseconds of a kernel, and how many of them were measured."""
        if kernel not in self._kernels:
            ms = self.timed.get(kernel)
            self._kernels[kernel] = (self.estimate_kernel(kernel), 0.0) if ms is None else (ms, ms)
        return self._kernels[kernel]

    def estimate_kernel(self, kernel: Kernel) -> float:
        """Milliseconds of a kernel by regression, whether it was timed or not.

        Raises:
            UnmeasuredError: the kernel lies outside of what was timed.
        """
        name = kind(kernel)
        rate = self.rates.get(name)
        if rate is None:
            raise UnmeasuredError(self._advice(kernel, f"{name} must have been timed {FEWEST} times or more"))
        for dimension, size in dimensions(kernel).items():
            low, high = rate.domain[dimension]
            if not low / DOMAIN_SLACK <= size <= high * DOMAIN_SLACK:
                raise UnmeasuredError(
                    self._advice(
                        kernel,
                        f"{dimension} of {name} must lie in {low}..{high}, which was measured, but is {size}",
                    )
                )
        return float(exp(rate.log_rates(np.array([features(kernel)]))[0]) * work(kernel))

    def _advice(self, kernel: Kernel, what: str) -> str:
        told = f"{write_op(kernel[0])} on {write_shapes(kernel[1])}"
        return f"no latency on {self.device} for {told}: {what}; time it with `mvnas measure --space ... --table ...`"

    def block_ms(self, block: Summary) -> tuple[float, float]:
        """Milliseconds of a block before calibration, and how many of them were measured; remembered."""
        known = self._blocks.get(id(block))
        if known is None:
            total = measured = 0.0
            for step in block.steps:
                if step.inner:
                    ms, timed = self.block_ms(step.inner)
                elif step.kernel:
                    ms, timed = self._price(step.kernel)
                else:
                    continue
                total += ms
                measured += timed
            known = self._blocks[id(block)] = (block, total, measured)
        return known[1], known[2]

    def sum_ms(self, arch: Arch) -> float:
        """Sum of the kernels of a network in ms, before calibration.

        Raises:
            UnmeasuredError: a kernel lies outside of what was timed.
        """
        return sum([self.block_ms(block)[0] for block in arch.summaries])

    def predict(self, arch: Arch) -> Estimate:
        """Latency of a network at its deployed resolution and batch 1.

        Raises:
            UnmeasuredError: a kernel lies outside of what was timed.
        """
        blocks = [self.block_ms(block) for block in arch.summaries]
        total = sum([ms for ms, _ in blocks])
        ms, margin = total * self.factor, exp(self.spread)
        return Estimate(ms, ms / margin, ms * margin, sum([ms for _, ms in blocks]) / total)

    def predict_blocks(self, arch: Arch) -> list[float]:
        """Milliseconds of each block of a network; they add up to the network's."""
        return [self.factor * self.block_ms(block)[0] for block in arch.summaries]


def _expand(rows: Array, squares: bool) -> Array:
    """Features with, if `squares`, all their products: (n, f) -> (n, f) or (n, f + f (f + 1) / 2)."""
    if not squares:
        return rows
    i, j = np.triu_indices(rows.shape[1])
    return np.hstack([rows, rows[:, i] * rows[:, j]])


def _fit(kernels: Sequence[Kernel], times: Sequence[float]) -> Rate:
    """Regression of one kind; whether it has squares, and its penalty, are chosen by leave-one-out error."""
    from sklearn.linear_model import RidgeCV

    rows = np.array([features(kernel) for kernel in kernels])
    rates = np.log(times) - np.log([work(kernel) for kernel in kernels])
    mean, deviation = rows.mean(0), rows.std(0)
    scale = np.where(deviation > 1e-9, deviation, 1.0)
    standard = (rows - mean) / scale
    forms = (False, True) if len(rows) >= FEWEST_SQUARES else (False,)
    fits = {form: RidgeCV(alphas=PENALTIES).fit(_expand(standard, form), rates) for form in forms}
    squares, best = max(fits.items(), key=lambda pair: pair[1].best_score_)
    spans = [dimensions(kernel) for kernel in kernels]
    domain = {name: (min(span[name] for span in spans), max(span[name] for span in spans)) for name in spans[0]}
    return Rate(mean, scale, squares, best.coef_, float(best.intercept_), rates.min(), rates.max(), domain, len(rows))
