"""What kernels take on a device, and the sums of whole networks, before these are calibrated."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Container, Iterable, Iterator, Mapping, Sequence
from functools import cached_property
from itertools import accumulate, chain
from typing import cast

import numpy as np
from numpy.typing import NDArray

from mvnas.graph import Kernel, Summary
from mvnas.latency.calibration import Calibration
from mvnas.spaces.arch import Arch

Array = NDArray[np.float64]


class KernelPrices(ABC):
    """Milliseconds of kernels on one device, or millijoules: those that were `timed`, and by these of others.

    Subclasses say how the others are priced. Whatever was priced, kernels and blocks, is remembered.
    """

    timed: Mapping[Kernel, float]

    @property
    @abstractmethod
    def kinds(self) -> Container[str]:
        """Kinds of kernels that are priced beside those that were timed."""

    @abstractmethod
    def price(self, kernels: Sequence[Kernel]) -> list[float]:
        """Prices of kernels by what was timed of others, whether they were timed themselves or not.

        Raises:
            UnmeasuredError: a kernel lies outside of what was timed; the message names the first.
        """

    @abstractmethod
    def refusal(self, kernel: Kernel) -> str:
        """Why `price` refuses a kernel; nothing if it does not."""

    @abstractmethod
    def calibrated(self, networks: Mapping[Arch, float], sitting: Sequence[int]) -> tuple[KernelPrices, Calibration]:
        """What whole networks, in ms, say of sums of these prices; corrected prices too, if they say so of these."""

    @cached_property
    def _kernels(self) -> dict[Kernel, tuple[float, float]]:
        """Price of each kernel so far, and how much of it was timed: all or nothing."""
        return {}

    @cached_property
    def _blocks(self) -> dict[Summary, tuple[float, float, float]]:
        """The same of each block so far, with its millions of parameters."""
        return {}

    def kernel(self, kernel: Kernel) -> float:
        """What a kernel takes, timed or priced.

        Raises:
            UnmeasuredError: the kernel was not timed and lies outside of what was.
        """
        if kernel not in self._kernels:
            self.look_at([kernel])
        return self._kernels[kernel][0]

    def look_at(self, kernels: Iterable[Kernel]) -> None:
        """Price the kernels that are new, all at once, and remember them."""
        found = {kernel: self.timed.get(kernel) for kernel in kernels if kernel not in self._kernels}
        rest = [kernel for kernel, ms in found.items() if ms is None]
        estimates = self.price(rest) if rest else []
        self._kernels.update({kernel: (ms, ms) for kernel, ms in found.items() if ms is not None})
        self._kernels.update({kernel: (ms, 0.0) for kernel, ms in zip(rest, estimates, strict=True)})

    def blocks(self, blocks: Sequence[Summary]) -> Iterator[tuple[float, float, float]]:
        """What each block takes, how much of it was timed, and its millions of parameters."""
        new = [block for block in blocks if block not in self._blocks]
        if new:
            self._price_blocks(new)
        return map(self._blocks.__getitem__, blocks)

    def network(self, arch: Arch) -> tuple[float, float, float]:
        """The sum of a network's kernels, how much of it was timed, and its millions of parameters.

        Raises:
            UnmeasuredError: a kernel lies outside of what was timed.
        """
        total, measured, millions = map(sum, zip(*self.blocks(arch.summaries), strict=True))
        return total, measured, millions

    def networks(self, archs: Sequence[Arch]) -> tuple[Array, Array, Array]:
        """The same of one network or more: (n,) each; many at once are priced fastest.

        Raises:
            UnmeasuredError: a kernel lies outside of what was timed; the message names the first.
        """
        rows = [arch.summaries for arch in archs]
        blocks = list(chain.from_iterable(rows))
        costs = np.fromiter(self.blocks(blocks), np.dtype((float, 3)), len(blocks))
        starts = list(accumulate(map(len, rows[:-1]), initial=0))
        sums, measured, millions = np.add.reduceat(costs, starts).T
        return sums, measured, millions

    def _price_blocks(self, blocks: Iterable[Summary]) -> None:
        """Remember what blocks take, their new kernels priced in one go."""
        new: dict[Summary, None] = {}
        kernels: dict[Kernel, None] = {}
        for block in blocks:
            self._visit(block, new, kernels)
        self.look_at(kernels)
        for block in new:
            total = measured = 0.0
            for step in block.steps:
                if step.inner or step.kernel:
                    cost = self._blocks[step.inner] if step.inner else self._kernels[cast(Kernel, step.kernel)]
                    total += cost[0]
                    measured += cost[1]
            self._blocks[block] = total, measured, block.params / 1e6

    def _visit(self, block: Summary, new: dict[Summary, None], kernels: dict[Kernel, None]) -> None:
        """Collect new blocks, inner ones first, and their kernels in execution order."""
        if block in self._blocks or block in new:
            return
        for step in block.steps:
            if step.inner:
                self._visit(step.inner, new, kernels)
            elif step.kernel:
                kernels[step.kernel] = None
        new[block] = None
