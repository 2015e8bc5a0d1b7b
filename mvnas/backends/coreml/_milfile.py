"""Core ML files, written op by op: what each op of a deployed graph becomes, and the program that holds it.

An op of the program is named after the node of the graph that it serves, `block3__conv1__silu1` for `block3.conv1`, so that a
compute plan can be read as costs of nodes. Maps are (1, C, H, W), tokens (1, P, N, C), vectors (1, C), all float16; no
tensor has more than four axes.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from typing import Any, cast

import numpy as np

from mvnas import ops
from mvnas.backends._lowering import Weights, lower
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
            return self.op("mul", x=y, y=self.activate(y, "hardsigmoid"))
        kind, options = ACTIVATIONS.get(act, (act, {}))
        return self.op(kind, x=y, **options) if act else y

    def guarded(self, total: Tensor) -> Tensor:
        return self.op("add", x=total, y=np.float16(ops.EPS))


ACTIVATIONS: dict[str, tuple[str, dict[str, Any]]] = {  # activations that have another name, with their options
    "gelu": ("gelu", {"mode": "EXACT"}),
    "gelu_tanh": ("gelu", {"mode": "TANH_APPROXIMATION"}),
    "hardsigmoid": ("sigmoid_hard", {"alpha": np.float16(1 / 6), "beta": np.float16(0.5)}),
}


def _half(weight: np.ndarray) -> np.ndarray:
    largest = np.abs(weight).max()
    if not largest <= np.finfo(np.float16).max:
        raise ExportError(f"weights must fit into float16, 65504 at most, but one is {largest:.3g}")
    return weight.astype(np.float16)


def _conv(place: _Place, node: Node, xs: Sequence[Tensor], weights: Weights) -> Tensor:
    op, shape, x = node.op, node.shapes[0], xs[0]
    assert isinstance(op, ops.Conv) and isinstance(shape, (ops.Map, ops.Tokens))
    before = ops.square(shape)
    if isinstance(shape, ops.Tokens):  # each sequence is a map
        x = place.transpose(place.reshape(x, shape.p, before.h, before.w, before.c), 0, 3, 1, 2)
    bias = {"bias": _half(weights["conv.bias"])} if "conv.bias" in weights else {}
    reach = {"pad_type": "custom", "pad": op.pads(before), "strides": [op.stride] * 2, "groups": op.groups}
    y = place.activate(place.op("conv", x=x, weight=_half(weights["conv.weight"]), **bias, **reach), op.act)
    if isinstance(shape, ops.Map):
        return y
    return place.reshape(place.transpose(y, 0, 2, 3, 1), 1, *node.shape)


def _linear(place: _Place, node: Node, xs: Sequence[Tensor], weights: Weights) -> Tensor:
    op = node.op
    assert isinstance(op, ops.Linear) and op.gain == 1
    y = place.op("linear", x=xs[0], weight=_half(weights["weight"]), bias=_half(weights["bias"]))
    return place.activate(y, op.act)


def _act(place: _Place, node: Node, xs: Sequence[Tensor], weights: Weights) -> Tensor:
    assert isinstance(node.op, ops.Act)
    return place.activate(xs[0], node.op.act)


def _layer_norm(place: _Place, node: Node, xs: Sequence[Tensor], weights: Weights) -> Tensor:
    op = node.op
    assert isinstance(op, ops.LayerNorm) and not op.affine
    axes = [1, 2, 3][: len(node.shape)] if op.whole else [1] if isinstance(node.shape, ops.Map) else [-1]
    return place.op("layer_norm", x=xs[0], axes=axes, epsilon=np.float16(op.eps))


def _affine(place: _Place, node: Node, xs: Sequence[Tensor], weights: Weights) -> Tensor:
    y = place.op("mul", x=xs[0], y=_half(weights["weight"]))
    return place.op("add", x=y, y=_half(weights["bias"])) if "bias" in weights else y


def _position(place: _Place, node: Node, xs: Sequence[Tensor], weights: Weights) -> Tensor:
    return place.op("add", x=xs[0], y=_half(weights["weight"]))


def _attention(place: _Place, node: Node, xs: Sequence[Tensor], weights: Weights) -> Tensor:
    op = node.op
    assert isinstance(op, ops.Attention | ops.LinearAttention)
    p, heads = xs[0].shape[1], op.heads
    split = [place.reshape(x, p, x.shape[2], heads, x.shape[3] // heads) for x in xs]
    q, k, v = (
        place.transpose(x, *order) for x, order in zip(split, ((0, 2, 1, 3), (0, 2, 3, 1), (0, 2, 1, 3)), strict=True)
    )
    if isinstance(op, ops.LinearAttention):
        mixed = _linear_attention(place, op.form, q, k, v)
    else:
        scores = place.op("matmul", x=q, y=k)
        if op.bias:
            scores = place.op("add", x=scores, y=_half(weights["bias"][None]))
        if op.talking:
            scores = _talk(place, scores, weights, "before")
        if op.form == "softmax":
            shares = place.op("softmax", x=scores, axis=-1)
        else:
            scores = place.activate(scores, "relu")
            total = place.op("reduce_sum", x=scores, axes=[3], keep_dims=True)
            shares = place.op("real_div", x=scores, y=place.guarded(total))
        mixed = place.op("matmul", x=_talk(place, shares, weights, "after") if op.talking else shares, y=v)
    return place.reshape(place.transpose(mixed, 0, 2, 1, 3), 1, *node.shape)


def _separable_attention(place: _Place, node: Node, xs: Sequence[Tensor], weights: Weights) -> Tensor:
    _, p, n, _ = xs[0].shape
    shares = place.op("softmax", x=place.reshape(xs[0], 1, p, 1, n), axis=-1)
    return place.op("mul", x=xs[2], y=place.op("matmul", x=shares, y=xs[1]))


def _linear_attention(place: _Place, form: str, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    """Attention that multiplies keys (P, heads, C, M) and values first: (P, heads, N, V)."""
    if form == "scaled":
        context = place.op("mul", x=place.op("matmul", x=k, y=v), y=np.float16(1 / k.shape[3]))
        return place.op("matmul", x=q, y=context)
    q, k = place.activate(q, "relu"), place.activate(k, "relu")
    mixed = place.op("matmul", x=q, y=place.op("matmul", x=k, y=v))
    total = place.op("matmul", x=q, y=place.op("reduce_sum", x=k, axes=[3], keep_dims=True))
    return place.op("real_div", x=mixed, y=place.guarded(total))


def _talk(place: _Place, scores: Tensor, weights: Weights, when: str) -> Tensor:
    """Scores of heads (P, heads, N, M), each a mixture of all heads'."""
    p, heads, n, m = scores.shape
    flat = place.reshape(scores, p, heads, n * m)
    mixed = place.op("matmul", x=_half(weights[f"{when}.weight"][None, :, :, 0]), y=flat)
    return place.reshape(place.op("add", x=mixed, y=_half(weights[f"{when}.bias"][None, :, None])), p, heads, n, m)


def _unfold(place: _Place, node: Node, xs: Sequence[Tensor], weights: Weights) -> Tensor:
    assert isinstance(node.op, ops.Unfold)
    _, c, h, w = xs[0].shape
    side = node.op.patch
    if side == 1 or (node.op.windows and h == w == side):
        return place.transpose(place.reshape(xs[0], 1, 1, c, h * w), 0, 1, 3, 2)
    if node.op.windows:
        rows = place.reshape(place.transpose(xs[0], 0, 2, 3, 1), h // side, side, w // side, side * c)
        return place.reshape(place.transpose(rows, 0, 2, 1, 3), 1, *node.shape)
    pixels = place.transpose(place.reshape(xs[0], c * h // side, side, w // side, side), 1, 3, 0, 2)
    return place.transpose(place.reshape(pixels, 1, side**2, c, h * w // side**2), 0, 1, 3, 2)


def _fold(place: _Place, node: Node, xs: Sequence[Tensor], weights: Weights) -> Tensor:
    assert isinstance(node.op, ops.Fold)
    assert isinstance(node.shape, ops.Map)
    c, h, w = node.shape
    side = node.op.patch
    if side == 1 or (node.op.windows and h == w == side):
        return place.reshape(place.transpose(xs[0], 0, 1, 3, 2), 1, c, h, w)
    if node.op.windows:
        rows = place.reshape(xs[0], h // side, w // side, side, side * c)
        return place.transpose(place.reshape(place.transpose(rows, 0, 2, 1, 3), 1, h, w, c), 0, 3, 1, 2)
    pixels = place.reshape(place.transpose(xs[0], 0, 1, 3, 2), side, side, c * h // side, w // side)
    return place.reshape(place.transpose(pixels, 2, 0, 3, 1), 1, c, h, w)


def _spread(place: _Place, node: Node, xs: Sequence[Tensor], weights: Weights) -> Tensor:
    y = place.op("mul", x=place.transpose(xs[0], 0, 2, 1, 3), y=_half(weights["weight"]))
    return place.op("add", x=y, y=_half(weights["bias"]))


def _resize(place: _Place, node: Node, xs: Sequence[Tensor], weights: Weights) -> Tensor:
    assert isinstance(node.op, ops.Resize) and isinstance(node.shape, ops.Map)
    sides = zip(xs[0].shape[2:], node.shape[1:], strict=True)
    tall, wide = (to / of if to % of == 0 else (to + ROUNDING) / of for of, to in sides)
    if node.op.nearest:
        return place.op("upsample_nearest_neighbor", x=xs[0], scale_factor_height=tall, scale_factor_width=wide)
    return place.op(
        "upsample_bilinear", x=xs[0], scale_factor_height=tall, scale_factor_width=wide, align_corners=False
    )


def _add(place: _Place, node: Node, xs: Sequence[Tensor], weights: Weights) -> Tensor:
    return place.op("add", x=xs[0], y=xs[1])


def _sub(place: _Place, node: Node, xs: Sequence[Tensor], weights: Weights) -> Tensor:
    return place.op("sub", x=xs[0], y=xs[1])


def _mul(place: _Place, node: Node, xs: Sequence[Tensor], weights: Weights) -> Tensor:
    a, b = xs
    return place.op("mul", x=a, y=b if len(b.shape) == len(a.shape) else place.reshape(b, *b.shape, 1, 1))


def _concat(place: _Place, node: Node, xs: Sequence[Tensor], weights: Weights) -> Tensor:
    assert isinstance(node.op, ops.Concat)
    return place.op("concat", values=xs, axis=ops.axis(node.shape, node.op.patches))


def _slice(place: _Place, node: Node, xs: Sequence[Tensor], weights: Weights) -> Tensor:
    op = node.op
    assert isinstance(op, ops.Slice)
    begin = [op.first if axis == ops.axis(node.shape, op.patches) else 0 for axis in range(4)]
    return place.op("slice_by_size", x=xs[0], begin=begin, size=(1, *node.shape))


def _pool(place: _Place, node: Node, xs: Sequence[Tensor], weights: Weights) -> Tensor:
    op = node.op
    assert isinstance(op, ops.Pool)
    if not op.kernel:
        axes = [2, 3] if isinstance(node.shapes[0], ops.Map) else [1, 2]
        return place.op("reduce_mean", x=xs[0], axes=axes, keep_dims=False)
    if op.kernel == 1:
        steps = {"begin": [0] * 4, "end": xs[0].shape, "stride": [1, 1, op.stride, op.stride]}
        return place.op("slice_by_index", x=xs[0], **steps)
    pads = op.pads(cast(ops.Map, node.shapes[0]))
    square = {"kernel_sizes": [op.kernel] * 2, "strides": [op.stride] * 2, "pad_type": "custom", "pad": pads}
    if op.largest:
        return place.op("max_pool", x=xs[0], **square)
    return place.op("avg_pool", x=xs[0], exclude_padding_from_average=True, **square)


LOWERED: Mapping[type, Callable[[_Place, Node, Sequence[Tensor], Weights], Tensor]] = {
    ops.Act: _act,
    ops.Add: _add,
    ops.Affine: _affine,
    ops.Attention: _attention,
    ops.LinearAttention: _attention,
    ops.SeparableAttention: _separable_attention,
    ops.Position: _position,
    ops.Concat: _concat,
    ops.Conv: _conv,
    ops.Fold: _fold,
    ops.LayerNorm: _layer_norm,
    ops.Linear: _linear,
    ops.Mul: _mul,
    ops.Pool: _pool,
    ops.Resize: _resize,
    ops.Slice: _slice,
    ops.Spread: _spread,
    ops.Sub: _sub,
    ops.Unfold: _unfold,
}
