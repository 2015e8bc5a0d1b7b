"""A new device from a few timings: what another device's model says, corrected by what they show.

    log ms(new) = log ms(known) + shift + curve(log ms(known)) + shift of the kind + surface of the kind(log sizes)

All but the first shift are drawn from one Gaussian process: nothing unless the timings ask for it, smooth, and fading where
nothing was timed. So one timing already scales the whole device. How strong the process is beside the noise of timings is
not known: processes of several strengths are averaged, each by the likelihood of its leave-one-out errors. The same process
says which timings tell most of what networks will take (integrated variance reduction: Seo et al., "Gaussian Process
Regression: Active Data Selection and Test Point Rejection", IJCNN 2000, after Cohn; here of sums). Correction and choice
know of rows only, not of kernels or devices.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import chain
from math import exp
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from mvnas.arch import Arch
from mvnas.graph import Kernel
from mvnas.latency import LatencyModel, dimensions, kind

Array = NDArray[np.float64]

SHIFT = 100.0  # variances, in those of the noise at strength 1: of the shift of all, which is not shrunk,
CURVE = 3.0  # and of the curve; those of kinds and of surfaces are 1
REACH = 3.0  # how far, in logarithms, curve and surface reach
STRENGTHS = (0.03, 0.1, 0.3, 1.0, 3.0, 10.0)
SUPPOSED = 0.3  # the strength before anything is timed
BLOCK = 500  # rows whose covariances with all others are held at once


class Row(NamedTuple):
    """What is known of a kernel: its kind, its milliseconds on the known device, and its sizes, as many as its kind has."""

    kind: str
    ms: float
    sizes: tuple[float, ...]


class Correction(NamedTuple):
    """From one device's milliseconds to another's."""

    rows: tuple[Row, ...]
    weights: Array
    shift: float
    errors: Array  # leave-one-out, of log ms

    @classmethod
    def fit(cls, rows: Sequence[Row], ms: Sequence[float]) -> Correction:
        """The correction that timings of the new device, in ms, ask for; none if there are none."""
        if not rows:
            return cls((), np.empty(0), 0.0, np.empty(0))
        wanted = np.log(ms) - np.log([row.ms for row in rows])
        mean, spread, noise = wanted.mean(), _covariance(rows, rows), np.eye(len(rows))
        weights, errors = np.empty((2, len(STRENGTHS), len(rows)))
        for i, strength in enumerate(STRENGTHS):
            inverse = np.linalg.inv(SHIFT + strength * spread + noise)
            weights[i] = inverse @ (wanted - mean)
            errors[i] = weights[i] / np.diag(inverse)
        likelihoods = -len(rows) * np.log(np.abs(errors).mean(1) + 1e-12)  # of Laplace's distribution
        beliefs = np.exp(likelihoods - likelihoods.max())
        beliefs /= beliefs.sum()
        shift = float(mean + SHIFT * (beliefs @ weights).sum())
        return cls(tuple(rows), (beliefs * STRENGTHS) @ weights, shift, beliefs @ errors)

    def predict(self, rows: Sequence[Row]) -> Array:
        """Milliseconds on the new device: (n,)."""
        ms = np.array([row.ms for row in rows])
        return ms * np.exp(_covariance(rows, self.rows) @ self.weights + self.shift) if self.rows else ms


def choose(
    rows: Sequence[Row], shares: Array, count: int, *, calibrated: bool, among: Sequence[int] | None = None
) -> list[int]:
    """Places of the `count` rows to time on a new device, of all or `among` some, each the one that tells most beside those before it.

    `shares` (targets, rows) says what part of its time each target, such as a network, spends in each row. Where whole
    networks calibrate, as `calibrated` says, what targets have in common is found by these: only how they differ is left.
    """
    places = range(len(rows)) if among is None else among
    pool = [rows[i] for i in places]
    count = min(count, len(pool))
    matter = shares / shares.sum(1, keepdims=True)
    if calibrated:
        matter = matter - matter.mean(0)

    def covariance(some: Sequence[Row], others: Sequence[Row]) -> Array:
        return SHIFT + SUPPOSED * _covariance(some, others)

    blocks = [pool[start : start + BLOCK] for start in range(0, len(pool), BLOCK)]
    spread = np.hstack([matter @ covariance(rows, block) for block in blocks])  # of targets and pool, given the chosen
    variances = np.full(len(pool), SHIFT + SUPPOSED * (CURVE + 2))
    columns = np.empty((len(pool), count))
    chosen: list[int] = []
    for turn in range(count):
        gains = (spread**2).sum(0) / (1 + variances)
        gains[chosen] = -1
        best = int(gains.argmax())
        deviation = (1 + variances[best]) ** 0.5
        column = (covariance(pool, [pool[best]])[:, 0] - columns[:, :turn] @ columns[best, :turn]) / deviation
        spread -= np.outer(spread[:, best] / deviation, column)
        variances -= column**2
        columns[:, turn] = column
        chosen.append(best)
    return [places[i] for i in chosen]


def _covariance(rows: Sequence[Row], others: Sequence[Row]) -> Array:
    """Of the corrections of rows (n) with those of others (m), but for the shift of all: (n, m)."""
    from scipy.spatial.distance import cdist

    width = max(len(row.sizes) for row in (*rows, *others))
    kinds, logs, sizes = zip(*(_columns(side, width) for side in (rows, others)), strict=True)
    curve = CURVE * np.exp(-(((logs[0][:, None] - logs[1]) / REACH) ** 2) / 2)
    return curve + (kinds[0][:, None] == kinds[1]) * (1 + np.exp(-cdist(*sizes) / REACH))  # type: ignore[no-any-return]


def _columns(rows: Sequence[Row], width: int) -> tuple[NDArray[np.str_], Array, Array]:
    """Kinds, log ms and log sizes, these filled up to `width`."""
    sizes = [(*row.sizes, *[1.0] * (width - len(row.sizes))) for row in rows]
    return np.array([row.kind for row in rows]), np.log([row.ms for row in rows]), np.log(sizes)


class Transfer(NamedTuple):
    """A known device's model and the correction to a new one."""

    known: LatencyModel
    correction: Correction

    @classmethod
    def fit(cls, known: LatencyModel, timed: Mapping[Kernel, float]) -> Transfer:
        """The correction that `timed`, kernels of the new device in ms, asks for; those that either device does within others say nothing.

        Raises:
            UnmeasuredError: the known device cannot price one of them.
        """
        rows = {kernel: _row(known, kernel) for kernel, ms in timed.items() if ms and known.kernel_ms(kernel)}
        return cls(known, Correction.fit(list(rows.values()), [timed[kernel] for kernel in rows]))

    @property
    def errors(self) -> Array:
        """Leave-one-out errors of log ms of what was timed."""
        return self.correction.errors

    @property
    def reading(self) -> float:
        """The known device's for a million parameters, by as much slower or faster as the new one is."""
        return self.known.reading * exp(self.correction.shift)

    def kernel_ms(self, kernel: Kernel) -> float:
        """Milliseconds of a kernel on the new device.

        Raises:
            UnmeasuredError: the known device cannot price it.
        """
        row = _row(self.known, kernel)
        return float(self.correction.predict([row])[0]) if row.ms else 0.0


def informative(
    known: LatencyModel, networks: Sequence[Arch], count: int, among: Sequence[Kernel] | None = None
) -> list[Kernel]:
    """The `count` kernels to time on a new device beside a few networks, of all that `networks` run or `among` some of them.

    Most telling first: those that take most doubt away from how `networks` compare. Kernels of kinds that the known device
    has no regression of, or does within others, are left out.

    Raises:
        UnmeasuredError: a kernel lies outside of what was timed of its kind on the known device.
    """
    run = [[pair for block in arch.summaries for pair in block.kernels] for arch in networks]
    found = dict.fromkeys(chain((k for counts in run for k, _ in counts), among or ()))
    priced = (k for k in found if k in known.timed or kind(k) in known.rates)
    rows = {k: _row(known, k) for k in priced if known.kernel_ms(k)}
    kernels, place = list(rows), {kernel: i for i, kernel in enumerate(rows)}
    shares = np.zeros((len(networks), len(kernels)))
    for share, counts in zip(shares, run, strict=True):
        for kernel, times in counts:
            if kernel in place:
                share[place[kernel]] += times * rows[kernel].ms
    pool = None if among is None else [place[kernel] for kernel in among if kernel in place]
    return [kernels[i] for i in choose(list(rows.values()), shares, count, calibrated=True, among=pool)]


def _row(known: LatencyModel, kernel: Kernel) -> Row:
    return Row(kind(kernel), known.kernel_ms(kernel), tuple(dimensions(kernel).values()))
