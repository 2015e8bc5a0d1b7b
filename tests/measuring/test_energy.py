"""Laws of energy: counters wrap, logs integrate, and damage is told where it is."""

from __future__ import annotations

import csv
import json
import random
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path

import pytest
from phone import Phone
from small import make_space

from mvnas.backends import backend
from mvnas.backends.roofline import Backend
from mvnas.budgets import Bound, Budget
from mvnas.budgets.feasible import check_feasible
from mvnas.cli import main
from mvnas.costs import Price
from mvnas.errors import BudgetError, EnergyError, TableError
from mvnas.graph import Graph, Node
from mvnas.latency.model import LatencyModel, latency
from mvnas.latency.table import INSIDE, Table, read_kernel
from mvnas.measuring.energy import Meter, PowerLog, Rapl
from mvnas.measuring.holdout import held_out
from mvnas.measuring.measure import measure
from mvnas.measuring.protocol import Protocol
from mvnas.reports.plot import draw
from mvnas.spaces.arch import Arch
from mvnas.spaces.space import Space
from mvnas.studies.score import Frontier
from mvnas.studies.study import Study

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


def test_a_log_that_is_still_written_is_waited_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    log = write_log(tmp_path / "log.csv", "100,2", "101,2", "102,8")
    lines = iter(["103,8\n10", "4,8\n105,8", "\n"])

    def write(seconds: float) -> None:
        with log.path.open("a") as stream:
            stream.write(next(lines))

    monkeypatch.setattr("mvnas.measuring.energy.time", lambda: 105.0)
    monkeypatch.setattr("mvnas.measuring.energy.sleep", write)
    assert log.seconds() == 10
    assert log.joules(102.0, 104.5) == pytest.approx(20.0)
    assert next(lines, None) is None
    monkeypatch.setattr("mvnas.measuring.energy.time", lambda: 170.0)
    with pytest.raises(EnergyError, match=r"must span the time from 105.000 to 106.000, but spans 100.000 to 105.000"):
        log.joules(105.0, 106.0)


def test_a_log_must_have_begun_before_anything_is_measured(tmp_path: Path) -> None:
    with pytest.raises(EnergyError, match="must hold two rows or more before anything is measured"):
        Meter.at_rest(write_log(tmp_path / "log.csv", "100,2"))


AT_REST = 40.0  # watts
FAST = Protocol(op_openings=1, op_runs=1, op_seconds=0, network_runs=1, network_seconds=0, passes=2)


def true_mj(node: Node) -> float:
    """Energy of a kernel of the machine below: by its multiply-accumulates and by its bytes, whichever bound its
    time.
    """
    return 2e-8 * node.macs + 5e-7 * node.traffic_bytes + 1e-3


def true_mj_of(arch: Arch) -> float:
    return sum(map(true_mj, arch.graph().deployed().work))


@dataclass
class Machine:
    """A machine whose time passes and whose counters move as the arithmetic backend's kernels run."""

    root: Path
    now: float = 0.0
    joules: float = 0.0

    def spend(self, seconds: float, joules: float = 0.0) -> None:
        self.now += seconds
        self.joules += AT_REST * seconds + joules

    def stopwatch(self, backend: Backend, path: Path) -> Callable[[], float]:
        rows = [read_kernel(row["op"], row["shapes"]) for row in json.loads(path.read_text())]
        nodes = [Graph.single(*kernel).output for kernel in rows]
        ms, mj = sum(map(backend.kernel_ms, nodes)), sum(map(true_mj, nodes))

        def run() -> float:
            self.spend(1e-3 * ms, 1e-3 * mj)
            return ms

        return run


@dataclass(frozen=True)
class Counters(Rapl):
    """The tree of counters of a machine, written when it is read."""

    machine: Machine | None = None

    def seconds(self) -> float:
        return 0.005

    def mark(self) -> tuple[int, ...]:
        assert self.machine
        write_zone(self.root, "intel-rapl:0", "package-0", round(1e6 * self.machine.joules) % SPAN)
        return super().mark()


@pytest.fixture(scope="module")
def counters(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Counters]:
    """Counters that move while the arithmetic backend runs."""
    root = tmp_path_factory.mktemp("powercap")
    write_zone(root, "intel-rapl:0", "package-0", 0)
    machine = Machine(root)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Backend, "stopwatch", lambda self, path: machine.stopwatch(self, path))
        patch.setattr("mvnas.measuring.energy.monotonic", lambda: machine.now)
        patch.setattr("mvnas.measuring.energy.sleep", machine.spend)
        yield Counters(root, machine)


@pytest.fixture(scope="module")
def space(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_space(tmp_path_factory.mktemp("space"))


@pytest.fixture(scope="module")
def table(space: Path, counters: Counters, tmp_path_factory: pytest.TempPathFactory) -> Table:
    folder = tmp_path_factory.mktemp("table") / "powered"
    return measure([Space.load(space)], backend("roofline"), folder=folder, ops=150, networks=12,
                   counter=counters, protocol=FAST)  # fmt: skip


def test_energy_is_what_runs_add_to_a_machine_at_rest(table: Table) -> None:
    for kernel, timing in table.ops.items():
        assert timing.energy_mj == pytest.approx(true_mj(Graph.single(*kernel).deployed().output), rel=1e-3)
    for arch, timing in table.networks.items():
        assert timing.energy_mj == pytest.approx(true_mj_of(arch), rel=1e-3)
    assert table.device["rest_watts"] == [AT_REST]
    assert "RAPL" in table.device["energy"]


def test_a_run_that_adds_nothing_has_no_energy(counters: Counters) -> None:
    machine = counters.machine
    assert machine
    meter = Meter(counters, 0.005, AT_REST)
    assert meter.millijoules(meter.watch(lambda: machine.spend(1e-3, -1e-3))) is None
    assert meter.millijoules(meter.watch(lambda: machine.spend(1e-3, 1e-3))) == pytest.approx(1.0)


def test_the_model_predicts_energy_of_unseen_networks_within_its_interval(space: Path, table: Table) -> None:
    model, generator = LatencyModel.fit(table), random.Random(7)
    archs = [Space.load(space).sample(lambda name, options: generator.choice(options)) for _ in range(40)]
    assert model.knows_energy
    for arch in archs:
        estimate = model.energy.predict(arch)
        assert estimate.value == pytest.approx(true_mj_of(arch), rel=0.02)
        assert estimate.low <= estimate.value <= estimate.high and estimate.unit == "mJ"
    assert held_out(table, "energy")[0].mape < 0.01 < held_out(table, "energy")[2].mape


def test_energy_leaves_latency_as_it_is(table: Table) -> None:
    plain = replace(table, ops={kernel: replace(timing, energy_mj=None) for kernel, timing in table.ops.items()})
    archs = list(table.networks)
    assert (
        LatencyModel.fit(plain).predict_each(archs).value == LatencyModel.fit(table).predict_each(archs).value
    ).all()
    assert "energy" in Price(archs[0], LatencyModel.fit(table))
    assert "energy" not in list(Price(archs[0], LatencyModel.fit(plain)))


def test_a_budget_bounds_energy(space: Path, table: Table) -> None:
    model, choices = LatencyModel.fit(table), Space.load(space)
    least = min(Price(arch, model)["energy"] for arch in table.networks)
    check_feasible(Budget("", (Bound("energy", least),)), choices, model)
    with pytest.raises(BudgetError, match="the nearest feasible is .*mJ-energy") as caught:
        check_feasible(Budget.parse("0.01mJ"), choices, model)
    check_feasible(Budget.parse(str(caught.value).rpartition("the nearest feasible is ")[2]), choices, model)


@pytest.mark.parametrize(("device", "told"), [({}, "its table has none"), ({"ops": INSIDE}, "timed inside networks")])
def test_energy_that_was_not_measured_of_ops_is_told(table: Table, device: dict[str, str], told: str) -> None:
    ops = {kernel: replace(timing, energy_mj=None) for kernel, timing in table.ops.items()}
    model = LatencyModel.fit(replace(table, ops=ops, device={**table.device, **device}))
    with pytest.raises(TableError, match=f"energy on powered must have been measured op by op, but .*{told}"):
        Price(next(iter(table.networks)), model)["energy"]


def test_energy_of_a_like_device_follows_from_a_few(
    space: Path, table: Table, counters: Counters, tmp_path: Path
) -> None:
    few = measure([Space.load(space)], backend("roofline"), folder=tmp_path / "few", ops=12, like=str(table.path),
                  counter=counters, protocol=FAST)  # fmt: skip
    model = LatencyModel.fit(few)
    assert model.knows_energy
    for arch in table.networks:
        assert model.energy.predict(arch).value == pytest.approx(true_mj_of(arch), rel=0.05)
    both = latency([few, replace(table, device={**table.device, "precision": "int8"})])
    assert both.energy.predict(arch) == model.energy.predict(arch)


def test_a_table_goes_on_with_its_counter_only(space: Path, table: Table, counters: Counters, tmp_path: Path) -> None:
    with pytest.raises(TableError, match="energy was counters of processor packages .* and is None"):
        measure([Space.load(space)], backend("roofline"), folder=table.path, protocol=FAST)
    plain = {key: value for key, value in table.device.items() if key != "energy"}
    (tmp_path / "device.json").write_text(json.dumps(plain))
    with pytest.raises(TableError, match="energy was None and is counters of processor packages"):
        measure([Space.load(space)], backend("roofline"), folder=tmp_path, counter=counters, protocol=FAST)


def test_energy_of_another_device_is_refused(space: Path, counters: Counters, phone: Phone, tmp_path: Path) -> None:
    with pytest.raises(EnergyError, match="measured where the runtime runs, but android starts it on another device"):
        measure([Space.load(space)], backend("android"), folder=tmp_path / "t", counter=counters)


def test_the_command_line_measures_energy_predicts_it_and_bounds_it(
    space: Path, counters: Counters, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    asked: list[str] = []
    monkeypatch.setattr("mvnas.measuring.energy.counter", lambda name: asked.append(name) or counters)
    table, network = tmp_path / "powered", tmp_path / "network.json"
    command = ["measure", "--backend", "roofline", "--space", str(space), "--table", str(table), "--ops", "60"]
    assert main([*command, "--networks", "9", "--energy", "rapl"]) == 0
    assert "ops was told from the 40.00 W that the machine drew at rest" in capsys.readouterr().out
    assert asked == ["rapl"]
    arch = Space.load(space).sample(lambda name, options: options[0])
    network.write_text(json.dumps(arch.to_json()))
    assert main(["predict", str(network), "--device", str(table), "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert told["energy_low_mj"] <= told["energy_mj"] <= told["energy_high_mj"]
    assert told["energy_mj"] == pytest.approx(true_mj_of(arch), rel=0.02)
    assert main(["predict", str(network), "--device", str(table)]) == 0
    assert "a run beyond what the machine draws at rest" in capsys.readouterr().out
    assert main(["space", str(space), "--device", str(table), "--budget", "900mJ"]) == 0
    assert "energy at most 900 mJ" in capsys.readouterr().out
    assert main(["fit", str(table)]) == 0
    assert capsys.readouterr().out.count("plain sum of ops") == 2
    assert main(["space", "mobilevit", "--budget", "30mJ"]) == 2
    assert "energy on genoa-1t must have been measured op by op, but its table has none" in capsys.readouterr().err


def test_a_search_minimises_energy(
    space: Path, table: Table, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    place, sheet, picture = (tmp_path / name for name in ("s.db", "told.csv", "told.png"))
    command = ["search", "--budget", "20K-params", "--space", str(space), "--trials", "5", "--epochs", "0.1"]
    command += ["--study", str(place), "--objective"]
    assert main([*command, "energy", "--device", str(table.path)]) == 0
    assert "of accuracy 0..1 by energy 0.." in capsys.readouterr().out
    study, model = Study.load(str(place)), LatencyModel.fit(table)
    scores = study.scores()
    for score, trial in zip(scores, study.trials(), strict=True):
        energy = model.energy.predict(score.arch)
        found = (score.costs["energy"].low, score.costs["energy"].value, score.costs["energy"].high)
        assert found == pytest.approx((energy.low, energy.value, energy.high))
        assert trial.values == [score.quality.observed[0], score.costs["energy"].value]
        assert score.costs["latency"].value == pytest.approx(model.predict(score.arch).value)
    assert study.frontier() == Frontier.of(scores, ["energy"])
    assert study.on(model).frontier().scores[0].costs["energy"].value == pytest.approx(
        study.frontier().scores[0].costs["energy"].value
    )

    assert main(["front", str(place), "--csv", str(sheet)]) == 0
    assert "energy mJ" in capsys.readouterr().out
    with sheet.open() as file:
        assert [float(row["energy_mj"]) for row in csv.DictReader(file)] == pytest.approx(
            [score.costs["energy"].value for score in study.frontier().scores], abs=1e-6
        )
    assert main(["plot", str(place), "--out", str(picture)]) == 0
    assert picture.stat().st_size > 10_000
    (axes,) = draw(scores, title="", device="powered", objective="energy").axes
    assert axes.get_xlabel() == "energy in mJ at batch 1, predicted for powered"
    capsys.readouterr()

    for objective, device, told in (
        ("latency", str(table.path), "objective was energy and is latency"),
        ("energy", "genoa-1t", "energy on genoa-1t must have been measured op by op, but its table has none"),
        ("power", str(table.path), "unknown cost 'power'"),
    ):
        assert main([*command, objective, "--device", device]) == 2
        assert told in capsys.readouterr().err.splitlines()[-1]
