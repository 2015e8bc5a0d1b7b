"""Measuring: which kernels and networks to time, and timing them so that the figures can be trusted."""

from __future__ import annotations

import json
import os
import platform
import random
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence, Set
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from hashlib import sha256
from itertools import chain, cycle, islice, product
from math import ceil, inf
from pathlib import Path
from shutil import copyfile
from statistics import mean, median
from typing import Any

import numpy as np

from mvnas import __version__
from mvnas.backends import Device, Profiler, Runtime, chosen_settings
from mvnas.errors import EnergyError, ExportError, TableError, UnmeasuredError
from mvnas.graph import Graph, Kernel
from mvnas.latency.model import FEWEST, FEWEST_LIKE, LatencyModel, by_kind, dimensions, kind, spread
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
from mvnas.latency.transfer import informative
from mvnas.measuring.clock import DRIFT, Clock, alone, clock, cpu, now
from mvnas.measuring.energy import Counter, Meter
from mvnas.nn import arbitrary
from mvnas.ops import Add, Conv, Map
from mvnas.spaces.arch import Arch
from mvnas.spaces.space import Space, published
from mvnas.system.disk import make_folder, remove, work_folder, write_text, writing
from mvnas.system.machine import affinity, pin

REFERENCES: tuple[Kernel, ...] = (  # one bound by arithmetic, and one by memory
    (Conv(128, norm=False, bias=True, act=""), (Map(128, 32, 32),)),
    (Add(), (Map(64, 128, 128), Map(64, 128, 128))),
)
CLASSES = (2, 10, 37, 100, 200, 1000)  # class counts to span, so that a table serves any data
BATCH = 32  # kernels converted together
OPS, NETWORKS = 1000, 60  # what a table holds where the user says nothing
LIKE_OPS = 100  # and one that corrects another
MOST_LIKE = 300  # of which no more are chosen in the time that a user gives, since choosing takes time itself
CORNERS = 32  # kernels of a kind that are timed because they span it,
SPANNING = 2000  # or fewer, where there are so many kinds that they would be more than this
ROUNDS = (0.7, 0.85, 1.0)  # shares of the ops after which the model is asked what it knows least
SUSPICIOUS = 1.15  # a timing this many times what its kind lets expect is made again
SECOND_LOOKS = 2
FUSED = (0.0,)  # what an op takes that the runtime does within another
POOL = 1000  # random networks that stand for the spaces,
EACH = 300  # or so many for each of many
COMPARED = 300  # networks by which the timings of a device like another are chosen

Progress = Callable[[str, int, int], None]


@dataclass(frozen=True)
class Protocol:
    """How long things are timed: so many clean runs and seconds at least, and so many seconds of trying at most."""

    op_openings: int = 2
    op_runs: int = 12
    op_seconds: float = 0.01
    op_patience: float = 2.0
    network_runs: int = 5
    network_seconds: float = 0.1
    network_patience: float = 6.0
    passes: int = 3

    def describe(self, *, inside: bool = False) -> str:
        """The protocol in words, as a table keeps it."""
        alone = (
            f"minimum and median of at least {self.op_runs} clean runs and {self.op_seconds} s an op, opened {self.op_openings} times; "
            f"an op {SUSPICIOUS} times above what its kind lets expect is timed again, {SECOND_LOOKS} times at most"
        )
        references = ", ".join(f"{write_op(op)} on {write_shapes(shapes)}" for op, shapes in REFERENCES)
        within = f"ops by the runtime's profile of a network in {self.network_seconds} s, the mean of a network's equal ops, the median of networks"
        return (
            f"batch 1; pinned to the quietest cores; {within if inside else alone}; "
            f"at least {self.network_runs} clean runs and {self.network_seconds} s a network and pass, {self.passes} passes that interleave the "
            f"networks; a run is clean if the reference ops ({references}) just before and just after it take at most {DRIFT} times their "
            f"fastest and the process was not interrupted; tried for {self.op_patience} s an op and "
            f"{self.network_patience} s a network, after which all runs count"
        )


def measure(
    spaces: Sequence[Space],
    runtime: Runtime,
    *,
    folder: Path,
    ops: int | None = None,
    networks: int = NETWORKS,
    like: str | None = None,
    minutes: float | None = None,
    seed: int = 0,
    counter: Counter[Any] | None = None,
    protocol: Protocol = Protocol(),
    progress: Progress = lambda what, done, total: None,
) -> Table:
    """Time `ops` kernels and `networks` networks of `spaces`, beside the published ones, into the table at `folder`.

    If `ops` is None there are OPS, or more where the spaces have so many kinds of kernels that spanning them takes more.

    First what spans every dimension of every kind of kernel, and whatever else random networks need to be priced, more than `ops` if
    it must be; then what they spend their time on and the model knows least. A table that is there is continued: only what is
    missing is timed, and what was timed while the machine was slow.

    With `like`, a table's name or folder, the new one corrects that one's model: the most telling kernels are timed, up to
    `ops` (LIKE_OPS if None, or what `minutes` allow), and the published networks of the spaces. Such a table stays in need of the other.

    With `counter`, the energy of each file that is timed is measured too, right after its timing, but not of ops inside networks.

    Raises:
        EnergyError: the counter does not tell, or the runtime is that of another device.
        ExportError: the runtime does not run on this machine.
        TableError: the folder holds a table measured under other conditions, or another measurement is running.
    """
    if not getattr(runtime, "runs_here", True):
        name = runtime.conditions()["backend"]
        raise ExportError(f"a runtime must run here to be timed, but {name} does not; measure on a machine that has it")
    if counter and isinstance(runtime, Device):
        name = runtime.conditions()["backend"]
        raise EnergyError(f"energy must be measured where the runtime runs, but {name} starts it on another device")
    if like and Path(like).is_dir():
        like = str(Path(like).resolve())  # the table must find it from any folder
    known = LatencyModel.fit(Table.load(like)) if like else None
    planned = [] if known or isinstance(runtime, Profiler) else plan(spaces, ops, seed=seed)
    ops = ops or (LIKE_OPS if like and minutes is None else max(OPS, ceil(len(planned) / ROUNDS[0])))
    end = inf if minutes is None else time.monotonic() + 60 * minutes
    few = _published(spaces) or _sample(spaces, FEWEST_LIKE, seed=seed + 1)
    archs = few if known else calibrating(spaces, networks, seed=seed + 1)
    judged = [*archs, *_classed(_pool(spaces, seed)), *read_passes(folder)]
    with _sitting(runtime, protocol, folder, progress, like, counter) as session:
        if isinstance(runtime, Profiler):
            session.profile(chain(few if known else (), plan_networks(spaces, seed=seed)), ops, end)
            if not known:
                session.complete(judged)
        elif known:
            telling = informative(known, _classed(_pool(spaces, seed)[:COMPARED]), min(ops, MOST_LIKE), archs)
            session.time_ops(telling, ops, end)
        else:
            session.time_ops([*session.done(), *planned], ops)
            session.complete(judged)
            for share in ROUNDS:
                session.time_ops(refine(spaces, Table.load(folder), round(share * ops), seed=seed), ops)
            for _ in range(SECOND_LOOKS):
                session.time_again(suspects(Table.load(folder)))
        session.time_networks(archs)
    return Table.load(folder)


def measure_networks(
    archs: Sequence[Arch],
    runtime: Runtime,
    *,
    folder: Path,
    files: Mapping[Arch, Path] | None = None,
    protocol: Protocol = Protocol(),
    progress: Progress = lambda what, done, total: None,
) -> dict[Arch, tuple[Timing, ...]]:
    """Passes of whole networks alone, kept in `folder` as in a table: to judge a model by.

    A network in `files` is timed by its file there, others by one that is made with arbitrary weights.
    """
    with _sitting(runtime, protocol, folder, progress) as session:
        for arch, path in (files or {}).items():
            with writing(session.files.folder):
                copyfile(path, session.files.network(arch))
        session.time_networks(archs)
    return read_passes(folder)


def plan(spaces: Sequence[Space], ops: int | None = None, *, seed: int = 0) -> list[Kernel]:
    """Kernels that span the spaces: of each kind its extremes, then those farthest from all chosen so far.

    They are at most CORNERS of a kind, and about `ops`, or SPANNING, in all if that is less.
    """
    groups = by_kind(_runs(_pool(spaces, seed) + _ends(spaces) + _one_way(spaces)))
    most = max(FEWEST, min(CORNERS, (ops or SPANNING) // len(groups)))
    kernels = [kernel for name in sorted(groups) for kernel in spread(groups[name], most)]
    random.Random(seed).shuffle(kernels)  # so that drift of the machine does not look like a property of a kind
    return kernels


def plan_networks(spaces: Sequence[Space], *, seed: int = 0) -> Iterator[Arch]:
    """Networks whose kernels span the spaces, as many as are asked for: its extremes, then random ones.

    Of the extremes each next one is that with the most kinds of kernels at sizes beyond those seen so far.
    """
    left = _classed(_ends(spaces) + _one_way(spaces) + _pool(spaces, seed))
    spans = {arch: _span(arch) for arch in left}
    most = _widest(spans.values())
    missing = set(most.items())
    while missing:
        arch = max(left, key=lambda arch: len(missing & spans[arch].items()))
        missing -= spans[arch].items()
        left.remove(arch)
        yield arch
    yield from random.Random(seed).sample(left, len(left))


def _span(arch: Arch) -> dict[tuple[str, str, int], int]:
    """Of each size of each kind of kernel of a network the least and the greatest, by kind, dimension and sign."""
    return _widest(
        {(kind(k), name, sign): sign * size for sign in (-1, 1) for name, size in dimensions(k).items()}
        for block in arch.summaries
        for k, _ in block.kernels
    )


def _widest(spans: Iterable[Mapping[tuple[str, str, int], int]]) -> dict[tuple[str, str, int], int]:
    widest: dict[tuple[str, str, int], int] = {}
    for span in spans:
        for key, size in span.items():
            widest[key] = max(widest.get(key, size), size)
    return widest


def refine(spaces: Sequence[Space], table: Table, ops: int, *, seed: int = 0) -> list[Kernel]:
    """Kernels that bring the table to `ops`, drawn by the time that random networks spend in them and the error of their kind."""
    model = LatencyModel.of_kernels(table)
    runs = {kernel: count for kernel, count in _runs(_pool(spaces, seed)).items() if kernel not in table.ops}
    kernels = [kernel for kernel in runs if kind(kernel) in model.errors]
    doubt = [runs[k] * model.kernel_ms(k) * model.errors[kind(k)] for k in kernels]
    draws = np.random.default_rng(seed + len(table.ops)).exponential(size=len(kernels)) / np.maximum(doubt, 1e-12)
    return [kernels[i] for i in np.argsort(draws)[: max(0, ops - len(table.ops))]]


def coverage(spaces: Sequence[Space], model: LatencyModel, *, seed: int = 0) -> float:
    """Share of random networks of spaces that a model can price."""

    def priced(arch: Arch) -> bool:
        try:
            return model.sum_ms(arch) > 0
        except UnmeasuredError:
            return False

    archs = _pool(spaces, seed + 2)
    return sum(map(priced, archs)) / len(archs)


def suspects(table: Table) -> list[Kernel]:
    """Kernels whose timing is well above what the others of their kind let expect: disturbed, or truly odd."""
    model = LatencyModel.of_kernels(table)
    known = [kernel for kernel in table.ops if kind(kernel) in model.rates]
    return [kernel for kernel in known if table.ops[kernel].min_ms > SUSPICIOUS * model.estimate_kernel(kernel)]


def _runs(archs: Sequence[Arch]) -> dict[Kernel, int]:
    """How often each kernel runs in networks, which are given numbers of classes in turn."""
    runs: dict[Kernel, int] = {}
    for arch in _classed(archs):
        for block in arch.summaries:
            for kernel, count in block.kernels:
                runs[kernel] = runs.get(kernel, 0) + count
    return runs


def _holding(kernels: set[Kernel], runs: Mapping[Arch, Set[Kernel]]) -> list[Arch]:
    """Up to FEWEST of the networks that run kernels, each next one that with the most of those that are left."""
    found: list[Arch] = []
    while kernels and len(found) < FEWEST:
        found.append(max(runs, key=lambda arch: len(kernels & runs[arch])))
        kernels = kernels - runs[found[-1]]
    return found


def _classed(archs: Sequence[Arch]) -> list[Arch]:
    """Networks with the numbers of classes of CLASSES in turn."""
    return [arch.with_classes(classes) for arch, classes in zip(archs, CLASSES * len(archs), strict=False)]


def _ends(spaces: Sequence[Space]) -> list[Arch]:
    """Of each space the networks at its two ends."""
    return [space.at(picks) for space in spaces for picks in space.ends]


def _one_way(spaces: Sequence[Space]) -> list[Arch]:
    """Of each space every option of every choice with all others at their first, and with all others at their last."""
    archs = []
    for space in spaces:
        for end, (name, values) in product(space.ends, space.choices.items()):
            archs += [space.at({**space.activated(end, name), name: value}) for value in values]
    return archs


def _published(spaces: Sequence[Space]) -> list[Arch]:
    """The published networks that are points of a space."""
    archs = [Space.load(name).arch() for name in published()]
    return [arch for arch in archs if any(space.locate(arch) is not None for space in spaces)]


def calibrating(spaces: Sequence[Space], count: int, *, seed: int = 0) -> list[Arch]:
    """Networks by which to calibrate: the published ones of the spaces, and `count` random ones.

    A space that mixes families has as many turns as a row of it has kinds of blocks, since so many spaces are in it.
    """
    turns = [space for space in spaces for _ in range(max(len(row.stages) for row in space.rows))]
    return _published(spaces) + _sample(turns, count, seed=seed)


def _pool(spaces: Sequence[Space], seed: int) -> list[Arch]:
    """Random networks that stand for the spaces."""
    return _sample(spaces, max(POOL, EACH * sum(bool(space.choices) for space in spaces)), seed=seed)


def _sample(spaces: Sequence[Space], count: int, *, seed: int) -> list[Arch]:
    """Random networks of the spaces in turn, where there are any with a choice of those."""
    generator = random.Random(seed)
    turns = cycle([space for space in spaces if space.choices] or spaces)
    return [space.sample(lambda name, values: generator.choice(values)) for space in islice(turns, count)]


@dataclass(frozen=True)
class Files:
    """The files to time, made before what needs them and kept until all is timed, so that a kill loses none."""

    runtime: Runtime
    folder: Path

    def kernel(self, kernel: Kernel) -> Path:
        return self._path(f"{write_op(kernel[0])} {write_shapes(kernel[1])}")

    def network(self, arch: Arch) -> Path:
        return self._path(write_network(arch))

    def _path(self, text: str) -> Path:
        return self.folder / f"{sha256(text.encode()).hexdigest()[:16]}{self.runtime.suffix}"

    def convert(self, kernels: Sequence[Kernel], archs: Sequence[Arch], progress: Progress) -> None:
        """Make the files that are missing: kernels many at a time, networks one by one.

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


@dataclass(frozen=True)
class _Session:
    """One sitting: what is timed with one clock into one folder."""

    files: Files
    clock: Clock
    protocol: Protocol
    folder: Path
    progress: Progress
    meter: Meter[Any] | None = None
    timed: set[Kernel] = field(default_factory=set)

    def done(self) -> Mapping[Kernel, Timing]:
        """What the table holds of ops."""
        return Table.load(self.folder).ops if (self.folder / "ops.csv").exists() else {}

    def _clean(self, timing: Timing) -> bool:
        return timing.reference_ms <= DRIFT * self.clock.fastest

    def time_ops(self, kernels: Sequence[Kernel], total: int, end: float = inf) -> None:
        """Time kernels that the table lacks, or has from when the machine was slow, until `end`; `total` is for the progress."""
        clean = {kernel for kernel, timing in self.done().items() if self._clean(timing)}
        left = [kernel for kernel in dict.fromkeys(kernels) if kernel not in clean]
        self._time(left, len(clean), total, end)

    def profile(self, archs: Iterable[Arch], total: int | None = None, end: float = inf) -> None:
        """Time the ops of networks inside them, until `end` or until `total` or more were timed while the machine was fast."""
        clean = {kernel for kernel, timing in self.done().items() if self._clean(timing)}
        for arch in archs:
            graph = arch.graph().deployed()
            if (total is not None and len(clean) >= total) or time.monotonic() > end:
                return
            if clean.issuperset(node.key for node in graph.work):
                continue
            self.files.convert([], [arch], lambda what, done, total: None)
            nodes, reference = self.clock.profile(
                self.files.network(arch), seconds=self.protocol.network_seconds, patience=self.protocol.network_patience
            )
            places: dict[Kernel, list[Sequence[float]]] = {}
            for node in graph.work:
                places.setdefault(node.key, []).append(nodes.get(node.name, FUSED))
            for kernel, runs in places.items():
                timing = Timing(
                    mean(map(min, runs)), mean(map(median, runs)), len(runs) * len(runs[0]), reference, now()
                )
                row = {"op": write_op(kernel[0]), "shapes": write_shapes(kernel[1])} | timing_row(timing)
                append(self.folder / "ops.csv", OPS_COLUMNS, row)
                clean.add(kernel)
            self.progress("ops timed", len(clean), max(total or 0, len(clean)))

    def complete(self, archs: Sequence[Arch]) -> None:
        """Time what the table lacks to price networks: kinds of ops of which too few sizes were timed, and sizes beyond those."""
        runs = {arch: {kernel for block in arch.summaries for kernel, _ in block.kernels} for arch in archs}
        while lacking := LatencyModel.of_kernels(Table.load(self.folder)).lacking(archs):
            if isinstance(self.files.runtime, Profiler):
                self.profile(_holding(set(lacking), runs))
            else:
                kernels = [kernel for rows in by_kind(lacking).values() for kernel in spread(rows, FEWEST)]
                self.time_ops(kernels, len(self.done()) + len(kernels))

    def time_again(self, kernels: Sequence[Kernel]) -> None:
        """Time kernels of this sitting once more; a table takes the fastest timing of each."""
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
        """Time every network once a pass, so that passes interleave the networks; passes of when the machine was slow do not count."""
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
        """Timing of a file, with its energy where there is a meter."""
        timing = self.clock.time(path, patience=patience, **settings)
        if self.meter is None:
            return timing
        return replace(timing, energy_mj=self.clock.energy_mj(path, self.meter, patience=patience))

    def _columns(self, columns: Sequence[str]) -> Sequence[str]:
        return (*columns, ENERGY) if self.meter else columns


@contextmanager
def _sitting(
    runtime: Runtime,
    protocol: Protocol,
    folder: Path,
    progress: Progress,
    like: str | None = None,
    counter: Counter[Any] | None = None,
) -> Iterator[_Session]:
    """A session on this machine alone; the files that it times go at its end, but stay where it is killed."""
    with alone():
        meter = Meter.at_rest(counter) if counter else None
        _start(folder, runtime, protocol, like, meter)
        if meter:
            _note_rest(folder, meter)
        files = Files(runtime, folder / "build")
        files.convert([], [], progress)
        ticking = clock(runtime, [files.kernel(kernel) for kernel in REFERENCES])
        yield _Session(files, ticking, protocol, folder, progress, meter)
        remove(files.folder)


def _start(folder: Path, runtime: Runtime, protocol: Protocol, like: str | None, meter: Meter[Any] | None) -> None:
    """Write the conditions of a new table, or check that those of an old one still hold."""
    here = {"cpu": cpu(), "cores": os.cpu_count(), "system": f"{platform.system()} {platform.machine()}"}
    refused = bool(affinity()) and not pin(affinity()) and not isinstance(runtime, Device)
    told = protocol.describe(inside=isinstance(runtime, Profiler))
    energy = f"{meter.counter.told}; what the machine draws at rest is taken off" if meter else None
    conditions = {**here, **runtime.conditions(), "settings": chosen_settings(runtime) or None, "like": like, "protocol": told,
                  "energy": energy, "pinning": "refused by the system" if refused else None}  # fmt: skip
    if (folder / "device.json").exists():
        old = read_device(folder)
        for key, value in conditions.items():
            if old.get(key) != value and (key in old or key != "settings"):  # which older tables lack
                raise TableError(
                    f"{folder} must be continued under its own conditions, but {key} was {old.get(key)} and is {value}; "
                    "measure into another folder"
                )
        return
    device = {
        **{key: value for key, value in conditions.items() if value is not None},
        "date": time.strftime("%Y-%m-%d", time.gmtime()),
        "mvnas": __version__,
    }
    write_text(folder / "device.json", json.dumps(device, indent=2) + "\n")


def _note_rest(folder: Path, meter: Meter[Any]) -> None:
    """Note beside the conditions what the machine draws at rest, once a sitting."""
    device = read_device(folder)
    device["rest_watts"] = [*device.get("rest_watts", []), round(meter.rest_watts, 4)]
    write_text(folder / "device.json", json.dumps(device, indent=2) + "\n")
