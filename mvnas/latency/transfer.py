"""A new device from a few timings: what another device's model says, corrected by what they show.

    log ms(new) = log ms(known) + shift + curve(log ms(known)) + shift of the kind + surface of the kind(log sizes)

All but the first shift are drawn from one Gaussian process: nothing unless the timings ask for it, smooth, and fading
where nothing was timed. So one timing already scales the whole device. A whole network that was timed is one more sum
of the same process: the mean of its kernels' corrections, each by its share of the network's time, and a factor that
all networks have in common. How strong the process is beside the noise of timings is not known: processes of several
strengths are averaged, each by the likelihood of its leave-one-out errors. The same process says which timings tell
most of what networks will take (integrated variance reduction: Seo et al., "Gaussian Process Regression: Active Data
Selection and Test Point Rejection", IJCNN 2000, after Cohn; here of sums, and of deviations instead of variances, which
absolute errors follow). Correction and choice know of rows only, not of kernels or devices.
"""

from __future__ import annotations

from collections.abc import Container, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import chain
from math import exp, log
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from mvnas.graph import Kernel
from mvnas.latency.calibration import CONFIDENCE, Calibration
from mvnas.latency.kinds import dimensions, kind
from mvnas.latency.prices import KernelPrices
from mvnas.spaces.arch import Arch

Array = NDArray[np.float64]

SHIFT = 100.0  # variances, in those of a kernel's noise at strength 1: of the shift of all, which is not shrunk,
CURVE = 3.0  # and of the curve; those of kinds and of surfaces are 1
FACTOR = 3.0  # of what whole networks have in common beside their kernels,
NETWORK = 0.3  # and of the noise of each
REACH = 3.0  # how far, in logarithms, curve and surface reach
STRENGTHS = (0.03, 0.1, 0.3, 1.0, 3.0, 10.0)
SUPPOSED = 0.3  # the strength before anything is timed
FOLDS = 5  # parts of networks, of which each is judged by a fit to the others
BLOCK = 500  # rows whose covariances with all others are held at once


class Row(NamedTuple):
    """What is known of a kernel: its kind, its milliseconds on the known device, and its sizes, as many as its kind
    has.
    """

    kind: str
    ms: float
    sizes: tuple[float, ...]


class Correction(NamedTuple):
    """From one device's milliseconds to another's."""

    rows: tuple[Row, ...]
    weights: Array
    shift: float
    errors: Array  # leave-one-out, of log ms of the rows that were timed

    @classmethod
    def fit(
        cls, rows: Sequence[Row], ms: Sequence[float], shares: Array | None = None, excess: Sequence[float] = ()
    ) -> Correction:
        """The correction that timings of the new device, in ms, of the first of the rows ask for; none if there are
        none.

        `shares` (networks, rows) says what part of its time each network that was timed spends in each row, and
        `excess` the log of its ms by what the known device's model says of it.
        """
        wanted = np.concatenate([np.log(ms) - np.log([row.ms for row in rows[: len(ms)]]), excess])
        if not len(wanted):
            return cls((), np.empty(0), 0.0, np.empty(0))
        sums = np.vstack([np.eye(len(ms), len(rows)), np.empty((0, len(rows))) if shares is None else shares])
        whole = np.arange(len(wanted)) >= len(ms)
        noise = np.diag(np.where(whole, NETWORK, 1.0)) + FACTOR * np.outer(whole, whole)
        mean, spread = wanted.mean(), sums @ _covariance(rows, rows) @ sums.T
        weights, errors = np.empty((2, len(STRENGTHS), len(wanted)))
        for i, strength in enumerate(STRENGTHS):
            inverse = np.linalg.inv(SHIFT + strength * spread + noise)
            weights[i] = inverse @ (wanted - mean)
            errors[i] = weights[i] / np.diag(inverse)
        likelihoods = -len(wanted) * np.log(np.abs(errors).mean(1) + 1e-12)  # of Laplace's distribution
        beliefs = np.exp(likelihoods - likelihoods.max())
        beliefs /= beliefs.sum()
        shift = float(mean + SHIFT * (beliefs @ weights).sum())
        return cls(tuple(rows), (beliefs * STRENGTHS) @ weights @ sums, shift, (beliefs @ errors)[: len(ms)])

    def predict(self, rows: Sequence[Row]) -> Array:
        """Milliseconds on the new device: (n,)."""
        ms = np.array([row.ms for row in rows])
        return ms * np.exp(_covariance(rows, self.rows) @ self.weights + self.shift) if self.rows else ms


def choose(
    rows: Sequence[Row],
    shares: Array,
    count: int,
    networks: Array | None = None,
    among: Sequence[int] | None = None,
) -> list[int]:
    """Places of the `count` rows to time on a new device, of all or `among` some, each the one that tells most beside
    those before it.

    `shares` (targets, rows) says what part of its time each target, such as a network, spends in each row: the doubt
    about targets, which is the sum of their deviations, is to be least. `networks` (n, rows) says the same of those
    that are timed anyway.
    """
    places = list(range(len(rows)) if among is None else among)
    pool = [rows[i] for i in places]
    count = min(count, len(pool))
    known = np.empty((0, len(rows))) if networks is None else networks

    def covariance(some: Sequence[Row], others: Sequence[Row]) -> Array:
        return SHIFT + SUPPOSED * _covariance(some, others)

    blocks = [rows[start : start + BLOCK] for start in range(0, len(rows), BLOCK)]
    wide, told = np.split(
        np.hstack([np.vstack([shares, known]) @ covariance(rows, block) for block in blocks]), [len(shares)]
    )
    root = np.linalg.cholesky(told @ known.T + NETWORK * np.eye(len(known)) + FACTOR)
    columns = np.empty((len(pool), len(known) + count))  # what each that is known tells of the pool
    columns[:, : len(known)] = np.linalg.solve(root, told[:, places]).T
    learnt = np.linalg.solve(root, told @ shares.T).T
    spread = wide[:, places] - learnt @ columns[:, : len(known)].T  # of targets and pool, given what is known
    doubt = (wide * shares).sum(1) - (learnt**2).sum(1)
    variances = SHIFT + SUPPOSED * (CURVE + 2) - (columns[:, : len(known)] ** 2).sum(1)
    chosen: list[int] = []
    for turn in range(len(known), len(known) + count):
        left = np.sqrt(np.maximum(doubt[:, None] - spread**2 / (1 + variances), 0)).sum(0)
        left[chosen] = np.inf
        best = int(left.argmin())
        deviation = (1 + variances[best]) ** 0.5
        column = (covariance(pool, [pool[best]])[:, 0] - columns[:, :turn] @ columns[best, :turn]) / deviation
        gain = spread[:, best] / deviation
        doubt -= gain**2
        spread -= np.outer(gain, column)
        variances -= column**2
        columns[:, turn] = column
        chosen.append(best)
    return [places[i] for i in chosen]


def _covariance(rows: Sequence[Row], others: Sequence[Row]) -> Array:
    """Of the corrections of rows (n) with those of others (m), but for the shift of all: (n, m)."""
    from scipy.spatial.distance import cdist

    steps = np.subtract.outer(*(np.log([row.ms for row in side]) for side in (rows, others)))
    found: Array = CURVE * np.exp(-((steps / REACH) ** 2) / 2)
    groups, columns = _by_kind(rows), _by_kind(others)
    for name in groups.keys() & columns.keys():
        sizes = (np.log([side[i].sizes for i in places[name]]) for side, places in ((rows, groups), (others, columns)))
        found[np.ix_(groups[name], columns[name])] += 1 + np.exp(-cdist(*sizes) / REACH)
    return found


def _by_kind(rows: Sequence[Row]) -> dict[str, list[int]]:
    """Places of the rows of each kind."""
    places: dict[str, list[int]] = {}
    for i, row in enumerate(rows):
        places.setdefault(row.kind, []).append(i)
    return places


@dataclass(frozen=True, eq=False)
class CorrectedPrices(KernelPrices):
    """Prices of a `known` device, with its calibration, corrected by the few kernels that were `timed` on a new one."""

    known: KernelPrices
    calibration: Calibration
    timed: Mapping[Kernel, float]
    correction: Correction

    @classmethod
    def fit(
        cls,
        known: KernelPrices,
        calibration: Calibration,
        timed: Mapping[Kernel, float],
        networks: Mapping[Arch, float] = {},
    ) -> CorrectedPrices:
        """The correction that `timed` asks for, kernels of the new device in ms, and so whole `networks`.

        Kernels that either device does within others say nothing.

        Raises:
            UnmeasuredError: the known device cannot price one of them.
        """
        taking = {kernel: ms for kernel, ms in timed.items() if ms and known.kernel(kernel)}
        rows, shares = _spent(known, list(networks), taking)
        excess = [log(ms / calibration.estimate(*known.network(arch))[0]) for arch, ms in networks.items()]
        correction = Correction.fit(list(rows.values()), list(taking.values()), shares, excess)
        return cls(known, calibration, timed, correction)

    @property
    def kinds(self) -> Container[str]:
        return self.known.kinds

    def price(self, kernels: Sequence[Kernel]) -> list[float]:
        """Prices by the known device's, timed or not, corrected."""
        self.known.look_at(kernels)
        rows = [_row(self.known, kernel) for kernel in kernels]
        found = iter(self.correction.predict([row for row in rows if row.ms]).tolist())
        return [next(found) if row.ms else 0.0 for row in rows]

    def refusal(self, kernel: Kernel) -> str:
        return self.known.refusal(kernel)

    def calibrated(self, networks: Mapping[Arch, float], sitting: Sequence[int]) -> tuple[CorrectedPrices, Calibration]:
        """Prices corrected by few networks too; the spread is of what the others say of each, or the known one's."""
        from scipy.stats import t

        errors = np.log(list(networks.values())) - np.log(self.left_out(networks))
        reach = t.ppf((1 + CONFIDENCE) / 2, len(errors) - 1) * float((errors**2).mean()) ** 0.5
        prices, calibration = self._scaled(networks)
        return prices, replace(calibration, spread=max(self.calibration.spread, reach))

    def left_out(self, networks: Mapping[Arch, float]) -> Array:
        """Milliseconds of each network, two or more, by a correction of the others alone: (n,)."""
        archs, found = list(networks), np.empty(len(networks))
        for fold in range(min(len(archs), FOLDS)):
            judged = archs[fold::FOLDS]
            prices, calibration = self._scaled({arch: ms for arch, ms in networks.items() if arch not in judged})
            found[fold::FOLDS] = calibration.estimate(*prices.networks(judged))[0]
        return found

    def _scaled(self, networks: Mapping[Arch, float]) -> tuple[CorrectedPrices, Calibration]:
        """Prices and calibration by networks too, without a spread; their factor is the median's, since one may be
        odd.
        """
        made = CorrectedPrices.fit(self.known, self.calibration, self.timed, networks)
        known, slower = self.calibration, exp(made.correction.shift)
        plain = Calibration(
            power=known.power, reading=known.reading * slower, kept=known.kept, unsteady=known.unsteady * slower
        )
        excess = np.log(list(networks.values())) - np.log(plain.estimate(*made.networks(list(networks)))[0])
        return made, replace(plain, factor=exp(np.median(excess)))


def informative(
    known: KernelPrices,
    networks: Sequence[Arch],
    count: int,
    timed: Sequence[Arch] = (),
    among: Sequence[Kernel] | None = None,
) -> list[Kernel]:
    """The `count` kernels to time on a new device, of all that `networks` run or `among` some of them.

    Most telling first: those that take most doubt away from what `networks` take, beside a few networks that are
    `timed` as a whole. Kernels of kinds that the known device has no regression of, or does within others, are left
    out.

    Raises:
        UnmeasuredError: a kernel lies outside of what was timed of its kind on the known device.
    """
    rows, shares = _spent(known, [*networks, *timed], among or ())
    kernels, place = list(rows), {kernel: i for i, kernel in enumerate(rows)}
    pool = None if among is None else [place[kernel] for kernel in among if kernel in place]
    targets, whole = np.split(shares, [len(networks)])
    return [kernels[i] for i in choose(list(rows.values()), targets, count, whole, pool)]


def _spent(known: KernelPrices, networks: Sequence[Arch], kernels: Iterable[Kernel]) -> tuple[dict[Kernel, Row], Array]:
    """Rows of `kernels` and then of all others that networks run, and the share of its time that each spends in each:
    (n, rows).

    Those that the known device does within others, or has no regression of, are left out.
    """
    runs = [[pair for block in arch.summaries for pair in block.kernels] for arch in networks]
    found = dict.fromkeys(chain(kernels, (kernel for pairs in runs for kernel, _ in pairs)))
    priced = [kernel for kernel in found if kernel in known.timed or kind(kernel) in known.kinds]
    rows = {kernel: _row(known, kernel) for kernel in priced if known.kernel(kernel)}
    place = {kernel: i for i, kernel in enumerate(rows)}
    shares = np.zeros((len(networks), len(rows)))
    for share, pairs in zip(shares, runs, strict=True):
        for kernel, times in pairs:
            if kernel in place:
                share[place[kernel]] += times * rows[kernel].ms
    return rows, shares / shares.sum(1, keepdims=True)


def _row(known: KernelPrices, kernel: Kernel) -> Row:
    return Row(kind(kernel), known.kernel(kernel), tuple(dimensions(kernel).values()))
