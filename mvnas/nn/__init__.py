"""Graphs as torch modules: building, initial weights, folding for deployment, the rank check."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial, reduce
from math import isqrt, prod
from typing import TYPE_CHECKING

import torch
from torch import Tensor, cat, fx
from torch.nn import (
    GELU,
    BatchNorm2d,
    Conv1d,
    Conv2d,
    Hardsigmoid,
    Hardswish,
    Identity,
    LayerNorm,
    Linear,
    Module,
    ModuleList,
    Parameter,
    ReLU,
    ReLU6,
    Sigmoid,
    SiLU,
)
from torch.nn.functional import avg_pool2d, interpolate, layer_norm, linear, max_pool2d, pad
from torch.nn.modules.batchnorm import _BatchNorm

from mvnas.errors import ExportError, SpaceError, unknown
from mvnas.graph import Graph
from mvnas.ops import EPS, GridBias, Map, Op, Shape, State, Tokens
from mvnas.ops import BatchNorm as BatchNormOp
from mvnas.ops import Branched as BranchedOp

if TYPE_CHECKING:
    from mvnas import ops

ACTIVATIONS: dict[str, Callable[[], Module]] = {
    "": Identity,
    "silu": SiLU,
    "relu": ReLU,
    "relu6": ReLU6,
    "gelu": GELU,
    "gelu_tanh": partial(GELU, approximate="tanh"),
    "hardswish": Hardswish,
    "hardsigmoid": Hardsigmoid,
    "sigmoid": Sigmoid,
}


def build(graph: Graph) -> fx.GraphModule:
    """Fresh module that computes `graph`; it works at any batch size and, where shapes are not fixed, any input size.

    It yields the tensor of the graph's output, or where there are several a tuple of these.
    """
    modules: dict[str, Module] = {}
    wires: list[fx.Node] = []
    program = fx.Graph()
    for node in graph.nodes:
        if node.inputs:
            modules[node.name] = node.op.module(*node.shapes)
            wires.append(program.call_module(node.name, tuple(wires[i] for i in node.inputs)))
        else:
            wires.append(program.placeholder(node.name))
    outputs = tuple([wires[i] for i in graph.outputs])
    program.output(outputs if len(outputs) > 1 else outputs[0])
    return fx.GraphModule(modules, program)


def deploy(graph: Graph, state: Mapping[str, Tensor]) -> tuple[Graph, State]:
    """The deployed graph of `graph` and its weights, folded from `state` in float64.

    Raises:
        ExportError: `state` lacks weights of the graph, or a norm is read by what cannot absorb its scale and shift.
    """
    shipped, sources = graph.deployment()
    names = {source: name for name, source in sources.items()}
    folded: State = {}
    pending: dict[int, tuple[Tensor, Tensor]] = {}  # node -> scale and shift of channels that its output still lacks
    for place, node in enumerate(graph.nodes):
        weights = {k[len(node.name) + 1 :]: v.double() for k, v in state.items() if k.startswith(node.name + ".")}
        if node.params and not weights:
            raise ExportError(f"the weights must hold {node.name}.*, but do not; are they another architecture's?")
        lacks = [pending[i] for i in node.inputs if i in pending]
        owed = node.op.owes(weights)
        if owed:
            if lacks:
                node.op.absorb({}, *lacks[0])
            pending[place] = owed
        elif node.op.moves and lacks:
            if node.inputs[0] in pending:  # of another input only the size is read
                pending[place] = pending[node.inputs[0]]
        elif node.params:
            deployed = shipped[names[node.name]].op
            weights = node.op.fold(weights, *node.shapes)
            for scale, shift in lacks:
                weights = deployed.absorb(weights, scale, shift)
            folded |= {f"{names[node.name]}.{k}": v.float() for k, v in weights.items()}
        elif lacks:
            node.op.absorb({}, *lacks[0])
    if any(i in pending for i in graph.outputs):
        raise ExportError(
            "an output of a network must not be a norm's, or its scale and shift cannot be folded, but is"
        )
    return shipped, folded


def example(graph: Graph, *, seed: int = 0, batch: int = 1) -> tuple[Tensor, ...]:
    """Normal random inputs for `build(graph)`."""
    generator = torch.Generator().manual_seed(seed)
    return tuple(torch.randn(batch, *node.shape, generator=generator) for node in graph.inputs)


def arbitrary(graph: Graph, *, seed: int = 0) -> State:
    """Normal random weights of a deployed graph, for files that are only timed.

    Fresh ones will not do: a converter drops a scale of 1 or a shift of 0, which a trained network does not have.
    """
    generator = torch.Generator().manual_seed(seed)
    with torch.device("meta"):
        shapes = {name: weight.shape for name, weight in build(graph).state_dict().items()}
    return {k: torch.randn(shape, generator=generator) / prod(shape[1:]) ** 0.5 for k, shape in shapes.items()}


def program(graph: Graph, weights: State, *, batch: int = 1) -> torch.export.ExportedProgram:
    """Exported program of `graph` with `weights` at one batch size, without the paths of the sources traced."""
    module = build(graph)
    module.load_state_dict(weights)
    exported = torch.export.export(module.eval(), example(graph, batch=batch))
    for node in exported.graph.nodes:
        node.meta.pop("stack_trace", None)
    return exported


def rank(exported: torch.export.ExportedProgram) -> int:
    """Most axes of any tensor in an exported program, intermediate results included."""
    values = (node.meta.get("val") for node in exported.graph.nodes)
    return max(value.dim() for value in values if isinstance(value, Tensor))


class Function(Module):
    """An op without parameters as a module, by the function that it computes."""

    def __init__(self, op: Op, compute: Callable[..., Tensor]) -> None:
        super().__init__()
        self.op, self.compute = op, compute

    def forward(self, *xs: Tensor) -> Tensor:
        return self.compute(*xs)

    def extra_repr(self) -> str:
        return repr(self.op)


class Scaled(Module):
    """What comes after a linear op: a learned factor a channel, if it begins as other than 0, and an activation."""

    scale: Parameter | None
    act: Module

    def take(self, out: int, scale: float, act: str) -> None:
        """Set the parts, for modules with other parents too."""
        self.scale = Parameter(torch.full((out,), scale)) if scale else None
        self.act = activation(act)

    def finish(self, y: Tensor, axis: int) -> Tensor:
        """`y`, whose channels are on `axis`, multiplied and activated."""
        if self.scale is not None:
            y = y * self.scale.view(-1, *[1] * (y.ndim - axis - 1))
        return self.act(y)  # type: ignore[no-any-return]


class ConvNormAct(Scaled):
    """Convolution, then batch norm if the op has one, gain, scale and activation: (B, C, H, W) -> (B, out, H', W')."""

    def __init__(self, channels: int, op: ops.Conv) -> None:
        super().__init__()
        self.take(op.out, op.scale, op.act)
        self.gain = op.gain
        self.pads = op.pads if op.same else None
        reach = 0 if op.same else op.kernel // 2
        self.conv = Conv2d(channels, op.out, op.kernel, op.stride, reach, groups=op.groups, bias=op.bias)
        self.norm = BatchNorm2d(op.out, op.eps) if op.norm else Identity()

    def forward(self, x: Tensor) -> Tensor:
        if self.pads:
            top, bottom, left, right = self.pads(Map(*x.shape[1:]))
            x = pad(x, (left, right, top, bottom))
        y = self.norm(self.conv(x))
        return self.finish(y if self.gain == 1 else y * self.gain, 1)


class WindowConv(ConvNormAct):
    """The same on tokens of which each sequence is a square map: (B, P, N, C) -> (B, P, N', out)."""

    def forward(self, x: Tensor) -> Tensor:
        b, p, n, c = x.shape
        y = super().forward(x.reshape(b * p, isqrt(n), isqrt(n), c).permute(0, 3, 1, 2))
        return y.permute(0, 2, 3, 1).reshape(b, p, -1, y.shape[1])


class Branches(Scaled):
    """Sum of branches, then batch norm if the op has one, scale and activation: (B, C, H, W) -> (B, out, H', W')."""

    def __init__(self, x: Map, op: ops.Branched) -> None:
        super().__init__()
        out = op.shape(x).c
        self.take(out, op.scale, op.act)
        self.branches = ModuleList([branch.module(x) if branch else Identity() for branch in op.branches])
        self.norm = BatchNorm2d(out) if op.norm else Identity()

    def forward(self, x: Tensor) -> Tensor:
        return self.finish(self.norm(reduce(torch.add, [branch(x) for branch in self.branches])), 1)


class Dense(Linear, Scaled):
    """Linear layer, or the mean of some, then gain, scale and activation: (..., C) -> (..., out)."""

    def __init__(self, channels: int, op: ops.Linear) -> None:
        super().__init__(channels, op.out, op.bias)
        self.take(op.out, op.scale, op.act)
        self.gain = op.gain
        self.others = ModuleList([Linear(channels, op.out, op.bias) for _ in range(op.copies - 1)])

    def forward(self, x: Tensor) -> Tensor:
        weight: Tensor = self.weight
        bias: Tensor | None = self.bias
        if self.others:
            layers = [self, *self.others]
            weight = torch.stack([layer.weight for layer in layers]).mean(0)
            bias = torch.stack([layer.bias for layer in layers]).mean(0)
        if self.gain != 1:
            weight, bias = weight * self.gain, None if bias is None else bias * self.gain
        return self.finish(linear(x, weight, bias), x.ndim - 1)


def activation(name: str) -> Module:
    """Fresh module of the activation `name`; "" is none.

    Raises:
        SpaceError: there is no activation of that name.
    """
    if name not in ACTIVATIONS:
        raise SpaceError(unknown("activation", name, ACTIVATIONS))
    return ACTIVATIONS[name]()


class Statistics(_BatchNorm):
    """Batch norm of maps or vectors whose scale begins as `start`: (B, C, ...)."""

    def __init__(self, channels: int, op: ops.BatchNorm) -> None:
        self.start = op.start
        super().__init__(channels, op.eps)

    def reset_parameters(self) -> None:
        super().reset_parameters()
        torch.nn.init.constant_(self.weight, self.start)

    def _check_input_dim(self, input: Tensor) -> None:
        """Any."""


class Norm(LayerNorm):
    """Layer norm over the channels of maps, tokens or vectors, or over all positions and channels of maps or tokens."""

    def __init__(self, x: Shape, op: ops.LayerNorm) -> None:
        super().__init__(x.c, op.eps, elementwise_affine=op.affine, bias=op.bias)
        self.map, self.whole = isinstance(x, Map), op.whole

    def forward(self, x: Tensor) -> Tensor:
        y = x.permute(0, 2, 3, 1) if self.map else x
        if self.whole:
            y = layer_norm(y, y.shape[1:], eps=self.eps)
            y = y if self.weight is None else y * self.weight
            y = y if self.bias is None else y + self.bias
        else:
            y = super().forward(y)
        return y.permute(0, 3, 1, 2) if self.map else y


class Affine(Module):
    """weight * x + bias of every channel: (B, C, ...) of maps and vectors, (..., C) of tokens."""

    def __init__(self, x: Shape, op: ops.Affine) -> None:
        super().__init__()
        form = (x.c, 1, 1) if isinstance(x, Map) else (x.c,)
        self.weight = Parameter(torch.full(form, op.start))
        self.bias = Parameter(torch.zeros(form)) if op.bias else None

    def forward(self, x: Tensor) -> Tensor:
        return x * self.weight if self.bias is None else x * self.weight + self.bias


class Small(Module):
    """Weights of a network from two numbers, through ReLU units, to some."""

    def __init__(self, hidden: int, out: int) -> None:
        super().__init__()
        self.first, self.second = Linear(2, hidden), Linear(hidden, out, bias=False)


class Position(Module):
    """A learned vector a patch, or what a small network makes of its place, is added: (B, P, N, C) -> (B, P, N, C).

    Learned vectors of a square are resized for squares of other sizes, as in training.
    """

    def __init__(self, x: Tokens, op: ops.Position) -> None:
        super().__init__()
        if op.hidden:
            self.places = Small(op.hidden, x.c)
        else:
            self.weight = Parameter(torch.empty(x.n, x.c).normal_(std=0.02))

    def forward(self, x: Tensor) -> Tensor:
        n = x.shape[2]
        if hasattr(self, "places"):
            return x + positions(dict(self.named_parameters()), n)
        if n == len(self.weight):
            return x + self.weight
        table = self.weight.T.reshape(1, -1, *[isqrt(len(self.weight))] * 2)
        return x + resize(table, (isqrt(n), isqrt(n))).flatten(2).transpose(1, 2)


def positions(state: Mapping[str, Tensor], patches: int) -> Tensor:
    """What the small network of a `Position` makes of each patch of a square: (N, C)."""
    side = isqrt(patches)
    places = (torch.arange(side, dtype=torch.float64) - side // 2) / (side // 2)
    return made(state, "places", torch.cartesian_prod(places, places))


class Spread(Module):
    """Tokens as the pixels of patches, each pixel with a factor of its own: (B, 1, N, C) -> (B, N, P, C)."""

    decayed = ("weight",)  # the kernel of a transposed convolution

    def __init__(self, channels: int, pixels: int) -> None:
        super().__init__()
        self.weight, self.bias = Parameter(torch.ones(pixels, channels)), Parameter(torch.zeros(channels))

    def forward(self, x: Tensor) -> Tensor:
        return x.transpose(1, 2) * self.weight + self.bias


def folded(state: Mapping[str, Tensor], gain: float = 1.0, eps: float = 1e-5) -> State:
    """Weights of one convolution that equals convolution, batch norm in evaluation mode if there is one, gain and scale."""
    weight, bias = state["conv.weight"], state.get("conv.bias")
    if "norm.weight" in state:
        scale = state["norm.weight"] / (state["norm.running_var"] + eps).sqrt()
        bias = state["norm.bias"] - (state["norm.running_mean"] - (0 if bias is None else bias)) * scale
        weight = weight * scale[:, None, None, None]
    factor = gain * state.get("scale", torch.ones(len(weight), dtype=weight.dtype))
    made = {"conv.weight": weight * factor[:, None, None, None]}
    return made if bias is None else made | {"conv.bias": bias * factor}


def folded_linear(state: Mapping[str, Tensor], op: ops.Linear) -> State:
    """Weights of one linear layer with bias that equals the mean of some, then gain and scale."""
    names = ["", *(f"others.{i}." for i in range(op.copies - 1))]
    weight = torch.stack([state[f"{name}weight"] for name in names]).mean(0)
    zeros = weight.new_zeros(len(weight))
    bias = torch.stack([state.get(f"{name}bias", zeros) for name in names]).mean(0)
    factor = op.gain * state.get("scale", zeros + 1)
    return {"weight": weight * factor[:, None], "bias": bias * factor}


def branch(
    op: ops.Conv | ops.Branched | BatchNormOp | None, state: Mapping[str, Tensor], x: Map, like: ops.Conv
) -> State:
    """Weights of the branch `op` of a sum on `x` as those of the convolution `like`, whose kernel may be larger and groups fewer."""
    if op is None or isinstance(op, BatchNormOp):
        scale, shift = op.owes(state) if op else (torch.ones(x.c, dtype=torch.float64), torch.zeros(1))
        made, groups = {"conv.weight": scale.view(-1, 1, 1, 1), "conv.bias": shift.expand(x.c)}, x.c
    else:
        made, groups = op.fold(state, x), (op.merged(x) if isinstance(op, BranchedOp) else op).groups
    weight = made["conv.weight"]
    out, inner, kernel, _ = weight.shape
    bias = made.get("conv.bias", weight.new_zeros(out))
    blocks = weight.view(like.groups, groups // like.groups, out // groups, inner, kernel, kernel)
    whole = weight.new_zeros(like.groups, blocks.shape[1], out // groups, blocks.shape[1], inner, kernel, kernel)
    for i in range(blocks.shape[1]):
        whole[:, i, :, i] = blocks[:, i]
    spread = whole.view(out, -1, kernel, kernel)
    return {"conv.weight": pad(spread, [(like.kernel - kernel) // 2] * 4), "conv.bias": bias}


class Attend(Module):
    """Attention with learned numbers: `bias` a head and distance, or a head, query and key; `talk` from head to head."""

    def __init__(self, op: ops.Attention, q: Tokens, k: Tokens) -> None:
        super().__init__()
        self.op = op
        if isinstance(op.bias, GridBias) and op.bias.hidden:
            self.distances = Small(op.bias.hidden, op.heads)
        elif op.bias:
            count = (op.bias.distances,) if isinstance(op.bias, GridBias) else (q.n, k.n)
            self.bias = Parameter(torch.zeros(op.heads, *count))
        if op.talking:
            self.before, self.after = Conv1d(op.heads, op.heads, 1), Conv1d(op.heads, op.heads, 1)

    def forward(self, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        bias = getattr(self, "bias", None)
        if isinstance(self.op.bias, GridBias):
            bias = biases(self.op.bias, dict(self.named_parameters()), k.shape[2])
        return attention(q, k, v, self.op, bias, (self.before, self.after) if self.op.talking else ())


def biases(grid: GridBias, state: Mapping[str, Tensor], keys: int) -> Tensor:
    """The number that is added for each head, query and key: (heads, N, M)."""
    if grid.hidden:
        far = [
            torch.arange(1 - side if grid.signed else 0, side, dtype=torch.float64) * 8 / max(side - 1, 1)
            for side in grid.grid
        ]
        places = torch.cartesian_prod(*far)
        table = 16 * made(state, "distances", places.sign() * (places.abs() + 1).log2() / 3).sigmoid().T
    else:
        table = state["bias"]
    places = offsets(grid.sides(keys), grid.stride, grid.grid, signed=grid.signed)
    return pad(table[:, places], (grid.extra, 0, grid.extra, 0))


def made(state: Mapping[str, Tensor], name: str, places: Tensor) -> Tensor:
    """What the `Small` network `name` makes of pairs of numbers: (N, 2) -> (N, out)."""
    first, bias, second = (state[f"{name}.{part}"] for part in ("first.weight", "first.bias", "second.weight"))
    return linear(linear(places.to(first), first, bias).relu(), second)


def attention(
    q: Tensor, k: Tensor, v: Tensor, op: ops.Attention, bias: Tensor | None = None, talk: tuple[Conv1d, ...] = ()
) -> Tensor:
    """`op` without scaling, written out so that every converter sees plain products: (B, P, N, C) each.

    `bias` is added to the products of queries and keys, (heads, N, M); `talk` mixes heads before and after the softmax.
    """
    queries, keys, values = heads_first(q, k, v, op.heads)
    scores = queries @ keys
    if bias is not None:
        scores = (scores.view(-1, *bias.shape) + bias).view_as(scores)
    if talk:
        scores = mix(scores, talk[0])
    if op.form == "relu_softmax":
        shares = scores.relu() / (scores.relu().sum(-1, keepdim=True) + EPS)
    else:
        shares = scores.softmax(-1)
    return heads_last((mix(shares, talk[1]) if talk else shares) @ values, q, op.heads)


def linear_attention(q: Tensor, k: Tensor, v: Tensor, op: ops.LinearAttention) -> Tensor:
    """`op`, which multiplies keys and values first: (B, P, N, C) each."""
    queries, keys, values = heads_first(q, k, v, op.heads)
    if op.form == "scaled":
        mixed = queries @ (keys @ values / keys.shape[2])
    else:
        queries, keys = queries.relu(), keys.relu()
        mixed = queries @ (keys @ values) / (queries @ keys.sum(2, keepdim=True) + EPS)
    return heads_last(mixed, q, op.heads)


def heads_first(q: Tensor, k: Tensor, v: Tensor, heads: int) -> tuple[Tensor, Tensor, Tensor]:
    """Queries (B * P * heads, N, C), keys (B * P * heads, C, M) and values (B * P * heads, M, V) of (B, P, N, ...) each."""
    b, p = q.shape[:2]
    q, k, v = (x.reshape(b * p, x.shape[2], heads, x.shape[3] // heads) for x in (q, k, v))
    queries, values = (x.transpose(1, 2).reshape(b * p * heads, x.shape[1], x.shape[3]) for x in (q, v))
    return queries, k.permute(0, 2, 3, 1).reshape(b * p * heads, k.shape[3], k.shape[1]), values


def heads_last(mixed: Tensor, q: Tensor, heads: int) -> Tensor:
    """What heads make, (B * P * heads, N, V), beside one another in (B, P, N, heads * V), as the queries `q` were given."""
    b, p, n, _ = q.shape
    width = mixed.shape[2]
    return mixed.reshape(b * p, heads, n, width).transpose(1, 2).reshape(b, p, n, heads * width)


def mix(scores: Tensor, talk: Conv1d) -> Tensor:
    """Scores of heads, each a mixture of all heads': (B * heads, N, M)."""
    return talk(scores.reshape(-1, talk.in_channels, scores[0].numel())).view_as(scores)  # type: ignore[no-any-return]


def offsets(sides: tuple[int, int], stride: int, grid: tuple[int, int], *, signed: bool = False) -> Tensor:
    """For queries at every `stride`-th pixel of a map and keys at each, the place of their distance in a table: (N, M).

    The table has a number for every |dy|, |dx| of `grid`, or `signed` for every dy, dx.
    """
    far = []
    for side, most in zip(sides, grid, strict=True):
        distance = torch.arange(0, side, stride)[:, None] - torch.arange(side)
        far.append(distance.clamp(1 - most, most - 1) + most - 1 if signed else distance.abs().clamp(max=most - 1))
    columns = 2 * grid[1] - 1 if signed else grid[1]
    places = far[0][:, None, :, None] * columns + far[1][None, :, None]
    return places.flatten(2).flatten(0, 1)


def resize(x: Tensor, size: tuple[int, int], *, nearest: bool = False) -> Tensor:
    """`x` resized, bilinearly (corners not aligned) or not, or `x` itself where it has the size: (B, C, H, W) -> (B, C, *size)."""
    if tuple(x.shape[2:]) == size:
        return x
    return interpolate(x, size=size) if nearest else interpolate(x, size=size, mode="bilinear", align_corners=False)


def concat(*xs: Tensor, axis: int) -> Tensor:
    """Concatenation along an axis; of maps in channel-last order, so that no converter moves data."""
    return cat([x.permute(0, 2, 3, 1) for x in xs], -1).permute(0, 3, 1, 2) if axis == 1 else cat(xs, axis)


def cut(x: Tensor, *, axis: int, first: int, size: int) -> Tensor:
    """Some of an axis."""
    return x.narrow(axis, first, size)


def pool(x: Tensor) -> Tensor:
    """Mean over the map: (B, C, H, W) -> (B, C)."""
    return x.permute(0, 2, 3, 1).mean((1, 2))


def mean(x: Tensor) -> Tensor:
    """Mean over tokens: (B, P, N, C) -> (B, C)."""
    return x.mean((1, 2))


def windows(x: Tensor, *, op: ops.Pool) -> Tensor:
    """Mean or maximum of the pixels in each window: (B, C, H, W) -> (B, C, H', W')."""
    if op.kernel == 1:
        return x[:, :, :: op.stride, :: op.stride]
    top, bottom, left, right = op.pads(Map(*x.shape[1:]))
    edges = (left, right, top, bottom)
    if op.largest:
        return max_pool2d(pad(x, edges, value=float("-inf")), op.kernel, op.stride)
    total = avg_pool2d(pad(x, edges), op.kernel, op.stride)
    inside = pad(torch.ones_like(x[:1, :1]), edges)
    return total / avg_pool2d(inside, op.kernel, op.stride) if any(edges) else total
