"""Measuring energy: by the counters of the processor's packages, or by the log of a power meter."""

from __future__ import annotations

import csv
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime
from math import isfinite
from pathlib import Path
from time import monotonic, sleep, time
from typing import Any, Generic, NamedTuple, Protocol, TypeVar

import numpy as np

from mvnas.errors import EnergyError

POWERCAP = Path("/sys/class/powercap")
COLUMNS = ("time", "watts")
ROWS = 10  # rows of a power log that a measurement spans
PATIENCE = 60.0  # seconds to wait until a log reaches the end of a measurement
POLL = 0.1  # seconds between two looks at the log
LEAD = 0.1  # a file also runs for this share of the measured time before it, and after it
REST = 10  # the machine at rest is measured this many times longer than a file

Mark = TypeVar("Mark")


class Counter(Protocol[Mark]):
    """A source of energy readings, of a whole package or device: idle power and other processes are included.

    A `Mark` is a moment as the counter knows it. `description` says in words what is counted, for the table.
    """

    description: str

    def seconds(self) -> float:
        """Least time between two marks for a good reading.

        Raises:
            EnergyError: there are no readings yet.
        """
        ...

    def mark(self) -> Mark:
        """The present moment."""
        ...

    def joules(self, start: Mark, end: Mark) -> float:
        """Energy between two marks, in joules.

        Raises:
            EnergyError: the counter cannot be read, or does not span the marks.
        """
        ...


def counter(name: str) -> Counter[Any]:
    """The counter of a name: `rapl`, or the path of a power log.

    Raises:
        EnergyError: this machine has no such counter.
    """
    return Rapl() if name == "rapl" else PowerLog(Path(name))


class Stretch(NamedTuple, Generic[Mark]):
    """A measured stretch of runs of a file, between two marks."""

    start: Mark
    end: Mark
    seconds: float
    runs: int


@dataclass(frozen=True)
class Meter(Generic[Mark]):
    """Measures the energy that runs of a file add to the machine at rest, in stretches of `seconds`."""

    counter: Counter[Mark]
    seconds: float
    rest_watts: float = 0.0

    @classmethod
    def at_rest(cls, counter: Counter[Mark]) -> Meter[Mark]:
        """A meter, after it has measured the power of this machine at rest.

        Raises:
            EnergyError: the counter cannot be read.
        """
        seconds = counter.seconds()
        rest = cls(counter, REST * seconds).watch(lambda: sleep(seconds * LEAD))
        return cls(counter, seconds, counter.joules(rest.start, rest.end) / rest.seconds)

    def watch(self, run: Callable[[], object]) -> Stretch[Mark]:
        """Run for as long as the meter needs."""
        _fill(LEAD * self.seconds, run)
        begun, start = monotonic(), self.counter.mark()
        runs = _fill(self.seconds, run)
        end, ended = self.counter.mark(), monotonic()
        _fill(LEAD * self.seconds, run)
        return Stretch(start, end, ended - begun, runs)

    def millijoules(self, stretch: Stretch[Mark]) -> float | None:
        """Energy that one run adds to the machine at rest, in mJ; None if there is no difference.

        Raises:
            EnergyError: the counter cannot be read.
        """
        added = self.counter.joules(stretch.start, stretch.end) - self.rest_watts * stretch.seconds
        return 1e3 * added / stretch.runs if added > 0 else None


def _fill(seconds: float, run: Callable[[], object]) -> int:
    """Run until `seconds` have passed, once at least; returns the number of runs."""
    end, runs = monotonic() + seconds, 1
    run()
    while monotonic() < end:
        run()
        runs += 1
    return runs


@dataclass(frozen=True)
class Rapl:
    """Energy counters of all processor packages and their memory, by Linux's powercap (Documentation/power/powercap).

    A mark is a reading of each counter in microjoules, in the order of their folders. A counter may wrap around once
    between two marks, which takes minutes at least. A package includes its cores and graphics.

    Raises:
        EnergyError: there is no counter.
    """

    root: Path = POWERCAP
    description = "counters of processor packages and memory (RAPL), over 0.1 s of runs"

    def __post_init__(self) -> None:
        if not self._zones():
            raise EnergyError(
                f"{self.root} must hold the energy counter of a package, but holds none; use the log of a power meter"
            )

    def seconds(self) -> float:
        return 0.1  # the counters move about once a millisecond

    def mark(self) -> tuple[int, ...]:
        """A reading of each counter.

        Raises:
            EnergyError: a counter cannot be read: most systems let only root do so.
        """
        return self._read("energy_uj")

    def joules(self, start: tuple[int, ...], end: tuple[int, ...]) -> float:
        spans = self._read("max_energy_range_uj")
        return 1e-6 * sum((b - a) % span for a, b, span in zip(start, end, spans, strict=True))

    def _zones(self) -> list[Path]:
        names = sorted(self.root.glob("intel-rapl:*/name"))
        return [file.parent for file in names if _text(file).startswith(("package", "dram"))]

    def _read(self, name: str) -> tuple[int, ...]:
        return tuple([int(_text(zone / name)) for zone in self._zones()])


def _text(file: Path) -> str:
    try:
        return file.read_text().strip()
    except OSError as error:
        raise EnergyError(f"{file} must be readable, but: {error.strerror}") from None


@dataclass(frozen=True)
class PowerLog:
    """The CSV log of a power meter.

    Its columns are `time`, in Unix seconds or ISO 8601 with the offset from UTC, and `watts`.

    A mark is a time in Unix seconds. The file is read when energy is asked for, which waits until the meter has written
    as far; a last row without its end is left out. Power between two rows lies on the line between them.
    """

    path: Path
    description = f"log of a power meter, over {ROWS} of its rows"

    def seconds(self) -> float:
        """The time that ROWS rows take.

        Raises:
            EnergyError: the log cannot be read, is damaged, or has one row only.
        """
        times, _ = self._rows()
        if len(times) < 2:
            raise EnergyError(
                f"{self.path} must hold two rows or more before anything is measured; start the meter first"
            )
        return ROWS * float(np.median(np.diff(times)))

    def mark(self) -> float:
        return time()

    def joules(self, start: float, end: float) -> float:
        """Energy between two times.

        Raises:
            EnergyError: the log cannot be read, is damaged, or does not span these times within PATIENCE.
        """
        times, watts = self._rows()
        while times[-1] < end and time() < end + PATIENCE:
            sleep(POLL)
            times, watts = self._rows()
        if not times[0] <= start <= end <= times[-1]:
            raise EnergyError(
                f"{self.path} must span the time from {start:.3f} to {end:.3f}, but spans {times[0]:.3f} to"
                f" {times[-1]:.3f}"
            )
        inside = times[(times > start) & (times < end)]
        points = np.concatenate(([start], inside, [end]))
        power = np.interp(points, times, watts)
        return float(np.sum(np.diff(points) * (power[1:] + power[:-1]) / 2))

    def _rows(self) -> tuple[np.ndarray, np.ndarray]:
        """Times and watts of all rows."""
        try:
            text = self.path.read_text(encoding="utf-8")
            reader = csv.DictReader(text[: text.rfind("\n") + 1].splitlines())
            if not set(COLUMNS) <= set(reader.fieldnames or ()):
                raise EnergyError(f"{self.path} must have the columns time and watts, but has {reader.fieldnames}")
            rows = [self._row(reader.line_num, row) for row in reader]
        except (OSError, UnicodeDecodeError, csv.Error) as error:
            raise EnergyError(f"{self.path} must be a readable CSV, but: {error}") from None
        if not rows:
            raise EnergyError(f"{self.path} must hold rows of power, but holds none")
        numbers, times, watts = map(np.array, zip(*rows, strict=True))
        falls = np.flatnonzero(np.diff(times) <= 0)
        if falls.size:
            raise EnergyError(
                f"{self.path}, row {numbers[falls[0] + 1]}, column time: must be later than the row before, but is not"
            )
        return times, watts

    def _row(self, number: int, row: dict[str, str]) -> tuple[int, float, float]:
        moment, power = row["time"] or "", row["watts"] or ""
        seconds, watts = _number(moment), _number(power)
        if seconds is None:
            seconds = _moment(moment)
        if seconds is None:
            raise EnergyError(
                f"{self.path}, row {number}, column time: must be Unix seconds, or ISO 8601 with its offset from UTC,"
                f" but got {moment!r}"
            )
        if watts is None or watts < 0:
            raise EnergyError(f"{self.path}, row {number}, column watts: must be a number from 0, but got {power!r}")
        return number, seconds, watts


def _number(text: str) -> float | None:
    try:
        value = float(text)
    except ValueError:
        return None
    return value if isfinite(value) else None


def _moment(text: str) -> float | None:
    """Unix seconds of an ISO 8601 time, None if it is none or has no offset."""
    try:
        moment = datetime.fromisoformat(text)
    except ValueError:
        return None
    return moment.timestamp() if moment.tzinfo else None
