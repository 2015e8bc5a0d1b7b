"""Energy that a machine drew between two marks: from the counters of its packages, or from the log of a power meter."""

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
ROWS = 10  # rows of a log that tell the energy between two marks
PATIENCE = 60.0  # seconds after a mark in which a log must reach it
POLL = 0.1  # seconds between two looks at whether it has
LEAD = 0.1  # how much longer than between the marks things run before them, and again after them
REST = 10  # how many times longer the machine at rest is watched than a file

Mark = TypeVar("Mark")


class Counter(Protocol[Mark]):
    """Where energy is read. It is that of the whole package or device: idle power and other processes count.

    `told` says in words what it counts, as a table keeps it.
    """

    told: str

    def seconds(self) -> float:
        """Time between two marks that lets it tell their energy well.

        Raises:
            EnergyError: the counter does not tell anything yet.
        """
        ...

    def mark(self) -> Mark:
        """Now, as the counter knows it."""
        ...

    def joules(self, start: Mark, end: Mark) -> float:
        """Energy drawn between two marks.

        Raises:
            EnergyError: the counter does not know it.
        """
        ...


def counter(name: str) -> Counter[Any]:
    """The counter `rapl`, or the power log at a path.

    Raises:
        EnergyError: there is none.
    """
    return Rapl() if name == "rapl" else PowerLog(Path(name))


class Stretch(NamedTuple, Generic[Mark]):
    """Runs that filled the time between two marks, and more time before and after them."""

    start: Mark
    end: Mark
    seconds: float
    runs: int


@dataclass(frozen=True)
class Meter(Generic[Mark]):
    """What runs add to the power that a machine draws at rest, in stretches of so many seconds between two marks."""

    counter: Counter[Mark]
    seconds: float
    rest_watts: float = 0.0

    @classmethod
    def at_rest(cls, counter: Counter[Mark]) -> Meter[Mark]:
        """The meter of a machine that is at rest now.

        Raises:
            EnergyError: the counter does not tell.
        """
        seconds = counter.seconds()
        rest = cls(counter, REST * seconds).watch(lambda: sleep(seconds * LEAD))
        return cls(counter, seconds, counter.joules(rest.start, rest.end) / rest.seconds)

    def watch(self, run: Callable[[], object]) -> Stretch[Mark]:
        """Runs for as long as the meter needs."""
        _fill(LEAD * self.seconds, run)
        begun, start = monotonic(), self.counter.mark()
        runs = _fill(self.seconds, run)
        end, ended = self.counter.mark(), monotonic()
        _fill(LEAD * self.seconds, run)
        return Stretch(start, end, ended - begun, runs)

    def millijoules(self, stretch: Stretch[Mark]) -> float | None:
        """What one run adds to the energy at rest; None if the stretch drew no more than that.

        Raises:
            EnergyError: the counter does not tell.
        """
        added = self.counter.joules(stretch.start, stretch.end) - self.rest_watts * stretch.seconds
        return 1e3 * added / stretch.runs if added > 0 else None


def _fill(seconds: float, run: Callable[[], object]) -> int:
    """How many runs fill so many seconds: one at least."""
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
    between two marks, which takes minutes at least. Cores and graphics are counted by the package that they are in.

    Raises:
        EnergyError: there is no counter.
    """

    root: Path = POWERCAP
    told = "counters of processor packages and memory (RAPL), over 0.1 s of runs"

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
    """The CSV that a power meter writes: columns `time`, in Unix seconds or ISO 8601 with its offset from UTC, and `watts`.

    A mark is a time in Unix seconds. The file is read when energy is asked for, which waits until the meter has written as
    far; a last row without its end is left out. Power between two rows lies on the line between them.
    """

    path: Path
    told = f"log of a power meter, over {ROWS} of its rows"

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
                f"{self.path} must span the time from {start:.3f} to {end:.3f}, but spans {times[0]:.3f} to {times[-1]:.3f}"
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
        told, power = row["time"] or "", row["watts"] or ""
        seconds, watts = _number(told), _number(power)
        if seconds is None:
            seconds = _moment(told)
        if seconds is None:
            raise EnergyError(
                f"{self.path}, row {number}, column time: must be Unix seconds, or ISO 8601 with its offset from UTC, but got {told!r}"
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
