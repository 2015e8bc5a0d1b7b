"""ONNX files, written op by op: what each op of a deployed graph becomes, and the model that holds it.

A node of the file is named after the node of the graph that it serves, `block3.conv1/Conv`, so that a runtime's profile
can be read as times of ops. Maps are (1, C, H, W), tokens (1, P, N, C), vectors (1, C); no tensor has more than four axes.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, cast

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from mvnas import __version__, ops
from mvnas.backends._lowering import Weights, lower
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
        if act == "relu6":
            return self.op("Clip", [y, self.number(0), self.constant("six", np.array(6, np.float32))], self.shapes[y])
        kind, attributes = ACTIVATIONS[act]
        return self.op(kind, [y], self.shapes[y], **attributes) if kind else y

    def reduce(self, kind: str, x: str, axes: Sequence[int]) -> str:
        """Some axes of `x` reduced to 1."""
        shape = [1 if axis in axes else n for axis, n in enumerate(self.shapes[x])]
        return self.op(kind, [x, self.constant(f"axes.{len(self.nodes)}", np.array(axes, np.int64))], shape, keepdims=1)

    def number(self, value: float) -> str:
        return self.constant(f"number.{len(self.nodes)}", np.array(value, np.float32))

    def cut(
        self,
        x: str,
        axes: Sequence[int],
        begin: Sequence[int],
        end: Sequence[int],
        shape: Sequence[int],
        steps: int = 1,
    ) -> str:
        rows = [np.array(row, np.int64) for row in (begin, end, axes, [steps] * len(axes))]
        return self.op("Slice", [x, *(self.constant(f"cut.{i}", row) for i, row in enumerate(rows))], shape)

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


ACTIVATIONS: dict[str, tuple[str, dict[str, Any]]] = {
    "": ("", {}),
    "gelu": ("Gelu", {}),
    "gelu_tanh": ("Gelu", {"approximate": "tanh"}),
    "hardsigmoid": ("HardSigmoid", {"alpha": 1 / 6, "beta": 0.5}),
    "hardswish": ("HardSwish", {}),
    "relu": ("Relu", {}),
    "sigmoid": ("Sigmoid", {}),
}


def _conv(file: _File, node: Node, xs: list[str], weights: Weights) -> str:
    op, shape = node.op, node.shapes[0]
    assert isinstance(op, ops.Conv) and isinstance(shape, (ops.Map, ops.Tokens))
    before = ops.square(shape)
    after = op.shape(before)
    x, count = xs[0], 1
    if isinstance(shape, ops.Tokens):  # each sequence is a map
        count = shape.p
        x = file.transpose(file.reshape(x, (count, before.h, before.w, before.c)), (0, 3, 1, 2))
    inputs = [x, file.constant("weight", weights["conv.weight"])]
    if "conv.bias" in weights:
        inputs.append(file.constant("bias", weights["conv.bias"]))
    top, bottom, left, right = op.pads(before)
    reach = [top, left, bottom, right]
    square = {"kernel_shape": [op.kernel] * 2, "strides": [op.stride] * 2, "pads": reach, "group": op.groups}
    y = file.activate(file.op("Conv", inputs, (count, *after), **square), op.act)
    if isinstance(shape, ops.Map):
        return y
    return file.reshape(file.transpose(y, (0, 2, 3, 1)), (1, *node.shape))


def _linear(file: _File, node: Node, xs: list[str], weights: Weights) -> str:
    op = node.op
    assert isinstance(op, ops.Linear) and op.gain == 1
    weight, bias = file.constant("weight", weights["weight"].T), file.constant("bias", weights["bias"])
    y = file.op("MatMul", [xs[0], weight], (1, *node.shape))
    return file.activate(file.binary("Add", y, bias), op.act)


def _act(file: _File, node: Node, xs: list[str], weights: Weights) -> str:
    assert isinstance(node.op, ops.Act)
    return file.activate(xs[0], node.op.act)


def _layer_norm(file: _File, node: Node, xs: list[str], weights: Weights) -> str:
    op = node.op
    assert isinstance(op, ops.LayerNorm) and not op.affine
    if not op.whole and not isinstance(node.shape, ops.Map):
        scale = file.constant("scale", np.ones(node.shape.c, np.float32))
        return file.op("LayerNormalization", [xs[0], scale], (1, *node.shape), axis=-1, epsilon=op.eps)
    axes = [1, 2, 3] if op.whole else [1]
    centred = file.binary("Sub", xs[0], file.reduce("ReduceMean", xs[0], axes))
    spread = file.reduce("ReduceMean", file.binary("Mul", centred, centred), axes)
    guarded = file.binary("Add", spread, file.number(op.eps))
    return file.binary("Div", centred, file.op("Sqrt", [guarded], file.shapes[guarded]))


def _affine(file: _File, node: Node, xs: list[str], weights: Weights) -> str:
    y = file.binary("Mul", xs[0], file.constant("weight", weights["weight"]))
    return file.binary("Add", y, file.constant("bias", weights["bias"])) if "bias" in weights else y


def _position(file: _File, node: Node, xs: list[str], weights: Weights) -> str:
    return file.binary("Add", xs[0], file.constant("weight", weights["weight"]))


def _attention(file: _File, node: Node, xs: list[str], weights: Weights) -> str:
    op = node.op
    assert isinstance(op, ops.Attention | ops.LinearAttention)
    _, p, n, _ = file.shapes[xs[0]]
    heads = op.heads
    split = [file.reshape(x, (p, file.shapes[x][2], heads, file.shapes[x][3] // heads)) for x in xs]
    q, v = (file.transpose(split[i], (0, 2, 1, 3)) for i in (0, 2))
    k = file.transpose(split[1], (0, 2, 3, 1))
    values = file.shapes[v][3]
    if isinstance(op, ops.LinearAttention):
        mixed = _linear_attention(file, op.form, q, k, v)
    else:
        scores = file.op("MatMul", [q, k], (p, heads, n, file.shapes[k][3]))
        if op.bias:
            scores = file.binary("Add", scores, file.constant("bias", weights["bias"]))
        if op.talking:
            scores = _talk(file, scores, weights, "before")
        if op.form == "softmax":
            shares = file.op("Softmax", [scores], file.shapes[scores], axis=-1)
        else:
            scores = file.activate(scores, "relu")
            shares = file.binary("Div", scores, _guarded(file, file.reduce("ReduceSum", scores, [3])))
        if op.talking:
            shares = _talk(file, shares, weights, "after")
        mixed = file.op("MatMul", [shares, v], (p, heads, n, values))
    return file.reshape(file.transpose(mixed, (0, 2, 1, 3)), (1, *node.shape))


def _separable_attention(file: _File, node: Node, xs: list[str], weights: Weights) -> str:
    _, p, n, _ = file.shapes[xs[0]]
    q = file.reshape(xs[0], (1, p, 1, n))
    shares = file.op("Softmax", [q], (1, p, 1, n), axis=-1)
    return file.binary("Mul", xs[2], file.op("MatMul", [shares, xs[1]], (1, p, 1, file.shapes[xs[1]][3])))


def _linear_attention(file: _File, form: str, q: str, k: str, v: str) -> str:
    """Attention that multiplies keys (P, heads, C, M) and values first: (P, heads, N, V)."""
    p, heads, n, width = file.shapes[q]
    keys, values = file.shapes[k][3], file.shapes[v][3]
    if form == "relu_linear":
        q, k = file.activate(q, "relu"), file.activate(k, "relu")
    context = file.op("MatMul", [k, v], (p, heads, width, values))
    if form == "scaled":
        context = file.binary("Mul", context, file.number(1 / keys))
    mixed = file.op("MatMul", [q, context], (p, heads, n, values))
    if form == "scaled":
        return mixed
    total = file.op("MatMul", [q, file.reduce("ReduceSum", k, [3])], (p, heads, n, 1))
    return file.binary("Div", mixed, _guarded(file, total))


def _guarded(file: _File, total: str) -> str:
    return file.binary("Add", total, file.number(ops.EPS))


def _talk(file: _File, scores: str, weights: Weights, when: str) -> str:
    """Scores of heads (P, heads, N, M), each a mixture of all heads'."""
    p, heads, n, m = shape = file.shapes[scores]
    flat = file.reshape(scores, (p, heads, n * m))
    mixed = file.op(
        "MatMul", [file.constant(f"{when}.weight", weights[f"{when}.weight"][:, :, 0]), flat], (p, heads, n * m)
    )
    return file.reshape(
        file.binary("Add", mixed, file.constant(f"{when}.bias", weights[f"{when}.bias"][:, None])), shape
    )


def _unfold(file: _File, node: Node, xs: list[str], weights: Weights) -> str:
    assert isinstance(node.op, ops.Unfold)
    _, c, h, w = file.shapes[xs[0]]
    side = node.op.patch
    pixels = file.transpose(xs[0], (0, 2, 3, 1))
    if side == 1 or (node.op.windows and h == w == side):
        return file.reshape(pixels, (1, *node.shape))
    if node.op.windows:
        rows = file.reshape(pixels, (h // side, side, w // side, side * c))
        return file.reshape(file.transpose(rows, (0, 2, 1, 3)), (1, *node.shape))
    rows = file.reshape(pixels, (h // side, side, w // side, side * c))
    rows = file.reshape(file.transpose(rows, (1, 0, 2, 3)), (side, h * w // side**2, side, c))
    return file.reshape(file.transpose(rows, (0, 2, 1, 3)), (1, *node.shape))


def _fold(file: _File, node: Node, xs: list[str], weights: Weights) -> str:
    assert isinstance(node.op, ops.Fold)
    assert isinstance(node.shape, ops.Map)
    c, h, w = node.shape
    side = node.op.patch
    if side == 1 or (node.op.windows and h == w == side):
        rows = file.reshape(xs[0], (1, h, w, c))
    elif node.op.windows:
        rows = file.reshape(xs[0], (h // side, w // side, side, side * c))
        rows = file.reshape(file.transpose(rows, (0, 2, 1, 3)), (1, h, w, c))
    else:
        rows = file.reshape(xs[0], (side, side, h * w // side**2, c))
        rows = file.reshape(file.transpose(rows, (0, 2, 1, 3)), (side, h // side, w // side, side * c))
        rows = file.reshape(file.transpose(rows, (1, 0, 2, 3)), (1, h, w, c))
    return file.transpose(rows, (0, 3, 1, 2))


def _spread(file: _File, node: Node, xs: list[str], weights: Weights) -> str:
    y = file.binary("Mul", file.transpose(xs[0], (0, 2, 1, 3)), file.constant("weight", weights["weight"]))
    return file.binary("Add", y, file.constant("bias", weights["bias"]))


def _resize(file: _File, node: Node, xs: list[str], weights: Weights) -> str:
    assert isinstance(node.op, ops.Resize)
    shape = (1, *node.shape)
    size = file.constant("size", np.array(shape, np.int64))
    how = {"mode": "linear", "coordinate_transformation_mode": "half_pixel"}
    if node.op.nearest:
        how = {"mode": "nearest", "coordinate_transformation_mode": "asymmetric", "nearest_mode": "floor"}
    return file.op("Resize", [xs[0], "", "", size], shape, **how)


def _add(file: _File, node: Node, xs: list[str], weights: Weights) -> str:
    return file.binary("Add", *xs)


def _sub(file: _File, node: Node, xs: list[str], weights: Weights) -> str:
    return file.binary("Sub", *xs)


def _mul(file: _File, node: Node, xs: list[str], weights: Weights) -> str:
    a, b = xs
    gate = len(file.shapes[b]) < len(file.shapes[a])
    return file.binary("Mul", a, file.reshape(b, (1, file.shapes[b][1], 1, 1)) if gate else b)


def _concat(file: _File, node: Node, xs: list[str], weights: Weights) -> str:
    assert isinstance(node.op, ops.Concat)
    return file.op("Concat", xs, (1, *node.shape), axis=ops.axis(node.shape, node.op.patches))


def _slice(file: _File, node: Node, xs: list[str], weights: Weights) -> str:
    op = node.op
    assert isinstance(op, ops.Slice)
    return file.cut(xs[0], [ops.axis(node.shape, op.patches)], [op.first], [op.first + op.size], (1, *node.shape))


def _pool(file: _File, node: Node, xs: list[str], weights: Weights) -> str:
    op, shape = node.op, (1, *node.shape)
    assert isinstance(op, ops.Pool)
    if not op.kernel:
        if isinstance(node.shapes[0], ops.Tokens):
            return file.reshape(file.reduce("ReduceMean", xs[0], [1, 2]), shape)
        return file.reshape(file.op("GlobalAveragePool", xs, (1, node.shape.c, 1, 1)), shape)
    if op.kernel == 1:
        return file.cut(xs[0], [2, 3], [0, 0], file.shapes[xs[0]][2:], shape, op.stride)
    top, bottom, left, right = op.pads(cast(ops.Map, node.shapes[0]))
    square = {"kernel_shape": [op.kernel] * 2, "strides": [op.stride] * 2, "pads": [top, left, bottom, right]}
    return file.op("MaxPool" if op.largest else "AveragePool", xs, shape, **square)


LOWERED: Mapping[type, Callable[[_File, Node, list[str], Weights], str]] = {
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
