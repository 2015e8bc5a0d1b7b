"""Laws of costs: published counts are exact, and every shortcut to a cost equals the long way round."""

from __future__ import annotations

import json
import random
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cache
from math import prod

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from mvnas.blocks import block_class
from mvnas.errors import SpaceError
from mvnas.graph import FLOAT_BYTES, POINTER_BYTES, Graph, Kernel, Layer, summary
from mvnas.nn import build
from mvnas.ops import Add, Concat, Conv, Input, LayerNorm, Map, Resize, Value
from mvnas.spaces.arch import Arch
from mvnas.spaces.space import Space

PUBLISHED = {  # parameters of apple/ml-cvnets, multiply-accumulates of timm at 256 x 256 (test_pretrained.py)
    "mobilevit_xxs": (1_272_024, 407_364_096),
    "mobilevit_xs": (2_317_848, 1_025_911_808),
    "mobilevit_s": (5_578_632, 2_000_831_488),
}


def sampled(seed: int) -> Arch:
    generator = random.Random(seed)
    return Space.load("mobilevit").sample(lambda _, options: generator.choice(options))


NETWORKS = {name: Space.load(name).arch() for name in PUBLISHED}
ARCHS = NETWORKS | {f"sample {seed}": sampled(seed) for seed in range(50)}


@cache
def forms(arch: Arch) -> tuple[Graph, Graph]:
    """The graph, and the graph that ships."""
    return arch.graph(), arch.graph().deployed()


each_arch = pytest.mark.parametrize("arch", ARCHS.values(), ids=ARCHS)


def test_published_networks_have_their_published_costs() -> None:
    assert {name: (forms(arch)[0].params, arch.macs) for name, arch in NETWORKS.items()} == PUBLISHED


@pytest.mark.parametrize(("name", "size"), [("mobilevit_xxs", (160, 288)), ("mobilevit_xs", 224), ("mobilevit_s", 256)])
def test_torch_counts_the_same(name: str, size: int | tuple[int, int]) -> None:
    graph = NETWORKS[name].graph(size)
    with torch.device("meta"):
        module, x = build(graph).eval(), torch.empty(1, *graph.inputs[0].shape)
    with FlopCounterMode(display=False) as counter:
        assert module(x).shape == (1, 1000)
    assert counter.get_total_flops() == 2 * graph.macs
    assert sum(weight.numel() for weight in module.parameters()) == graph.params


@each_arch
def test_summaries_equal_the_flat_graph(arch: Arch) -> None:
    graph, shipped = forms(arch)
    kernels: Counter[Kernel] = Counter()
    for block in arch.summaries:
        kernels += Counter(dict(block.kernels))
    assert kernels == Counter(node.key for node in shipped.work)
    assert (arch.params, arch.macs) == (shipped.params, shipped.macs)
    assert arch.peak_bytes == shipped.peak_bytes
    pointers = sum(node.op.pointers(*node.shapes) for node in shipped.work)
    assert arch.memory_bytes == FLOAT_BYTES * shipped.params + shipped.peak_bytes + POINTER_BYTES * pointers
    assert arch.summaries[-1].shape == graph.output.shape == shipped.output.shape


@each_arch
def test_deployment_keeps_the_work_and_drops_the_norms(arch: Arch) -> None:
    graph, shipped = forms(arch)
    batch_norms = sum(node.op.out for node in graph.nodes if isinstance(node.op, Conv) and node.op.norm)
    layer_norms = sum(node.params for node in graph.nodes if isinstance(node.op, LayerNorm))
    assert shipped.macs == graph.macs
    assert (
        shipped.params == graph.params - batch_norms - layer_norms
    )  # a batch norm leaves a bias, a layer norm nothing
    assert shipped.deployed() == shipped


def longest_way_to_peak(graph: Graph) -> int:
    """Peak by simulation: at each step, inputs, all tensors that were made and are read now or later, and the one being
    made.

    Then those that are read later, and the one being made with what its op needs within.
    """
    users: dict[int, list[int]] = {i: [] for i in range(len(graph.nodes))}
    for step, node in enumerate(graph.nodes):
        for i in node.inputs:
            users[i].append(step)
    peak = 0
    for step in range(len(graph.nodes)):
        node = graph.nodes[step]
        for until, scratch in ((step, 0), (step + 1, node.op.scratch(*node.shapes))):
            alive = [
                i
                for i in range(step + 1)
                if i == step or max(users[i], default=0) >= until or not graph.nodes[i].inputs or i in graph.outputs
            ]
            peak = max(peak, FLOAT_BYTES * (scratch + sum(prod(graph.nodes[i].shape) for i in alive)))
    return peak


@each_arch
def test_peak_memory_equals_simulation(arch: Arch) -> None:
    _, shipped = forms(arch)
    assert shipped.peak_bytes == longest_way_to_peak(shipped)


@dataclass(frozen=True)
class Tangle:
    """Block of random structure, with tensors that live long and blocks within it: (C, H, W) -> (C, H, W)."""

    seed: int
    depth: int = 2

    def __call__(self, x: Value) -> Value:
        generator, made = random.Random(self.seed), [x]
        for step in range(generator.randint(2, 6)):
            one, other = generator.choice(made), generator.choice(made)
            inner = Tangle(self.seed * 7 + step, self.depth - 1)
            steps: list[Callable[[], Value]] = [
                lambda one=one: Conv(x.channels)(Conv(5 * x.channels)(one)),
                lambda one=one, other=other: Conv(x.channels)(Concat()(one, other)),
                lambda one=one, other=other: one + other,
                lambda one=one: Resize(2)(one),
                lambda one=one, inner=inner: Layer(inner)(one),
            ]
            made.append(generator.choice(steps if self.depth else steps[:-1])())
        return Conv(x.channels)(made[-1])


@pytest.mark.parametrize("seed", range(60))
def test_summaries_equal_the_flat_graph_of_any_block(seed: int) -> None:
    block, size = Tangle(seed), Map(3, 4, 4)
    graph = Graph.of(block(Input(size)()))
    shipped, found = graph.deployed(), summary(block, (size,))
    assert (found.params, found.macs, found.shape) == (shipped.params, shipped.macs, graph.output.shape)
    assert Counter(dict(found.kernels)) == Counter(node.key for node in shipped.work)
    assert found.peak((True,)) == shipped.peak_bytes == longest_way_to_peak(shipped)


def stages(seed: int) -> list[Value]:
    """What four random blocks yield, one after the other."""
    values = [Input(Map(3, 4, 4))()]
    for step in range(4):
        values.append(Tangle(10 * seed + step)(values[-1]))
    return values[1:]


@pytest.mark.parametrize("seed", range(20))
def test_outputs_stay_alive_and_are_the_same_when_deployed(seed: int) -> None:
    values = stages(seed)
    graph = Graph.of(*values, outputs=[values[0], values[2], values[3]])
    shipped = graph.deployed()
    assert (
        [graph.nodes[i].block for i in graph.outputs] == [shipped.nodes[i].block for i in shipped.outputs] == [0, 2, 3]
    )
    assert shipped.peak_bytes == longest_way_to_peak(shipped)
    assert shipped.peak_bytes >= Graph.of(*values).deployed().peak_bytes
    assert graph.on(Map(3, 4, 4)) == graph != Graph.of(*values)
    assert graph.output == graph.nodes[-1]


@dataclass(frozen=True)
class Mixed:
    """Block that reads any number of earlier ones, of random structure: (C, H, W), (C1, H, W), ... -> (C, H, W)."""

    seed: int

    def __call__(self, x: Value, *earlier: Value) -> Value:
        generator = random.Random(self.seed)
        made = Tangle(self.seed, 1)(x)
        for tap in generator.sample(earlier, len(earlier)):
            made = made + Conv(made.channels, norm=False)(Concat()(made, tap, x) if generator.random() < 0.5 else tap)
        return made


@dataclass(frozen=True)
class Sized:
    """Block that is nothing once deployed: (C, H, W) -> (C, H, W)."""

    def __call__(self, x: Value) -> Value:
        return Resize(2)(x)


def tapped(seed: int, idle: float = 0.2) -> Arch:
    """A random network of blocks that read one another, some of which are outputs, and some, `idle` of all, nothing."""
    generator, blocks, taps = random.Random(seed), list[Mixed | Sized](), list[tuple[int, int]]()
    for place in range(generator.randint(3, 7)):
        if generator.random() < idle:
            blocks.append(Sized())
            continue
        earlier = range(place - 1)
        taps += [(place, read) for read in generator.sample(earlier, generator.randint(0, min(3, len(earlier))))]
        blocks.append(Mixed(10 * seed + place))
    outputs = sorted(generator.sample(range(len(blocks) - 1), generator.randint(0, 2)))
    return Arch(tuple(blocks), 8, taps=tuple(taps), outputs=tuple(outputs))


@pytest.mark.parametrize("seed", range(60))
def test_costs_of_networks_with_taps_and_outputs_are_those_of_the_flat_graph(seed: int) -> None:
    arch = tapped(seed)
    shipped = arch.graph().deployed()
    kernels: Counter[Kernel] = Counter()
    for block in arch.summaries:
        kernels += Counter(dict(block.kernels))
    assert kernels == Counter(node.key for node in shipped.work)
    assert (arch.params, arch.macs) == (shipped.params, shipped.macs)
    assert arch.peak_bytes == shipped.peak_bytes == longest_way_to_peak(shipped)
    pointers = sum(node.op.pointers(*node.shapes) for node in shipped.work)
    assert arch.memory_bytes == FLOAT_BYTES * shipped.params + shipped.peak_bytes + POINTER_BYTES * pointers


@pytest.mark.parametrize("seed", range(20))
def test_outputs_of_blocks_are_outputs_of_the_graph_in_order(seed: int) -> None:
    arch = tapped(seed, idle=0)
    for graph in (arch.graph(), arch.graph().deployed()):
        assert [graph.nodes[i].block for i in graph.outputs] == [*arch.outputs, len(arch.blocks) - 1]
        for reader, read in arch.taps:
            sources = {i for node in graph.nodes if node.block == reader for i in node.inputs}
            assert any(graph.nodes[i].block == read for i in sources)


@dataclass(frozen=True)
class Wide:
    """Block of one 1 x 1 convolution to `channels`, and of another one of each further map: (C, H, W) -> (channels, H,
    W).
    """

    channels: int

    def __call__(self, x: Value, *earlier: Value) -> Value:
        y = Conv(self.channels, norm=False, act="")(x)
        for tap in earlier:
            y = y + Conv(self.channels, norm=False, act="")(tap)
        return y


def test_what_is_read_later_or_an_output_stays_alive() -> None:
    blocks = (Wide(64), Wide(16), Wide(32), Wide(8))
    pixels = FLOAT_BYTES * 8 * 8
    plain = Arch(blocks, 8)
    assert plain.peak_bytes == (3 + 64 + 16) * pixels
    assert replace(plain, outputs=(0,)).peak_bytes == (3 + 64 + 16 + 32) * pixels
    tapped = replace(plain, taps=((3, 0),))
    assert tapped.peak_bytes == (3 + 64 + 16 + 32) * pixels
    assert replace(plain, taps=((2, 0),)).peak_bytes == (3 + 64 + 32 + 32) * pixels
    assert tapped.macs - plain.macs == 64 * 8 * 8 * 8 and tapped.params - plain.params == 64 * 8
    assert replace(plain, taps=((3, 0), (3, 1))).macs - tapped.macs == 16 * 8 * 8 * 8
    assert tapped.graph().traffic_bytes > plain.graph().traffic_bytes


@each_arch
def test_costs_of_blocks_add_up(arch: Arch) -> None:
    for graph in forms(arch):
        rows = graph.block_costs()
        assert len(rows) == len(arch.blocks)
        assert sum(row.params for row in rows) == graph.costs.params
        assert sum(row.macs for row in rows) == graph.costs.macs
        assert sum(row.traffic_bytes for row in rows) == graph.costs.traffic_bytes
        assert max(row.peak_bytes for row in rows) == graph.costs.peak_bytes


@each_arch
def test_values_compare_by_value(arch: Arch) -> None:
    again = Arch.from_json(json.loads(json.dumps(arch.to_json())))
    assert again == arch
    assert hash(again) == hash(arch)
    graph, _ = forms(arch)
    assert again.graph() == graph
    assert hash(again.graph()) == hash(graph)
    assert arch.with_classes(7).graph() != graph


def test_samples_are_all_different() -> None:
    assert len(set(ARCHS.values())) == len({forms(arch)[0] for arch in ARCHS.values()}) == len(ARCHS)


inverted_residual = block_class("inverted_residual")


def image() -> Value:
    return Input(Map(3, 8, 8))()


@pytest.mark.parametrize(
    ("channels", "expand", "hidden"),
    [(16, 2, 32), (16, 1.5, 24), (10, 2, 24), (10, 1.9, 24), (9, 3, 32), (9, 2.6, 24), (11, 1.1, 16), (3, 1.2, 8)],
)
def test_hidden_widths_are_multiples_of_8_and_at_least_nine_tenths(channels: int, expand: float, hidden: int) -> None:
    value = inverted_residual(8, expand=expand)(Input(Map(channels, 8, 8))())
    assert Graph.of(value).work[0].shape == Map(hidden, 8, 8)


@dataclass(frozen=True)
class Pair:
    """Two convolutions, of which one has a role: a block within a block."""

    def __call__(self, x: Value) -> Value:
        return Conv(4)(Conv(4)(x, role="expand"))


def test_nodes_are_named_by_block_layer_and_role() -> None:
    x = image()
    first = Conv(4)(x)
    second = Add()(Conv(4)(Conv(4)(first, role="near"), role="mlp.expand"), first)
    third = Layer(Pair())(Layer(Pair())(second, role="layers.0"))
    graph = Graph.of(first, second, third, blocks=["block0", "block1", "stage3.0.pair"])
    names = ["x0", "block0.conv0", "block1.near", "block1.mlp.expand", "block1.add0"]
    names += [f"stage3.0.pair.{layer}.{name}" for layer in ("layers.0", "pair0") for name in ("expand", "conv0")]
    assert [node.name for node in graph.nodes] == names
    assert (
        [node.name for node in graph.deployed().nodes] == [node.name for node in graph.on(Map(3, 6, 6)).nodes] == names
    )


@pytest.mark.parametrize(
    ("roles", "told"),
    [
        (("same", "same"), "but two are block0.same"),
        (("mlp", "mlp.expand"), "but two are block0.mlp"),
        (("mlp.expand", "mlp"), "but two are block0.mlp"),
        (("conv0", ""), "but two are block0.conv0"),
        (("a/b", ""), "must be words or numbers with dots between them, but got 'a/b'"),
        (("a..b", ""), "must be words or numbers"),
    ],
)
def test_a_role_is_a_name_of_its_own(roles: tuple[str, str], told: str) -> None:
    with pytest.raises(SpaceError, match=told):
        Graph.of(Conv(4)(Conv(4)(image(), role=roles[0]), role=roles[1]))


def test_a_value_that_is_used_twice_is_computed_once() -> None:
    shared = Conv(4)(image())
    graph = Graph.of(Concat()(shared, shared))
    assert [type(node.op) for node in graph.work] == [Conv, Concat]
    assert graph.output.inputs == (1, 1)


def test_a_resize_is_priced_where_it_works_and_gone_where_it_does_nothing() -> None:
    def kinds(size: int) -> list[str]:
        graph = Graph.of(Conv(4)(Resize(4)(Input(Map(3, size, size))()))).deployed()
        return [type(node.op).__name__ for node in graph.work]

    assert kinds(8) == ["Conv"]
    assert kinds(7) == ["Resize", "Conv"]


STEMS = [{"block": "stem", "channels": 8}, {"block": "residual"}]
FUSE, HEAD = {"block": "residual"}, {"block": "head", "channels": 8}


@pytest.mark.parametrize(
    ("data", "told"),
    [
        ([], "must be an object with the keys resolution and blocks"),
        ({"resolution": 256}, "must be an object with the keys resolution and blocks"),
        ({"resolution": 256, "blocks": [{"block": "stem"}]}, "block 0 .stem.: must have the key 'channels'"),
        ({"resolution": [64, 96], "blocks": [{"block": "head", "channels": 8}]}, "resolution must be whole pixels"),
        ({"resolution": 64, "blocks": [{"block": "head", "channels": True}]}, "channels must be of type int"),
        ({"resolution": 64, "blocks": [{"block": "head", "channels": [8]}]}, "fields must be numbers, texts or truths"),
        ({"resolution": 64, "blocks": [{"block": "stem", "channels": 8}]}, "the last block must be a classifier"),
        (
            {"resolution": 64, "blocks": [{"block": "head", "channels": 8}], "rows": [2]},
            "rows must be whole numbers whose sum",
        ),
        (
            {"resolution": 64, "blocks": [{"block": "head", "channels": 8, "taps": [0]}]},
            "taps must be a list of different indices of blocks before the one that is read anyway, but got .0.",
        ),
        ({"resolution": 64, "blocks": [*STEMS, FUSE | {"taps": [0, 0]}, HEAD]}, "taps must be a list of different"),
        ({"resolution": 64, "blocks": [*STEMS, FUSE | {"taps": [1]}, HEAD]}, "taps must be .*, but got .1."),
        ({"resolution": 64, "blocks": [*STEMS, FUSE | {"taps": [-1]}, HEAD]}, "taps must be .*, but got .-1."),
        ({"resolution": 64, "blocks": [*STEMS, FUSE | {"taps": "0"}, HEAD]}, "taps must be a list of .*, but got '0'"),
        (
            {"resolution": 64, "blocks": [*STEMS, FUSE | {"taps": [0]}, HEAD]},
            "block 2 .residual.: taps must name as many .* as the block residual reads, 0, but name 1",
        ),
        ({"resolution": 64, "blocks": [*STEMS, FUSE | {"output": 1}, HEAD]}, "output must be true or false, but got 1"),
        ({"resolution": 64, "blocks": [7]}, "a block must be an object"),
    ],
)
def test_an_illegal_architecture_is_told(data: object, told: str) -> None:
    with pytest.raises(SpaceError, match=told):
        Arch.from_json(data)


@pytest.mark.parametrize("side", [256, 192, 250])
def test_the_same_ops_on_another_image_are_the_graph_of_that_resolution(side: int) -> None:
    arch = Space.load("mobilevit_xxs").arch()
    assert arch.graph().on(Map(3, side, side)) == arch.graph(side)
