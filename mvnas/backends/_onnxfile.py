"""ONNX files, written op by op: what each op of a deployed graph becomes, and the model that holds it.

A node of the file is named after the node of the graph that it serves, `block3.conv1/Conv`, so that a runtime's profile
can be read as times of ops. Maps are (1, C, H, W), tokens (1, P, N, C), vectors (1, C); no tensor has more than four axes.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from mvnas import __version__, ops
from mvnas.backends._lowering import EPS, Weights, lower
from mvnas.graph import Graph, Node

OPSET = 20
FORM = 1  # goes up with every change of what an op becomes: timings of one form say nothing of another


def write(graph: Graph, weights: Weights) -> onnx.ModelProto:
    """ONNX model of a deployed `graph`; `weights` by node and parameter, such as `block0.conv0.conv.weight`.

    Raises:
        ExportError: ONNX has no form of an op.
    """
    file = _File()
    made = lower(graph, weights, LOWERED, format="ONNX", place=file.at, feed=_feed)
    return file.finish(made[-1], (1, *graph.output.shape))


def _feed(file: _File, node: Node) -> str:
    return file.input(node.name, (1, *node.shape))


class _File:
    """One ONNX model in the making: nodes in execution order, their constants, and the shape of every tensor."""

    def __init__(self) -> None:
        self.name = ""
        self.nodes: list[Any] = []
        self.inputs: list[Any] = []
        self.constants: dict[str, Any] = {}
        self.shapes: dict[str, tuple[int, ...]] = {}

    def at(self, node: Node) -> _File:
        """This model, with `node` in the names of what is added next."""
        self.name = node.name
        return self

    def input(self, name: str, shape: tuple[int, ...]) -> str:
        self.inputs.append(helper.make_tensor_value_info(name, TensorProto.FLOAT, shape))
        self.shapes[name] = shape
        return name

    def constant(self, name: str, data: np.ndarray) -> str:
        """A tensor with fixed data, under a name of the current node."""
        name = f"{self.name}/{name}"
        self.constants[name] = numpy_helper.from_array(np.ascontiguousarray(data), name)
        self.shapes[name] = data.shape
        return name

    def op(self, kind: str, inputs: Sequence[str], shape: Sequence[int], **attributes: Any) -> str:
        """Append the op `kind`, such as Conv, with an output of `shape`."""
        output = f"{self.name}/{kind}.{len(self.nodes)}"
        self.nodes.append(helper.make_node(kind, inputs, [output], output, **attributes))
        self.shapes[output] = tuple(shape)
        return output

    def reshape(self, x: str, shape: Sequence[int]) -> str:
        """`x` with other axes; itself where it has them."""
        if self.shapes[x] == tuple(shape):
            return x
        return self.op("Reshape", [x, self.constant(f"shape.{len(self.nodes)}", np.array(shape, np.int64))], shape)

    def transpose(self, x: str, order: Sequence[int]) -> str:
        """`x` with its axes in another order; a reshape where that moves nothing."""
        shape = [self.shapes[x][axis] for axis in order]
        if [axis for axis in order if self.shapes[x][axis] > 1] == [a for a, n in enumerate(self.shapes[x]) if n > 1]:
            return self.reshape(x, shape)
        return self.op("Transpose", [x], shape, perm=order)

    def binary(self, kind: str, a: str, b: str) -> str:
        return self.op(kind, [a, b], np.broadcast_shapes(self.shapes[a], self.shapes[b]))

    def activate(self, y: str, act: str) -> str:
        """`y` after an activation."""
        if act == "silu":
            return self.binary("Mul", y, self.op("Sigmoid", [y], self.shapes[y]))
        kinds = {"relu": "Relu", "hardswish": "HardSwish"}
        return self.op(kinds[act], [y], self.shapes[y]) if act else y

    def finish(self, output: str, shape: Sequence[int]) -> onnx.ModelProto:
        self.nodes[-1].output[0] = "y"
        assert self.nodes[-1].name == output
        graph = helper.make_graph(
            self.nodes,
            "mvnas",
            self.inputs,
            [helper.make_tensor_value_info("y", TensorProto.FLOAT, shape)],
            list(self.constants.values()),
        )
        opset = [helper.make_opsetid("", OPSET)]
        return helper.make_model(
            graph, opset_imports=opset, ir_version=10, producer_name="mvnas", producer_version=__version__
        )


def _conv(file: _File, node: Node, xs: list[str], weights: Weights) -> str:
    op = node.op
    assert isinstance(op, ops.Conv)
    inputs = [xs[0], file.constant("weight", weights["conv.weight"])]
    if "conv.bias" in weights:
        inputs.append(file.constant("bias", weights["conv.bias"]))
    reach = [op.kernel // 2] * 4
    square = {"kernel_shape": [op.kernel] * 2, "strides": [op.stride] * 2, "pads": reach, "group": op.groups}
    return file.activate(file.op("Conv", inputs, (1, *node.shape), **square), op.act)


def _linear(file: _File, node: Node, xs: list[str], weights: Weights) -> str:
    op = node.op
    assert isinstance(op, ops.Linear) and op.gain == 1
    weight, bias = file.constant("weight", weights["weight"].T), file.constant("bias", weights["bias"])
    y = file.op("MatMul", [xs[0], weight], (1, *node.shape))
    return file.activate(file.binary("Add", y, bias), op.act)


def _layer_norm(file: _File, node: Node, xs: list[str], weights: Weights) -> str:
    assert isinstance(node.op, ops.LayerNorm) and not node.op.affine
    scale = file.constant("scale", np.ones(node.shape.c, np.float32))
    return file.op("LayerNormalization", [xs[0], scale], (1, *node.shape), axis=-1, epsilon=EPS)


def _attention(file: _File, node: Node, xs: list[str], weights: Weights) -> str:
    assert isinstance(node.op, ops.Attention)
    _, p, n, c = file.shapes[xs[0]]
    heads = node.op.heads
    split = [file.reshape(x, (p, file.shapes[x][2], heads, c // heads)) for x in xs]
    q, v = (file.transpose(split[i], (0, 2, 1, 3)) for i in (0, 2))
    k = file.transpose(split[1], (0, 2, 3, 1))
    scores = file.op("MatMul", [q, k], (p, heads, n, file.shapes[k][3]))
    shares = file.op("Softmax", [scores], file.shapes[scores], axis=-1)
    mixed = file.op("MatMul", [shares, v], (p, heads, n, c // heads))
    return file.reshape(file.transpose(mixed, (0, 2, 1, 3)), (1, *node.shape))


def _unfold(file: _File, node: Node, xs: list[str], weights: Weights) -> str:
    assert isinstance(node.op, ops.Unfold)
    _, c, h, w = file.shapes[xs[0]]
    side = node.op.patch
    rows = file.reshape(file.transpose(xs[0], (0, 2, 3, 1)), (h // side, side, w // side, side * c))
    rows = file.reshape(file.transpose(rows, (1, 0, 2, 3)), (side, h * w // side**2, side, c))
    return file.reshape(file.transpose(rows, (0, 2, 1, 3)), (1, *node.shape))


def _fold(file: _File, node: Node, xs: list[str], weights: Weights) -> str:
    assert isinstance(node.op, ops.Fold)
    assert isinstance(node.shape, ops.Map)
    c, h, w = node.shape
    side = node.op.patch
    rows = file.reshape(xs[0], (side, side, h * w // side**2, c))
    rows = file.reshape(file.transpose(rows, (0, 2, 1, 3)), (side, h // side, w // side, side * c))
    rows = file.reshape(file.transpose(rows, (1, 0, 2, 3)), (1, h, w, c))
    return file.transpose(rows, (0, 3, 1, 2))


def _resize(file: _File, node: Node, xs: list[str], weights: Weights) -> str:
    shape = (1, *node.shape)
    size = file.constant("size", np.array(shape, np.int64))
    return file.op("Resize", [xs[0], "", "", size], shape, mode="linear", coordinate_transformation_mode="half_pixel")


def _add(file: _File, node: Node, xs: list[str], weights: Weights) -> str:
    return file.binary("Add", *xs)


def _concat(file: _File, node: Node, xs: list[str], weights: Weights) -> str:
    return file.op("Concat", xs, (1, *node.shape), axis=1)


def _pool(file: _File, node: Node, xs: list[str], weights: Weights) -> str:
    return file.reshape(file.op("GlobalAveragePool", xs, (1, node.shape.c, 1, 1)), (1, *node.shape))


LOWERED: Mapping[type, Callable[[_File, Node, list[str], Weights], str]] = {
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
