"""Laws of energy: counters wrap, logs integrate, and damage is told where it is."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path

import pytest

from mvnas.energy import PowerLog, Rapl, millijoules
from mvnas.errors import EnergyError

SPAN = 65_536_000_000


def write_zone(root: Path, folder: str, name: str, microjoules: int) -> None:
    zone = root / folder
    zone.mkdir(parents=True, exist_ok=True)
    for file, value in (("name", name), ("energy_uj", microjoules), ("max_energy_range_uj", SPAN)):
        (zone / file).write_text(f"{value}\n")


def write_log(path: Path, *rows: str) -> PowerLog:
    path.write_text("\n".join(("time,watts", *rows)) + "\n")
    return PowerLog(path)


def test_packages_and_their_memory_add_up_and_what_they_hold_already_does_not(tmp_path: Path) -> None:
    zones = {"intel-rapl:0": "package-0", "intel-rapl:0:0": "core", "intel-rapl:0:1": "dram"}
    zones |= {"intel-rapl:1": "package-1", "intel-rapl:2": "psys"}
    for folder, name in zones.items():
        write_zone(tmp_path, folder, name, 1_000_000)
    counter = Rapl(tmp_path)
    start = counter.mark()
    for folder, name in zones.items():
        write_zone(tmp_path, folder, name, 3_500_000)
    assert counter.joules(start, counter.mark()) == pytest.approx(7.5)
    assert millijoules(counter, start, counter.mark(), runs=100) == pytest.approx(75.0)


def test_a_counter_wraps_around(tmp_path: Path) -> None:
    write_zone(tmp_path, "intel-rapl:0", "package-0", SPAN - 2_000_000)
    counter = Rapl(tmp_path)
    start = counter.mark()
    write_zone(tmp_path, "intel-rapl:0", "package-0", 1_000_000)
    assert counter.joules(start, counter.mark()) == pytest.approx(3.0)


def test_a_machine_without_a_counter_is_told(tmp_path: Path) -> None:
    write_zone(tmp_path, "intel-rapl:0", "psys", 1)
    with pytest.raises(EnergyError, match="must hold the energy counter of a package, but holds none"):
        Rapl(tmp_path)


def test_a_counter_that_cannot_be_read_is_told(tmp_path: Path) -> None:
    write_zone(tmp_path, "intel-rapl:0", "package-0", 1)
    (tmp_path / "intel-rapl:0/energy_uj").unlink()
    with pytest.raises(EnergyError, match=r"intel-rapl:0/energy_uj must be readable, but: No such file"):
        Rapl(tmp_path).mark()


def test_power_on_a_line_is_integrated_exactly(tmp_path: Path) -> None:
    log = write_log(tmp_path / "log.csv", "100,1", "101.5,4", "110,21")  # watts = 2 (time - 100) + 1
    for start, end in ((100.0, 110.0), (100.3, 100.4), (101.0, 107.25), (105.0, 105.0)):
        assert log.joules(start, end) == pytest.approx((end - 100) ** 2 + end - (start - 100) ** 2 - start)


def test_energy_of_parts_adds_up(tmp_path: Path) -> None:
    log = write_log(tmp_path / "log.csv", "0,5", "1,2", "2.5,8", "4,0")
    assert log.joules(0, 4) == pytest.approx(3.5 + 7.5 + 6)
    for middle in (0.5, 1.0, 2.2, 3.9):
        assert log.joules(0, middle) + log.joules(middle, 4) == pytest.approx(log.joules(0, 4))


def test_times_may_be_iso_8601(tmp_path: Path) -> None:
    start = datetime(2025, 3, 1, 12, tzinfo=UTC).timestamp()
    log = write_log(tmp_path / "log.csv", "2025-03-01T12:00:00Z,3", "2025-03-01T13:00:10+01:00,3")
    assert log.joules(start + 1, start + 8) == pytest.approx(21.0)
    assert millijoules(log, start + 1, start + 8, runs=7) == pytest.approx(3000.0)


def test_a_mark_is_a_time_that_a_log_spans(tmp_path: Path) -> None:
    log = PowerLog(tmp_path / "log.csv")
    mark = log.mark()
    write_log(log.path, f"{mark - 1},2", f"{mark + 1},2")
    assert log.joules(mark - 0.5, mark) == pytest.approx(1.0)


@pytest.mark.parametrize(
    ("text", "told"),
    [
        (None, "log.csv must be a readable CSV, but: .*No such file"),
        (b"\xff\xfe", "log.csv must be a readable CSV, but: 'utf-8' codec"),
        (b"", "must have the columns time and watts, but has None"),
        (b"time,volts\n0,1\n", r"must have the columns time and watts, but has \['time', 'volts'\]"),
        (b"time,watts\n", "must hold rows of power, but holds none"),
        (b"time,watts\n0,1\n1,much\n", "log.csv, row 3, column watts: must be a number from 0, but got 'much'"),
        (b"time,watts\n0,1\n1,-2\n", "row 3, column watts: must be a number from 0, but got '-2'"),
        (b"time,watts\n0,nan\n", "row 2, column watts: must be a number from 0, but got 'nan'"),
        (b"time,watts\n0\n", "row 2, column watts: must be a number from 0, but got ''"),
        (b"time,watts\nnoon,1\n", "row 2, column time: must be Unix seconds, or ISO 8601 .*, but got 'noon'"),
        (b"time,watts\n2025-03-01T12:00:00,1\n", "column time: .* with its offset from UTC, but got '2025-03-01T12"),
        (b"time,watts\n0,1\n2,1\n2,1\n", "row 4, column time: must be later than the row before"),
        (b"time,watts\n0,1\n2,1\n", "must span the time from 1.000 to 3.000, but spans 0.000 to 2.000"),
    ],
)
def test_a_log_that_cannot_tell_is_told(tmp_path: Path, text: bytes | None, told: str) -> None:
    if text is not None:
        (tmp_path / "log.csv").write_bytes(text)
    with pytest.raises(EnergyError, match=told):
        PowerLog(tmp_path / "log.csv").joules(1.0, 3.0)


def test_time_runs_forward(tmp_path: Path) -> None:
    log = write_log(tmp_path / "log.csv", "0,1", "9,1")
    with pytest.raises(EnergyError, match="must span the time from 3.000 to 1.000"):
        log.joules(3.0, 1.0)
