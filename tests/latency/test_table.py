"""Laws of latency tables: what is written is read back, a kill costs one row at most, and damage is told where it
is.
"""

from __future__ import annotations

import json
import random
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from mvnas.errors import TableError
from mvnas.graph import Graph
from mvnas.latency.model import LatencyModel
from mvnas.latency.table import (
    ENERGY,
    NETWORKS_COLUMNS,
    OPS_COLUMNS,
    Table,
    Timing,
    append,
    read_kernel,
    read_network,
    shipped,
    timing_row,
    write_network,
    write_op,
    write_shapes,
)  # fmt: skip
from mvnas.ops import (
    Add,
    Attention,
    Conv,
    Fold,
    Linear,
    LinearAttention,
    Map,
    Op,
    PairBias,
    Pool,
    Resize,
    SeparableAttention,
    Tokens,
    Vector,
)
from mvnas.spaces.reading import data_folder
from mvnas.spaces.space import Space

MOBILEVITS = ("mobilevit_s", "mobilevit_xs", "mobilevit_xxs")
MOBILEVIT = Space.load("mobilevit")
DEVICE = {"backend": "roofline", "threads": 1, "precision": "float32", "versions": {}}
TIMING = Timing(1.25, 1.5, 15, 0.125, "2026-01-01T00:00:00")
CONV, LINEAR, POOL = (Conv(8, kernel=3), (Map(3, 8, 8),)), (Linear(10), (Vector(8),)), (Pool(), (Map(3, 8, 8),))


def ops_row(op: Any, shapes: Any, timing: Timing = TIMING) -> dict[str, Any]:
    return {"op": write_op(op), "shapes": write_shapes(shapes), **timing_row(timing)}


def write_table(folder: Path) -> Path:
    (folder / "device.json").write_text(json.dumps(DEVICE))
    for kernel in (CONV, LINEAR):
        append(folder / "ops.csv", OPS_COLUMNS, ops_row(*kernel))
    for number, name in enumerate(MOBILEVITS):
        row = {"network": write_network(Space.load(name).arch()), "pass": number, **timing_row(TIMING)}
        append(folder / "networks.csv", NETWORKS_COLUMNS, row)
    return folder


@pytest.mark.parametrize("seed", range(30))
def test_kernels_and_networks_are_read_as_they_were_written(seed: int) -> None:
    generator = random.Random(seed)
    arch = MOBILEVIT.sample(lambda name, options: generator.choice(options))
    assert read_network(write_network(arch), "here") == arch
    for block in arch.summaries:
        for (op, shapes), _ in block.kernels:
            assert read_kernel(write_op(op), write_shapes(shapes)) == (op, shapes)


def test_text_of_an_op_leaves_out_defaults() -> None:
    assert write_op(Conv(64, kernel=3, act="")) == "Conv(out=64, kernel=3, act='')"
    assert write_op(Fold(2, size=(4, 6))) == "Fold(patch=2, size=(4, 6))"
    assert write_op(Resize()) == "Resize()"
    assert write_shapes((Map(1, 2, 3), Tokens(4, 5, 6), Vector(7))) == "Map(1, 2, 3) Tokens(4, 5, 6) Vector(7)"


@pytest.mark.parametrize(
    ("text", "op"),
    [
        ("Attention(heads=1, form='separable')", SeparableAttention()),
        ("Attention(heads=2, form='relu_linear')", LinearAttention(2, "relu_linear")),
        ("Attention(heads=2, form='relu_softmax')", Attention(2, "relu_softmax")),
        ("Attention(heads=4, biased=True, talking=True)", Attention(4, bias=PairBias(), talking=True)),
    ],
)
def test_attention_is_read_as_it_was_written_when_it_was_one_op(text: str, op: Op) -> None:
    shapes = write_shapes((Tokens(1, 9, 8),) * 3)
    assert read_kernel(text, shapes) == read_kernel(write_op(op), shapes) == (op, (Tokens(1, 9, 8),) * 3)


def test_a_table_is_read_as_it_was_written(tmp_path: Path) -> None:
    table = Table.load(write_table(tmp_path))
    assert table.ops == {CONV: TIMING, LINEAR: TIMING}
    assert table.networks == {Space.load(name).arch(): TIMING for name in MOBILEVITS}
    assert table.device == DEVICE
    assert table.name == tmp_path.name


def test_rows_of_one_op_on_a_map_and_on_tokens_of_the_same_numbers_are_two(tmp_path: Path) -> None:
    file, slow = write_table(tmp_path) / "ops.csv", replace(TIMING, min_ms=9.0)
    for shape, timing in ((Map(16, 64, 64), TIMING), (Tokens(16, 64, 64), slow)):
        append(file, OPS_COLUMNS, ops_row(Add(), (shape, shape), timing))
    found = Table.load(tmp_path).ops
    assert found[Add(), (Map(16, 64, 64),) * 2] == TIMING and found[Add(), (Tokens(16, 64, 64),) * 2] == slow


def test_the_fastest_of_several_timings_counts_and_all_passes_are_kept(tmp_path: Path) -> None:
    arch, fast, slow = Space.load("mobilevit_s").arch(), Timing(1, 2, 9, 1, "a"), Timing(3, 4, 9, 1, "b")
    write_table(tmp_path)
    for timing in (slow, fast, slow):
        append(tmp_path / "ops.csv", OPS_COLUMNS, ops_row(*CONV, timing))
        row = {"network": write_network(arch), "pass": 1, **timing_row(timing)}
        append(tmp_path / "networks.csv", NETWORKS_COLUMNS, row)
    table = Table.load(tmp_path)
    assert table.ops[CONV] == table.networks[arch] == fast
    assert table.passes[arch] == (TIMING, slow, fast, slow)


def test_a_table_may_have_energy_and_keeps_its_columns(tmp_path: Path) -> None:
    known = replace(TIMING, energy_mj=0.25)
    file = write_table(tmp_path) / "ops.csv"
    file.unlink()
    for kernel, timing in ((CONV, TIMING), (LINEAR, known)):
        append(file, (*OPS_COLUMNS, ENERGY), ops_row(*kernel, timing))
    append(file, OPS_COLUMNS, ops_row(*POOL))
    table = Table.load(tmp_path)
    assert table.ops == {CONV: TIMING, LINEAR: known, POOL: TIMING}
    assert set(table.networks.values()) == {TIMING}
    append(file, OPS_COLUMNS, ops_row(*CONV, known) | {ENERGY: "0"})
    with pytest.raises(
        TableError, match=r"ops.csv, row 5, column energy_mj: must be a positive number or empty, but got '0'"
    ):
        Table.load(tmp_path)


@pytest.mark.parametrize("cut", [1, 10, 40])
def test_a_half_written_last_row_is_lost_alone(tmp_path: Path, cut: int) -> None:
    file = write_table(tmp_path) / "ops.csv"
    whole = file.read_bytes()
    file.write_bytes(whole[:-cut])
    assert set(Table.load(tmp_path).ops) == {CONV}
    append(file, OPS_COLUMNS, ops_row(*LINEAR))
    assert file.read_bytes() == whole


def test_a_half_written_header_is_written_again(tmp_path: Path) -> None:
    (tmp_path / "ops.csv").write_text("op,sha")
    assert set(Table.load(write_table(tmp_path)).ops) == {CONV, LINEAR}


TOKENS = "Tokens(4, 6, 8)"


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ({"min_ms": "nan"}, "column min_ms: must be a positive number, but got 'nan'"),
        ({"min_ms": "-1"}, "column min_ms: must be a positive number, but got '-1'"),
        ({"min_ms": ""}, "column min_ms: must be a positive number, but got ''"),
        ({"median_ms": "0"}, "column median_ms: must be a positive number, but got '0'"),
        ({"runs": "many"}, "column runs: must be a positive number, but got 'many'"),
        ({"reference_ms": "inf"}, "column reference_ms: must be a positive number, but got 'inf'"),
        ({"op": "Konv(out=8)"}, "column op: 'Konv(out=8)' is no op or shape"),
        ({"op": "Conv(out=8, krnl=3)"}, "column op: 'Conv(out=8, krnl=3)' is no op or shape"),
        ({"op": "Conv(out=8, stride=0)"}, "column op: 'Conv(out=8, stride=0)' is no op or shape"),
        ({"op": "Conv(out=-8)"}, "column op: 'Conv(out=-8)' is no op or shape"),
        ({"op": "Conv(out=8, out=9)"}, "column op: 'Conv(out=8, out=9)' is no op or shape"),
        ({"op": "Conv(out=8, 3)"}, "column op: 'Conv(out=8, 3)' is no op or shape"),
        ({"op": "Conv(out=8,, kernel=3)"}, "column op: 'Conv(out=8,, kernel=3)' is no op or shape"),
        ({"op": "Conv(out=[8])"}, "column op: 'Conv(out=[8])' is no op or shape"),
        ({"op": "Conv(out=8) Pool()"}, "column op: 'Conv(out=8) Pool()' is no op or shape"),
        ({"op": "Conv(out=__import__('os').getpid())"}, "column op: "),
        ({"op": "Map(3, 8, 8)"}, "column op: 'Map(3, 8, 8)' on 'Map(3, 8, 8)' is no op on shapes"),
        (
            {"op": "Linear(out=8)"},
            "column op: Linear must be given Tokens or Vector, but got Map(c=3, h=8, w=8)",
        ),
        (
            {"op": "Attention(heads=3)", "shapes": " ".join([TOKENS] * 3)},
            "column op: heads must divide the width",
        ),
        ({"shapes": "Map(3, 8)"}, "column op: 'Map(3, 8)' is no op or shape"),
        ({"shapes": "Map(3, -8, 8)"}, "column op: 'Map(3, -8, 8)' is no op or shape"),
        ({"shapes": "Map(3, 8.5, 8)"}, "column op: 'Map(3, 8.5, 8)' is no op or shape"),
        ({"shapes": ""}, "column op: "),
        ({"shapes": "Map(3, 8, 8) Map(3, 8, 8)"}, "column op: "),
        ({"shapes": TOKENS}, "column op: tokens to convolve must be those of a square, but are 6"),
        ({"shapes": "Vector(8)"}, "column op: Conv must be given Map or Tokens, but got Vector(c=8)"),
        ({"time": "x" * 200_000}, "field larger than field limit"),
    ],
    ids=lambda value: f"{value:.0}" if isinstance(value, str) else next(f"{k}={v:.40}" for k, v in value.items()),
)
def test_a_damaged_row_names_file_row_and_column(tmp_path: Path, change: dict[str, str], told: str) -> None:
    file = write_table(tmp_path) / "ops.csv"
    append(file, OPS_COLUMNS, ops_row(*CONV) | change)
    with pytest.raises(TableError) as caught:
        Table.load(tmp_path)
    assert str(caught.value).startswith(str(file))
    assert "row 4" in str(caught.value)
    assert told in str(caught.value)


def test_a_table_of_more_rows_than_can_be_fitted_in_seconds_is_refused(tmp_path: Path) -> None:
    file = write_table(tmp_path) / "ops.csv"
    row = file.read_text().splitlines()[-1] + "\n"
    with file.open("a") as stream:
        stream.write(row * 20_000)
    with pytest.raises(TableError, match=r"ops\.csv must have 20,000 rows at most, but has 20,00\d"):
        Table.load(tmp_path)
    file.write_text(file.read_text() + row * 80_000)
    with pytest.raises(TableError, match="it has more than 4 MB"):
        Table.load(tmp_path)


@pytest.mark.parametrize("text", ["Pool(),Vector(8),1\n", "a,b,c,d,e,f,g,h\n", "\n\nx\n"])
def test_a_row_with_another_number_of_columns_is_told(tmp_path: Path, text: str) -> None:
    with (write_table(tmp_path) / "ops.csv").open("a") as file:
        file.write(text)
    with pytest.raises(TableError, match=r"ops.csv, row [46]: must have 7 columns, but has [138]"):
        Table.load(tmp_path)


@pytest.mark.parametrize(
    ("network", "told"),
    [
        ("{", "Expecting property name"),
        ("[]", "must be an object with the keys resolution and blocks"),
        ('{"resolution": 256, "blocks": [{"block": "nope"}]}', "block 0 (nope): unknown block 'nope'"),
    ],
)
def test_a_damaged_network_names_file_row_and_column(tmp_path: Path, network: str, told: str) -> None:
    append(
        write_table(tmp_path) / "networks.csv",
        NETWORKS_COLUMNS,
        {"network": network, "pass": 1, **timing_row(TIMING)},
    )
    with pytest.raises(TableError) as caught:
        Table.load(tmp_path)
    assert str(caught.value).startswith(f"{tmp_path / 'networks.csv'}, row 5, column network: ")
    assert told in str(caught.value)


@pytest.mark.parametrize(
    ("name", "content", "told"),
    [
        ("device.json", None, "No such file"),
        ("device.json", b"{", "Expecting property name"),
        ("device.json", b"[1]", "must hold an object"),
        ("device.json", b"3", "must hold an object"),
        ("device.json", b"{}", "must have the key 'backend', but has none"),
        ("ops.csv", None, "must hold timings of ops, but has none; run `mvnas measure`"),
        ("ops.csv", b"op,shapes\n", "must have the columns op, shapes, min_ms"),
        ("ops.csv", ",".join(OPS_COLUMNS).encode() + b"\n", "must hold timings of ops, but has none"),
        ("ops.csv", b"\xff\xfe", "codec can't decode"),
        ("networks.csv", b"a,b\n", "must have the columns network, pass, min_ms"),
    ],
)
def test_a_damaged_file_is_named(tmp_path: Path, name: str, content: bytes | None, told: str) -> None:
    file = write_table(tmp_path) / name
    if content is None:
        file.unlink()
    else:
        file.write_bytes(content)
    with pytest.raises(TableError, match=told) as caught:
        Table.load(tmp_path)
    assert str(file) in str(caught.value)


@pytest.mark.parametrize("seed", range(50))
def test_a_table_with_one_thing_wrong_loads_or_is_refused_in_one_sentence(tmp_path: Path, seed: int) -> None:
    """A byte changed, lost or put in, a field emptied or a line cut off, anywhere in its files."""
    generator = random.Random(seed)
    file = write_table(tmp_path) / generator.choice(["device.json", "ops.csv", "networks.csv"])
    data = file.read_bytes()
    place, byte = generator.randrange(len(data)), bytes([generator.randrange(256)])
    cut = data.find(b",", place) + 1 or len(data)
    changes = [
        data[:place] + byte + data[place + 1 :],
        data[:place] + data[place + 1 :],
        data[:place] + byte + data[place:],
        data[:place] + data[cut - 1 :],
        data[:place] + b"\n" + data[place:],
    ]
    file.write_bytes(generator.choice(changes))
    told = ""
    try:
        LatencyModel.of_kernels(Table.load(tmp_path))
    except TableError as error:
        told = str(error)
    assert not told or (str(file) in told and "\n" not in told)


def test_an_unknown_device_lists_the_known_ones() -> None:
    with pytest.raises(TableError, match="unknown device 'no-such'.*or give a folder that `mvnas measure` wrote"):
        Table.load("no-such")


@pytest.mark.parametrize("name", shipped())
def test_every_shipped_table_loads(name: str) -> None:
    if not (data_folder("latency_tables") / name / "ops.csv").exists():
        pytest.skip(f"{name} is not measured yet")
    for kernel in Table.load(name).ops:
        assert Graph.single(*kernel).deployed().output.key == kernel
