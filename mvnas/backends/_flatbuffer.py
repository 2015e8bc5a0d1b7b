"""TFLite files, written op by op: what each op of a deployed graph becomes, and the flatbuffer that holds it.

Kernels and networks come from the same `LOWERED` functions, so that a network's file is made of the very ops that were
timed. Maps are (1, H, W, C), tokens (1, P, N, C), vectors (1, C); no tensor has more than four axes.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from itertools import count
from typing import Any

import flatbuffers
import numpy as np
from ai_edge_litert import schema_py_generated as schema

from mvnas import ops
from mvnas.backends._lowering import EPS, Weights, lower
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
        shape = self.shape(x)
        kept = [1 if a in axes else n for a, n in enumerate(shape) if keep or a not in axes]
        return self.op("MEAN", [x, self.constant(np.array(axes, np.int32))], kept, keepDims=keep)

    def binary(self, name: str, a: int, b: int) -> int:
        shape = np.broadcast_shapes(self.shape(a), self.shape(b))
        return self.op(name, [a, b], shape)

    def scalar(self, value: float) -> int:
        return self.constant(np.array([value], np.float32))

    def first(self, x: int) -> int:
        """The first element of `x`, with as many axes."""
        axes = len(self.shape(x))
        begin, size = (self.constant(np.full(axes, value, np.int32)) for value in (0, 1))
        return self.op("SLICE", [x, begin, size], [1] * axes)

    def activate(self, y: int, act: str) -> int:
        """The activations that do not merge into the op before them."""
        if act == "silu":
            return self.binary("MUL", y, self.op("LOGISTIC", [y], self.shape(y)))
        return self.op("HARD_SWISH", [y], self.shape(y)) if act == "hardswish" else y

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
    "BATCH_MATMUL": "BatchMatMulOptions",
    "CONCATENATION": "ConcatenationOptions",
    "CONV_2D": "Conv2DOptions",
    "DEPTHWISE_CONV_2D": "DepthwiseConv2DOptions",
    "DEPTH_TO_SPACE": "DepthToSpaceOptions",
    "FULLY_CONNECTED": "FullyConnectedOptions",
    "HARD_SWISH": "HardSwishOptions",
    "MEAN": "ReducerOptions",
    "MUL": "MulOptions",
    "PAD": "PadOptions",
    "RESHAPE": "ReshapeOptions",
    "RESIZE_BILINEAR": "ResizeBilinearOptions",
    "SOFTMAX": "SoftmaxOptions",
    "SPACE_TO_DEPTH": "SpaceToDepthOptions",
    "SUB": "SubOptions",
    "TRANSPOSE": "TransposeOptions",
}
FUSED = {"relu": schema.ActivationFunctionType.RELU}  # activations that an op applies to its own output


def _conv(file: _File, node: Node, xs: list[int], weights: Weights) -> int:
    op, x = node.op, xs[0]
    assert isinstance(op, ops.Conv)
    kernel = weights["conv.weight"].transpose(0, 2, 3, 1)  # (out, k, k, C / groups)
    shape, reach = layout(node.shape), op.kernel // 2
    spare = [max((n - 1) * op.stride + op.kernel - m, 0) for n, m in zip(shape[1:3], file.shape(x)[1:3], strict=True)]
    same = spare == [2 * reach, 2 * reach]
    if not same:  # TFLite would pad one side only
        edges = np.array([[0, 0], [reach, reach], [reach, reach], [0, 0]], np.int32)
        b, h, w, c = file.shape(x)
        x = file.op("PAD", [x, file.constant(edges)], (b, h + 2 * reach, w + 2 * reach, c))
    depthwise = op.groups > 1 and kernel.shape[3] == 1 and op.groups == op.out
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
        **({"depthMultiplier": 1} if depthwise else {}),
        dilationHFactor=1,
        dilationWFactor=1,
    )
    return file.activate(y, op.act)


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
    return file.activate(y, op.act)


def _layer_norm(file: _File, node: Node, xs: list[int], weights: Weights) -> int:
    assert isinstance(node.op, ops.LayerNorm) and not node.op.affine
    centred = file.binary("SUB", xs[0], file.mean(xs[0], [3], keep=True))
    variance = file.mean(file.binary("MUL", centred, centred), [3], keep=True)
    spread = file.binary("ADD", variance, file.scalar(EPS))
    return file.binary("MUL", centred, file.op("RSQRT", [spread], file.shape(spread)))


def _attention(file: _File, node: Node, xs: list[int], weights: Weights) -> int:
    assert isinstance(node.op, ops.Attention)
    _, p, n, c = file.shape(xs[0])
    heads = node.op.heads
    split = [file.reshape(x, (p, file.shape(x)[2], heads, c // heads)) for x in xs]
    q, k, v = (file.transpose(x, (0, 2, 1, 3)) for x in split)
    scores = file.op("BATCH_MATMUL", [q, k], (p, heads, n, file.shape(k)[2]), adjY=True)
    shares = file.op("SOFTMAX", [scores], file.shape(scores), beta=1.0)
    mixed = file.op("BATCH_MATMUL", [shares, v], (p, heads, n, c // heads))
    return file.reshape(file.transpose(mixed, (0, 2, 1, 3)), layout(node.shape))


def _unfold(file: _File, node: Node, xs: list[int], weights: Weights) -> int:
    assert isinstance(node.op, ops.Unfold)
    _, h, w, c = file.shape(xs[0])
    side = node.op.patch
    patches = file.op("SPACE_TO_DEPTH", xs, (1, h // side, w // side, side**2 * c), blockSize=side)
    return file.transpose(file.reshape(patches, (1, h * w // side**2, side**2, c)), (0, 2, 1, 3))


def _fold(file: _File, node: Node, xs: list[int], weights: Weights) -> int:
    assert isinstance(node.op, ops.Fold)
    _, h, w, c = shape = layout(node.shape)
    side = node.op.patch
    patches = file.reshape(file.transpose(xs[0], (0, 2, 1, 3)), (1, h // side, w // side, side**2 * c))
    return file.op("DEPTH_TO_SPACE", [patches], shape, blockSize=side)


def _resize(file: _File, node: Node, xs: list[int], weights: Weights) -> int:
    shape = layout(node.shape)
    size = file.constant(np.array(shape[1:3], np.int32))
    return file.op("RESIZE_BILINEAR", [xs[0], size], shape, halfPixelCenters=True, alignCorners=False)


def _add(file: _File, node: Node, xs: list[int], weights: Weights) -> int:
    return file.binary("ADD", *xs)


def _concat(file: _File, node: Node, xs: list[int], weights: Weights) -> int:
    return file.op("CONCATENATION", xs, layout(node.shape), axis=3)


def _pool(file: _File, node: Node, xs: list[int], weights: Weights) -> int:
    return file.mean(xs[0], [1, 2], keep=False)


LOWERED: Mapping[type, Callable[[_File, Node, list[int], Weights], int]] = {
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
