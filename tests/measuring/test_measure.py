"""Laws of measuring and of the latency model, on the arithmetic backend and on whatever table is shipped."""

from __future__ import annotations

import csv
import json
import random
import tempfile
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from small import make_space, make_table

from mvnas.backends import backend
from mvnas.backends.roofline import Backend
from mvnas.errors import FileError, TableError, UnmeasuredError
from mvnas.graph import Graph, Kernel
from mvnas.latency.calibration import sittings
from mvnas.latency.kinds import dimensions, kind
from mvnas.latency.model import LatencyModel
from mvnas.latency.table import INSIDE, Table, read_kernel, shipped, write_op, write_shapes
from mvnas.latency.table_prices import FEWEST_TIMINGS
from mvnas.measuring.clock import alone
from mvnas.measuring.holdout import Errors, held_out
from mvnas.measuring.measure import measure
from mvnas.measuring.plan import CORNERS, calibrating, coverage, plan, refine, suspects
from mvnas.measuring.protocol import Protocol
from mvnas.ops import Conv, Map, State
from mvnas.spaces.arch import Arch
from mvnas.spaces.reading import names
from mvnas.spaces.space import Space
from mvnas.spaces.zoo import published


class Inside(Backend):
    """Arithmetic that tells what ops take inside networks."""

    def export(self, graph: Graph, path: Path, weights: State) -> None:
        named = {node.name: [write_op(node.op), write_shapes(node.shapes)] for node in graph.work}
        path.write_text(json.dumps(named))

    def stopwatch(self, path: Path) -> Callable[[], float]:
        ms = sum(map(min, self.profile(path, seconds=0).values()))
        return lambda: ms

    def profile(self, path: Path, *, seconds: float) -> dict[str, list[float]]:
        rows = {name: Graph.single(*read_kernel(*texts)).output for name, texts in json.loads(path.read_text()).items()}
        return {name: [self.kernel_ms(node)] for name, node in rows.items()}

    def conditions(self) -> Mapping[str, Any]:
        return {**super().conditions(), "ops": INSIDE}


FAST = Protocol(op_openings=1, op_runs=1, op_seconds=0, network_runs=1, network_seconds=0, passes=2)


@pytest.fixture(scope="module")
def space() -> Space:
    return Space.load("mobilevit")


@pytest.fixture(scope="module")
def kernels(space: Space) -> list[Kernel]:
    return plan([space], 1000)


@pytest.fixture(scope="module")
def table(space: Space, tmp_path_factory: pytest.TempPathFactory) -> Table:
    folder = tmp_path_factory.mktemp("table") / "roof"
    return measure([space], backend("roofline"), folder=folder, ops=900, networks=20, protocol=FAST)


def sample(space: Space, count: int, seed: int = 7) -> list[Arch]:
    generator = random.Random(seed)
    return [space.sample(lambda name, options: generator.choice(options)) for _ in range(count)]


def test_plan_spans_every_dimension_of_the_space(space: Space, kernels: list[Kernel]) -> None:
    spans: dict[str, list[dict[str, int]]] = {}
    for kernel in kernels:
        spans.setdefault(kind(kernel), []).append(dimensions(kernel))
    for arch in sample(space, 200):
        for block in arch.with_classes(10).summaries:
            for kernel, _ in block.kernels:
                for name, size in dimensions(kernel).items():
                    sizes = [span[name] for span in spans[kind(kernel)]]
                    assert min(sizes) <= size <= max(sizes), (kernel, name)


def test_plan_has_no_kernel_twice_and_no_kind_too_often(kernels: list[Kernel]) -> None:
    assert len(set(kernels)) == len(kernels)
    kinds = [kind(kernel) for kernel in kernels]
    assert max(map(kinds.count, set(kinds))) == CORNERS


def test_every_network_of_the_space_is_predicted_well_on_arithmetic(space: Space, table: Table) -> None:
    model = LatencyModel.fit(table)
    runtime = backend("roofline")
    for arch in sample(space, 40):
        path = table.path / "network.json"
        graph = arch.graph().deployed()
        runtime.export(graph, path, {})
        truth = runtime.stopwatch(path)()
        assert model.predict(arch).value == pytest.approx(truth, rel=0.1)


def test_prediction_is_the_sum_over_blocks_within_its_interval(space: Space, table: Table) -> None:
    model = LatencyModel.fit(table)
    for arch in sample(space, 20):
        estimate = model.predict(arch)
        assert sum(ms for ms, _ in model.predict_blocks(arch)) == pytest.approx(estimate.value)
        assert estimate.low <= estimate.value <= estimate.high
        assert 0 <= estimate.measured_share <= 1


def test_timed_kernel_costs_its_timing(table: Table) -> None:
    model = LatencyModel.of_kernels(table)
    for kernel, timing in list(table.ops.items())[:50]:
        assert model.prices.kernel(kernel) == timing.min_ms


@pytest.mark.parametrize(
    ("kernel", "told"),
    [
        (
            (Conv(4096, norm=False, bias=True, act=""), (Map(64, 32, 32),)),
            "output channels of conv1 must lie in 16..240",
        ),
        ((Conv(64, kernel=7, norm=False, bias=True), (Map(64, 32, 32),)), "conv7.silu must have been timed"),
    ],
)
def test_kernel_outside_of_the_table_is_an_error_that_says_what_to_measure(
    kernel: Kernel, told: str, table: Table
) -> None:
    with pytest.raises(UnmeasuredError, match="mvnas measure") as caught:
        LatencyModel.of_kernels(table).prices.kernel(kernel)
    assert told in str(caught.value)


def test_calibration_recovers_a_factor_and_its_spread(table: Table) -> None:
    model = LatencyModel.of_kernels(table)
    noise = np.random.default_rng(0).normal(0, 0.02, len(table.networks))
    networks = {a: 1.3 * model.prices.network(a)[0] * np.exp(e) for a, e in zip(table.networks, noise, strict=True)}
    calibrated = model.calibrated(networks)
    sums = np.array([model.prices.network(arch)[0] for arch in networks])
    assert calibrated.calibration.factor * sums**calibrated.calibration.power == pytest.approx(1.3 * sums, rel=0.03)
    assert 0.02 < calibrated.calibration.spread < 0.06
    inside = [calibrated.predict(a).low <= ms <= calibrated.predict(a).high for a, ms in networks.items()]
    assert np.mean(inside) >= 0.85


def test_interval_needs_networks(table: Table, tmp_path: Path) -> None:
    for name in ("device.json", "ops.csv"):
        (tmp_path / name).write_text((table.path / name).read_text())
    with pytest.raises(TableError, match="8 whole networks"):
        LatencyModel.fit(Table.load(tmp_path))


def test_a_killed_measurement_continues_and_keeps_its_rows(tmp_path: Path) -> None:
    space = make_space(tmp_path)

    class Killed(BaseException):
        pass

    def stop(what: str, done: int, total: int) -> None:
        if (what, done) == ("ops timed", 5):
            raise Killed

    with pytest.raises(Killed):
        measure(
            [Space.load(space)],
            backend("roofline"),
            folder=tmp_path / "t",
            ops=200,
            networks=9,
            protocol=FAST,
            progress=stop,
        )
    rows = (tmp_path / "t" / "ops.csv").read_text()
    assert rows.count("\n") == 6
    with (tmp_path / "t" / "ops.csv").open("a") as file:
        file.write("Conv(out=8, ker")  # a row cut off by the kill
    table = measure(
        [Space.load(space)],
        backend("roofline"),
        folder=tmp_path / "t",
        ops=200,
        networks=9,
        protocol=FAST,
    )
    after = (tmp_path / "t" / "ops.csv").read_text()
    assert after.startswith(rows)
    assert len(table.ops) == after.count("\n") - 1
    assert not (tmp_path / "t" / "build").exists()
    assert all(len(timings) == 2 for timings in table.passes.values())


def test_a_table_of_other_conditions_is_not_continued(tmp_path: Path) -> None:
    space = make_space(tmp_path)
    folder = make_table(tmp_path / "t", space)
    device = json.loads((folder / "device.json").read_text())
    (folder / "device.json").write_text(json.dumps(device | {"threads": 4}))
    with pytest.raises(TableError, match="threads was 4 and is 1"):
        make_table(folder, space)


def test_one_measurement_at_a_time(tmp_path: Path) -> None:
    space = make_space(tmp_path)
    with alone(), pytest.raises(TableError, match="one measurement"):
        make_table(tmp_path / "t", space)


def test_the_lock_of_measurements_is_the_users_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What anybody may put into the shared temporary folder is neither followed nor in the way."""
    monkeypatch.delenv("XDG_RUNTIME_DIR")
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    kept = tmp_path / "kept.txt"
    kept.write_text("of worth")
    for name in ("mvnas-measure.lock", "measure.lock"):
        (tmp_path / name).symlink_to(kept)
    with alone():
        held = [path for path in tmp_path.rglob("*.lock") if not path.is_symlink()]
    assert [path.parent.stat().st_mode & 0o777 for path in held] == [0o700]
    assert kept.read_text() == "of worth"
    (held[0]).symlink_to(kept)
    with pytest.raises(FileError, match="must be writable"), alone():
        pass
    assert kept.read_text() == "of worth"


def test_refinement_draws_what_is_not_timed_and_fills_the_table(space: Space, table: Table) -> None:
    assert len(table.ops) == 900
    drawn = refine([space], table, 950)
    assert len(set(drawn)) == 50
    assert not set(drawn) & set(table.ops)
    assert refine([space], table, 900) == []


def test_the_error_of_a_kind_is_that_of_tables_without_the_op_that_is_judged(table: Table) -> None:
    few = [kernel for kernel in table.ops if kind(kernel) == "conv1"][:9]
    noise = np.exp(np.random.default_rng(0).normal(0, 0.3, len(few)))
    ops = {k: replace(table.ops[k], min_ms=table.ops[k].min_ms * by) for k, by in zip(few, noise, strict=True)}
    errors = []
    for kernel, timing in ops.items():
        without = LatencyModel.of_kernels(replace(table, ops={k: t for k, t in ops.items() if k != kernel}))
        errors.append(np.log(timing.min_ms / without.prices.rates["conv1"].predict([kernel])[0]))
    told = LatencyModel.of_kernels(replace(table, ops=ops)).errors
    assert told == {"conv1": pytest.approx(np.sqrt(np.mean(np.square(errors))))}


def test_a_timing_made_while_the_machine_was_slow_is_made_again(tmp_path: Path) -> None:
    space = make_space(tmp_path)
    folder = make_table(tmp_path / "t", space)
    rows = (folder / "ops.csv").read_text().splitlines(keepends=True)
    cells = rows[3].rsplit(",", 2)
    slow = f"{cells[0].rsplit(',', 1)[0]},{cells[0].rsplit(',', 1)[1]},{float(cells[1]) * 2},{cells[2]}"
    (folder / "ops.csv").write_text("".join([*rows[:3], slow, *rows[4:]]))
    make_table(folder, space)
    after = (folder / "ops.csv").read_text().splitlines()
    key = rows[3].rsplit(",", 5)[0]
    assert {row.rsplit(",", 5)[0] for row in after[len(rows) :]} == {key}


def test_coverage_is_the_share_of_networks_that_can_be_priced(space: Space, table: Table) -> None:
    assert coverage([space], LatencyModel.of_kernels(table)) == 1
    blind = replace(table, ops={k: t for k, t in table.ops.items() if kind(k) != "attention"})
    assert coverage([space], LatencyModel.of_kernels(blind)) == 0


def test_measuring_again_adds_the_sizes_that_a_kind_of_op_lacks_and_no_network_twice(tmp_path: Path) -> None:
    space = Space.load(make_space(tmp_path))
    settings: dict[str, Any] = {"folder": tmp_path / "t", "ops": 20, "networks": 9, "protocol": FAST}
    table = measure([space], Inside(), **settings)
    assert coverage([space], LatencyModel.fit(table)) == 1
    file = tmp_path / "t" / "ops.csv"
    head, *rows = file.read_text().splitlines(keepends=True)
    lost = {
        write_op(k[0]) + write_shapes(k[1])
        for k in [k for k in table.ops if kind(k) == "conv1.silu"][FEWEST_TIMINGS - 1 :]
    }
    kept = [row for row in csv.reader(rows) if row[0] + row[1] not in lost]
    with file.open("w", newline="") as stream:
        csv.writer(stream, lineterminator="\n").writerows([next(csv.reader([head])), *kept, *kept])  # each timed twice
    few = LatencyModel.of_kernels(Table.load(tmp_path / "t"))
    with pytest.raises(
        UnmeasuredError, match="conv1.silu must have been timed at 8 distinct sizes or more, but was at 7;"
    ):
        few.predict_each(list(table.networks))
    networks = (tmp_path / "t" / "networks.csv").read_text()
    again = measure([space], Inside(), **settings)
    assert coverage([space], LatencyModel.fit(again)) == 1
    assert (tmp_path / "t" / "networks.csv").read_text() == networks


def test_networks_that_mix_families_calibrate_as_many_as_the_families_that_they_mix() -> None:
    spaces = [Space.load(name) for name in ("mobilenetv2", "tiny_vit", "hybrid")]
    archs = calibrating(spaces, 24)
    mixed = [arch for arch in archs if spaces[2].locate(arch) is not None]
    assert len(mixed) == 20
    assert {Space.load(name).arch() for name in published() if name.startswith(("mobilenetv2", "tiny_vit"))} < set(
        archs
    )


def test_a_timing_far_above_its_kind_is_a_suspect(table: Table) -> None:
    usual = suspects(table)
    odd = next(kernel for kernel in table.ops if kind(kernel) == "conv1.silu" and kernel not in usual)
    timing = table.ops[odd]
    disturbed = replace(table, ops={**table.ops, odd: replace(timing, min_ms=3 * timing.min_ms)})
    assert odd in suspects(disturbed)


def test_quality_of_known_errors() -> None:
    truth = np.array([1.0, 2.0, 4.0, 8.0])
    row = Errors.of("x", truth, truth * [1.0, 1.04, 0.92, 1.2], (truth * 0.9, truth * 1.1))
    assert (row.mape, row.within_5, row.within_10) == pytest.approx((0.08, 0.5, 0.75))
    assert (row.worst, row.tau, row.covered) == pytest.approx((0.2, 1.0, 1.0))


@pytest.mark.parametrize("name", shipped())
def test_shipped_table_covers_the_space_and_beats_the_baselines(name: str, space: Space) -> None:
    table = Table.load(name)
    model = LatencyModel.fit(table)
    for arch in [
        *sample(space, 100),
        *(Space.load(n).arch() for n in ("mobilevit_xxs", "mobilevit_xs", "mobilevit_s")),
    ]:
        for classes in (2, 10, 1000):
            assert model.predict(arch.with_classes(classes)).value > 0
    assert len(table.networks) >= 40
    assert all(Space.load(n).arch() in table.networks for n in ("mobilevit_xxs", "mobilevit_xs", "mobilevit_s"))
    rows = {row.name: row for row in held_out(table)}
    ours = rows["sum of ops, calibrated (mvnas)"]
    assert ours.mape <= 0.02
    assert ours.within_5 >= (0.95 if len({*sittings(table, table.networks)}) < 3 else 0.93)  # of two days
    assert ours.within_10 >= 0.98
    assert ours.tau and ours.tau >= 0.97
    assert 0.85 <= (ours.covered or 0) <= 1
    assert ours.mape < 0.5 * rows["MACs only"].mape


def test_the_first_shipped_table_prices_every_space_and_every_published_network() -> None:
    model = LatencyModel.fit(Table.load(shipped()[0]))
    spaces = [Space.load(name) for name in names()]
    assert coverage(spaces, model) == 1
    assert all(model.predict(space.arch()).value > 0 for space in spaces if not space.choices)


def test_several_spaces_are_spanned_and_priced_by_one_table(tmp_path: Path) -> None:
    spaces = [Space.load(name) for name in ("mobilenetv2", "mobileone", "mobilevit_xxs")]
    table = measure(spaces, backend("roofline"), folder=tmp_path / "t", networks=8, protocol=FAST)
    assert {Space.load(name).arch() for name in ("mobilenetv2_100", "mobileone_s0", "mobilevit_xxs")} < set(
        table.networks
    )
    assert len(table.networks) == 3 + 8
    assert coverage(spaces, LatencyModel.of_kernels(table)) == 1
    assert coverage([Space.load("repvit")], LatencyModel.of_kernels(table)) == 0
