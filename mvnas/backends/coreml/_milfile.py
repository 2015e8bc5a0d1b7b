"""Core ML files, written op by op: the primitives of a deployed graph in MIL's ops, and the program that holds
them.

An op of the program is named after the node of the graph that it serves, `stage3__1__mobilevit__local__silu1`, so
that a compute plan can be read as costs of nodes. Maps are (1, C, H, W), tokens (1, P, N, C), vectors (1, C), all
float16; no tensor has more than four axes.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import Any

import numpy as np

from mvnas import ops
from mvnas.backends._quiet import quiet
from mvnas.errors import ExportError
from mvnas.graph import Graph, Node
from mvnas.lowering import Builder, Call, Tensor, Weights, forms, lower, lowers, output_names
from mvnas.lowering.forms import whole

with quiet():  # its import logs each native part that this system lacks
    import coremltools as ct
    from coremltools.converters.mil import Builder as Ops
    from coremltools.converters.mil.mil import Function, Program, types

FORM = 1  # goes up with every change of what an op becomes: timings of one form say nothing of another
ROUNDING = 1e-4  # of a resized side, which Core ML takes as floor(scale * size): coremltools adds as much

Operand = Any  # a coremltools Var, an array, or a number


def write(graph: Graph, weights: Weights) -> Program:
    """MIL program of a deployed `graph`; `weights` by node and parameter, such as `stage0.0.stem.conv.conv.weight`.

    Raises:
        ExportError: an op has no form, or a weight does not fit into float16.
    """
    builder = MIL()
    specs = {node.name: Ops.TensorSpec(builder.axes(node.shape), types.fp16) for node in graph.inputs}
    with Function(specs, opset_version=ct.target.iOS16) as main:
        made = lower(builder, graph, weights, lambda name, shape: main.inputs[name])
        outputs = [made[place] for place in graph.outputs]
        for output, name in zip(outputs, output_names(len(outputs)), strict=True):
            output.name = name
        main.set_outputs(outputs)
    program = Program()
    program.add_function("main", main)
    return program


def node_of(name: str) -> str:
    """Name of the node of the graph that the op `name` of a program serves."""
    return name.rpartition("__")[0].replace("__", ".")


class MIL(Builder):
    """The MIL program that is being made. Tensors are coremltools' `Var`s; numbers and weights are float16."""

    format = "Core ML"

    def __init__(self) -> None:
        self.name = ""
        self.made: Counter[str] = Counter()

    def at(self, node: Node) -> None:
        self.name, self.made = node.name.replace(".", "__"), Counter()

    def shape(self, x: Tensor) -> tuple[int, ...]:
        return tuple(x.shape)

    def op(self, kind: str, **inputs: Any) -> Tensor:
        """Append the op `kind`, such as conv, under a name of its own."""
        self.made[kind] += 1
        return getattr(Ops, kind)(name=f"{self.name}__{kind}{self.made[kind]}", **inputs)

    def conv(
        self,
        x: Tensor,
        weight: np.ndarray,
        bias: np.ndarray | None,
        *,
        stride: int,
        pads: tuple[int, int, int, int],
        groups: int,
        act: str,
    ) -> Tensor:
        shift = {} if bias is None else {"bias": _half(bias)}
        reach = {"pad_type": "custom", "pad": pads, "strides": [stride] * 2, "groups": groups}
        return self.activate(self.op("conv", x=x, weight=_half(weight), **shift, **reach), act)

    def linear(self, x: Tensor, weight: np.ndarray, bias: np.ndarray, *, act: str) -> Tensor:
        return self.activate(self.op("linear", x=x, weight=_half(weight), bias=_half(bias)), act)

    def matmul(self, a: Operand, b: Tensor, *, flip_a: bool = False, flip_b: bool = False) -> Tensor:
        assert not flip_a and not flip_b
        return self.op("matmul", x=_operand(a), y=b)

    def add(self, a: Tensor, b: Operand) -> Tensor:
        return self.op("add", x=a, y=_operand(b))

    def sub(self, a: Tensor, b: Operand) -> Tensor:
        return self.op("sub", x=a, y=_operand(b))

    def mul(self, a: Tensor, b: Operand) -> Tensor:
        return self.op("mul", x=a, y=_operand(b))

    def div(self, a: Tensor, b: Operand) -> Tensor:
        return self.op("real_div", x=a, y=_operand(b))

    def activate(self, x: Tensor, act: str) -> Tensor:
        if act == "hardswish":
            return self.mul(x, self.activate(x, "hardsigmoid"))
        kind, options = ACTIVATIONS.get(act, (act, {}))
        return self.op(kind, x=x, **options) if act else x

    def softmax(self, x: Tensor) -> Tensor:
        return self.op("softmax", x=x, axis=-1)

    def mean(self, x: Tensor, axes: Sequence[int], *, keep: bool) -> Tensor:
        return self.op("reduce_mean", x=x, axes=list(axes), keep_dims=keep)

    def total(self, x: Tensor, axis: int) -> Tensor:
        return self.op("reduce_sum", x=x, axes=[axis], keep_dims=True)

    def normalise(self, x: Tensor, axes: Sequence[int], *, eps: float) -> Tensor:
        return self.op("layer_norm", x=x, axes=list(axes), epsilon=np.float16(eps))

    def reshape(self, x: Tensor, shape: Sequence[int]) -> Tensor:
        """`x` with other axes; itself where it has them."""
        return x if self.shape(x) == tuple(shape) else self.op("reshape", x=x, shape=tuple(shape))

    def transpose(self, x: Tensor, order: Sequence[int]) -> Tensor:
        return self.op("transpose", x=x, perm=tuple(order))

    def concat(self, xs: Sequence[Tensor], axis: int) -> Tensor:
        return self.op("concat", values=xs, axis=axis)

    def cut(self, x: Tensor, axis: int, first: int, size: int) -> Tensor:
        begin, shape = [0] * len(x.shape), list(x.shape)
        begin[axis], shape[axis] = first, size
        return self.op("slice_by_size", x=x, begin=begin, size=tuple(shape))

    def pool(self, x: Tensor, kernel: int, *, stride: int, pads: tuple[int, int, int, int], largest: bool) -> Tensor:
        if kernel == 1:
            steps = {"begin": [0] * 4, "end": x.shape, "stride": [1, 1, stride, stride]}
            return self.op("slice_by_index", x=x, **steps)
        square = {"kernel_sizes": [kernel] * 2, "strides": [stride] * 2, "pad_type": "custom", "pad": pads}
        if largest:
            return self.op("max_pool", x=x, **square)
        return self.op("avg_pool", x=x, exclude_padding_from_average=True, **square)

    def resize(self, x: Tensor, h: int, w: int, *, nearest: bool) -> Tensor:
        sides = zip(x.shape[2:], (h, w), strict=True)
        tall, wide = (to / of if to % of == 0 else (to + ROUNDING) / of for of, to in sides)
        if nearest:
            return self.op("upsample_nearest_neighbor", x=x, scale_factor_height=tall, scale_factor_width=wide)
        return self.op("upsample_bilinear", x=x, scale_factor_height=tall, scale_factor_width=wide, align_corners=False)


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


def _operand(x: Operand) -> Any:
    """What a primitive is given, numbers in float16."""
    return np.float16(x) if isinstance(x, float | int) else _half(x) if isinstance(x, np.ndarray) else x


@lowers(ops.Unfold, to=MIL)
def unfold(b: MIL, op: ops.Unfold, call: Call) -> Tensor:
    """Two moves in place of three where patches are no windows, and one matrix where all pixels are in order."""
    (x,), side = call.inputs, op.patch
    _, c, h, w = b.shape(x)
    if whole(op, h, w):
        y = b.transpose(b.reshape(x, (1, 1, c, h * w)), (0, 1, 3, 2))
    elif op.windows:
        return forms.unfold(b, op, call)
    else:
        pixels = b.transpose(b.reshape(x, (c * h // side, side, w // side, side)), (1, 3, 0, 2))
        y = b.transpose(b.reshape(pixels, (1, side**2, c, h * w // side**2)), (0, 1, 3, 2))
    return b.reshape(y, b.axes(call.shape))


@lowers(ops.Fold, to=MIL)
def fold(b: MIL, op: ops.Fold, call: Call) -> Tensor:
    (x,), side = call.inputs, op.patch
    _, c, h, w = shape = b.axes(call.shape)
    if whole(op, h, w):
        return b.reshape(b.transpose(x, (0, 1, 3, 2)), shape)
    if op.windows:
        return forms.fold(b, op, call)
    pixels = b.reshape(b.transpose(x, (0, 1, 3, 2)), (side, side, c * h // side, w // side))
    return b.reshape(b.transpose(pixels, (2, 0, 3, 1)), shape)
