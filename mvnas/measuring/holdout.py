"""Errors of a latency model on networks that it was not fitted to, beside simpler models."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from statistics import fmean
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from mvnas.errors import TableError
from mvnas.graph import Kernel
from mvnas.latency.calibration import FEWEST_NETWORKS, sittings
from mvnas.latency.kinds import by_kind, dimensions, kind, spanning
from mvnas.latency.model import FEWEST_LIKE, LatencyModel, column
from mvnas.latency.table import Table, Timing
from mvnas.latency.table_prices import FEWEST_TIMINGS
from mvnas.latency.transfer import FOLDS, CorrectedPrices
from mvnas.measuring.order import tau
from mvnas.spaces.arch import Arch
from mvnas.spaces.zoo import systems

OURS = "sum of ops, calibrated (mvnas)"

Array = NDArray[np.float64]
Passes = Mapping[Arch, tuple[Timing, ...]]


@dataclass(frozen=True)
class Errors:
    """Errors of one predictor over networks: mean absolute percentage error (`mape`), shares within 5 and 10 %, the
    worst.

    `tau` is Kendall's (None for one network); `covered` is the share of networks inside their 90 % interval and `width`
    the mean half width of the intervals, if the predictor has any.
    """

    name: str
    mape: float
    within_5: float
    within_10: float
    worst: float
    tau: float | None
    covered: float | None = None
    width: float | None = None

    @classmethod
    def of(cls, name: str, truth: Array, predicted: Array, bounds: tuple[Array, Array] | None = None) -> Errors:
        error = np.abs(predicted / truth - 1)
        inside = width = None
        if bounds is not None:
            inside = float(((bounds[0] <= truth) & (truth <= bounds[1])).mean())
            width = float(((bounds[1] - bounds[0]) / 2 / predicted).mean())
        return cls(
            name,
            float(error.mean()),
            float((error <= 0.05).mean()),
            float((error <= 0.10).mean()),
            float(error.max()),
            float(tau(truth, predicted)) if len(truth) > 1 else None,
            inside,
            width,
        )


def held_out(table: Table, of: str = "latency") -> list[Errors]:
    """Cross-validated errors of the calibrated model of `latency` or `energy`, of plain sums, of MACs, and of measuring
    again.

    Truth is the fastest pass, and its energy. What is fitted to networks is judged on folds that it has not seen;
    kernels of a network may be in the table.

    Raises:
        TableError: the table has too few networks.
    """
    networks = column(table.networks, of)
    if len(networks) < max(FEWEST_NETWORKS, FOLDS):
        raise TableError(
            f"a held-out error needs {FEWEST_NETWORKS} whole networks or more, but {table.path} has {len(networks)}"
        )
    seen = unseen(table, of)
    sums = LatencyModel.of_kernels(table, of).prices.networks(seen.archs)[0]
    return [
        Errors.of(OURS, seen.truth, seen.ms, (seen.low, seen.high)),
        Errors.of("plain sum of ops", seen.truth, sums),
        Errors.of("MACs only", seen.truth, seen.by_macs),
        *_repeats(table.passes, of),
    ]


class Unseen(NamedTuple):
    """Networks, their fastest pass, and predictions by fits without them; in ms or mJ, of shape (n,)."""

    archs: list[Arch]
    truth: Array
    ms: Array
    low: Array
    high: Array
    by_macs: Array

    @property
    def systems(self) -> dict[str, list[int]]:
        """Indices of the networks of each system, by its name and their number, most networks first."""
        indices: dict[str, list[int]] = {}
        for index, name in enumerate(systems(self.archs).values()):
            indices.setdefault(name, []).append(index)
        most = sorted(indices, key=lambda name: -len(indices[name]))
        return {f"{name} ({len(indices[name])})": indices[name] for name in most}


def unseen(table: Table, of: str = "latency") -> Unseen:
    """Predict each network of a table by a calibration on the folds without it."""
    networks = column(table.networks, of)
    archs, truth = list(networks), np.array(list(networks.values()))
    model = LatencyModel.of_kernels(table, of)
    sitting = np.array(sittings(table, archs))
    folds = np.random.default_rng(0).permutation(len(archs)) % FOLDS
    ms, low, high, macs = (np.empty(len(archs)) for _ in range(4))
    for fold in range(FOLDS):
        test = folds == fold
        train = {archs[i]: truth[i] for i in np.flatnonzero(~test)}
        rest = [archs[i] for i in np.flatnonzero(test)]
        ms[test], low[test], high[test] = model.calibrated(train, sitting[~test].tolist()).predict_each(rest)[:3]
        macs[test] = by_macs(train, rest)
    return Unseen(archs, truth, ms, low, high, macs)


def by_system(table: Table) -> list[Errors]:
    """Errors of the calibrated model by system, that with most networks first; empty if there is only one."""
    row = unseen(table)
    parts = row.systems.items()
    rows = [Errors.of(name, row.truth[of], row.ms[of], (row.low[of], row.high[of])) for name, of in parts]
    return rows if len(rows) > 1 else []


def shares(table: Table) -> dict[str, float]:
    """Share of the networks' time that each kind of op takes, largest first."""
    model = LatencyModel.of_kernels(table)
    spent: dict[str, float] = {}
    for arch in table.passes:
        for block in arch.summaries:
            for kernel, count in block.kernels:
                spent[kind(kernel)] = spent.get(kind(kernel), 0.0) + count * model.prices.kernel(kernel)
    total = sum(spent.values())
    return {name: spent[name] / total for name in sorted(spent, key=spent.__getitem__, reverse=True)}


def left_out(table: Table) -> list[Errors]:
    """Leave-one-out errors of a table that corrects another, on its own ops and networks."""
    prices = LatencyModel.of_kernels(table).prices
    assert isinstance(prices, CorrectedPrices)
    ms = np.array([ms for kernel, ms in prices.timed.items() if ms and prices.known.kernel(kernel)])
    rows = [Errors.of("op, left out", ms, ms * np.exp(-np.array(prices.correction.errors)))] if len(ms) else []
    networks = {arch: timing.min_ms for arch, timing in table.networks.items()}
    if len(networks) > FEWEST_LIKE:
        truth = np.array(list(networks.values()))
        rows.append(Errors.of("network, left out", truth, prices.left_out(networks)))
    return rows


def judge(table: Table, passes: Passes) -> list[Errors]:
    """Errors of the table's model on other networks, beside those of other methods on the same timings.

    `lookup` takes the timing of the nearest kernel of the kind, on logarithmic scales; `random forest` regresses the
    time on sizes, MACs and parameters of a kernel, as nn-Meter does (MobiSys 2021, section 4.3). Both add up kernels.
    """
    archs, truth = list(passes), fastest(passes)
    calibration = {arch: timing.min_ms for arch, timing in table.networks.items()}
    model = LatencyModel.fit(table)
    ours, low, high = model.predict_each(archs)[:3]
    rows = [
        Errors.of(OURS, truth, ours, (low, high)),
        Errors.of("plain sum of ops", truth, model.prices.networks(archs)[0]),
    ]
    for part in (2, 4, 8):
        fewer = thinned(table, part)
        ours, low, high = LatencyModel.fit(fewer).predict_each(archs)[:3]
        rows.append(Errors.of(f"mvnas, {len(fewer.ops)} op timings", truth, ours, (low, high)))
    for name, price in (("random forest on raw time", _forest(table)), ("lookup, nearest kernel", _nearest(table))):
        rows.append(Errors.of(name, truth, _sums(archs, price)))
    rows.append(Errors.of("MACs only", truth, by_macs(calibration, archs)))
    return rows + _repeats(passes)


def thinned(table: Table, part: int) -> Table:
    """A table with one in `part` of its op timings, at least FEWEST_TIMINGS of a kind, chosen as a plan chooses
    them.
    """
    kept = [k for rows in by_kind(table.ops).values() for k in spanning(rows, max(FEWEST_TIMINGS, len(rows) // part))]
    return replace(table, ops={kernel: table.ops[kernel] for kernel in kept})


def fastest(passes: Passes) -> Array:
    """Milliseconds of the fastest pass of each network, of shape (n,): the truth for predictors."""
    return np.array([min(timing.min_ms for timing in timings) for timings in passes.values()])


def by_macs(train: Mapping[Arch, float], unseen: Sequence[Arch]) -> Array:
    """Predict milliseconds by a line through MACs, fitted to relative errors."""
    macs, ms = np.array([float(arch.macs) for arch in train]), np.array(list(train.values()))
    slope, offset = np.polyfit(macs, ms, 1, w=1 / ms)
    return slope * np.array([arch.macs for arch in unseen]) + offset  # type: ignore[no-any-return]


def _sums(archs: Sequence[Arch], price: Callable[[str, list[Kernel]], Array]) -> Array:
    """Sums over the kernels of networks, each kind priced in one go."""
    kernels = dict.fromkeys(kernel for arch in archs for block in arch.summaries for kernel, _ in block.kernels)
    ms: dict[Kernel, float] = {}
    for name, rows in by_kind(kernels).items():
        ms |= dict(zip(rows, price(name, rows), strict=True))
    return np.array([sum(ms[k] * count for block in arch.summaries for k, count in block.kernels) for arch in archs])


def _nearest(table: Table) -> Callable[[str, list[Kernel]], Array]:
    def price(name: str, kernels: list[Kernel]) -> Array:
        known = by_kind(table.ops)[name]
        have, want = (np.log([list(dimensions(k).values()) for k in rows]) for rows in (known, kernels))
        nearest = np.abs(want[:, None] - have[None]).sum(-1).argmin(1)
        return np.array([table.ops[known[i]].min_ms for i in nearest])

    return price


def _forest(table: Table) -> Callable[[str, list[Kernel]], Array]:
    def describe(kernel: Kernel) -> list[float]:
        op, shapes = kernel
        return [*dimensions(kernel).values(), op.macs(*shapes), op.params(*shapes)]

    def price(name: str, kernels: list[Kernel]) -> Array:
        from sklearn.ensemble import RandomForestRegressor

        known = by_kind(table.ops)[name]
        forest = RandomForestRegressor(100, random_state=0)
        forest.fit([describe(k) for k in known], [table.ops[k].min_ms for k in known])
        return forest.predict([describe(k) for k in kernels])  # type: ignore[no-any-return]

    return price


def _repeats(passes: Passes, of: str = "latency") -> list[Errors]:
    """How well one pass of timing predicts the next: no predictor can be judged more finely."""
    passed = [list(column(dict(enumerate(timings)), of).values()) for timings in passes.values()]
    times = [values for values in passed if len(values) > 1]  # what was imported has one pass
    pairs = [(i, i + 1) for i in range(min(map(len, times), default=1) - 1)]
    if not pairs:
        return []
    found = [Errors.of("", np.array([t[j] for t in times]), np.array([t[i] for t in times])) for i, j in pairs]
    numbers = {
        key: fmean(getattr(row, key) for row in found) for key in ("mape", "within_5", "within_10", "worst", "tau")
    }
    return [Errors("measuring again (noise floor)", **numbers)]
