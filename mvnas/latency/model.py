"""The latency model: per-op estimates from a table, whole networks calibrated, with intervals.

A kernel that was timed costs its timing. Any other is priced by the regression of its kind (`mvnas.latency.regression`). A
network is the sum of its kernels, calibrated on whole networks.

Energy is modelled by the same, from the energy column of a table: in such a model all that is said of milliseconds is in millijoules.
"""

from __future__ import annotations

import shlex
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime
from functools import cached_property
from itertools import accumulate, chain
from math import ceil, exp, hypot
from typing import TYPE_CHECKING, NamedTuple, TypeVar, cast

import numpy as np
from numpy.typing import NDArray

from mvnas.errors import TableError, UnmeasuredError, cut
from mvnas.graph import Kernel, Summary
from mvnas.latency.estimate import Prediction, Predictions
from mvnas.latency.kinds import by_kind, dimensions, kind, workload
from mvnas.latency.regression import Regression, fit, left_out, nonnegative
from mvnas.latency.table import ENERGY, INSIDE, Table, Timing, write_op, write_shapes
from mvnas.spaces.arch import Arch
from mvnas.spaces.reading import data_folder

if TYPE_CHECKING:
    from mvnas.latency.transfer import Transfer

Array = NDArray[np.float64]
Number = TypeVar("Number", float, Array)

CONFIDENCE = 0.9
NORMAL = 1.645  # deviations of a normal distribution that hold CONFIDENCE of it
MODEL = 2  # what tables are taken to say; greater than before where the same table predicts otherwise
SITTING = 0.011  # deviation of log latency of one sitting from the mean of many, where a table does not tell it (benchmarks/sittings.py),
WORTH = 2  # which counts as much as so many sittings beside those of a table
PAUSE = 3600.0  # seconds without a timing that part one sitting from the next
TURNS = 4  # of fitting the levels of sittings and what reading takes, each by the other
UNSTEADY = 0.5  # deviation from sitting to sitting of what it takes to read weights, as a share of it (docs/latency.md)
DOMAIN_SLACK = 1.001  # rounding only: outside of what was measured there is no estimate
FEWEST = 8  # timings of a kind that a regression needs
KEPT = tuple(0.5 * step for step in range(17))  # millions of parameters whose weights caches may keep
FEWEST_LIKE = 2  # networks that the correction of a known device needs
FOLDS = 5  # parts of networks, of which each is judged by a fit to the others
COLUMNS = {"latency": "min_ms", "energy": ENERGY}  # what is modelled -> column of a table

Key = TypeVar("Key")


class Rate(NamedTuple):
    """The regression of a kind, None if the runtime does it within other ops, and the range of each size that was timed."""

    regression: Regression | None
    domain: Mapping[str, tuple[int, int]]

    def predict(self, kernels: Sequence[Kernel]) -> list[float]:
        """Milliseconds of kernels of this kind."""
        if self.regression is None:
            return [0.0] * len(kernels)
        return self.regression.predict([workload(kernel) for kernel in kernels]).tolist()  # type: ignore[no-any-return]


@dataclass(frozen=True, eq=False)
class LatencyModel:
    """Latency of any network made of what a table has measured.

    `factor`, `power`, `reading`, `kept` and `spread` are the calibration on whole networks: latency = factor * (sum of kernels +
    reading * millions of parameters that are read) ** power, and a network lies within exp(+-spread) of that with the
    confidence of the interval. What is read are weights that are in the caches where a kernel alone runs again and again. Those of
    a network of up to `kept` millions are too, and of one twice that size none: each run has evicted what the next needs first.

    Of the spread, `shift` is the deviation of one more sitting: hours differ for all networks at once. How much of the caches
    is left for weights differs too: `unsteady` milliseconds a million parameters widen the interval of networks that are mostly weights.
    """

    device: str
    timed: Mapping[Kernel, float]
    rates: Mapping[str, Rate]
    factor: float = 1.0
    power: float = 1.0
    spread: float = float("nan")
    reading: float = 0.0
    kept: float = 0.0
    shift: float = 0.0
    unsteady: float = 0.0
    like: Transfer | None = None
    of: str = "latency"
    table: Table | None = None
    _kernels: dict[Kernel, tuple[float, float]] = field(default_factory=dict, repr=False)
    _blocks: dict[Summary, tuple[float, float, float]] = field(default_factory=dict, repr=False)

    @classmethod
    def fit(cls, table: Table, of: str = "latency") -> LatencyModel:
        """The model of a table's `latency` or `energy`: less than a second's work, so that it is never stored.

        A table whose device.json says `like` another corrects that one's model by its own few timings.

        Raises:
            TableError: the table has no whole networks to calibrate on, the one that it is like is not there, or no energy.
        """
        model = cls.of_kernels(table, of)
        fewest = FEWEST_LIKE if model.like else FEWEST
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
        groups = by_kind(timed).items()
        rates = {name: _fit(rows, [timed[k] for k in rows]) for name, rows in groups if len(rows) >= FEWEST}
        return cls(table.name, timed, rates, of=of, table=table)

    @classmethod
    def alike(cls, known: LatencyModel, timed: Mapping[Kernel, float], device: str) -> LatencyModel:
        """The model of a device of which little is `timed`, from that of a `known` one; not calibrated."""
        from mvnas.latency.transfer import Transfer

        return cls(device, timed, known.rates, like=Transfer.fit(known, timed))

    @property
    def unit(self) -> str:
        """What predictions are in."""
        return "mJ" if self.of == "energy" else "ms"

    @property
    def tables(self) -> list[Table]:
        """The table that the model was fitted to, that which it is like, and so on."""
        behind = self.like.known.tables if self.like else []
        return [self.table, *behind] if self.table else behind

    @cached_property
    def knows_energy(self) -> bool:
        """Whether the table that the model was fitted to has the energy of ops, and so has that which it is like."""
        told = self.table is not None and bool(column(self.table.ops, "energy"))
        return told and (self.like is None or self.like.known.knows_energy)

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
        """How far a timing is from what the others of its kind, fitted without it, say of it: root mean squares of log errors by kind."""
        found = {}
        for name, kernels in by_kind(kernel for kernel, ms in self.timed.items() if ms).items():
            if name in self.rates and len(kernels) >= FEWEST:
                errors = left_out([workload(kernel) for kernel in kernels], [self.timed[kernel] for kernel in kernels])
                found[name] = float((errors**2).mean()) ** 0.5
        return found

    def calibrated(self, networks: Mapping[Arch, float], sitting: Sequence[int] = ()) -> LatencyModel:
        """This model with factor, power, reading, kept and spread fitted to measured networks, in ms, of one sitting or of several.

        Each sitting has a factor of its own, of which the mean counts. The spread is the conformal quantile of absolute log errors,
        each left out of the fit that it is judged by, and beside it the deviation of a sitting to come, by those that were seen.
        """
        if self.like:
            return self._scaled(networks)
        sums, _, millions = self._sums(list(networks))
        wanted, places = np.log(list(networks.values())), np.array(sitting or [0] * len(networks))
        fits = (_Calibration.fit(sums, millions, wanted, kept, places) for kept in KEPT)
        factor, power, reading, kept, shift, errors = min(fits, key=lambda fit: float((fit.errors**2).sum()))
        rank = min(ceil((len(errors) + 1) * CONFIDENCE), len(errors))
        spread = hypot(np.sort(np.abs(errors))[rank - 1], NORMAL * shift)
        return replace(self, factor=factor, power=power, reading=reading, kept=kept, spread=spread, shift=shift,
                       unsteady=UNSTEADY * reading)  # fmt: skip

    def _scaled(self, networks: Mapping[Arch, float]) -> LatencyModel:
        """The model of a device like a known one by few networks: the spread is of what it says of each without it, or the known one's."""
        from scipy.stats import t

        assert self.like
        errors = np.log(list(networks.values())) - np.log(self.left_out(networks))
        reach = t.ppf((1 + CONFIDENCE) / 2, len(errors) - 1) * float((errors**2).mean()) ** 0.5
        return replace(self._corrected(networks), spread=max(self.like.known.spread, reach))

    def left_out(self, networks: Mapping[Arch, float]) -> Array:
        """Milliseconds that a model like a known one says of each network, two or more, corrected by the others alone: (n,)."""
        archs, found = list(networks), np.empty(len(networks))
        for fold in range(min(len(archs), FOLDS)):
            judged = archs[fold::FOLDS]
            others = {arch: ms for arch, ms in networks.items() if arch not in judged}
            found[fold::FOLDS] = self._corrected(others).predict_each(judged).value
        return found

    def _corrected(self, networks: Mapping[Arch, float]) -> LatencyModel:
        """The model of a device like a known one, by these networks too; their factor is the median's, since one of few may be odd."""
        from mvnas.latency.transfer import Transfer

        assert self.like
        known, like = self.like.known, Transfer.fit(self.like.known, self.timed, networks)
        made = replace(self, like=like, factor=1.0, power=known.power, reading=like.reading, kept=known.kept,
                       unsteady=known.unsteady * exp(like.correction.shift), _kernels={}, _blocks={})  # fmt: skip
        excess = np.log(list(networks.values())) - np.log(made.predict_each(list(networks)).value)
        return replace(made, factor=exp(np.median(excess)))

    def kernel_ms(self, kernel: Kernel) -> float:
        """Milliseconds of one kernel, timed or estimated.

        Raises:
            UnmeasuredError: the kernel was not timed and lies outside of what was.
        """
        if kernel not in self._kernels:
            self._price_kernels([kernel])
        return self._kernels[kernel][0]

    def _price_kernels(self, kernels: Iterable[Kernel]) -> None:
        """Remember the milliseconds of kernels, and how many of them were measured."""
        found = {kernel: self.timed.get(kernel) for kernel in kernels if kernel not in self._kernels}
        rest = [kernel for kernel, ms in found.items() if ms is None]
        estimates = self.estimate_kernels(rest) if rest else []
        self._kernels.update({kernel: (ms, ms) for kernel, ms in found.items() if ms is not None})
        self._kernels.update({kernel: (ms, 0.0) for kernel, ms in zip(rest, estimates, strict=True)})

    def estimate_kernel(self, kernel: Kernel) -> float:
        """Milliseconds of a kernel by regression, whether it was timed or not.

        Raises:
            UnmeasuredError: the kernel lies outside of what was timed.
        """
        return self.estimate_kernels([kernel])[0]

    def estimate_kernels(self, kernels: Sequence[Kernel]) -> list[float]:
        """Milliseconds of kernels by regression, one call a kind, whether they were timed or not.

        Raises:
            UnmeasuredError: a kernel lies outside of what was timed; the message names the first.
        """
        if self.like:
            self.like.known._price_kernels(kernels)
            return self.like.price(kernels)
        groups = by_kind(kernels)
        names = {kernel: name for name, rows in groups.items() for kernel in rows}
        for kernel in kernels:
            self._check_domain(kernel, names[kernel])
        found: dict[Kernel, float] = {}
        for name, rows in groups.items():
            found.update(zip(rows, self.rates[name].predict(rows), strict=True))
        return [found[kernel] for kernel in kernels]

    def _check_domain(self, kernel: Kernel, name: str) -> None:
        refusal = self._refusal(kernel, name)
        if refusal:
            raise UnmeasuredError(self._advice(kernel, refusal))

    def _refusal(self, kernel: Kernel, name: str) -> str:
        """Why the regression of a kind does not price a kernel; nothing if it does."""
        rate = self.rates.get(name)
        if rate is None:
            return f"{name} must have been timed at {FEWEST} distinct sizes or more, but was at {self._counts[name]}"
        for dimension, size in dimensions(kernel).items():
            low, high = rate.domain[dimension]
            if not low / DOMAIN_SLACK <= size <= high * DOMAIN_SLACK:
                return f"{dimension} of {name} must lie in {low}..{high}, which was measured, but is {size}"
        return ""

    @cached_property
    def _counts(self) -> Counter[str]:
        """How many kernels of each kind were timed."""
        return Counter(map(kind, self.timed))

    def lacking(self, archs: Iterable[Arch]) -> list[Kernel]:
        """Kernels of networks that cannot be priced, each once."""
        runs = dict.fromkeys(kernel for arch in archs for block in arch.summaries for kernel, _ in block.kernels)
        model = self.like.known if self.like else self
        return [kernel for kernel in runs if kernel not in self.timed and model._refusal(kernel, kind(kernel))]

    def _advice(self, kernel: Kernel, what: str) -> str:
        told = cut(f"{write_op(kernel[0])} on {write_shapes(kernel[1])}", 60)
        return f"no {self.of} on {self.device} for {told}: {what}; {advice(self.table)} times a space that has it"

    def _costs(self, blocks: Sequence[Summary]) -> Iterator[tuple[float, float, float]]:
        """Milliseconds of blocks before calibration, how many of them were measured, and millions of parameters; remembered."""
        new = [block for block in blocks if block not in self._blocks]
        if new:
            self._price_blocks(new)
        return map(self._blocks.__getitem__, blocks)

    def _price_blocks(self, blocks: Iterable[Summary]) -> None:
        """Remember what blocks cost, their new kernels priced in one go."""
        new: dict[Summary, None] = {}
        kernels: dict[Kernel, None] = {}
        for block in blocks:
            self._visit(block, new, kernels)
        self._price_kernels(kernels)
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

    def _sums(self, archs: Sequence[Arch]) -> tuple[Array, Array, Array]:
        """Milliseconds of networks before calibration, how many of them were measured, and millions of parameters: (n,) each."""
        rows = [arch.summaries for arch in archs]
        blocks = list(chain.from_iterable(rows))
        costs = np.fromiter(self._costs(blocks), np.dtype((float, 3)), len(blocks))
        starts = list(accumulate(map(len, rows[:-1]), initial=0))
        sums, measured, millions = np.add.reduceat(costs, starts).T
        return sums, measured, millions

    def sum_each(self, archs: Sequence[Arch]) -> Array:
        """Sums of the kernels of one network or more in ms, before calibration: (n,).

        Raises:
            UnmeasuredError: a kernel lies outside of what was timed; the message names the first.
        """
        return self._sums(archs)[0]

    def sum_ms(self, arch: Arch) -> float:
        """Sum of the kernels of a network in ms, before calibration.

        Raises:
            UnmeasuredError: a kernel lies outside of what was timed.
        """
        return sum([ms for ms, _, _ in self._costs(arch.summaries)])

    def predict_each(self, archs: Sequence[Arch]) -> Predictions:
        """Latency of one network or more at their deployed resolutions and batch 1: many at once are priced fastest.

        Raises:
            UnmeasuredError: a kernel lies outside of what was timed; the message names the first.
        """
        return Predictions(*self._calibrate(*self._sums(archs)), self.unit)

    def predict(self, arch: Arch) -> Prediction:
        """Latency of a network at its deployed resolution and batch 1.

        Raises:
            UnmeasuredError: a kernel lies outside of what was timed.
        """
        sums = map(sum, zip(*self._costs(arch.summaries), strict=True))
        value, low, high, measured = map(float, self._calibrate(*sums))
        return Prediction(value, low, high, self.unit, measured)

    def _calibrate(self, sums: Number, timed: Number, millions: Number) -> tuple[Number, Number, Number, Number]:
        """The fields of an estimate, from the milliseconds of kernels, how many of them were measured, and millions of parameters."""
        every = sums + self._read(millions)
        ms = self.factor * every**self.power
        margin = np.exp(np.hypot(self.spread, NORMAL * self.unsteady * millions / every))
        return ms, ms / margin, ms * margin, timed / sums

    def _read(self, millions: Number) -> Number:
        """Milliseconds that so many millions of parameters take to be read anew."""
        return self.reading * _evicted(millions, self.kept)

    def predict_blocks(self, arch: Arch) -> list[tuple[float, float]]:
        """Milliseconds of each block of a network, which add up to the network's, and the share of them in kernels that were timed."""
        each = list(self._costs(arch.summaries))
        every = sum([millions for _, _, millions in each])
        read = float(self._read(every)) / every if every else 0.0  # a million parameters of this network
        costs = [(ms + read * millions, measured / ms if ms else 1.0) for ms, measured, millions in each]
        scale = self.factor * sum([ms for ms, _ in costs]) ** (self.power - 1)
        return [(scale * ms, share) for ms, share in costs]


class _Calibration(NamedTuple):
    """What is fitted to whole networks, the deviation of a sitting to come, and the error of the log ms of each by what the others
    alone ask for, beside its own sitting's factor: (n,)."""

    factor: float
    power: float
    reading: float
    kept: float
    shift: float
    errors: Array

    @classmethod
    def fit(cls, sums: Array, millions: Array, wanted: Array, kept: float, sitting: NDArray[np.int64]) -> _Calibration:
        """What explains the `wanted` log ms best, of networks of one sitting or several, where caches keep so many millions of parameters."""
        evicted = _evicted(millions, kept)
        if np.count_nonzero(evicted) < FEWEST:  # too few networks would tell
            evicted = np.zeros_like(evicted)
        own = (sitting[:, None] == np.unique(sitting)).astype(float)
        ms, reading = sums, 0.0
        for _ in range(TURNS if own.shape[1] > 1 else 1):
            level = own @ (own.T @ (wanted - np.log(ms)) / own.sum(0))  # of each sitting
            steady = np.exp(wanted - level)[:, None]
            plain, read = nonnegative(np.column_stack([sums, evicted]) / steady, np.ones(len(sums)))
            reading = float(read / plain)
            ms = sums + reading * evicted
        columns = np.column_stack([own, np.log(ms)])
        (*offsets, power), *_ = np.linalg.lstsq(columns, wanted)
        slopes = np.column_stack([columns, evicted / ms]) if reading else columns
        errors = (wanted - columns @ (*offsets, power)) / (1 - np.diag(slopes @ np.linalg.pinv(slopes)))
        count = len(offsets)
        variance = (WORTH * SITTING**2 + count * float(np.var(offsets))) / (WORTH + count - 1)
        return cls(exp(np.mean(offsets)), float(power), reading, kept, (variance * (1 + 1 / count)) ** 0.5, errors)


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
                f"a table must be of {precision} to tell its latency, but {self.device} has only {', '.join(self.models)}"
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


def sittings(table: Table, archs: Iterable[Arch]) -> list[int]:
    """The sitting that each of a table's networks was timed in, by its fastest pass: one ends where nothing is timed for PAUSE.

    One of fewer than FEWEST networks, which would tell little of it, counts to that before or after it.
    """
    networks = table.networks
    times = np.array([_seconds(networks[arch].time) for arch in archs])
    order = np.argsort(times, kind="stable")
    parts = np.split(order, np.flatnonzero(np.diff(times[order]) > PAUSE) + 1)
    found, number = np.zeros(len(times), int), 0
    for part, rest in zip(parts, reversed(list(accumulate(map(len, parts[::-1])))), strict=True):
        found[part] = number
        number += int((found[order] == number).sum() >= FEWEST <= rest - len(part))
    return found.tolist()


def _seconds(time: str) -> float:
    """Seconds of a time in UTC as tables have it; 0 of any other text."""
    try:
        return datetime.fromisoformat(time).timestamp()
    except (ValueError, OverflowError):
        return 0.0


def advice(table: Table | None) -> str:
    """The command that adds to a table, of its own backend and settings, or that makes another where the table is a shipped one."""
    yours = table and table.path.parent != data_folder("latency_tables")
    place = shlex.quote(str(table.path)) if table and yours else "DIR"
    return f"`mvnas measure --table {place} --space SPACE`"


def _evicted(millions: Number, kept: float) -> Number:
    """How many of a network's millions of parameters are read in each run, where caches keep those of `kept` millions."""
    return millions * np.clip(millions / kept - 1, 0.0, 1.0) if kept else millions


def _fit(kernels: Sequence[Kernel], ms: Sequence[float]) -> Rate:
    loads = [workload(kernel) for kernel in kernels]
    spans = zip(*[load.sizes for load in loads], strict=True)
    domain = {name: (min(span), max(span)) for name, span in zip(dimensions(kernels[0]), spans, strict=True)}
    taking = [(load, value) for load, value in zip(loads, ms, strict=True) if value]
    return Rate(fit(*zip(*taking, strict=True)) if taking else None, domain)
