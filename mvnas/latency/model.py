"""The latency model: prices of kernels, and the calibration of their sums on whole networks, with intervals.

A kernel that was timed costs its timing. Any other is priced: by the regression of its kind (`table_prices`), or, on a
device of which little was timed, by the model of another, corrected (`transfer`). A network is the sum of its kernels,
calibrated on whole networks.

Energy is modelled by the same, from the energy column of a table: in such a model all that is said of milliseconds is
in millijoules.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from mvnas.errors import TableError, UnmeasuredError
from mvnas.graph import Kernel
from mvnas.latency.calibration import FEWEST_NETWORKS, Calibration, sittings
from mvnas.latency.estimate import Prediction, Predictions
from mvnas.latency.kinds import by_kind, workload
from mvnas.latency.prices import KernelPrices
from mvnas.latency.regression import left_out
from mvnas.latency.table import ENERGY, INSIDE, Table, Timing, advice
from mvnas.latency.table_prices import FEWEST_TIMINGS, TablePrices
from mvnas.latency.transfer import CorrectedPrices
from mvnas.spaces.arch import Arch

Array = NDArray[np.float64]

MODEL = 2  # what tables are taken to say; greater than before where the same table predicts otherwise
FEWEST_LIKE = 2  # networks that the correction of a known device needs
COLUMNS = {"latency": "min_ms", "energy": ENERGY}  # what is modelled -> column of a table

Key = TypeVar("Key")


@dataclass(frozen=True, eq=False)
class LatencyModel:
    """Latency, or energy, of any network whose kernels have prices on a device.

    Fields:
        device: its name, as tables are called.
        prices: what kernels take.
        calibration: what whole networks say of sums of prices.
        of: latency or energy.
        table: that the model was fitted to, if it was.
        like: the model of another device that the prices correct, if they do.
    """

    device: str
    prices: KernelPrices
    calibration: Calibration = Calibration()  # noqa: RUF009
    of: str = "latency"
    table: Table | None = None
    like: LatencyModel | None = None

    @classmethod
    def fit(cls, table: Table, of: str = "latency") -> LatencyModel:
        """The model of a table's `latency` or `energy`: less than a second's work, so that it is never stored.

        A table whose device.json says `like` another corrects that one's model by its own few timings.

        Raises:
            TableError: the table has no whole networks to calibrate on, the one that it is like is not there, or no
                energy.
        """
        model = cls.of_kernels(table, of)
        fewest = FEWEST_LIKE if model.like else FEWEST_NETWORKS
        networks = column(table.networks, of)
        if len(networks) < fewest:
            raise TableError(
                f"a table must hold {fewest} whole networks or more for an interval, but {table.path / 'networks.csv'} "
                f"has {len(networks)}; {advice(table)} times more, by --networks {fewest}"
            )
        return model.calibrated(networks, sittings(table, networks))

    @classmethod
    def of_kernels(cls, table: Table, of: str = "latency") -> LatencyModel:
        """The model without calibration: plain sums of kernels.

        Raises:
            TableError: energy is asked for, and that of ops was not measured.
        """
        timed = column(table.ops, of)
        if not timed and of == "energy":
            inside = table.device.get("ops") == INSIDE
            has = "its ops were timed inside networks" if inside else "its table has none"
            raise TableError(f"energy on {table.name} must have been measured op by op, but {has}; "
                             "`mvnas measure --energy rapl --table DIR` makes a table that has it")  # fmt: skip
        if "like" in table.device:
            alike = cls.alike(cls.fit(Table.load(table.device["like"]), of), timed, table.name)
            return replace(alike, of=of, table=table)
        return cls(table.name, TablePrices.fit(timed, table.name, of, table), of=of, table=table)

    @classmethod
    def alike(cls, known: LatencyModel, timed: Mapping[Kernel, float], device: str) -> LatencyModel:
        """The model of a device of which little is `timed`, from that of a `known` one; not calibrated."""
        return cls(device, CorrectedPrices.fit(known.prices, known.calibration, timed), like=known)

    @property
    def unit(self) -> str:
        """What predictions are in."""
        return "mJ" if self.of == "energy" else "ms"

    @property
    def tables(self) -> list[Table]:
        """The table that the model was fitted to, that which it is like, and so on."""
        behind = self.like.tables if self.like else []
        return [self.table, *behind] if self.table else behind

    @cached_property
    def knows_energy(self) -> bool:
        """Whether the table that the model was fitted to has the energy of ops, and so has that which it is like."""
        told = self.table is not None and bool(column(self.table.ops, "energy"))
        return told and (self.like is None or self.like.knows_energy)

    @cached_property
    def energy(self) -> LatencyModel:
        """The model of the same table's energy, in mJ; fitted when it is first asked for.

        Raises:
            TableError: energy was not measured, or of too few.
        """
        if self.table is None:
            raise TableError(f"energy on {self.device} must come from a table, but its model was made without one")
        return LatencyModel.fit(self.table, "energy")

    @cached_property
    def errors(self) -> dict[str, float]:
        """How far a timing is from what the others of its kind, fitted without it, say of it.

        Root mean squares of log errors by kind.
        """
        found, timed = {}, self.prices.timed
        for name, kernels in by_kind(kernel for kernel, ms in timed.items() if ms).items():
            if name in self.prices.kinds and len(kernels) >= FEWEST_TIMINGS:
                errors = left_out([workload(kernel) for kernel in kernels], [timed[kernel] for kernel in kernels])
                found[name] = float((errors**2).mean()) ** 0.5
        return found

    def calibrated(self, networks: Mapping[Arch, float], sitting: Sequence[int] = ()) -> LatencyModel:
        """This model calibrated on measured networks, in ms, of one sitting or of several."""
        prices, calibration = self.prices.calibrated(networks, sitting)
        return replace(self, prices=prices, calibration=calibration)

    def lacking(self, archs: Iterable[Arch]) -> list[Kernel]:
        """Kernels of networks that cannot be priced, each once."""
        runs = dict.fromkeys(kernel for arch in archs for block in arch.summaries for kernel, _ in block.kernels)
        return [kernel for kernel in runs if kernel not in self.prices.timed and self.prices.refusal(kernel)]

    def predict_each(self, archs: Sequence[Arch]) -> Predictions:
        """Latency of one network or more at their deployed resolutions and batch 1: many at once are priced fastest.

        Raises:
            UnmeasuredError: a kernel lies outside of what was timed; the message names the first.
        """
        return Predictions(*self.calibration.estimate(*self.prices.networks(archs)), self.unit)

    def predict(self, arch: Arch) -> Prediction:
        """Latency of a network at its deployed resolution and batch 1.

        Raises:
            UnmeasuredError: a kernel lies outside of what was timed.
        """
        value, low, high, measured = map(float, self.calibration.estimate(*self.prices.network(arch)))
        return Prediction(value, low, high, self.unit, measured)

    def predict_blocks(self, arch: Arch) -> list[tuple[float, float]]:
        """Milliseconds of each block of a network, which add up to the network's, and the share of them that was
        timed.
        """
        return self.calibration.shared(list(self.prices.blocks(arch.summaries)))


@dataclass(frozen=True)
class Latencies:
    """Latency of networks at several precisions: a model for each, of a table of that precision."""

    models: Mapping[str, LatencyModel]

    @property
    def device(self) -> str:
        return ",".join(model.device for model in self.models.values())

    def at(self, precision: str) -> LatencyModel:
        """The model of a precision.

        Raises:
            UnmeasuredError: there is none.
        """
        if precision not in self.models:
            raise UnmeasuredError(
                f"a table must be of {precision} to tell its latency, but {self.device} has only"
                f" {', '.join(self.models)}"
            )
        return self.models[precision]

    @property
    def tables(self) -> list[Table]:
        """Those of every model."""
        return [table for model in self.models.values() for table in model.tables]

    @property
    def knows_energy(self) -> bool:
        """Whether every model does."""
        return all(model.knows_energy for model in self.models.values())

    @cached_property
    def energy(self) -> Latencies:
        """The models' models of energy.

        Raises:
            TableError: energy was not measured of one, or of too few.
        """
        return Latencies({precision: model.energy for precision, model in self.models.items()})

    def predict(self, arch: Arch) -> Prediction:
        """Latency of a network at its precision, as `LatencyModel.predict` tells it."""
        return self.at(arch.precision).predict(arch)

    def predict_blocks(self, arch: Arch) -> list[tuple[float, float]]:
        """What `LatencyModel.predict_blocks` tells, at the precision of the network."""
        return self.at(arch.precision).predict_blocks(arch)


Latency = LatencyModel | Latencies


def latency(tables: Sequence[Table]) -> Latency:
    """What tells latency by a table, or by several of different precisions.

    Raises:
        TableError: two tables are of one precision, or one cannot be fitted.
    """
    models = {table.precision: LatencyModel.fit(table) for table in tables}
    if len(models) < len(tables):
        told = ", ".join(f"{table.name} of {table.precision}" for table in tables)
        raise TableError(f"tables that are used together must be of different precisions, but got {told}")
    return Latencies(models) if len(tables) > 1 else next(iter(models.values()))


def column(timings: Mapping[Key, Timing], of: str) -> dict[Key, float]:
    """Milliseconds or millijoules of what has them."""
    found = {key: getattr(timing, COLUMNS[of]) for key, timing in timings.items()}
    return {key: value for key, value in found.items() if value is not None}
