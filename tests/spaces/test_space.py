"""Laws of spaces: every list is a choice, every sampled point is a network, and every mistake is told where it is."""

from __future__ import annotations

import copy
import json
import os
import random
import re
import subprocess
import sys
from collections.abc import Callable, Sequence
from dataclasses import replace
from itertools import product
from math import prod
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml

from mvnas.errors import SpaceError, TrustError
from mvnas.nn import build
from mvnas.ops import Vector
from mvnas.spaces.arch import Arch
from mvnas.spaces.reading import data_folder, names
from mvnas.spaces.space import Space
from mvnas.spaces.zoo import published, systems
from mvnas.system import trust

MOBILEVIT = Space.load("mobilevit")


def draw(seed: int) -> Callable[[str, Sequence[Any]], Any]:
    generator = random.Random(seed)
    return lambda name, options: generator.choice(options)


@pytest.mark.parametrize("name", names())
def test_every_shipped_space_loads_and_says_what_its_file_says(name: str) -> None:
    file = data_folder("search_spaces") / f"{name}.yaml"
    data = yaml.safe_load(file.read_text())
    rows = [part for row in data["stages"] for part in (row, *(own for own in row.values() if isinstance(own, dict)))]
    lists = [value for row in (*rows, data | {"stages": 0}) for value in row.values() if isinstance(value, list)]
    space = Space.load(name)
    assert sorted(space.choices.values(), key=repr) == sorted(map(tuple, lists), key=repr)
    assert space.mixed or space.size == prod(map(len, lists))
    assert (name in published()) == (not lists)
    assert Space.load(file).rows == space.rows


@pytest.mark.parametrize("name", [name for name in published() if name.startswith("mobilevit_")])
def test_published_networks_are_points_of_their_space(name: str) -> None:
    arch = Space.load(name).arch()
    picks = MOBILEVIT.locate(arch)
    assert picks is not None
    assert picks.keys() == MOBILEVIT.choices.keys()
    assert all(value in MOBILEVIT.choices[key] for key, value in picks.items())
    assert MOBILEVIT.at(picks) == arch
    assert MOBILEVIT.locate(arch.with_classes(10)) == picks


def test_the_mobilevit_space_offers_what_was_asked_for() -> None:
    offered: dict[str, set[Any]] = {}
    for name, options in MOBILEVIT.choices.items():
        offered.setdefault(name.rpartition(".")[2], set()).update(options)
    assert offered["patch"] == {2, 4, 8}
    assert offered["layers"] == {1, 2, 3, 4, 5}
    assert offered["expand"] == {2, 3, 4, 5, 6}
    assert (min(offered["resolution"]), max(offered["resolution"])) == (160, 320)


@pytest.mark.parametrize("seed", range(30))
def test_a_sampled_point_is_a_network_and_is_found_again(seed: int) -> None:
    arch = MOBILEVIT.sample(draw(seed))
    picks = MOBILEVIT.locate(arch)
    assert picks is not None
    assert MOBILEVIT.at(picks) == arch
    assert arch.graph().output.shape == Vector(1000)
    assert arch == MOBILEVIT.sample(draw(seed))


@pytest.mark.parametrize("seed", range(4))
def test_a_sampled_point_builds_and_runs(seed: int) -> None:
    arch = MOBILEVIT.sample(draw(seed))
    with torch.device("meta"):
        assert build(arch.graph())(torch.empty(2, 3, arch.resolution, arch.resolution)).shape == (2, 1000)


def test_choices_are_offered_once_each_in_order() -> None:
    asked: list[tuple[str, Sequence[Any]]] = []
    MOBILEVIT.sample(lambda name, options: (asked.append((name, options)), options[0])[1])  # type: ignore[func-returns-value]
    assert dict(asked) == MOBILEVIT.choices
    assert len(asked) == len(MOBILEVIT.choices)


def test_a_point_elsewhere_is_not_found() -> None:
    rows = MOBILEVIT.sample(draw(0)).identity()
    for change in (lambda d: d.update(resolution=128), lambda d: d["blocks"].insert(1, d["blocks"][1]),
                   lambda d: d["blocks"][0].update(channels=24)):  # fmt: skip
        other = copy.deepcopy(rows)
        change(other)
        assert MOBILEVIT.locate(Arch.from_json(other)) is None


def test_repeats_share_their_fields_but_not_their_stride() -> None:
    rows = {"block": "inverted_residual", "channels": 24, "stride": 2, "repeat": 3}
    stages = [{"block": "stem", "channels": 16}, rows, {"block": "head", "channels": 64}]
    arch = Space.from_data({"resolution": 64, "stages": stages}, source="x").arch()
    assert [block.stride for block in arch.blocks[1:4]] == [2, 1, 1]  # type: ignore[attr-defined]
    assert len(arch.blocks) == 5


def test_classes_are_those_asked_for() -> None:
    for seed in range(5):
        arch = MOBILEVIT.with_classes(7).sample(draw(seed))
        assert arch == MOBILEVIT.sample(draw(seed)).with_classes(7)
        assert arch.graph().output.shape == Vector(7)


GOOD: dict[str, Any] = {
    "resolution": [64, 128],
    "stages": [
        {"block": "stem", "channels": 16},
        {"block": "inverted_residual", "channels": [16, 24], "stride": 2},
        {"block": "mobilevit", "dim": [32, 48], "layers": [1, 2], "patch": [2, 4]},
        {"block": "head", "channels": 64},
    ],
}


def test_a_good_space_is_good() -> None:
    assert Space.from_data(GOOD, source="good.yaml").size == 32


MIXED: dict[str, Any] = {
    "resolution": [64, 128],
    "stages": [
        {"block": "stem", "channels": [16, 32]},
        {
            "block": ["tiny_vit", "mobilevit", "repvit"],
            "repeat": [1, 2],
            "tiny_vit": {"window": [4, 8], "head_width": 16},
            "mobilevit": {"dim": [32, 48], "layers": [1, 2], "repeat": 1},
        },
        {"block": ["head", "classifier"], "head": {"channels": [32, 64]}},
    ],
}


def test_a_row_of_several_kinds_holds_the_networks_of_each() -> None:
    space = Space.from_data(MIXED, source="mixed")
    points = [dict(zip(space.choices, values, strict=True)) for values in product(*space.choices.values())]
    archs = {space.at(picks) for picks in points}
    apart = []
    for kind, head in product(*(MIXED["stages"][i]["block"] for i in (1, 2))):
        rows = [{"block": one, **{"repeat": row.get("repeat", 1)}, **row.get(one, {})}
                for one, row in ((kind, MIXED["stages"][1]), (head, MIXED["stages"][2]))]  # fmt: skip
        apart.append(Space.from_data(MIXED | {"stages": [MIXED["stages"][0], *rows]}, source="one"))
    assert len(archs) == space.size == sum(one.size for one in apart)
    for picks in points[:: len(points) // 97]:
        arch, settled = space.at(picks), space.settled(picks)
        assert space.at(settled) == arch and space.locate(arch) == settled == space.settled(settled)
        assert sum(one.locate(arch) is not None for one in apart) == 1
        for name in space.choices:
            changed = {space.at({**picks, name: value}) for value in space.choices[name]}
            assert len(changed) == (len(space.choices[name]) if name in space.active(picks) else 1)
            assert name in space.active(space.activated(picks, name))
    assert len({tuple(space.settled(picks).values()) for picks in points}) == space.size


def test_a_space_is_written_alike_by_every_process() -> None:
    """Studies know their space by it, and a set would be written in another order each time."""
    command = [sys.executable, "-c", "from mvnas.spaces.space import Space; print(Space.load('hybrid'))"]
    texts = [subprocess.check_output(command, env=os.environ | {"PYTHONHASHSEED": seed}) for seed in "123"]
    assert len(set(texts)) == 1


def test_a_head_of_any_kind_tells_the_classes() -> None:
    space = Space.from_data(MIXED, source="mixed").with_classes(7)
    assert {space.sample(draw(seed)).graph().output.shape for seed in range(9)} == {Vector(7)}


@pytest.mark.parametrize(
    ("fields", "told"),
    [
        ({"block": ["repvit"]}, ", stage 1 must be a mapping with the key block, the name of one or a list of several"),
        ({"block": ["repvit", "repvit"]}, ", stage 1, key block must have different options"),
        ({"block": ["repvit", "mobilvit"]}, ", stage 1: unknown block 'mobilvit'; did you mean 'mobilevit'?"),
        ({"window": 4}, ", stage 1 (mobilevit): unknown key 'window'"),
        ({"mobilevit": [32]}, ", stage 1, key mobilevit must hold fields of that block, but got [32]"),
        ({"mobilevit": {"layers": 1}}, ", stage 1 (mobilevit) must have the key 'dim', but has only repeat, layers"),
        ({"mobilevitv2": {"dim": 32}}, ", stage 1 (tiny_vit): unknown key 'mobilevitv2'"),
        (
            {"tiny_vit": {"window": [4, 6], "head_width": 16}},
            ", stage 1 (tiny_vit) at window 6, repeat 1, resolution 64: the window must divide",
        ),
    ],
)
def test_a_mistake_in_a_row_of_several_kinds_names_the_kind(fields: dict[str, Any], told: str) -> None:
    data = copy.deepcopy(MIXED)
    data["stages"][1].update(fields)
    with pytest.raises(SpaceError, match=re.escape(f"mine{told}")):
        Space.from_data(data, source="mine")


def test_channels_that_a_later_block_cannot_take_are_told_when_the_space_loads() -> None:
    data = copy.deepcopy(GOOD)
    data["stages"][2] = {"block": "tiny_vit", "window": 4, "head_width": [8, 16]}
    with pytest.raises(SpaceError, match=r"stage 2 \(tiny_vit\) at head_width 16, resolution 64: .* divide the"):
        Space.from_data(data, source="mine")


FUSES = """
from dataclasses import dataclass
from mvnas.ops import Conv, Resize
@dataclass(frozen=True)
class Block:
    channels: int
    def __call__(self, x, *earlier):
        y = Conv(self.channels)(x, role="top")
        for i, tap in enumerate(earlier):
            y = Conv(self.channels)(Resize()(tap, x), role=f"laterals.{i}") + y
        return y
"""


@pytest.fixture
def fuse(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """The name of a block that reads any number of earlier stages."""
    (tmp_path / "fusing").mkdir()
    (tmp_path / "fusing" / "fuse.py").write_text(FUSES)
    monkeypatch.syspath_prepend(str(tmp_path))
    trust.allow("fusing.fuse")
    return "fusing.fuse"


def reading(kind: str, taps: Any, **more: Any) -> dict[str, Any]:
    """A space of six stages, of which the fourth, of blocks of `kind`, reads earlier ones."""
    narrow = {"block": "inverted_residual", "channels": 16, "stride": 2}
    repeated = {**narrow, "stride": 1, "repeat": [1, 3]}
    fused = {"block": kind, "channels": 24, "taps": taps, **more}
    return {"resolution": 64, "stages": [{"block": "stem", "channels": 8}, repeated, narrow, fused, narrow, LAST]}


LAST = {"block": "head", "channels": 32}


def test_a_choice_of_taps_is_a_dimension_of_the_space_and_is_found_again(fuse: str) -> None:
    space = Space.from_data(reading(fuse, ["", 0, "1 0"]), source="x")
    name = f"3.{fuse}.taps"
    assert space.choices[name] == ("", "0", "1 0")
    seen = {}
    for taps, repeat in product(space.choices[name], (1, 3)):
        picks = {name: taps, "1.inverted_residual.repeat": repeat}
        arch = space.at(picks)
        assert space.locate(arch) == picks
        seen[arch] = (arch.taps, arch.params)
    assert len(seen) == space.size == 6
    reader, last_of_row_1 = 5, 3  # at three repeats
    assert space.at({name: "1 0", "1.inverted_residual.repeat": 3}).taps == ((reader, last_of_row_1), (reader, 0))
    assert Space.from_data(reading(fuse, "0 1"), source="x").locate(arch) is None, "the order of taps matters"


def test_taps_are_read_by_the_first_repeat_alone(fuse: str) -> None:
    space = Space.from_data(reading(fuse, 0, repeat=3), source="x")
    arch = space.sample(lambda name, options: options[0])
    assert arch.taps == ((3, 0),) and arch.rows == (1, 1, 1, 3, 1, 1)
    assert [len(block.shapes) for block in arch.summaries] == [1, 1, 1, 2, 1, 1, 1, 1]


def test_a_kind_of_several_has_taps_of_its_own(fuse: str) -> None:
    data = reading(fuse, [0, 1])
    del data["stages"][3]["taps"], data["stages"][3]["channels"]
    data["stages"][3] |= {"block": ["residual", fuse], fuse: {"channels": [16, 24], "taps": [0, 1]}}
    space = Space.from_data(data, source="x")
    assert space.choices["3.block"] == ("residual", fuse) and space.choices[f"3.{fuse}.taps"] == ("0", "1")
    for seed in range(10):
        arch = space.sample(draw(seed))
        found = space.locate(arch) or {}
        assert space.at(found) == arch
        assert bool(arch.taps) == (found["3.block"] == fuse)


def test_a_json_of_taps_and_outputs_is_the_same_network_with_the_same_names(fuse: str) -> None:
    data = reading(fuse, ["0", "1 0"], output=True, repeat=[1, 2])
    data["stages"][1]["output"] = True
    space = Space.from_data(data, source="x")
    for seed in range(6):
        arch = space.sample(draw(seed))
        again = Arch.from_json(json.loads(json.dumps(arch.to_json())))
        assert (again, again.rows, again.graph()) == (arch, arch.rows, arch.graph())
        repeats = arch.rows[1]
        assert arch.outputs == (repeats, repeats + 1 + arch.rows[3]) and len(arch.graph().outputs) == 3
        plain = replace(arch, outputs=())
        assert plain != arch and space.locate(plain) is None
        assert plain.peak_bytes <= arch.peak_bytes and plain.params == arch.params
    assert space.with_classes(7).sample(draw(0)) == space.sample(draw(0)).with_classes(7)


def test_the_last_stage_is_an_output_whether_it_says_so_or_not(fuse: str) -> None:
    data = reading(fuse, 0)
    said = copy.deepcopy(data)
    said["stages"][-1]["output"] = True
    assert Space.from_data(said, source="x").sample(draw(0)) == Space.from_data(data, source="x").sample(draw(0))


@pytest.mark.parametrize(
    ("taps", "told"),
    [
        (2, ", 0 to 1, with spaces between them, but got 2"),
        (-1, ", 0 to 1, with spaces between them, but got -1"),
        ("0 0", "taps must be different numbers of stages before the one that is read anyway, 0 to 1"),
        ("0,1", "with spaces between them, but got '0,1'"),
        ([[0, 1]], "with spaces between them, but got [0, 1]"),
        (True, "but got True"),
        (None, "but got None"),
        ([0, "0"], "key taps must have different options, but got ['0', '0']"),
        ([], "key taps must have at least one option"),
    ],
)
def test_wrong_taps_are_told_in_a_sentence(fuse: str, taps: Any, told: str) -> None:
    with pytest.raises(SpaceError, match=re.escape(told)) as caught:
        Space.from_data(reading(fuse, taps), source="x")
    assert str(caught.value).startswith("x, stage 3 (fusing.fuse)") and len(str(caught.value)) <= 300


@pytest.mark.parametrize("index", [0, 1])
def test_the_first_two_stages_have_none_to_read(fuse: str, index: int) -> None:
    data = reading(fuse, "")
    data["stages"].insert(index, {"block": fuse, "channels": 8, "taps": 0})
    with pytest.raises(SpaceError, match=r"before the one that is read anyway, of which there is none, .*but got 0"):
        Space.from_data(data, source="x")


@pytest.mark.parametrize(
    ("kind", "reads"), [("examples.decoder", "1 or more, but name 0"), ("residual", "0, but name 1")]
)
def test_a_block_is_given_as_many_taps_as_it_reads(kind: str, reads: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(Path(__file__).parents[2]))
    trust.allow("examples.decoder")
    data = reading(kind, "" if "." in kind else 0)
    if kind == "residual":
        del data["stages"][3]["channels"]
    with pytest.raises(SpaceError, match=rf"stage 3 .*: taps must name as many stages as .* {kind} reads, {reads}"):
        Space.from_data(data, source="x")


def test_maps_that_do_not_fit_one_another_are_told_with_the_taps_that_read_them(fuse: str, tmp_path: Path) -> None:
    (tmp_path / "fusing" / "add.py").write_text(FUSES.replace("Resize()(tap, x)", "tap"))
    trust.allow("fusing.add")
    with pytest.raises(SpaceError, match=r"x, stage 3 \(fusing.add\) at taps 1, resolution 64: .* one shape"):
        Space.from_data(reading("fusing.add", ["", 1]), source="x")


@pytest.mark.parametrize("output", ["last", 1, None, [True, False]])
def test_an_output_is_yes_or_no(output: Any) -> None:
    data = copy.deepcopy(GOOD)
    data["stages"][1]["output"] = output
    with pytest.raises(SpaceError, match="x, stage 1: output must be yes or no, but got"):
        Space.from_data(data, source="x")


def row(index: int, **fields: Any) -> Callable[[dict[str, Any]], object]:
    return lambda data: data["stages"][index].update(fields)


def top(**fields: Any) -> Callable[[dict[str, Any]], object]:
    return lambda data: data.update(fields)


MISTAKES: list[tuple[Callable[[dict[str, Any]], object], str]] = [
    (top(stagez=[]), ": unknown key 'stagez'; did you mean 'stages'?"),
    (lambda data: data.pop("resolution"), " must have the key 'resolution', but has only stages"),
    (top(resolution="256"), ": resolution must be whole pixels, 32 or more, but got '256'"),
    (top(resolution=True), ": resolution must be whole pixels, 32 or more, but got True"),
    (top(resolution=[64, 96.0]), ": resolution must be whole pixels, 32 or more, but got 96.0"),
    (top(resolution=16), ": resolution must be whole pixels, 32 or more, but got 16"),
    (top(resolution=[]), ": resolution must have at least one option"),
    (top(resolution=[64, 64]), ": resolution must have different options, but got [64, 64]"),
    (top(stages={}), ": stages must be a list of blocks, but got {}"),
    (top(stages=[]), ": stages must be a list of blocks, but got []"),
    (
        lambda data: data["stages"].append("head"),
        ", stage 4 must be a mapping with the key block, the name of one or a list of several, but got 'head'",
    ),
    (
        row(2, block=["mobilevit"]),
        ", stage 2 must be a mapping with the key block, the name of one or a list of several, but got",
    ),
    (row(2, block="mobilvit"), ", stage 2: unknown block 'mobilvit'; did you mean 'mobilevit'? known: classifier,"),
    (row(2, block="../mobilevit"), ", stage 2: unknown block '../mobilevit'; did you mean 'mobilevit'?"),
    (row(2, block=".mobilevit"), ", stage 2: unknown block '.mobilevit'"),
    (row(2, block="mvnas.no.such"), ", stage 2: unknown block 'mvnas.no.such'"),
    (row(2, block="os.path"), ", stage 2: a block's module must define the class Block, but os.path does not"),
    (
        lambda data: data["stages"][2].pop("dim"),
        ", stage 2 (mobilevit) must have the key 'dim', but has only layers, patch",
    ),
    (row(2, layer=3), ", stage 2 (mobilevit): unknown key 'layer'; did you mean 'layers'?"),
    (row(2, layers=[]), ", stage 2 (mobilevit), key layers must have at least one option, but the list is empty"),
    (row(2, layers=[1, 2, 1]), ", stage 2 (mobilevit), key layers must have different options, but got [1, 2, 1]"),
    (row(2, mlp=[2, 2.0]), ", stage 2 (mobilevit), key mlp must have different options, but got [2, 2.0]"),
    (row(2, dim="64"), ", stage 2 (mobilevit): dim must be of type int, but got '64'"),
    (row(2, dim=64.0), ", stage 2 (mobilevit): dim must be of type int, but got 64.0"),
    (row(2, dim=[[64]]), ", stage 2 (mobilevit): dim must be of type int, but got [64]"),
    (row(2, dim=None), ", stage 2 (mobilevit): dim must be of type int, but got None"),
    (row(2, layers=True), ", stage 2 (mobilevit): layers must be of type int, but got True"),
    (row(2, mlp=False), ", stage 2 (mobilevit): mlp must be of type float, but got False"),
    (row(2, layers=[1, -2]), ", stage 2 (mobilevit): layers must be positive and finite, but got -2"),
    (row(1, expand=float("inf")), ", stage 1 (inverted_residual): expand must be positive and finite, but got inf"),
    (row(1, repeat=0), ", stage 1 (inverted_residual): repeat must be a whole number, 1 or more, but got 0"),
    (row(1, repeat=[1, True]), ", stage 1 (inverted_residual), key repeat must have different options"),
    (row(2, heads=[4, 5]), ", stage 2 (mobilevit) at dim 32, heads 5, resolution 64: heads must divide the width"),
    (
        row(2, patch=[2, 32]),
        ", stage 2 (mobilevit) at dim 32, patch 32, resolution 64: the patch must fit into the map, "
        "but got patch 32 on 16 x 16",
    ),
    (lambda data: (row(1, stride=[1, 4])(data), row(2, patch=16)(data)), ": the patch must fit into the map"),
    (lambda data: data["stages"].pop(), ", stage 2 (mobilevit): the last block must be a classifier, such as head"),
    (lambda data: data["stages"].append(data["stages"][1]), ": a classifier must come last and once"),
    (row(3, repeat=2), ", stage 3 (head) at resolution 64: a classifier must come last and once"),
]


@pytest.mark.parametrize(("mistake", "told"), MISTAKES, ids=[told[:60] for _, told in MISTAKES])
def test_a_mistake_names_file_stage_and_key(
    tmp_path: Path, mistake: Callable[[dict[str, Any]], object], told: str
) -> None:
    data = copy.deepcopy(GOOD)
    mistake(data)
    file = tmp_path / "mine.yaml"
    file.write_text(yaml.safe_dump(data))
    with pytest.raises(SpaceError, match=re.escape(told)) as caught:
        Space.load(file)
    assert str(caught.value).startswith(str(file))


@pytest.mark.parametrize(
    ("text", "told"),
    [
        (b"stages: [1", "must be YAML, but while parsing a flow sequence"),
        (b"stages:\n\t- b", "must be YAML, but while scanning"),
        (b"\xff\xfe\x00", "must be a readable YAML file, but got 'utf-8'"),
        (b"!!python/object:os.system {}", "must be YAML, but could not determine a constructor"),
        (b"a: 1\n---\nb: 2\n", "must be YAML, but expected a single document"),
        (b"resolution: 64\nresolution: 96\n", "the key 'resolution' is there twice"),
        (b"stages:\n  - {block: stem, channels: 8, channels: 16}", "the key 'channels' is there twice"),
        (b"", "must hold the keys resolution and stages, but holds None"),
        (b"mobilevit", "must hold the keys resolution and stages, but holds 'mobilevit'"),
        (b"&a [*a]", "must be a readable YAML file, but got an alias within what it repeats: 'a'"),
        (None, "must be a readable YAML file, but got [Errno 2] No such file"),
    ],
)
def test_a_file_that_is_no_mapping_is_told(tmp_path: Path, text: bytes | None, told: str) -> None:
    file = tmp_path / "mine.yaml"
    if text is not None:
        file.write_bytes(text)
    with pytest.raises(SpaceError, match=re.escape(told)) as caught:
        Space.load(file)
    assert str(caught.value).startswith(str(file))


@pytest.mark.parametrize("name", ["mobilvit", "mobilevit.yml/x", "", "folder/mobilevit"])
def test_an_unknown_space_lists_the_known_ones(name: str) -> None:
    with pytest.raises(
        SpaceError, match=rf"unknown space '{name}'.*known: edgevit, .* and \d+ others; .*must end in .yaml"
    ):
        Space.load(name)


def test_a_space_with_choices_is_no_network() -> None:
    with pytest.raises(SpaceError, match=r"a network must have no choice left, but mobilevit has \d+; search it"):
        MOBILEVIT.arch()


HEAD, END = "resolution: 64\nstages:\n  - {block: stem, channels: 8}\n", "  - {block: head, channels: 32}\n"
LAUGHS = "a0: &a0 [x, x, x, x, x, x, x, x, x]\n" + "".join(
    f"a{i}: &a{i} [{', '.join([f'*a{i - 1}'] * 9)}]\n" for i in range(1, 10)
)


@pytest.mark.parametrize(
    ("text", "told"),
    [
        (LAUGHS, "more than 10,000 values, those repeated by aliases among them"),
        ("[" * 100_000, "must be YAML"),
        ("{a: " * 21 + "1" + "}" * 21, "more than 20 lists and mappings within one another"),
        ("resolution: " + "9" * 1_000_000, "a value of more than 200 letters"),
        (
            "resolution: 0x" + "f" * 100 + "\nstages: [1]",
            "resolution must be 4096 pixels at most, but got a number of 400 bits",
        ),
        ("resolution: " + "1:" * 300_000 + "1", "a value of more than 200 letters"),
        (HEAD + "  - {block: conv, channels: 8}\n" * 330_000 + END, "it has more than 1 MB"),
        (HEAD + "  - {block: conv}\n" * 1000 + END, "a network must have 1,000 blocks at most"),
        (
            HEAD + "  - {block: mbconv, channels: 8, stride: 1, expand: 1, repeat: 100}\n" * 11 + END,
            "1,000 blocks at most",
        ),
        (HEAD + "  - {block: conv, channels: 8, repeat: 1000000000}\n" + END, "repeat must be 100 at most"),
        (HEAD + "  - {block: mobilevit, dim: 16, layers: 1000000000}\n" + END, "layers must be 100 at most"),
        (
            HEAD + "  - {block: inverted_residual, channels: 8, stride: 2, expand: 1.0e+308}\n" + END,
            "expand must be 1,000,000 at",
        ),
        (
            HEAD + "  - {block: inverted_residual, channels: 1000000, stride: 2, expand: 1000000}\n" + END,
            "2,147,483,647 parameters",
        ),
        (f"resolution: {list(range(64, 165))}\nstages: [1]", "must have 100 options at most, but has 101"),
        (
            f"resolution: {list(range(64, 164))}\nstages:\n"
            + f"  - {{block: stem, channels: {list(range(8, 108))}}}\n" * 9
            + END,
            "ops at most to be checked",
        ),
        ("resolution: 2020-13-45", "month must be in 1..12"),
        ("? [a]\n: 1", "a key must be a word"),
    ],
    ids=lambda value: value[:40],
)
def test_a_bomb_is_refused_before_it_goes_off(text: str, told: str, tmp_path: Path) -> None:
    file = tmp_path / "mine.yaml"
    file.write_text(text)
    with pytest.raises(SpaceError, match=re.escape(told)) as caught:
        Space.load(file)
    assert len(str(caught.value)) <= 300


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("[" * 100_000, "nested too deeply"),
        ('{"a": ' * 100_000, "nested too deeply"),
        ('{"resolution": ' + "9" * 1_000_000 + "}", "at most 18 digits, but one has 1000000"),
        ('{"resolution": 9999999999999999999}', "at most 18 digits, but one has 19"),
        ('{"resolution": NaN}', "must be finite, but got 'NaN'"),
        ('{"resolution": 1e999}', "must be finite, but got '1e999'"),
        ('{"resolution": 64, "resolution": 96}', "the key 'resolution' is there twice"),
        ('{"resolution": 64, "blocks": ' + "[" * 300 + "]" * 300 + "}", "a block must be an object"),
    ],
    ids=lambda value: value[:40],
)
def test_an_architecture_that_is_a_bomb_is_refused(text: str, told: str, tmp_path: Path) -> None:
    file = tmp_path / "arch.json"
    file.write_text(text)
    with pytest.raises(SpaceError, match=re.escape(told)) as caught:
        Arch.load(file)
    assert len(str(caught.value)) <= 300


def test_a_pipe_is_not_waited_for(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "mine.yaml")
    with pytest.raises(SpaceError, match="it is no regular file"):
        Space.load(tmp_path / "mine.yaml")


def test_a_block_of_ones_own_is_any_module(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "double.py").write_text(
        "from dataclasses import dataclass\n"
        "from mvnas.ops import Concat\n"
        "@dataclass(frozen=True)\n"
        "class Block:\n"
        "    times: int\n"
        "    def __call__(self, x):\n"
        "        return Concat()(*[x] * self.times)\n"
    )
    monkeypatch.syspath_prepend(str(tmp_path))
    data = copy.deepcopy(GOOD)
    data["stages"].insert(1, {"block": "mine.double", "times": [2, 3]})
    with pytest.raises(TrustError, match="a file must not run code .* names the module 'mine.double'.*--trust"):
        Space.from_data(data, source="x")
    file = tmp_path / "mine.yaml"
    file.write_text(yaml.safe_dump(data))
    space = Space.load(file)
    arch = space.sample(lambda name, options: options[-1])
    assert arch.summaries[1].shape.c == 16 * 3
    assert Arch.from_json(arch.to_json()) == arch
    assert space.at(space.locate(arch) or {}) == arch


def test_a_layer_without_outputs_is_refused_where_it_stands() -> None:
    stages = [
        {"block": "stem", "channels": 16},
        {"block": "mobilevit", "dim": 64, "layers": 1, "mlp": 0.001},
        {"block": "head", "channels": 64},
    ]
    with pytest.raises(SpaceError, match=r"stage 1 \(mobilevit\).*1 output or more, but got 0 from 64"):
        Space.from_data({"resolution": 64, "stages": stages}, source="here")


def test_precision_is_a_choice_like_any_other() -> None:
    stages = [{"block": "stem", "channels": 8}, {"block": "head", "channels": 8}]
    space = Space.from_data({"resolution": 64, "precision": ["float32", "int8"], "stages": stages}, source="test")
    assert space.choices == {"precision": ("float32", "int8")}
    arch = space.at({"precision": "int8"})
    assert arch.precision == "int8" and space.locate(arch) == {"precision": "int8"}
    assert Arch.from_json(arch.to_json()) == arch != space.at({"precision": "float32"})
    assert "precision" not in space.at({"precision": "float32"}).to_json()
    assert space.with_precisions(["float16"]).locate(arch) is None
    with pytest.raises(SpaceError, match="unknown precision 'int4'"):
        Space.from_data({"resolution": 64, "precision": "int4", "stages": stages}, source="test")


def test_systems_of_networks_are_their_spaces_and_published_ones_go_by_their_names() -> None:
    named = {Space.load(name).arch(): name for name in ("efficientvit_m3", "mobilevit_xs", "hiera_tiny_224")}
    drawn = Space.load("mobilevitv2").sample(lambda name, options: options[-1])
    own = replace(drawn, blocks=(replace(drawn.blocks[0], channels=20), *drawn.blocks[1:]))
    found = systems([*named, drawn, own])
    assert list(found.values()) == ["efficientvit_m", "mobilevit", "hiera_tiny_224", "mobilevitv2", "other"]
