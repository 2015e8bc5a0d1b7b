"""One sitting of a measurement: makes the files to time, times them with one clock, and appends to a table."""

from __future__ import annotations

import json
import os
import platform
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from hashlib import sha256
from math import inf
from pathlib import Path
from statistics import mean, median
from typing import Any

from mvnas import __version__
from mvnas.backends import Device, Profiler, Runtime, chosen_settings
from mvnas.errors import TableError
from mvnas.graph import Graph, Kernel
from mvnas.latency.kinds import by_kind, spanning
from mvnas.latency.model import LatencyModel
from mvnas.latency.table import (
    ENERGY,
    NETWORKS_COLUMNS,
    OPS_COLUMNS,
    Table,
    Timing,
    append,
    read_device,
    read_passes,
    timing_row,
    write_network,
    write_op,
    write_shapes,
)
from mvnas.latency.table_prices import FEWEST_TIMINGS
from mvnas.measuring.clock import DRIFT, Clock, alone, clock, cpu, now
from mvnas.measuring.energy import Counter, Meter
from mvnas.measuring.plan import holding
from mvnas.measuring.protocol import REFERENCES, Protocol
from mvnas.nn import arbitrary
from mvnas.spaces.arch import Arch
from mvnas.system.disk import make_folder, remove, work_folder, write_text, writing
from mvnas.system.machine import affinity, pin
from mvnas.system.progress import Progress, silent

BATCH = 32  # kernels converted together
FUSED = (0.0,)  # what an op takes that the runtime does within another


@contextmanager
def sitting(
    runtime: Runtime,
    protocol: Protocol,
    folder: Path,
    progress: Progress,
    like: str | None = None,
    counter: Counter[Any] | None = None,
) -> Iterator[Session]:
    """A session that holds the lock of this machine; its files are removed at the end, but kept after a kill."""
    with alone():
        meter = Meter.at_rest(counter) if counter else None
        _start(folder, runtime, protocol, like, meter)
        if meter:
            _note_rest(folder, meter)
        files = Files(runtime, folder / "build")
        files.convert([], [], progress)
        ticking = clock(runtime, [files.kernel(kernel) for kernel in REFERENCES])
        yield Session(files, ticking, protocol, folder, progress, meter)
        remove(files.folder)


@dataclass(frozen=True)
class Session:
    """Times kernels and networks with one clock, and appends each timing to the table in `folder`."""

    files: Files
    clock: Clock
    protocol: Protocol
    folder: Path
    progress: Progress
    meter: Meter[Any] | None = None
    timed: set[Kernel] = field(default_factory=set)

    def done(self) -> Mapping[Kernel, Timing]:
        """Timings of ops that the table holds."""
        return Table.load(self.folder).ops if (self.folder / "ops.csv").exists() else {}

    def _clean(self, timing: Timing) -> bool:
        return timing.reference_ms <= DRIFT * self.clock.fastest

    def time_ops(self, kernels: Sequence[Kernel], total: int, end: float = inf) -> None:
        """Time kernels that the table lacks, or holds from a slow moment, until `end`; `total` is for the progress."""
        clean = {kernel for kernel, timing in self.done().items() if self._clean(timing)}
        left = [kernel for kernel in dict.fromkeys(kernels) if kernel not in clean]
        self._time(left, len(clean), total, end)

    def profile(self, archs: Iterable[Arch], total: int | None = None, end: float = inf) -> None:
        """Time the ops inside whole networks, until `end` or until `total` have a clean timing."""
        clean = {kernel for kernel, timing in self.done().items() if self._clean(timing)}
        for arch in archs:
            graph = arch.graph().deployed()
            if (total is not None and len(clean) >= total) or time.monotonic() > end:
                return
            if clean.issuperset(node.key for node in graph.work):
                continue
            self.files.convert([], [arch], silent)
            nodes, reference = self.clock.profile(
                self.files.network(arch), seconds=self.protocol.network_seconds, patience=self.protocol.network_patience
            )
            found: dict[Kernel, list[Sequence[float]]] = {}
            for node in graph.work:
                found.setdefault(node.key, []).append(nodes.get(node.name, FUSED))
            for kernel, runs in found.items():
                timing = Timing(
                    mean(map(min, runs)), mean(map(median, runs)), len(runs) * len(runs[0]), reference, now()
                )
                row = {"op": write_op(kernel[0]), "shapes": write_shapes(kernel[1])} | timing_row(timing)
                append(self.folder / "ops.csv", OPS_COLUMNS, row)
                clean.add(kernel)
            self.progress("ops timed", len(clean), max(total or 0, len(clean)))

    def complete(self, archs: Sequence[Arch]) -> None:
        """Time what is missing to price networks: kinds of ops with too few sizes, and sizes out of range."""
        runs = {arch: {kernel for block in arch.summaries for kernel, _ in block.kernels} for arch in archs}
        while lacking := LatencyModel.of_kernels(Table.load(self.folder)).lacking(archs):
            if isinstance(self.files.runtime, Profiler):
                self.profile(holding(set(lacking), runs))
            else:
                kernels = [kernel for rows in by_kind(lacking).values() for kernel in spanning(rows, FEWEST_TIMINGS)]
                self.time_ops(kernels, len(self.done()) + len(kernels))

    def time_again(self, kernels: Sequence[Kernel]) -> None:
        """Time kernels of this sitting once more; a table uses the fastest timing of each."""
        left = [kernel for kernel in kernels if kernel in self.timed]
        self._time(left, 0, len(left), inf)

    def _time(self, kernels: Sequence[Kernel], before: int, total: int, end: float) -> None:
        self.files.convert(kernels, [], self.progress)
        for count, kernel in enumerate(kernels, 1):
            if time.monotonic() > end:
                return
            timing = self._timing(
                self.files.kernel(kernel),
                openings=self.protocol.op_openings,
                runs=self.protocol.op_runs,
                seconds=self.protocol.op_seconds,
                patience=self.protocol.op_patience,
            )
            row = {"op": write_op(kernel[0]), "shapes": write_shapes(kernel[1])} | timing_row(timing)
            append(self.folder / "ops.csv", self._columns(OPS_COLUMNS), row)
            self.timed.add(kernel)
            self.progress("ops timed", before + count, max(total, before + len(kernels)))

    def time_networks(self, archs: Sequence[Arch]) -> None:
        """Time every network once a pass, so that passes are interleaved; passes of slow moments are repeated."""
        made = {arch: sum(map(self._clean, timings)) for arch, timings in read_passes(self.folder).items()}
        turns = range(self.protocol.passes)
        left = [(turn, arch) for turn in turns for arch in dict.fromkeys(archs) if made.get(arch, 0) <= turn]
        self.files.convert([], list(dict.fromkeys(arch for _, arch in left)), self.progress)
        for count, (turn, arch) in enumerate(left, 1):
            timing = self._timing(
                self.files.network(arch),
                openings=1,
                runs=self.protocol.network_runs,
                seconds=self.protocol.network_seconds,
                patience=self.protocol.network_patience,
            )
            row = {"network": write_network(arch), "pass": turn + 1} | timing_row(timing)
            append(self.folder / "networks.csv", self._columns(NETWORKS_COLUMNS), row)
            self.progress("network passes timed", count, len(left))

    def _timing(self, path: Path, *, patience: float, **settings: Any) -> Timing:
        """Time a file, and measure its energy if there is a meter."""
        timing = self.clock.time(path, patience=patience, **settings)
        if self.meter is None:
            return timing
        return replace(timing, energy_mj=self.clock.energy_mj(path, self.meter, patience=patience))

    def _columns(self, columns: Sequence[str]) -> Sequence[str]:
        return (*columns, ENERGY) if self.meter else columns


@dataclass(frozen=True)
class Files:
    """The files to time, kept in a folder until all is timed, so that an interrupted measurement reuses them."""

    runtime: Runtime
    folder: Path

    def kernel(self, kernel: Kernel) -> Path:
        return self._path(f"{write_op(kernel[0])} {write_shapes(kernel[1])}")

    def network(self, arch: Arch) -> Path:
        return self._path(write_network(arch))

    def _path(self, text: str) -> Path:
        return self.folder / f"{sha256(text.encode()).hexdigest()[:16]}{self.runtime.suffix}"

    def convert(self, kernels: Sequence[Kernel], archs: Sequence[Arch], progress: Progress) -> None:
        """Export the files that are missing: kernels in batches, networks one by one.

        Raises:
            FileError: they cannot be written.
        """
        make_folder(self.folder)
        left = [kernel for kernel in (*kernels, *REFERENCES) if not self.kernel(kernel).exists()]
        networks = [arch for arch in archs if not self.network(arch).exists()]
        for start in range(0, len(left), BATCH):
            batch = left[start : start + BATCH]
            with work_folder(self.folder) as work, writing(self.folder):
                made = self.runtime.export_each([Graph.single(*kernel) for kernel in batch], work)
                for kernel, path in zip(batch, made, strict=True):
                    path.replace(self.kernel(kernel))
            progress("ops converted", start + len(batch), len(left))
        for count, arch in enumerate(networks, 1):
            graph = arch.graph().deployed()
            with work_folder(self.folder) as work, writing(self.folder):
                path = work / f"network{self.runtime.suffix}"
                self.runtime.export(graph, path, arbitrary(graph))
                path.replace(self.network(arch))
            progress("networks converted", count, len(networks))


def _start(folder: Path, runtime: Runtime, protocol: Protocol, like: str | None, meter: Meter[Any] | None) -> None:
    """Write the conditions of a new table, or check that those of an existing one still hold."""
    here = {"cpu": cpu(), "cores": os.cpu_count(), "system": f"{platform.system()} {platform.machine()}"}
    refused = bool(affinity()) and not pin(affinity()) and not isinstance(runtime, Device)
    described = protocol.describe(inside=isinstance(runtime, Profiler))
    energy = f"{meter.counter.description}; what the machine draws at rest is taken off" if meter else None
    conditions = {
        **here,
        **runtime.conditions(),
        "settings": chosen_settings(runtime) or None,
        "like": like,
        "protocol": described,
        "energy": energy,
        "pinning": "refused by the system" if refused else None,
    }
    if (folder / "device.json").exists():
        old = read_device(folder)
        for key, value in conditions.items():
            if old.get(key) != value and (key in old or key != "settings"):  # which older tables lack
                raise TableError(
                    f"{folder} must be continued under its own conditions, but {key} was {old.get(key)} and is {value};"
                    " measure into another folder"
                )
        return
    device = {
        **{key: value for key, value in conditions.items() if value is not None},
        "date": time.strftime("%Y-%m-%d", time.gmtime()),
        "mvnas": __version__,
    }
    write_text(folder / "device.json", json.dumps(device, indent=2) + "\n")


def _note_rest(folder: Path, meter: Meter[Any]) -> None:
    """Add the power of the machine at rest to the conditions, once a sitting."""
    device = read_device(folder)
    device["rest_watts"] = [*device.get("rest_watts", []), round(meter.rest_watts, 4)]
    write_text(folder / "device.json", json.dumps(device, indent=2) + "\n")
