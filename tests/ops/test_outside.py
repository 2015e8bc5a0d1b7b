"""Laws of an op that is not in the package, by the example of one."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from examples.channel_shuffle import Shuffle
from mvnas.backends import backend
from mvnas.errors import SpaceError, TrustError
from mvnas.graph import Graph
from mvnas.latency.model import LatencyModel
from mvnas.latency.table import OPS_COLUMNS, Table, Timing, append, read_kernel, timing_row, write_op, write_shapes
from mvnas.nn import build, deploy
from mvnas.ops import Map, Op
from mvnas.spaces.arch import Arch
from mvnas.spaces.space import Space
from mvnas.system import trust
from mvnas.testing.op import OpContract

ROOT = Path(__file__).parents[2]
OP = "examples.channel_shuffle.Shuffle(groups=4)"


class TestShuffle(OpContract):
    examples = (
        (Shuffle(2), (Map(8, 4, 6),), Map(8, 4, 6)),
        (Shuffle(4), (Map(12, 3, 3),), Map(12, 3, 3)),
    )


@pytest.fixture(scope="module")
def arch() -> Arch:
    return Space.load(ROOT / "examples" / "channel_shuffle.yaml").sample(lambda _, options: options[-1])


@pytest.fixture
def table(arch: Arch, tmp_path: Path) -> Path:
    """A table that has timed each op of the network, the n-th in n ms."""
    device = {"backend": "roofline", "threads": 1, "precision": "float32", "versions": {}}
    (tmp_path / "device.json").write_text(json.dumps(device))
    for ms, ((op, shapes), _) in enumerate(kernels(arch), 1):
        row = timing_row(Timing(ms, ms, 9, 1, "2026-01-01T00:00:00"))
        append(tmp_path / "ops.csv", OPS_COLUMNS, {"op": write_op(op), "shapes": write_shapes(shapes), **row})
    return tmp_path


def kernels(arch: Arch) -> list[tuple[tuple[Op, tuple[object, ...]], int]]:
    counts: dict[object, int] = {}
    for block in arch.summaries:
        for kernel, count in block.kernels:
            counts[kernel] = counts.get(kernel, 0) + count
    return list(counts.items())  # type: ignore[arg-type]


def test_its_channels_must_be_those_of_groups() -> None:
    with pytest.raises(SpaceError, match="groups must divide the channels, but got 3 groups for 8"):
        Graph.single(Shuffle(3), (Map(8, 4, 4),))


def test_a_network_of_it_is_priced_by_a_row_of_a_table(arch: Arch, table: Path) -> None:
    assert OP in (table / "ops.csv").read_text()
    model = LatencyModel.of_kernels(Table.load(table))
    assert model.prices.network(arch)[0] == sum(ms * count for ms, (_, count) in enumerate(kernels(arch), 1))
    assert kernels(arch)[0][0][0].kind(*kernels(arch)[0][0][1]) == "conv3.stride2.silu"
    assert Shuffle(4).kind(Map(32, 16, 16)) == "examples.channel_shuffle.shuffle"


def test_a_table_may_name_it_only_if_the_user_did(table: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    Table.load(table)
    monkeypatch.setattr(trust, "_run", {})
    monkeypatch.setattr(trust, "_allowed", set())
    with pytest.raises(TrustError, match="names the module 'examples.channel_shuffle'"):
        Table.load(table)
    trust_it = {"examples.channel_shuffle", "examples.nothing"}
    monkeypatch.setattr(trust, "_allowed", trust_it)
    assert read_kernel(OP, "Map(32, 16, 16)") == (Shuffle(4), (Map(32, 16, 16),))
    for text in (
        "examples.channel_shuffle.Nothing()",
        "examples.nothing.Shuffle(groups=4)",
        "examples.channel_shuffle.Block()",
    ):
        with pytest.raises(ValueError, match="is no op"):
            read_kernel(text, "Map(32, 16, 16)")


@pytest.mark.parametrize("name", ["tflite", "onnx", "coreml"])
def test_a_network_of_it_is_written_in_every_format(arch: Arch, name: str, tmp_path: Path) -> None:
    shipped, weights = deploy(arch.graph(), build(arch.graph()).state_dict())
    written: Any = backend(name)
    path = tmp_path / f"network{written.suffix}"
    written.export(shipped, path, weights)
    assert path.exists()
