"""Graphs as torch modules: building, initial weights, folding for deployment, the rank check."""

from __future__ import annotations

from collections.abc import Mapping
from math import prod
from typing import TYPE_CHECKING

import torch
from torch import Tensor, cat, fx
from torch.nn import BatchNorm2d, Conv2d, Hardswish, Identity, LayerNorm, Linear, Module, ReLU, SiLU
from torch.nn.functional import interpolate, linear

from mvnas.errors import ExportError, SpaceError, unknown
from mvnas.graph import Graph
from mvnas.ops import LayerNorm as LayerNormOp
from mvnas.ops import Op, State

if TYPE_CHECKING:
    from mvnas.ops import Conv as ConvOp
    from mvnas.ops import Linear as LinearOp

__all__ = ["LayerNorm", "arbitrary", "build", "deploy", "example", "program", "rank"]

ACTIVATIONS: dict[str, type[Module]] = {"": Identity, "silu": SiLU, "relu": ReLU, "hardswish": Hardswish}


def build(graph: Graph) -> fx.GraphModule:
    """Fresh module that computes `graph`; it works at any batch size and, where shapes are not fixed, any input size."""
    modules: dict[str, Module] = {}
    wires: list[fx.Node] = []
    program = fx.Graph()
    for node in graph.nodes:
        if node.inputs:
            modules[node.name] = node.op.module(*node.shapes)
            wires.append(program.call_module(node.name, tuple(wires[i] for i in node.inputs)))
        else:
            wires.append(program.placeholder(node.name))
    program.output(wires[-1])
    return fx.GraphModule(modules, program)


def deploy(graph: Graph, state: Mapping[str, Tensor]) -> tuple[Graph, State]:
    """The deployed graph of `graph` and its weights, folded from `state` in float64.

    Raises:
        ExportError: `state` lacks weights of the graph, or a layer norm is read by what cannot absorb its scale and shift.
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
        if isinstance(node.op, LayerNormOp) and node.op.affine:
            if lacks:
                node.op.absorb({}, *lacks[0])
            pending[place] = weights["weight"], weights["bias"]
        elif node.op.moves and lacks:
            if node.inputs[0] in pending:  # of another input only the size is read
                pending[place] = pending[node.inputs[0]]
        elif node.params:
            deployed = shipped[names[node.name]].op
            weights = node.op.fold(weights)
            for scale, shift in lacks:
                weights = deployed.absorb(weights, scale, shift)
            folded |= {f"{names[node.name]}.{k}": v.float() for k, v in weights.items()}
        elif lacks:
            node.op.absorb({}, *lacks[0])
    if len(graph.nodes) - 1 in pending:
        raise ExportError("a network must not end in a layer norm, or its scale and shift cannot be folded, but does")
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
    """An op without parameters as a module."""

    def __init__(self, op: Op) -> None:
        super().__init__()
        self.op = op

    def forward(self, *xs: Tensor) -> Tensor:
        return self.op.forward(*xs)

    def extra_repr(self) -> str:
        return repr(self.op)


class ConvNormAct(Module):
    """Convolution, then batch norm if the op has one, then activation: (B, C, H, W) -> (B, out, H', W')."""

    def __init__(self, channels: int, op: ConvOp) -> None:
        super().__init__()
        self.conv = Conv2d(
            channels,
            op.out,
            op.kernel,
            op.stride,
            op.kernel // 2,
            groups=op.groups,
            bias=op.bias and not op.norm,
        )
        self.norm = BatchNorm2d(op.out) if op.norm else Identity()
        self.act = activation(op.act)

    def forward(self, x: Tensor) -> Tensor:
        return self.act(self.norm(self.conv(x)))  # type: ignore[no-any-return]


class Dense(Linear):
    """Linear layer whose result is multiplied by a fixed gain, then activation: (..., C) -> (..., out)."""

    def __init__(self, channels: int, op: LinearOp) -> None:
        super().__init__(channels, op.out)
        self.gain = op.gain
        self.act = activation(op.act)

    def forward(self, x: Tensor) -> Tensor:
        weight, bias = (self.weight, self.bias) if self.gain == 1 else (self.weight * self.gain, self.bias * self.gain)
        return self.act(linear(x, weight, bias))  # type: ignore[no-any-return]


def activation(name: str) -> Module:
    """Fresh module of the activation `name`; "" is none.

    Raises:
        SpaceError: there is no activation of that name.
    """
    if name not in ACTIVATIONS:
        raise SpaceError(unknown("activation", name, ACTIVATIONS))
    return ACTIVATIONS[name]()


def fold_norm(state: Mapping[str, Tensor], eps: float = 1e-5) -> State:
    """Weights of one convolution with bias that equals convolution then batch norm in evaluation mode."""
    scale = state["norm.weight"] / (state["norm.running_var"] + eps).sqrt()
    bias = state["norm.bias"] - state["norm.running_mean"] * scale
    return {"conv.weight": state["conv.weight"] * scale[:, None, None, None], "conv.bias": bias}


def attention(q: Tensor, k: Tensor, v: Tensor, heads: int) -> Tensor:
    """Softmax attention without scaling, written out so that every converter sees plain products: (B, P, N, C) each."""
    b, p, n, c = q.shape
    q, k, v = (x.reshape(b * p, x.shape[2], heads, c // heads) for x in (q, k, v))
    queries, values = (x.transpose(1, 2).reshape(b * p * heads, x.shape[1], c // heads) for x in (q, v))
    keys = k.permute(0, 2, 3, 1).reshape(b * p * heads, c // heads, k.shape[1])
    mixed = (queries @ keys).softmax(-1) @ values
    return mixed.reshape(b * p, heads, n, c // heads).transpose(1, 2).reshape(b, p, n, c)


def resize(x: Tensor, size: tuple[int, int]) -> Tensor:
    """`x` resized bilinearly (corners not aligned), or `x` itself where it has the size: (B, C, H, W) -> (B, C, *size)."""
    return x if tuple(x.shape[2:]) == size else interpolate(x, size=size, mode="bilinear", align_corners=False)


def concat(xs: tuple[Tensor, ...]) -> Tensor:
    """Concatenation of maps along channels, in channel-last order so that no converter moves data: (B, Ci, H, W) each."""
    return cat([x.permute(0, 2, 3, 1) for x in xs], -1).permute(0, 3, 1, 2)


def pool(x: Tensor) -> Tensor:
    """Mean over the map: (B, C, H, W) -> (B, C)."""
    return x.permute(0, 2, 3, 1).mean((1, 2))
