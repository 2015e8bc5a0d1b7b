"""TFLite files, written op by op: what each op of a deployed graph becomes, and the flatbuffer that holds it.

Kernels and networks come from the same `LOWERED` functions, so that a network's file is made of the very ops that were
timed. Maps are (1, H, W, C), tokens (1, P, N, C), vectors (1, C); no tensor has more than four axes.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from itertools import count
from math import prod
from typing import Any, cast

import flatbuffers
import numpy as np
from ai_edge_litert import schema_py_generated as schema

from mvnas import ops
from mvnas.backends._lowering import Weights, lower
from mvnas.graph import Graph, Node
from mvnas.ops import Map, Shape, Tokens

FORM = 2  # goes up with every change of what an op becomes: timings of one form say nothing of another


def write(graph: Graph, weights: Weights, *, inner: bool = False) -> bytes:
    """TFLite model of a deployed `graph`; `weights` by node and parameter, such as `block0.conv0.conv.weight`.

    With `inner` the output is only its first element. A runtime then holds the whole output in its own memory, where it
    may overwrite what is no longer needed, as it does inside a network: what a microbenchmark of an op should time.

    Raises:
        ExportError: TFLite has no form of an op.
    """
    file = _File()
    made = lower(graph, weights, LOWERED, format="TFLite", place=file.at, feed=_feed)
    inputs = [made[place] for place, node in enumerate(graph.nodes) if not node.inputs]
    file.name = "y"
    return file.finish(inputs, file.first(made[-1]) if inner else made[-1])


def _feed(file: _File, node: Node) -> int:
    return file.tensor(layout(node.shape))


def layout(shape: Shape) -> tuple[int, ...]:
    """Axes of a tensor in a file."""
    return (1, shape.h, shape.w, shape.c) if isinstance(shape, Map) else (1, *shape)


class _File:
    """One TFLite model in the making: tensors, their constant data, and ops in execution order."""

    def __init__(self) -> None:
        self.name = ""
        self.tensors: list[Any] = []
        self.buffers: list[Any] = [schema.BufferT()]
        self.operators: list[Any] = []
        self.codes: dict[int, int] = {}
        self.constants: dict[tuple[Any, ...], int] = {}
        self.numbers = count()

    def at(self, node: Node) -> _File:
        """This model, with `node` in the names of what is added next."""
        self.name = node.name
        return self

    def tensor(self, shape: Sequence[int]) -> int:
        """A float tensor that an op or the user fills."""
        return self._add(shape, schema.TensorType.FLOAT32, 0)

    def constant(self, data: np.ndarray) -> int:
        """A tensor with fixed data; small ones that are equal are shared."""
        key = (data.dtype.str, data.shape, data.tobytes()) if data.size <= 8 else (next(self.numbers),)
        if key not in self.constants:
            buffer = schema.BufferT()
            buffer.data = np.frombuffer(np.ascontiguousarray(data).tobytes(), np.uint8)
            self.buffers.append(buffer)
            kind = schema.TensorType.INT32 if data.dtype == np.int32 else schema.TensorType.FLOAT32
            self.constants[key] = self._add(data.shape, kind, len(self.buffers) - 1)
        return self.constants[key]

    def _add(self, shape: Sequence[int], kind: int, buffer: int) -> int:
        tensor = schema.TensorT()
        tensor.shape, tensor.type, tensor.buffer = np.array(shape, np.int32), kind, buffer
        tensor.name = f"{self.name}/{len(self.tensors)}"
        self.tensors.append(tensor)
        return len(self.tensors) - 1

    def op(self, name: str, inputs: Sequence[int], shape: Sequence[int], **options: Any) -> int:
        """Append the builtin op `name`, such as CONV_2D, with an output of `shape`; `options` of the schema by name."""
        code = getattr(schema.BuiltinOperator, name)
        operator = schema.OperatorT()
        operator.opcodeIndex = self.codes.setdefault(code, len(self.codes))
        operator.inputs = np.array(inputs, np.int32)
        output = self.tensor(shape)
        operator.outputs = np.array([output], np.int32)
        kind = OPTIONS.get(name)
        if kind is not None:
            operator.builtinOptionsType = getattr(schema.BuiltinOptions, kind)
            operator.builtinOptions = getattr(schema, f"{kind}T")()
            for key, value in options.items():
                assert hasattr(operator.builtinOptions, key)
                setattr(operator.builtinOptions, key, value)
        self.operators.append(operator)
        return output

    def shape(self, tensor: int) -> tuple[int, ...]:
        return tuple(self.tensors[tensor].shape.tolist())

    def reshape(self, x: int, shape: Sequence[int]) -> int:
        """`x` with other axes; itself where it has them."""
        if self.shape(x) == tuple(shape):
            return x
        new = np.array(shape, np.int32)
        return self.op("RESHAPE", [x, self.constant(new)], shape, newShape=new)

    def transpose(self, x: int, order: Sequence[int]) -> int:
        """`x` with its axes in another order; a reshape where that moves nothing."""
        shape = [self.shape(x)[axis] for axis in order]
        if [axis for axis in order if self.shape(x)[axis] > 1] == [a for a, n in enumerate(self.shape(x)) if n > 1]:
            return self.reshape(x, shape)
        return self.op("TRANSPOSE", [x, self.constant(np.array(order, np.int32))], shape)

    def mean(self, x: int, axes: Sequence[int], *, keep: bool) -> int:
        return self.reduce("MEAN", x, axes, keep=keep)

    def reduce(self, name: str, x: int, axes: Sequence[int], *, keep: bool) -> int:
        shape = self.shape(x)
        kept = [1 if a in axes else n for a, n in enumerate(shape) if keep or a not in axes]
        return self.op(name, [x, self.constant(np.array(axes, np.int32))], kept, keepDims=keep)

    def binary(self, name: str, a: int, b: int, **options: Any) -> int:
        shape = np.broadcast_shapes(self.shape(a), self.shape(b))
        return self.op(name, [a, b], shape, **options)

    def scalar(self, value: float) -> int:
        return self.constant(np.array([value], np.float32))

    def first(self, x: int) -> int:
        """The first element of `x`, with as many axes."""
        axes = len(self.shape(x))
        return self.cut(x, [0] * axes, [1] * axes)

    def cut(self, x: int, begin: Sequence[int], shape: Sequence[int]) -> int:
        """Some of each axis of `x`."""
        return self.op("SLICE", [x, *(self.constant(np.array(row, np.int32)) for row in (begin, shape))], shape)

    def activate(self, y: int, act: str) -> int:
        """The activations that do not merge into the op before them."""
        if act == "silu":
            return self.binary("MUL", y, self.op("LOGISTIC", [y], self.shape(y)))
        if act == "hardsigmoid":
            shifted = self.binary("ADD", y, self.scalar(3), fusedActivationFunction=FUSED["relu6"])
            return self.binary("MUL", shifted, self.scalar(1 / 6))
        if act in ACTIVATIONS:
            name, options = ACTIVATIONS[act]
            return self.op(name, [y], self.shape(y), **options)
        return y

    def finish(self, inputs: Sequence[int], output: int) -> bytes:
        """The model as bytes."""
        codes = []
        for value in self.codes:
            code = schema.OperatorCodeT()
            code.builtinCode, code.deprecatedBuiltinCode, code.version = value, min(value, 127), 1
            codes.append(code)
        graph = schema.SubGraphT()
        graph.tensors, graph.operators, graph.name = self.tensors, self.operators, "main"
        graph.inputs, graph.outputs = np.array(inputs, np.int32), np.array([output], np.int32)
        signature = schema.SignatureDefT()
        signature.signatureKey, signature.subgraphIndex = "serving_default", 0
        signature.inputs = [_named(f"x{place}", tensor) for place, tensor in enumerate(inputs)]
        signature.outputs = [_named("y", output)]
        model = schema.ModelT()
        model.signatureDefs = [signature]
        model.version, model.description = 3, "mvnas"
        model.operatorCodes, model.subgraphs, model.buffers = codes, [graph], self.buffers
        builder = flatbuffers.Builder(1 << 16)
        builder.Finish(model.Pack(builder), b"TFL3")
        return bytes(builder.Output())


def _named(name: str, tensor: int) -> Any:
    row = schema.TensorMapT()
    row.name, row.tensorIndex = name, tensor
    return row


OPTIONS = {
    "ADD": "AddOptions",
    "AVERAGE_POOL_2D": "Pool2DOptions",
    "BATCH_MATMUL": "BatchMatMulOptions",
    "CONCATENATION": "ConcatenationOptions",
    "CONV_2D": "Conv2DOptions",
    "DEPTHWISE_CONV_2D": "DepthwiseConv2DOptions",
    "DEPTH_TO_SPACE": "DepthToSpaceOptions",
    "DIV": "DivOptions",
    "FULLY_CONNECTED": "FullyConnectedOptions",
    "GELU": "GeluOptions",
    "HARD_SWISH": "HardSwishOptions",
    "MAX_POOL_2D": "Pool2DOptions",
    "MEAN": "ReducerOptions",
    "MUL": "MulOptions",
    "PAD": "PadOptions",
    "RESHAPE": "ReshapeOptions",
    "RESIZE_BILINEAR": "ResizeBilinearOptions",
    "SOFTMAX": "SoftmaxOptions",
    "SPACE_TO_DEPTH": "SpaceToDepthOptions",
    "SUB": "SubOptions",
    "SUM": "ReducerOptions",
    "TRANSPOSE": "TransposeOptions",
}
FUSED = {  # activations that an op applies to its own output
    "relu": schema.ActivationFunctionType.RELU,
    "relu6": schema.ActivationFunctionType.RELU6,
}
ACTIVATIONS: dict[str, tuple[str, dict[str, Any]]] = {  # activations that are ops, with their options
    "gelu": ("GELU", {"approximate": False}),
    "gelu_tanh": ("GELU", {"approximate": True}),
    "hardswish": ("HARD_SWISH", {}),
    "relu": ("RELU", {}),
    "relu6": ("RELU6", {}),
    "sigmoid": ("LOGISTIC", {}),
}


def _conv(file: _File, node: Node, xs: list[int], weights: Weights) -> int:
    op = node.op
    assert isinstance(op, ops.Conv)
    kernel = weights["conv.weight"].transpose(0, 2, 3, 1)  # (out, k, k, C / groups)
    before = ops.square(cast(Map | Tokens, node.shapes[0]))
    count = prod(node.shapes[0]) // prod(before)  # each sequence of tokens is a map
    x = file.reshape(xs[0], (count, *before[1:], before.c))
    shape = (count, *layout(op.shape(before))[1:])
    pads = op.pads(before)
    same = pads == ops.same_pads(before, op.kernel, op.stride)
    if not same:  # TFLite would pad one side only
        reach = op.kernel // 2
        edges = np.array([[0, 0], [reach, reach], [reach, reach], [0, 0]], np.int32)
        b, h, w, c = file.shape(x)
        x = file.op("PAD", [x, file.constant(edges)], (b, h + 2 * reach, w + 2 * reach, c))
    depthwise = op.depthwise(before)
    if depthwise:
        kernel = kernel.transpose(3, 1, 2, 0)
    bias = weights.get("conv.bias", np.zeros(op.out, np.float32))
    y = file.op(
        "DEPTHWISE_CONV_2D" if depthwise else "CONV_2D",
        [x, file.constant(kernel), file.constant(bias)],
        shape,
        padding=schema.Padding.SAME if same else schema.Padding.VALID,
        strideH=op.stride,
        strideW=op.stride,
        fusedActivationFunction=FUSED.get(op.act, 0),
        **({"depthMultiplier": op.out // op.groups} if depthwise else {}),
        dilationHFactor=1,
        dilationWFactor=1,
    )
    return file.reshape(y if op.act in FUSED else file.activate(y, op.act), layout(node.shape))


def _linear(file: _File, node: Node, xs: list[int], weights: Weights) -> int:
    op = node.op
    assert isinstance(op, ops.Linear) and op.gain == 1
    inputs = [xs[0], file.constant(weights["weight"]), file.constant(weights["bias"])]
    y = file.op(
        "FULLY_CONNECTED",
        inputs,
        layout(node.shape),
        keepNumDims=isinstance(node.shape, Tokens),
        fusedActivationFunction=FUSED.get(op.act, 0),
    )
    return y if op.act in FUSED else file.activate(y, op.act)


def _act(file: _File, node: Node, xs: list[int], weights: Weights) -> int:
    assert isinstance(node.op, ops.Act)
    return file.activate(xs[0], node.op.act)


def _layer_norm(file: _File, node: Node, xs: list[int], weights: Weights) -> int:
    assert isinstance(node.op, ops.LayerNorm) and not node.op.affine
    last = len(file.shape(xs[0])) - 1
    axes = range(1, last + 1) if node.op.whole else [last]
    centred = file.binary("SUB", xs[0], file.mean(xs[0], axes, keep=True))
    variance = file.mean(file.binary("MUL", centred, centred), axes, keep=True)
    spread = file.binary("ADD", variance, file.scalar(node.op.eps))
    return file.binary("MUL", centred, file.op("RSQRT", [spread], file.shape(spread)))


def _affine(file: _File, node: Node, xs: list[int], weights: Weights) -> int:
    y = file.binary("MUL", xs[0], file.constant(weights["weight"].reshape(-1)))
    return file.binary("ADD", y, file.constant(weights["bias"].reshape(-1))) if "bias" in weights else y


def _position(file: _File, node: Node, xs: list[int], weights: Weights) -> int:
    return file.binary("ADD", xs[0], file.constant(weights["weight"]))


def _attention(file: _File, node: Node, xs: list[int], weights: Weights) -> int:
    op = node.op
    assert isinstance(op, ops.Attention | ops.LinearAttention)
    _, p, n, _ = file.shape(xs[0])
    heads = op.heads
    split = [file.reshape(x, (p, file.shape(x)[2], heads, file.shape(x)[3] // heads)) for x in xs]
    q, k, v = (file.transpose(x, (0, 2, 1, 3)) for x in split)
    keys, values = file.shape(k)[2], file.shape(v)[3]
    if isinstance(op, ops.LinearAttention):
        mixed = _linear_attention(file, op.form, q, k, v)
    else:
        scores = file.op("BATCH_MATMUL", [q, k], (p, heads, n, keys), adjY=True)
        if op.bias:
            scores = file.binary("ADD", scores, file.constant(weights["bias"][None]))
        if op.talking:
            scores = _talk(file, scores, weights, "before")
        if op.form == "softmax":
            shares = file.op("SOFTMAX", [scores], file.shape(scores), beta=1.0)
        else:
            scores = file.activate(scores, "relu")
            shares = file.binary("DIV", scores, _guarded(file, file.reduce("SUM", scores, [3], keep=True)))
        if op.talking:
            shares = _talk(file, shares, weights, "after")
        mixed = file.op("BATCH_MATMUL", [shares, v], (p, heads, n, values))
    return file.reshape(file.transpose(mixed, (0, 2, 1, 3)), layout(node.shape))


def _separable_attention(file: _File, node: Node, xs: list[int], weights: Weights) -> int:
    _, p, n, _ = file.shape(xs[0])
    q, k, v = (file.reshape(x, file.shape(x)[1:]) for x in xs)
    shares = file.op("SOFTMAX", [file.reshape(q, (p, 1, n))], (p, 1, n), beta=1.0)
    context = file.op("BATCH_MATMUL", [shares, k], (p, 1, file.shape(k)[2]))
    return file.reshape(file.binary("MUL", v, context), layout(node.shape))


def _linear_attention(file: _File, form: str, q: int, k: int, v: int) -> int:
    """Attention that multiplies keys and values first: (P, heads, N, V)."""
    p, heads, n, width = file.shape(q)
    keys, values = file.shape(k)[2], file.shape(v)[3]
    if form == "relu_linear":
        q, k = file.activate(q, "relu"), file.activate(k, "relu")
    context = file.op("BATCH_MATMUL", [k, v], (p, heads, width, values), adjX=True)
    if form == "scaled":
        context = file.binary("MUL", context, file.scalar(1 / keys))
    mixed = file.op("BATCH_MATMUL", [q, context], (p, heads, n, values))
    if form == "scaled":
        return mixed
    total = file.op("BATCH_MATMUL", [q, file.reduce("SUM", k, [2], keep=True)], (p, heads, n, 1), adjY=True)
    return file.binary("DIV", mixed, _guarded(file, total))


def _guarded(file: _File, total: int) -> int:
    return file.binary("ADD", total, file.scalar(ops.EPS))


def _talk(file: _File, scores: int, weights: Weights, when: str) -> int:
    """Scores of heads (P, heads, N, M), each a mixture of all heads'."""
    p, heads, n, m = shape = file.shape(scores)
    flat = file.reshape(scores, (p, heads, n * m))
    mixed = file.op(
        "BATCH_MATMUL", [file.constant(weights[f"{when}.weight"][None, :, :, 0].repeat(p, 0)), flat], file.shape(flat)
    )
    return file.reshape(file.binary("ADD", mixed, file.constant(weights[f"{when}.bias"][:, None])), shape)


def _unfold(file: _File, node: Node, xs: list[int], weights: Weights) -> int:
    assert isinstance(node.op, ops.Unfold)
    _, h, w, c = file.shape(xs[0])
    side = node.op.patch
    if side == 1 or (node.op.windows and h == w == side):
        return file.reshape(xs[0], layout(node.shape))
    patches = file.op("SPACE_TO_DEPTH", xs, (1, h // side, w // side, side**2 * c), blockSize=side)
    rows = file.reshape(patches, (1, h * w // side**2, side**2, c))
    return rows if node.op.windows else file.transpose(rows, (0, 2, 1, 3))


def _fold(file: _File, node: Node, xs: list[int], weights: Weights) -> int:
    assert isinstance(node.op, ops.Fold)
    _, h, w, c = shape = layout(node.shape)
    side = node.op.patch
    if side == 1 or (node.op.windows and h == w == side):
        return file.reshape(xs[0], shape)
    rows = xs[0] if node.op.windows else file.transpose(xs[0], (0, 2, 1, 3))
    return file.op(
        "DEPTH_TO_SPACE", [file.reshape(rows, (1, h // side, w // side, side**2 * c))], shape, blockSize=side
    )


def _spread(file: _File, node: Node, xs: list[int], weights: Weights) -> int:
    y = file.binary("MUL", file.transpose(xs[0], (0, 2, 1, 3)), file.constant(weights["weight"]))
    return file.binary("ADD", y, file.constant(weights["bias"]))


def _resize(file: _File, node: Node, xs: list[int], weights: Weights) -> int:
    assert isinstance(node.op, ops.Resize)
    _, h, w, c = shape = layout(node.shape)
    if node.op.nearest:  # as XNNPACK has it: pixels beside themselves, doubled
        y = xs[0]
        while file.shape(y)[1:3] != (h, w):
            _, tall, wide, _ = file.shape(y)
            four = file.op("CONCATENATION", [y] * 4, (1, tall, wide, 4 * c), axis=3)
            y = file.op("DEPTH_TO_SPACE", [four], (1, 2 * tall, 2 * wide, c), blockSize=2)
        return y
    size = file.constant(np.array(shape[1:3], np.int32))
    return file.op("RESIZE_BILINEAR", [xs[0], size], shape, halfPixelCenters=True, alignCorners=False)


def _add(file: _File, node: Node, xs: list[int], weights: Weights) -> int:
    return file.binary("ADD", *xs)


def _sub(file: _File, node: Node, xs: list[int], weights: Weights) -> int:
    return file.binary("SUB", *xs)


def _mul(file: _File, node: Node, xs: list[int], weights: Weights) -> int:
    a, b = xs
    gate = len(file.shape(b)) < len(file.shape(a))
    return file.binary("MUL", a, file.reshape(b, (1, 1, 1, file.shape(b)[1])) if gate else b)


def _concat(file: _File, node: Node, xs: list[int], weights: Weights) -> int:
    assert isinstance(node.op, ops.Concat)
    return file.op("CONCATENATION", xs, layout(node.shape), axis=2 if node.op.patches else 3)


def _slice(file: _File, node: Node, xs: list[int], weights: Weights) -> int:
    assert isinstance(node.op, ops.Slice)
    begin = [0, 0, node.op.first, 0] if node.op.patches else [0, 0, 0, node.op.first]
    return file.cut(xs[0], begin, layout(node.shape))


def _pool(file: _File, node: Node, xs: list[int], weights: Weights) -> int:
    op, shape = node.op, layout(node.shape)
    assert isinstance(op, ops.Pool)
    if not op.kernel:
        return file.mean(xs[0], [1, 2], keep=False)
    how = {
        "padding": schema.Padding.SAME if op.pad else schema.Padding.VALID,
        "strideH": op.stride,
        "strideW": op.stride,
    }
    if op.kernel == 1:  # a pool of one pixel, which XNNPACK has only as a convolution
        ones, zeros = np.ones((1, 1, 1, shape[3]), np.float32), np.zeros(shape[3], np.float32)
        how |= {"depthMultiplier": 1, "dilationHFactor": 1, "dilationWFactor": 1}
        return file.op("DEPTHWISE_CONV_2D", [xs[0], file.constant(ones), file.constant(zeros)], shape, **how)
    how |= {"filterHeight": op.kernel, "filterWidth": op.kernel}
    return file.op("MAX_POOL_2D" if op.largest else "AVERAGE_POOL_2D", xs, shape, **how)


LOWERED: Mapping[type, Callable[[_File, Node, list[int], Weights], int]] = {
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
