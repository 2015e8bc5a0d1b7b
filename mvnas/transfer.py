"""A new device from a few timings: what another device's table says, scaled and corrected.

    log ms(new) = log ms(known) + shift + shift of the kind + slope * log ms(known)

The shifts of kinds and the slope are shrunk to nothing unless the timings ask for them (ridge regression, the penalty by
leave-one-out error), so that one timing already scales the whole device.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from math import exp, log
from typing import NamedTuple

import numpy as np

from mvnas.graph import Kernel
from mvnas.latency import LatencyModel, by_kind, kind

PENALTIES = (0.1, 0.3, 1.0, 3.0, 10.0, 30.0, 100.0)
SLOPE = 0.3  # how strongly the slope is believed beside the shifts: it stands for a difference of caches


class Transfer(NamedTuple):
    """The correction of one device's kernels to another's."""

    known: LatencyModel
    centre: float
    shift: float
    kinds: Mapping[str, float]
    slope: float
    error: float  # leave-one-out, mean absolute, of log ms
    errors: tuple[float, ...]

    @classmethod
    def fit(cls, known: LatencyModel, timed: Mapping[Kernel, float]) -> Transfer:
        """The correction that `timed`, kernels of the new device in ms, asks for.

        Raises:
            UnmeasuredError: the known device cannot price one of them.
        """
        names = sorted({kind(kernel) for kernel in timed})
        before = np.array([log(known.kernel_ms(kernel)) for kernel in timed])
        wanted = np.log(list(timed.values())) - before
        centre = float(before.mean())
        rows = np.array([[kind(kernel) == name for name in names] for kernel in timed], float)
        rows = np.column_stack([np.ones(len(before)), rows, SLOPE * (before - centre)])
        best: tuple[float, np.ndarray, np.ndarray] | None = None
        for penalty in PENALTIES:
            shrink = np.diag([1e-9, *[penalty] * (rows.shape[1] - 1)])
            solve = np.linalg.solve(rows.T @ rows + shrink, rows.T)
            weights, hat = solve @ wanted, np.diag(rows @ solve)
            left_out = (wanted - rows @ weights) / np.maximum(1 - hat, 1e-9)
            if best is None or np.abs(left_out).mean() < best[0]:
                best = float(np.abs(left_out).mean()), weights, left_out
        assert best is not None
        error, weights, left_out = best
        return cls(
            known,
            centre,
            float(weights[0]),
            dict(zip(names, map(float, weights[1:-1]), strict=True)),
            float(weights[-1] * SLOPE),
            error,
            tuple(map(float, left_out)),
        )

    def kernel_ms(self, kernel: Kernel) -> float:
        """Milliseconds of a kernel on the new device.

        Raises:
            UnmeasuredError: the known device cannot price it.
        """
        ms = self.known.kernel_ms(kernel)
        change = self.shift + self.kinds.get(kind(kernel), 0.0) + self.slope * (log(ms) - self.centre)
        return ms * exp(change)


def informative(known: LatencyModel, runs: Mapping[Kernel, int], count: int) -> list[Kernel]:
    """The `count` kernels to time on a new device, most telling first; `runs` says how often networks run each.

    Kinds get turns by the square root of the time that networks spend in them (as seats are given by Sainte-Lague's method).
    Within a kind the kernels halve its time, then quarter it, and so on, from small ones to large ones.
    """
    groups = {
        name: [(kernel, runs[kernel] * known.kernel_ms(kernel)) for kernel in kernels]
        for name, kernels in by_kind(runs).items()
    }
    claims = {name: sum(ms for _, ms in rows) ** 0.5 for name, rows in groups.items()}
    kernels = {name: _halving(known, rows) for name, rows in groups.items()}
    turns = dict.fromkeys(groups, 0)
    chosen: list[Kernel] = []
    while len(chosen) < min(count, len(runs)):
        name = max(
            (name for name in groups if turns[name] < len(groups[name])),
            key=lambda name: claims[name] / (2 * turns[name] + 1),
        )
        turns[name] += 1
        chosen.append(next(kernels[name]))
    return chosen


def _halving(known: LatencyModel, rows: Sequence[tuple[Kernel, float]]) -> Iterator[Kernel]:
    """All kernels of a kind: the one in the middle of its time, then those at the quarters, the eighths, ..."""
    left = sorted(rows, key=lambda row: known.kernel_ms(row[0]))
    reach = np.cumsum([ms for _, ms in left]) / sum(ms for _, ms in left)
    free = list(range(len(left)))
    for turn in range(1, len(left) + 1):
        share = sum((turn >> bit & 1) / 2 ** (bit + 1) for bit in range(turn.bit_length()))  # van der Corput's sequence
        place = min(free, key=lambda place: abs(reach[place] - share))
        free.remove(place)
        yield left[place][0]
