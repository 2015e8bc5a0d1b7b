"""The clock: times files so that figures repeat even on a shared or throttling machine."""

from __future__ import annotations

import platform
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from statistics import mean, median
from typing import Any, NamedTuple, TypeVar

try:
    import resource
except ImportError:  # not on Windows
    resource = None  # type: ignore[assignment]

from mvnas.backends import Device, Profiler, Runtime, Sample
from mvnas.errors import TableError
from mvnas.latency.table import Timing
from mvnas.measuring.energy import Meter
from mvnas.system.disk import locked, private_folder
from mvnas.system.machine import affinity, pin

DRIFT = 1.1  # a run is clean if the reference ops beside it took at most this times their fastest
SETTLE = 1.5  # seconds for which each group of cores is tried
BURST = 0.005  # seconds of runs between two timings of the reference ops
LOOKS = 4  # runs of each reference op, of which the fastest counts

T = TypeVar("T")


class Clock:
    """Times files of one runtime, pinned to the quietest cores, in bursts with reference ops before and after each.

    A shared or throttled machine is slow for a while and then fast again. Bursts that the reference ops show to be
    slow, or that another process interrupted, are thrown away as long as patience lasts; the reference ops' time is
    kept beside every timing, so that drift shows. There are several, since a neighbour that fills the memory's lanes
    leaves arithmetic alone.
    """

    def __init__(self, runtime: Runtime, references: Sequence[Path]) -> None:
        self.runtime = runtime
        threads = int(runtime.conditions()["threads"])
        trials = {cores: self._settle(references, cores) for cores in core_groups(threads)}
        self.fastest = min(min(times) for times in trials.values())
        self.cores = max(trials, key=lambda cores: mean(ms <= DRIFT * self.fastest for ms in trials[cores]))
        with pinned(self.cores):
            self._references = [runtime.stopwatch(path) for path in references]

    def _settle(self, references: Sequence[Path], cores: tuple[int, ...]) -> list[float]:
        """Times of the reference ops on some cores."""
        with pinned(cores):
            self._references = [self.runtime.stopwatch(path) for path in references]
            end = time.monotonic() + SETTLE
            times = [self._reference_ms()]
            while time.monotonic() < end and times[0] > 0:
                times.append(self._reference_ms())
            return times

    def _reference_ms(self) -> float:
        return sum(min(run() for _ in range(LOOKS)) for run in self._references)

    def time(self, path: Path, *, openings: int, runs: int, seconds: float, patience: float) -> Timing:
        """Timing of a file: of its clean runs, or of all where too few were clean in time.

        It is opened several times: how fast an op that is bound by memory runs depends on which pages it was given.
        """
        end = time.monotonic() + patience
        with pinned(self.cores):
            parts = [self._open(path, -(-runs // openings), seconds / openings, end) for _ in range(openings)]
        bursts = [burst for part in parts for burst in part]
        clean = [burst for burst in bursts if burst.clean(self.fastest)]
        used = clean if sum(len(burst.ms) for burst in clean) >= min(runs, 3) else bursts
        taken = [ms for burst in used for ms in burst.ms]
        return Timing(min(taken), median(taken), len(taken), median([burst.reference_ms for burst in used]), now())

    def profile(self, path: Path, *, seconds: float, patience: float) -> tuple[Mapping[str, Sequence[float]], float]:
        """Milliseconds of each run of each node of a network inside it, and of the reference ops beside it."""
        runtime = self.runtime
        assert isinstance(runtime, Profiler)
        with pinned(self.cores):
            return self._quietest(lambda: runtime.profile(path, seconds=seconds), patience)

    def energy_mj(self, path: Path, meter: Meter[Any], *, patience: float) -> float | None:
        """Millijoules that a run of a file adds to the machine at rest; None if they cannot be told from that.

        Raises:
            EnergyError: the meter's counter does not tell.
        """
        with pinned(self.cores):
            run = self.runtime.stopwatch(path)
            stretch, _ = self._quietest(lambda: meter.watch(run), patience)
        return meter.millijoules(stretch)

    def _quietest(self, work: Callable[[], T], patience: float) -> tuple[T, float]:
        """What work gives, and the time of the reference ops beside it.

        The first work between two clean looks at the reference ops counts, or that beside the fastest where none was
        clean in time.
        """
        end = time.monotonic() + patience
        found: list[tuple[T, float]] = []
        while not found or (min(ms for _, ms in found) > DRIFT * self.fastest and time.monotonic() < end):
            before = self._reference_ms()
            done = work()
            after = self._reference_ms()
            self.fastest = min(self.fastest, before, after)
            found.append((done, max(before, after)))
        return min(found, key=lambda row: row[1])

    def _open(self, path: Path, runs: int, seconds: float, end: float) -> list[_Burst]:
        """Bursts of one opening of a file, until enough of them are clean or the end has come."""
        run = self.runtime.stopwatch(path)
        bursts: list[_Burst] = []
        before = self._reference_ms()
        while True:
            switched = _switches()
            ms = [run()]
            total = ms[0]
            while total < 1e3 * BURST and (len(ms) < runs or total < 1e3 * seconds):
                ms.append(run())
                total += ms[-1]
            after = self._reference_ms()
            self.fastest = min(self.fastest, before, after)
            bursts.append(_Burst(ms, max(before, after), _switches() > switched))
            before = after
            taken = [ms for burst in bursts if burst.clean(self.fastest) for ms in burst.ms]
            if (len(taken) >= runs and sum(taken) >= 1e3 * seconds) or time.monotonic() > end:
                return bursts


class DeviceClock(Clock):
    """Times files on a device that times itself, each between two looks at the reference ops."""

    def __init__(self, runtime: Device, references: Sequence[Path]) -> None:
        self.runtime, self.device, self.cores = runtime, runtime, ()
        self.references = list(references)
        self.fastest = min(self._reference_ms() for _ in range(3))

    def _reference_ms(self) -> float:
        return sum(look.min_ms for look in self.device.samples(self.references, runs=LOOKS, seconds=BURST))

    def time(self, path: Path, *, openings: int, runs: int, seconds: float, patience: float) -> Timing:
        """Timing of a file: of its clean samples, or of all where none was clean in time."""
        end = time.monotonic() + patience
        found: list[tuple[Sample, float]] = []
        clean: list[tuple[Sample, float]] = []
        while len(clean) < openings and (time.monotonic() < end or not found):
            paths, count = [*self.references, path, *self.references], len(self.references)
            made = self.device.samples(paths, runs=-(-runs // openings), seconds=seconds / openings)
            before, after = (sum(look.min_ms for look in part) for part in (made[:count], made[count + 1 :]))
            self.fastest = min(self.fastest, before, after)
            found.append((made[count], max(before, after)))
            clean = [row for row in found if row[1] <= DRIFT * self.fastest]
        used = clean or found
        return Timing(
            min(sample.min_ms for sample, _ in used),
            median(sample.median_ms for sample, _ in used),
            sum(sample.runs for sample, _ in used),
            median(reference for _, reference in used),
            now(),
        )


class _Burst(NamedTuple):
    """A few runs in a row, the slower of the reference ops before and after them, and whether others interrupted."""

    ms: list[float]
    reference_ms: float
    interrupted: bool

    def clean(self, fastest: float) -> bool:
        return self.reference_ms <= DRIFT * fastest and not self.interrupted


def clock(runtime: Runtime, references: Sequence[Path]) -> Clock:
    """The clock that suits a runtime."""
    return DeviceClock(runtime, references) if isinstance(runtime, Device) else Clock(runtime, references)


def now() -> str:
    """The present time in UTC, as in tables."""
    return time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())


def cpu() -> str:
    """Name of this machine's processor."""
    try:
        rows = [row.split(":", 1) for row in Path("/proc/cpuinfo").read_text().splitlines() if ":" in row]
        known = {key.strip(): value.strip() for key, value in rows}
        return "{model name}, family {cpu family} model {model} stepping {stepping}".format_map(known)
    except (OSError, KeyError):
        return platform.processor() or platform.machine()


def _switches() -> int:
    """How often this thread was preempted so far; 0 where the system does not say."""
    if resource is None:
        return 0
    own = getattr(resource, "RUSAGE_THREAD", resource.RUSAGE_SELF)  # not of the process: idle helpers yield
    return int(resource.getrusage(own).ru_nivcsw)


def core_groups(count: int) -> list[tuple[int, ...]]:
    """Groups of `count` neighbouring cores of this process; one empty group where it cannot be pinned."""
    allowed = affinity()
    if not (allowed and pin(allowed)):
        return [()]
    groups = [allowed[i : i + count] for i in range(0, len(allowed), count)]
    return [group for group in groups if len(group) == count] or [allowed]


@contextmanager
def pinned(cores: tuple[int, ...]) -> Iterator[None]:
    """Bind this process to some cores in the context, where the system allows it."""
    allowed = affinity()
    moved = bool(cores and allowed) and pin(cores)
    try:
        yield
    finally:
        if moved:
            pin(allowed)


@contextmanager
def alone() -> Iterator[None]:
    """Hold the lock by which one measurement of a user runs at a time: two would slow each other unnoticed.

    The lock file is in a private folder, where no other user can hold or replace it.

    Raises:
        FileError: the lock file cannot be made.
        TableError: another measurement holds it.
    """
    message = "one measurement must run at a time, but another is running; wait for it to end"
    with locked(private_folder() / "measure.lock", lambda: TableError(message)):
        yield
