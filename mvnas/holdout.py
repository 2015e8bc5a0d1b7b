"""How good a latency model is on networks it has not seen, beside simpler models."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean

import numpy as np
from numpy.typing import NDArray

from mvnas.arch import Arch
from mvnas.errors import TableError
from mvnas.latency import FEWEST, LatencyModel
from mvnas.table import Table

FOLDS = 5

Array = NDArray[np.float64]


@dataclass(frozen=True)
class Quality:
    """Errors of one predictor: mean absolute percentage error, shares within 5 and 10 %, worst, Kendall's tau.

    `covered` is the share of networks inside their 90 % interval and `width` the mean half width, where there are any.
    """

    name: str
    mape: float
    within_5: float
    within_10: float
    worst: float
    tau: float
    covered: float | None = None
    width: float | None = None

    @classmethod
    def of(cls, name: str, truth: Array, predicted: Array, bounds: tuple[Array, Array] | None = None) -> Quality:
        from scipy.stats import kendalltau

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
            float(kendalltau(truth, predicted).statistic),
            inside,
            width,
        )


def held_out(table: Table) -> list[Quality]:
    """Quality of the calibrated model, of the plain sum of ops, of MACs alone, and of measuring the network again.

    Truth is the fastest of all passes. Whatever is fitted to networks is fitted without the fold it is judged on; the
    network's own kernels count as unseen unless the table happens to hold them.

    Raises:
        TableError: the table has too few networks.
    """
    networks = {arch: timing.min_ms for arch, timing in table.networks.items()}
    if len(networks) < max(FEWEST, FOLDS):
        raise TableError(
            f"a held-out error needs {FEWEST} whole networks or more, but {table.path} has {len(networks)}"
        )
    model = LatencyModel.of_kernels(table)
    archs = list(networks)
    truth = np.array([networks[arch] for arch in archs])
    sums = np.array([model.sum_ms(arch) for arch in archs])
    macs = np.array([float(arch.macs) for arch in archs])
    folds = np.random.default_rng(0).permutation(len(archs)) % FOLDS
    ours, low, high, by_macs = (np.empty(len(archs)) for _ in range(4))
    for fold in range(FOLDS):
        train, test = np.flatnonzero(folds != fold), np.flatnonzero(folds == fold)
        fitted = model.calibrated({archs[i]: truth[i] for i in train})
        for i in test:
            estimate = fitted.predict(archs[i])
            ours[i], low[i], high[i] = estimate.ms, estimate.low_ms, estimate.high_ms
        slope, offset = np.polyfit(macs[train], truth[train], 1, w=1 / truth[train])
        by_macs[test] = slope * macs[test] + offset
    rows = [
        Quality.of("sum of ops, calibrated (mvnas)", truth, ours, (low, high)),
        Quality.of("plain sum of ops", truth, sums),
        Quality.of("MACs only", truth, by_macs),
    ]
    return rows + _repeats(table.passes, archs)


def _repeats(passes: Mapping[Arch, Sequence[object]], archs: Sequence[Arch]) -> list[Quality]:
    """How well one pass of measuring predicts the next: no predictor can be judged more finely."""
    times = [[timing.min_ms for timing in passes[arch]] for arch in archs]  # type: ignore[attr-defined]
    fewest = min(map(len, times))
    pairs = [(i, i + 1) for i in range(fewest - 1)]
    if not pairs:
        return []
    found = [Quality.of("", np.array([t[j] for t in times]), np.array([t[i] for t in times])) for i, j in pairs]
    numbers = {
        key: fmean(getattr(row, key) for row in found) for key in ("mape", "within_5", "within_10", "worst", "tau")
    }
    return [Quality("measuring again (noise floor)", **numbers)]
