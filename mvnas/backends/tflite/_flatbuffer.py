"""TFLite files, written op by op: the primitives of a deployed graph in TFLite's ops, and the flatbuffer that holds
them.

Maps are (1, H, W, C), tokens (1, P, N, C), vectors (1, C); no tensor has more than four axes.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from itertools import count
from typing import Any

import flatbuffers
import numpy as np
from ai_edge_litert import schema_py_generated as schema

from mvnas import ops
from mvnas.graph import Graph, Node
from mvnas.lowering import Builder, Call, Weights, lower, lowers, output_names
from mvnas.lowering.forms import HEADS_FIRST, whole
from mvnas.ops import Map

FORM = 2  # goes up with every change of what an op becomes: timings of one form say nothing of another


class Ref(int):
    """A tensor of the file, by its index."""


Operand = Ref | float | np.ndarray


def write(graph: Graph, weights: Weights, *, inner: bool = False) -> bytes:
    """TFLite model of a deployed `graph`; `weights` by node and parameter, such as `stage0.0.stem.conv.conv.weight`.

    With `inner` an output is only its first element. A runtime then holds the whole output in its own memory, where it
    may overwrite what is no longer needed, as it does inside a network: what a microbenchmark of an op should time.

    Raises:
        ExportError: an op has no form.
    """
    file = TFLite()
    made = lower(file, graph, weights, lambda name, shape: file.tensor(file.axes(shape)))
    inputs = [made[place] for place, node in enumerate(graph.nodes) if not node.inputs]
    file.name = "y"
    outputs = [made[place] for place in graph.outputs]
    return file.finish(inputs, [file.first(x) for x in outputs] if inner else outputs)


class TFLite(Builder):
    """One TFLite model in the making: tensors, their constant data, and ops in execution order."""

    format = "TFLite"
    channels_last = True
    flips = True

    def __init__(self) -> None:
        self.name = ""
        self.placed: Counter[int] = Counter()  # nodes of each block so far
        self.tensors: list[Any] = []
        self.buffers: list[Any] = [schema.BufferT()]
        self.operators: list[Any] = []
        self.codes: dict[int, int] = {}
        self.constants: dict[tuple[Any, ...], Ref] = {}
        self.numbers = count()

    def at(self, node: Node) -> None:
        """Name what follows, such as `block3.conv1/12`: shorter than the node, as every name is in the file, and with
        the class of the op, by which the rules of 8 bits go.
        """
        self.name = node.name
        if node.inputs:
            self.name = f"block{node.block}.{type(node.op).__name__.lower()}{self.placed[node.block]}"
            self.placed[node.block] += 1

    def tensor(self, shape: Sequence[int]) -> Ref:
        """A float tensor that an op or the user fills."""
        return self._add(shape, schema.TensorType.FLOAT32, 0)

    def constant(self, data: np.ndarray) -> Ref:
        """A tensor with fixed data; small ones that are equal are shared."""
        key = (data.dtype.str, data.shape, data.tobytes()) if data.size <= 8 else (next(self.numbers),)
        if key not in self.constants:
            buffer = schema.BufferT()
            buffer.data = np.frombuffer(np.ascontiguousarray(data).tobytes(), np.uint8)
            self.buffers.append(buffer)
            kind = schema.TensorType.INT32 if data.dtype == np.int32 else schema.TensorType.FLOAT32
            self.constants[key] = self._add(data.shape, kind, len(self.buffers) - 1)
        return self.constants[key]

    def _add(self, shape: Sequence[int], kind: int, buffer: int) -> Ref:
        tensor = schema.TensorT()
        tensor.shape, tensor.type, tensor.buffer = np.array(shape, np.int32), kind, buffer
        tensor.name = f"{self.name}/{len(self.tensors)}"
        self.tensors.append(tensor)
        return Ref(len(self.tensors) - 1)

    def op(self, name: str, inputs: Sequence[Ref], shape: Sequence[int], **options: Any) -> Ref:
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

    def shape(self, x: Ref) -> tuple[int, ...]:
        return tuple(self.tensors[x].shape.tolist())

    def operand(self, x: Operand) -> Ref:
        """A tensor of what may be a number or an array."""
        if isinstance(x, Ref):
            return x
        return self.constant(x if isinstance(x, np.ndarray) else np.array([x], np.float32))

    def reshape(self, x: Ref, shape: Sequence[int]) -> Ref:
        """`x` with other axes; itself where it has them."""
        if self.shape(x) == tuple(shape):
            return x
        new = np.array(shape, np.int32)
        return self.op("RESHAPE", [x, self.constant(new)], shape, newShape=new)

    def transpose(self, x: Ref, order: Sequence[int]) -> Ref:
        """`x` with its axes in another order; a reshape where that moves nothing."""
        shape = [self.shape(x)[axis] for axis in order]
        if [axis for axis in order if self.shape(x)[axis] > 1] == [a for a, n in enumerate(self.shape(x)) if n > 1]:
            return self.reshape(x, shape)
        return self.op("TRANSPOSE", [x, self.constant(np.array(order, np.int32))], shape)

    def conv(
        self,
        x: Ref,
        weight: np.ndarray,
        bias: np.ndarray | None,
        *,
        stride: int,
        pads: tuple[int, int, int, int],
        groups: int,
        act: str,
    ) -> Ref:
        n, h, w, c = self.shape(x)
        out, _, reach, _ = weight.shape
        top, bottom, left, right = pads
        same = pads == ops.same_pads(Map(c, h, w), reach, stride)
        if not same:  # TFLite would pad one side only
            edges = np.array([[0, 0], [top, bottom], [left, right], [0, 0]], np.int32)
            x = self.op("PAD", [x, self.constant(edges)], (n, h + top + bottom, w + left + right, c))
        depthwise = groups == c > 1
        kernel = weight.transpose((1, 2, 3, 0) if depthwise else (0, 2, 3, 1))
        y = self.op(
            "DEPTHWISE_CONV_2D" if depthwise else "CONV_2D",
            [x, self.constant(kernel), self.constant(np.zeros(out, np.float32) if bias is None else bias)],
            (n, (h + top + bottom - reach) // stride + 1, (w + left + right - reach) // stride + 1, out),
            padding=schema.Padding.SAME if same else schema.Padding.VALID,
            strideH=stride,
            strideW=stride,
            fusedActivationFunction=FUSED.get(act, 0),
            **({"depthMultiplier": out // groups} if depthwise else {}),
            dilationHFactor=1,
            dilationWFactor=1,
        )
        return y if act in FUSED else self.activate(y, act)

    def linear(self, x: Ref, weight: np.ndarray, bias: np.ndarray, *, act: str) -> Ref:
        shape = (*self.shape(x)[:-1], len(weight))
        inputs = [x, self.constant(weight), self.constant(bias)]
        how = {"keepNumDims": len(shape) > 2, "fusedActivationFunction": FUSED.get(act, 0)}
        y = self.op("FULLY_CONNECTED", inputs, shape, **how)
        return y if act in FUSED else self.activate(y, act)

    def matmul(self, a: Ref | np.ndarray, b: Ref, *, flip_a: bool = False, flip_b: bool = False) -> Ref:
        if isinstance(a, np.ndarray):
            a = self.constant(a.repeat(self.shape(b)[0], 0))
        rows = self.shape(a)[-1 if flip_a else -2]
        shape = (*self.shape(a)[:-2], rows, self.shape(b)[-2 if flip_b else -1])
        return self.op(
            "BATCH_MATMUL", [a, b], shape, **({"adjX": True} if flip_a else {}), **({"adjY": True} if flip_b else {})
        )

    def add(self, a: Ref, b: Operand) -> Ref:
        return self.binary("ADD", a, b)

    def sub(self, a: Ref, b: Operand) -> Ref:
        return self.binary("SUB", a, b)

    def mul(self, a: Ref, b: Operand) -> Ref:
        return self.binary("MUL", a, b)

    def div(self, a: Ref, b: Operand) -> Ref:
        return self.binary("DIV", a, b)

    def binary(self, name: str, a: Ref, b: Operand, **options: Any) -> Ref:
        b = self.operand(b)
        return self.op(name, [a, b], np.broadcast_shapes(self.shape(a), self.shape(b)), **options)

    def activate(self, x: Ref, act: str) -> Ref:
        if act == "silu":
            return self.mul(x, self.op("LOGISTIC", [x], self.shape(x)))
        if act == "hardsigmoid":
            return self.mul(self.binary("ADD", x, 3.0, fusedActivationFunction=FUSED["relu6"]), 1 / 6)
        if act in ACTIVATIONS:
            name, options = ACTIVATIONS[act]
            return self.op(name, [x], self.shape(x), **options)
        return x

    def softmax(self, x: Ref) -> Ref:
        return self.op("SOFTMAX", [x], self.shape(x), beta=1.0)

    def mean(self, x: Ref, axes: Sequence[int], *, keep: bool) -> Ref:
        return self.reduce("MEAN", x, axes, keep=keep)

    def total(self, x: Ref, axis: int) -> Ref:
        return self.reduce("SUM", x, [axis], keep=True)

    def reduce(self, name: str, x: Ref, axes: Sequence[int], *, keep: bool) -> Ref:
        shape = self.shape(x)
        kept = [1 if a in axes else n for a, n in enumerate(shape) if keep or a not in axes]
        return self.op(name, [x, self.constant(np.array(axes, np.int32))], kept, keepDims=keep)

    def normalise(self, x: Ref, axes: Sequence[int], *, eps: float) -> Ref:
        centred = self.sub(x, self.mean(x, axes, keep=True))
        variance = self.mean(self.mul(centred, centred), axes, keep=True)
        return self.mul(centred, self.op("RSQRT", [self.add(variance, eps)], self.shape(variance)))

    def concat(self, xs: Sequence[Ref], axis: int) -> Ref:
        shape = list(self.shape(xs[0]))
        shape[axis] = sum(self.shape(x)[axis] for x in xs)
        return self.op("CONCATENATION", xs, shape, axis=axis)

    def cut(self, x: Ref, axis: int, first: int, size: int) -> Ref:
        begin, shape = [0] * len(self.shape(x)), list(self.shape(x))
        begin[axis], shape[axis] = first, size
        return self.slice(x, begin, shape)

    def slice(self, x: Ref, begin: Sequence[int], shape: Sequence[int]) -> Ref:
        """Some of each axis of `x`."""
        return self.op("SLICE", [x, *(self.constant(np.array(row, np.int32)) for row in (begin, shape))], shape)

    def first(self, x: Ref) -> Ref:
        """The first element of `x`, with as many axes."""
        axes = len(self.shape(x))
        return self.slice(x, [0] * axes, [1] * axes)

    def pool(self, x: Ref, kernel: int, *, stride: int, pads: tuple[int, int, int, int], largest: bool) -> Ref:
        _, h, w, c = self.shape(x)
        same = pads == ops.same_pads(Map(c, h, w), kernel, stride)
        reach = 0 if same else kernel - 1
        shape = (1, -(-(h - reach) // stride), -(-(w - reach) // stride), c)
        how = {"padding": schema.Padding.SAME if same else schema.Padding.VALID, "strideH": stride, "strideW": stride}
        if kernel == 1:  # a pool of one pixel, which XNNPACK has only as a convolution
            ones, zeros = np.ones((1, 1, 1, c), np.float32), np.zeros(c, np.float32)
            how |= {"depthMultiplier": 1, "dilationHFactor": 1, "dilationWFactor": 1}
            return self.op("DEPTHWISE_CONV_2D", [x, self.constant(ones), self.constant(zeros)], shape, **how)
        how |= {"filterHeight": kernel, "filterWidth": kernel}
        return self.op("MAX_POOL_2D" if largest else "AVERAGE_POOL_2D", [x], shape, **how)

    def resize(self, x: Ref, h: int, w: int, *, nearest: bool) -> Ref:
        if nearest:  # as XNNPACK has it: pixels beside themselves, doubled
            while self.shape(x)[1:3] != (h, w):
                _, tall, wide, c = self.shape(x)
                four = self.concat([x] * 4, 3)
                x = self.op("DEPTH_TO_SPACE", [four], (1, 2 * tall, 2 * wide, c), blockSize=2)
            return x
        size = self.constant(np.array((h, w), np.int32))
        shape = (1, h, w, self.shape(x)[3])
        return self.op("RESIZE_BILINEAR", [x, size], shape, halfPixelCenters=True, alignCorners=False)

    def finish(self, inputs: Sequence[Ref], outputs: Sequence[Ref]) -> bytes:
        """The model as bytes."""
        codes = []
        for value in self.codes:
            code = schema.OperatorCodeT()
            code.builtinCode, code.deprecatedBuiltinCode, code.version = value, min(value, 127), 1
            codes.append(code)
        graph = schema.SubGraphT()
        graph.tensors, graph.operators, graph.name = self.tensors, self.operators, "main"
        graph.inputs, graph.outputs = np.array(inputs, np.int32), np.array(outputs, np.int32)
        signature = schema.SignatureDefT()
        signature.signatureKey, signature.subgraphIndex = "serving_default", 0
        signature.inputs = [_named(f"x{place}", tensor) for place, tensor in enumerate(inputs)]
        signature.outputs = [_named(*row) for row in zip(output_names(len(outputs)), outputs, strict=True)]
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


@lowers(ops.Unfold, to=TFLite)
def unfold(b: TFLite, op: ops.Unfold, call: Call) -> Ref:
    (x,) = call.inputs
    _, h, w, c = b.shape(x)
    side = op.patch
    if whole(op, h, w):
        return b.reshape(x, b.axes(call.shape))
    patches = b.op("SPACE_TO_DEPTH", [x], (1, h // side, w // side, side**2 * c), blockSize=side)
    rows = b.reshape(patches, (1, h * w // side**2, side**2, c))
    return rows if op.windows else b.transpose(rows, HEADS_FIRST)


@lowers(ops.Fold, to=TFLite)
def fold(b: TFLite, op: ops.Fold, call: Call) -> Ref:
    (x,) = call.inputs
    _, h, w, c = shape = b.axes(call.shape)
    side = op.patch
    if whole(op, h, w):
        return b.reshape(x, shape)
    rows = x if op.windows else b.transpose(x, HEADS_FIRST)
    patches = b.reshape(rows, (1, h // side, w // side, side**2 * c))
    return b.op("DEPTH_TO_SPACE", [patches], shape, blockSize=side)


@lowers(ops.SeparableAttention, to=TFLite)
def separable_attention(b: TFLite, op: ops.SeparableAttention, call: Call) -> Ref:
    """The same in three axes."""
    q, k, v = (b.reshape(x, b.shape(x)[1:]) for x in call.inputs)
    p, n, _ = b.shape(q)
    context = b.matmul(b.softmax(b.reshape(q, (p, 1, n))), k)
    return b.reshape(b.mul(v, context), b.axes(call.shape))
