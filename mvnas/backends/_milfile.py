"""Core ML files, written op by op: what each op of a deployed graph becomes, and the program that holds it.

An op of the program is named after the node of the graph that it serves, `block3__conv1__silu1` for `block3.conv1`, so that a
compute plan can be read as costs of nodes. Maps are (1, C, H, W), tokens (1, P, N, C), vectors (1, C), all float16; no
tensor has more than four axes.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from mvnas import ops
from mvnas.backends._lowering import EPS, Weights, lower
from mvnas.backends._quiet import quiet
from mvnas.errors import ExportError
from mvnas.graph import Graph, Node

with quiet():  # its import logs each native part that this system lacks
    import coremltools as ct
    from coremltools.converters.mil import Builder
    from coremltools.converters.mil.mil import Function, Program, types

FORM = 1  # goes up with every change of what an op becomes: timings of one form say nothing of another
OUTPUT = "y"
ROUNDING = 1e-4  # of a resized side, which Core ML takes as floor(scale * size): coremltools adds as much

Tensor = Any  # a coremltools Var, which has a shape


def write(graph: Graph, weights: Weights) -> Program:
    """MIL program of a deployed `graph`; `weights` by node and parameter, such as `block0.conv0.conv.weight`.

    Raises:
        ExportError: Core ML has no form of an op, or a weight does not fit into float16.
    """
    specs = {node.name: Builder.TensorSpec((1, *node.shape), types.fp16) for node in graph.inputs}
    with Function(specs, opset_version=ct.target.iOS16) as main:
        made = lower(
            graph, weights, LOWERED, format="Core ML", place=_Place, feed=lambda place, node: main.inputs[node.name]
        )
        made[-1].name = OUTPUT
        main.set_outputs([made[-1]])
    program = Program()
    program.add_function("main", main)
    return program


def node_of(name: str) -> str:
    """Name of the node of the graph that the op `name` of a program serves."""
    return name.rpartition("__")[0].replace("__", ".")


class _Place:
    """Where the ops of one node are appended to the program, under names of their own."""

    def __init__(self, node: Node) -> None:
        self.name = node.name.replace(".", "__")
        self.made: Counter[str] = Counter()

    def op(self, kind: str, **inputs: Any) -> Tensor:
        """Append the op `kind`, such as conv."""
        self.made[kind] += 1
        return getattr(Builder, kind)(name=f"{self.name}__{kind}{self.made[kind]}", **inputs)

    def reshape(self, x: Tensor, *shape: int) -> Tensor:
        return self.op("reshape", x=x, shape=shape)

    def transpose(self, x: Tensor, *order: int) -> Tensor:
        return self.op("transpose", x=x, perm=order)

    def activate(self, y: Tensor, act: str) -> Tensor:
        """`y` after an activation."""
        if act == "hardswish":
            return self.op("mul", x=y, y=self.op("sigmoid_hard", x=y, alpha=np.float16(1 / 6), beta=np.float16(0.5)))
        return self.op(act, x=y) if act else y


def _half(weight: np.ndarray) -> np.ndarray:
    largest = np.abs(weight).max()
    if not largest <= np.finfo(np.float16).max:
        raise ExportError(f"weights must fit into float16, 65504 at most, but one is {largest:.3g}")
    return weight.astype(np.float16)


def _conv(place: _Place, node: Node, xs: Sequence[Tensor], weights: Weights) -> Tensor:
    op = node.op
    assert isinstance(op, ops.Conv)
    bias = {"bias": _half(weights["conv.bias"])} if "conv.bias" in weights else {}
    reach = {"pad_type": "custom", "pad": [op.kernel // 2] * 4, "strides": [op.stride] * 2, "groups": op.groups}
    return place.activate(place.op("conv", x=xs[0], weight=_half(weights["conv.weight"]), **bias, **reach), op.act)


def _linear(place: _Place, node: Node, xs: Sequence[Tensor], weights: Weights) -> Tensor:
    op = node.op
    assert isinstance(op, ops.Linear) and op.gain == 1
    y = place.op("linear", x=xs[0], weight=_half(weights["weight"]), bias=_half(weights["bias"]))
    return place.activate(y, op.act)


def _layer_norm(place: _Place, node: Node, xs: Sequence[Tensor], weights: Weights) -> Tensor:
    assert isinstance(node.op, ops.LayerNorm) and not node.op.affine
    return place.op("layer_norm", x=xs[0], axes=[-1], epsilon=np.float16(EPS))


def _attention(place: _Place, node: Node, xs: Sequence[Tensor], weights: Weights) -> Tensor:
    assert isinstance(node.op, ops.Attention)
    _, p, _, c = xs[0].shape
    heads = node.op.heads
    split = [place.reshape(x, p, x.shape[2], heads, c // heads) for x in xs]
    q, k, v = (
        place.transpose(x, *order) for x, order in zip(split, ((0, 2, 1, 3), (0, 2, 3, 1), (0, 2, 1, 3)), strict=True)
    )
    mixed = place.op("matmul", x=place.op("softmax", x=place.op("matmul", x=q, y=k), axis=-1), y=v)
    return place.reshape(place.transpose(mixed, 0, 2, 1, 3), 1, *node.shape)


def _unfold(place: _Place, node: Node, xs: Sequence[Tensor], weights: Weights) -> Tensor:
    assert isinstance(node.op, ops.Unfold)
    _, c, h, w = xs[0].shape
    side = node.op.patch
    pixels = place.transpose(place.reshape(xs[0], c * h // side, side, w // side, side), 1, 3, 0, 2)
    return place.transpose(place.reshape(pixels, 1, side**2, c, h * w // side**2), 0, 1, 3, 2)


def _fold(place: _Place, node: Node, xs: Sequence[Tensor], weights: Weights) -> Tensor:
    assert isinstance(node.op, ops.Fold)
    assert isinstance(node.shape, ops.Map)
    c, h, w = node.shape
    side = node.op.patch
    pixels = place.reshape(place.transpose(xs[0], 0, 1, 3, 2), side, side, c * h // side, w // side)
    return place.reshape(place.transpose(pixels, 2, 0, 3, 1), 1, c, h, w)


def _resize(place: _Place, node: Node, xs: Sequence[Tensor], weights: Weights) -> Tensor:
    assert isinstance(node.shape, ops.Map)
    sides = zip(xs[0].shape[2:], node.shape[1:], strict=True)
    tall, wide = (to / of if to % of == 0 else (to + ROUNDING) / of for of, to in sides)
    return place.op(
        "upsample_bilinear", x=xs[0], scale_factor_height=tall, scale_factor_width=wide, align_corners=False
    )


def _add(place: _Place, node: Node, xs: Sequence[Tensor], weights: Weights) -> Tensor:
    return place.op("add", x=xs[0], y=xs[1])


def _concat(place: _Place, node: Node, xs: Sequence[Tensor], weights: Weights) -> Tensor:
    return place.op("concat", values=xs, axis=1)


def _pool(place: _Place, node: Node, xs: Sequence[Tensor], weights: Weights) -> Tensor:
    return place.op("reduce_mean", x=xs[0], axes=[2, 3], keep_dims=False)


LOWERED: Mapping[type, Callable[[_Place, Node, Sequence[Tensor], Weights], Tensor]] = {
    ops.Add: _add,
    ops.Attention: _attention,
    ops.Concat: _concat,
    ops.Conv: _conv,
    ops.Fold: _fold,
    ops.LayerNorm: _layer_norm,
    ops.Linear: _linear,
    ops.Pool: _pool,
    ops.Resize: _resize,
    ops.Unfold: _unfold,
}
