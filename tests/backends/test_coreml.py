"""Laws of timing with Core ML: coremltools' own classes, up to the native library and the answers of a phone.

What stands for these is in apple.py; nothing was run on Apple's hardware.
"""

from __future__ import annotations

import random
from collections import Counter
from pathlib import Path

import pytest
from apple import Model, Phone, apple, costs, predict_ms  # noqa: F401
from small import make_space

from mvnas import nn
from mvnas.backends import Device, Profiler, backend
from mvnas.backends.coreml import MOST_REMOTE_RUNS, OPEN, by_device, nodes, op_names
from mvnas.errors import ExportError
from mvnas.graph import Graph
from mvnas.latency.table import INSIDE
from mvnas.measuring.measure import measure
from mvnas.measuring.protocol import Protocol
from mvnas.spaces.space import Space

PLACES = ["", "Test iPhone"]
FAST = Protocol(op_openings=1, op_runs=1, op_seconds=0, network_runs=1, network_seconds=0, passes=1)


@pytest.fixture(scope="module")
def graph(tmp_path_factory: pytest.TempPathFactory) -> Graph:
    space = Space.load(make_space(tmp_path_factory.mktemp("space")))
    return space.sample(lambda name, values: values[0]).graph().deployed()


@pytest.fixture(scope="module")
def path(graph: Graph, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("network") / "network.mlpackage"
    backend("coreml").export(graph, path, nn.arbitrary(graph))
    return path


@pytest.mark.usefixtures("apple")
@pytest.mark.parametrize("device", PLACES)
class TestTiming:
    def test_samples_are_the_durations_that_core_ml_tells(self, path: Path, device: str) -> None:
        runtime = backend("coreml", device=device)
        assert isinstance(runtime, Device) and isinstance(runtime, Profiler)
        (sample,) = runtime.samples([path], runs=3, seconds=0)
        assert (sample.min_ms, sample.median_ms) == pytest.approx((predict_ms(path),) * 2, abs=1e-6)
        assert sample.runs == 3
        (sample,) = runtime.samples([path], runs=3, seconds=0.05)
        assert sample.runs >= (MOST_REMOTE_RUNS if device else 50 / predict_ms(path))
        assert runtime.stopwatch(path)() == pytest.approx(predict_ms(path), abs=1e-6)

    def test_a_profile_shares_each_run_among_the_nodes(self, graph: Graph, path: Path, device: str) -> None:
        found = backend("coreml", device=device).profile(path, seconds=0)
        assert found.keys() == {node.name for node in graph.work}
        (runs,) = {len(ms) for ms in found.values()}
        assert [sum(ms[i] for ms in found.values()) for i in range(runs)] == pytest.approx([predict_ms(path)] * runs)
        wanted = Counter[str]()
        for node, ms in zip(nodes(path), costs(path).values(), strict=True):
            wanted[node] += ms
        assert {node: min(ms) for node, ms in found.items()} == pytest.approx(wanted, abs=1e-6)

    def test_placement_tells_the_device_of_every_op(self, path: Path, device: str) -> None:
        placed = backend("coreml", device=device).placement(path)
        assert [row.op for row in placed] == op_names(path)
        assert [row.node for row in placed] == nodes(path)
        assert {row.op for row in placed if row.device == "CPU"} == {"softmax"}
        assert {row.supported for row in placed} == {("CPU", "Neural Engine")}
        told = by_device(placed)
        assert told.keys() == {"CPU", "Neural Engine"}
        assert sum(ops for ops, _ in told.values()) == len(placed)
        assert sum(share for _, share in told.values()) == pytest.approx(1)
        card = backend("coreml", device=device).inspect(path)["placement"]
        assert {name: (row["ops"], row["share"]) for name, row in card.items()} == told


@pytest.mark.usefixtures("apple")
class TestDevice:
    def test_measure_makes_a_table_of_ops_inside_networks(self, tmp_path: Path) -> None:
        space = Space.load(make_space(tmp_path))
        runtime = backend("coreml", units="cpu-ane", device="Test iPhone")
        table = measure([space], runtime, folder=tmp_path / "t", ops=10, networks=2, protocol=FAST)
        assert (table.device["ops"], table.device["units"]) == (INSIDE, "cpu-ane")
        assert table.device["cpu"] == "Test iPhone"
        assert len(table.ops) >= 10
        made = [Graph.single(*kernel) for kernel in random.Random(0).sample(list(table.ops), 3)]
        graphs = [*made, *(arch.graph().deployed() for arch in table.networks)]
        took = [*(table.ops[graph.output.key] for graph in made), *table.networks.values()]
        for file, timing in zip(runtime.export_each(graphs, tmp_path), took, strict=True):
            assert timing.min_ms == pytest.approx(predict_ms(file), rel=1e-3)

    def test_no_more_models_stay_loaded_than_are_timed(self, path: Path, tmp_path: Path) -> None:
        runtime = backend("coreml", device="Test iPhone")
        for i in range(4):
            copy = tmp_path / f"{i}.mlpackage"
            copy.symlink_to(path)
            runtime.samples([copy], runs=1, seconds=0)
        assert len(Phone.models) == OPEN

    @pytest.mark.parametrize("name", ["Test iPone", "Other iPhone"])
    def test_a_device_that_is_not_connected_is_named_with_those_that_are(self, name: str, path: Path) -> None:
        with pytest.raises(ExportError, match=r"Test iPhone \(connected\), Other iPhone \(disconnected\)"):
            backend("coreml", device=name).samples([path], runs=1, seconds=0)

    def test_units_are_passed_on(self, path: Path) -> None:
        backend("coreml", units="cpu-gpu").samples([path], runs=1, seconds=0)
        assert Model.loaded[-1][1] == "CPU_AND_GPU"


def test_unknown_units_give_the_near_miss() -> None:
    with pytest.raises(ExportError, match="did you mean 'cpu-ane'"):
        backend("coreml", units="cpu-ani")
