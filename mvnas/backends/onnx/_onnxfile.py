"""ONNX files, written op by op: the primitives of a deployed graph in ONNX's ops, and the model that holds them.

A node of the file is named after the node of the graph that it serves, `stage0.0.stem.conv/Conv.0`, so that a profile
can be read as times of ops. Maps are (1, C, H, W), tokens (1, P, N, C), vectors (1, C); no tensor has more than four
axes.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from mvnas import __version__
from mvnas.graph import Graph, Node
from mvnas.lowering import Builder, Weights, lower, output_names

OPSET = 20
FORM = 1  # goes up with every change of what an op becomes: timings of one form say nothing of another

Operand = str | float | np.ndarray


def write(graph: Graph, weights: Weights) -> onnx.ModelProto:
    """ONNX model of a deployed `graph`; `weights` by node and parameter, such as `stage0.0.stem.conv.conv.weight`.

    Raises:
        ExportError: an op has no form.
    """
    file = ONNX()
    made = lower(file, graph, weights, lambda name, shape: file.input(name, file.axes(shape)))
    return file.finish([made[place] for place in graph.outputs])


class ONNX(Builder):
    """One ONNX model in the making: nodes in execution order, their constants, and the shape of every tensor."""

    format = "ONNX"

    def __init__(self) -> None:
        self.name = ""
        self.nodes: list[Any] = []
        self.inputs: list[Any] = []
        self.constants: dict[str, Any] = {}
        self.shapes: dict[str, tuple[int, ...]] = {}

    def at(self, node: Node) -> None:
        self.name = node.name

    def shape(self, x: str) -> tuple[int, ...]:
        return self.shapes[x]

    def input(self, name: str, shape: tuple[int, ...]) -> str:
        self.inputs.append(helper.make_tensor_value_info(name, TensorProto.FLOAT, shape))
        self.shapes[name] = shape
        return name

    def constant(self, data: np.ndarray, name: str = "constant") -> str:
        """A tensor with fixed data, under a name of the current node."""
        name = f"{self.name}/{name}.{len(self.constants)}"
        self.constants[name] = numpy_helper.from_array(np.ascontiguousarray(data), name)
        self.shapes[name] = data.shape
        return name

    def operand(self, x: Operand) -> str:
        """A tensor of what may be a number or an array."""
        if isinstance(x, str):
            return x
        return self.constant(x if isinstance(x, np.ndarray) else np.array(x, np.float32))

    def op(self, kind: str, inputs: Sequence[str], shape: Sequence[int], **attributes: Any) -> str:
        """Append the op `kind`, such as Conv, with an output of `shape`."""
        output = f"{self.name}/{kind}.{len(self.nodes)}"
        self.nodes.append(helper.make_node(kind, inputs, [output], output, **attributes))
        self.shapes[output] = tuple(shape)
        return output

    def conv(
        self,
        x: str,
        weight: np.ndarray,
        bias: np.ndarray | None,
        *,
        stride: int,
        pads: tuple[int, int, int, int],
        groups: int,
        act: str,
    ) -> str:
        n, _, h, w = self.shape(x)
        reach = weight.shape[2]
        inputs = [x, self.constant(weight, "weight"), *([] if bias is None else [self.constant(bias, "bias")])]
        shape = (n, len(weight), *_windows(h, w, reach, stride, pads))
        return self.activate(self.op("Conv", inputs, shape, **_reach(reach, stride, pads), group=groups), act)

    def linear(self, x: str, weight: np.ndarray, bias: np.ndarray, *, act: str) -> str:
        y = self.matmul(x, self.constant(weight.T, "weight"))
        return self.activate(self.add(y, bias), act)

    def matmul(self, a: str | np.ndarray, b: str, *, flip_a: bool = False, flip_b: bool = False) -> str:
        assert not flip_a and not flip_b
        a = self.operand(a)
        one, other = self.shape(a), self.shape(b)
        return self.op("MatMul", [a, b], (*np.broadcast_shapes(one[:-2], other[:-2]), one[-2], other[-1]))

    def add(self, a: str, b: Operand) -> str:
        return self.binary("Add", a, b)

    def sub(self, a: str, b: Operand) -> str:
        return self.binary("Sub", a, b)

    def mul(self, a: str, b: Operand) -> str:
        return self.binary("Mul", a, b)

    def div(self, a: str, b: Operand) -> str:
        return self.binary("Div", a, b)

    def binary(self, kind: str, a: str, b: Operand) -> str:
        b = self.operand(b)
        return self.op(kind, [a, b], np.broadcast_shapes(self.shape(a), self.shape(b)))

    def activate(self, x: str, act: str) -> str:
        if act == "silu":
            return self.mul(x, self.op("Sigmoid", [x], self.shape(x)))
        if act == "relu6":
            return self.op("Clip", [x, self.operand(0.0), self.operand(6.0)], self.shape(x))
        kind, attributes = ACTIVATIONS[act]
        return self.op(kind, [x], self.shape(x), **attributes) if kind else x

    def softmax(self, x: str) -> str:
        return self.op("Softmax", [x], self.shape(x), axis=-1)

    def mean(self, x: str, axes: Sequence[int], *, keep: bool) -> str:
        shape = self.shape(x)
        if len(shape) == 4 and list(axes) == [2, 3]:  # of maps
            y = self.op("GlobalAveragePool", [x], (*shape[:2], 1, 1))
        else:
            y = self.reduce("ReduceMean", x, axes)
        return y if keep else self.reshape(y, [n for axis, n in enumerate(shape) if axis not in axes])

    def total(self, x: str, axis: int) -> str:
        return self.reduce("ReduceSum", x, [axis])

    def reduce(self, kind: str, x: str, axes: Sequence[int]) -> str:
        """Some axes of `x` reduced to 1."""
        shape = [1 if axis in axes else n for axis, n in enumerate(self.shape(x))]
        return self.op(kind, [x, self.constant(np.array(axes, np.int64), "axes")], shape, keepdims=1)

    def normalise(self, x: str, axes: Sequence[int], *, eps: float) -> str:
        last = len(self.shape(x)) - 1
        if list(axes) == [last]:
            scale = self.constant(np.ones(self.shape(x)[last], np.float32), "scale")
            return self.op("LayerNormalization", [x, scale], self.shape(x), axis=-1, epsilon=eps)
        centred = self.sub(x, self.reduce("ReduceMean", x, axes))
        spread = self.add(self.reduce("ReduceMean", self.mul(centred, centred), axes), eps)
        return self.div(centred, self.op("Sqrt", [spread], self.shape(spread)))

    def reshape(self, x: str, shape: Sequence[int]) -> str:
        """`x` with other axes; itself where it has them."""
        if self.shape(x) == tuple(shape):
            return x
        return self.op("Reshape", [x, self.constant(np.array(shape, np.int64), "shape")], shape)

    def transpose(self, x: str, order: Sequence[int]) -> str:
        """`x` with its axes in another order; a reshape where that moves nothing."""
        shape = [self.shape(x)[axis] for axis in order]
        if [axis for axis in order if self.shape(x)[axis] > 1] == [a for a, n in enumerate(self.shape(x)) if n > 1]:
            return self.reshape(x, shape)
        return self.op("Transpose", [x], shape, perm=order)

    def concat(self, xs: Sequence[str], axis: int) -> str:
        shape = list(self.shape(xs[0]))
        shape[axis] = sum(self.shape(x)[axis] for x in xs)
        return self.op("Concat", xs, shape, axis=axis)

    def cut(self, x: str, axis: int, first: int, size: int) -> str:
        shape = list(self.shape(x))
        shape[axis] = size
        return self.slice(x, [axis], [first], [first + size], 1, shape)

    def slice(
        self, x: str, axes: Sequence[int], begin: Sequence[int], end: Sequence[int], step: int, shape: Sequence[int]
    ) -> str:
        """Every `step`-th entry of some axes."""
        rows = [np.array(row, np.int64) for row in (begin, end, axes, [step] * len(axes))]
        return self.op("Slice", [x, *[self.constant(row, "cut") for row in rows]], shape)

    def pool(self, x: str, kernel: int, *, stride: int, pads: tuple[int, int, int, int], largest: bool) -> str:
        n, c, h, w = self.shape(x)
        shape = (n, c, *_windows(h, w, kernel, stride, pads))
        if kernel == 1:
            return self.slice(x, [2, 3], [0, 0], [h, w], stride, shape)
        return self.op("MaxPool" if largest else "AveragePool", [x], shape, **_reach(kernel, stride, pads))

    def resize(self, x: str, h: int, w: int, *, nearest: bool) -> str:
        shape = (*self.shape(x)[:2], h, w)
        how = {"mode": "linear", "coordinate_transformation_mode": "half_pixel"}
        if nearest:
            how = {"mode": "nearest", "coordinate_transformation_mode": "asymmetric", "nearest_mode": "floor"}
        return self.op("Resize", [x, "", "", self.constant(np.array(shape, np.int64), "size")], shape, **how)

    def finish(self, outputs: Sequence[str]) -> onnx.ModelProto:
        """The model, with names of its own for the outputs."""
        names = dict(zip(outputs, output_names(len(outputs)), strict=True))
        for node in self.nodes:
            for tensors in (node.input, node.output):
                tensors[:] = [names.get(x, x) for x in tensors]
        told = [helper.make_tensor_value_info(names[x], TensorProto.FLOAT, self.shape(x)) for x in outputs]
        graph = helper.make_graph(self.nodes, "mvnas", self.inputs, told, list(self.constants.values()))
        opset = [helper.make_opsetid("", OPSET)]
        return helper.make_model(
            graph, opset_imports=opset, ir_version=10, producer_name="mvnas", producer_version=__version__
        )


def _windows(h: int, w: int, reach: int, stride: int, pads: tuple[int, int, int, int]) -> tuple[int, int]:
    """How many windows of `reach` pixels there are, down and across."""
    top, bottom, left, right = pads
    return (h + top + bottom - reach) // stride + 1, (w + left + right - reach) // stride + 1


def _reach(reach: int, stride: int, pads: tuple[int, int, int, int]) -> dict[str, Any]:
    """Attributes of windows."""
    top, bottom, left, right = pads
    return {"kernel_shape": [reach] * 2, "strides": [stride] * 2, "pads": [top, left, bottom, right]}


ACTIVATIONS: dict[str, tuple[str, dict[str, Any]]] = {
    "": ("", {}),
    "gelu": ("Gelu", {}),
    "gelu_tanh": ("Gelu", {"approximate": "tanh"}),
    "hardsigmoid": ("HardSigmoid", {"alpha": 1 / 6, "beta": 0.5}),
    "hardswish": ("HardSwish", {}),
    "relu": ("Relu", {}),
    "sigmoid": ("Sigmoid", {}),
}
