"""Prices of kernels by the timings of one table: a kernel that was not timed is priced by the regression of its
kind.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import dataclass
from functools import cached_property
from typing import NamedTuple

import numpy as np

from mvnas.errors import UnmeasuredError, cut
from mvnas.graph import Kernel
from mvnas.latency.calibration import Calibration
from mvnas.latency.kinds import by_kind, dimensions, kind, workload
from mvnas.latency.prices import KernelPrices
from mvnas.latency.regression import Regression, fit
from mvnas.latency.table import Table, advice, write_op, write_shapes
from mvnas.spaces.arch import Arch

DOMAIN_SLACK = 1.001  # rounding only: outside of what was measured there is no estimate
FEWEST_TIMINGS = 8  # timings of a kind that a regression needs


class Rate(NamedTuple):
    """The regression of a kind, None if the runtime does it within other ops, and the range of each size that was
    timed.
    """

    regression: Regression | None
    domain: Mapping[str, tuple[int, int]]

    @classmethod
    def fit(cls, kernels: Sequence[Kernel], ms: Sequence[float]) -> Rate:
        """The regression of kernels of one kind that took so many milliseconds."""
        loads = [workload(kernel) for kernel in kernels]
        spans = zip(*[load.sizes for load in loads], strict=True)
        domain = {name: (min(span), max(span)) for name, span in zip(dimensions(kernels[0]), spans, strict=True)}
        taking = [(load, value) for load, value in zip(loads, ms, strict=True) if value]
        return cls(fit(*zip(*taking, strict=True)) if taking else None, domain)

    def predict(self, kernels: Sequence[Kernel]) -> list[float]:
        """Milliseconds of kernels of this kind."""
        if self.regression is None:
            return [0.0] * len(kernels)
        return self.regression.predict([workload(kernel) for kernel in kernels]).tolist()  # type: ignore[no-any-return]


@dataclass(frozen=True, eq=False)
class TablePrices(KernelPrices):
    """Prices by what was `timed` on a device; `of` and `table` are named where a kernel is refused."""

    timed: Mapping[Kernel, float]
    rates: Mapping[str, Rate]
    device: str = "the device"
    of: str = "latency"
    table: Table | None = None

    @classmethod
    def fit(
        cls, timed: Mapping[Kernel, float], device: str, of: str = "latency", table: Table | None = None
    ) -> TablePrices:
        """The prices that timings tell: a regression of each kind that has enough of them."""
        groups = by_kind(timed).items()
        rates = {name: Rate.fit(some, [timed[k] for k in some]) for name, some in groups if len(some) >= FEWEST_TIMINGS}
        return cls(timed, rates, device, of, table)

    @property
    def kinds(self) -> AbstractSet[str]:
        return self.rates.keys()

    def price(self, kernels: Sequence[Kernel]) -> list[float]:
        """Prices by regression, one call a kind."""
        groups = by_kind(kernels)
        names = {kernel: name for name, some in groups.items() for kernel in some}
        for kernel in kernels:
            if refusal := self._refusal(kernel, names[kernel]):
                what = cut(f"{write_op(kernel[0])} on {write_shapes(kernel[1])}", 60)
                raise UnmeasuredError(
                    f"no {self.of} on {self.device} for {what}: {refusal}; {advice(self.table)} times a space that"
                    " has it"
                )
        found: dict[Kernel, float] = {}
        for name, some in groups.items():
            found.update(zip(some, self.rates[name].predict(some), strict=True))
        return [found[kernel] for kernel in kernels]

    def refusal(self, kernel: Kernel) -> str:
        return self._refusal(kernel, kind(kernel))

    def _refusal(self, kernel: Kernel, name: str) -> str:
        """Why the regression of a kind does not price a kernel; nothing if it does."""
        rate = self.rates.get(name)
        if rate is None:
            return (
                f"{name} must have been timed at {FEWEST_TIMINGS} distinct sizes or more, but was at"
                f" {self._counts[name]}"
            )
        for dimension, size in dimensions(kernel).items():
            low, high = rate.domain[dimension]
            if not low / DOMAIN_SLACK <= size <= high * DOMAIN_SLACK:
                return f"{dimension} of {name} must lie in {low}..{high}, which was measured, but is {size}"
        return ""

    @cached_property
    def _counts(self) -> Counter[str]:
        """How many kernels of each kind were timed."""
        return Counter(map(kind, self.timed))

    def calibrated(self, networks: Mapping[Arch, float], sitting: Sequence[int]) -> tuple[TablePrices, Calibration]:
        sums, _, millions = self.networks(list(networks))
        return self, Calibration.fit(sums, millions, np.array(list(networks.values())), sitting)
