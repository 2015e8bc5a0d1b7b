"""The size of a network's TFLite file, by arithmetic.

It is made of numbers at their precision, scales of channels, and tables of ops and tensors.

What a file holds is found once a block. `benchmarks/file_size.py` compares it with files.
"""

from __future__ import annotations

from functools import lru_cache
from typing import Any, NamedTuple

from mvnas.graph import FLOAT_BYTES, Kernel, Summary
from mvnas.ops import (
    SOFTMAX_FORMS,
    Act,
    Add,
    Affine,
    Attention,
    Concat,
    Conv,
    Fold,
    LayerNorm,
    Linear,
    LinearAttention,
    Mul,
    Normalise,
    Pool,
    Resize,
    SeparableAttention,
    Spread,
    Tokens,
    Unfold,
    Value,
    same_pads,
    square,
)
from mvnas.spaces.arch import FLOAT, PRECISIONS, Arch

ACT_OPS = {"": 0, "relu": 0, "relu6": 0, "silu": 2, "hardsigmoid": 2}  # that an activation adds to an op; others add 1
FLOAT_ACTS = ("gelu", "gelu_tanh")  # that have no form in 8 bits
EIGHT_BITS = (Conv, Linear, Add, Concat)  # ops that are in 8 bits throughout in int8
CHANNEL_BYTES = 12  # of a channel with a range of its own: a scale in float32 and a zero point in int64
OP_BYTES, CONSTANT_BYTES, RANGE_BYTES = (
    102,
    108,
    42,
)  # of an op with its output, a constant, a range of a tensor: fitted to files
FILE_BYTES = 600  # of the rest


class Held(NamedTuple):
    """What a file holds of some ops.

    `dense` and `depthwise` are weights, each with so many `outputs` with a bias; `floats` numbers in float32 at every
    precision. `ops` are those of the file at float32, `constants` its tensors with data, `weights` those of them that
    are weights. `ranges` and `casts` are of int8 alone: tensors with a range, and ops from and to 8 bits.
    """

    dense: int = 0
    dense_outputs: int = 0
    depthwise: int = 0
    depthwise_outputs: int = 0
    floats: int = 0
    ops: int = 1
    constants: int = 0
    weights: int = 0
    ranges: int = 0
    casts: int = 0

    def bytes(self, precision: str) -> int:
        """Bytes at a precision, one of PRECISIONS."""
        outputs, weights = self.dense_outputs + self.depthwise_outputs, self.dense + self.depthwise
        plain = FLOAT_BYTES * (self.floats + outputs) + OP_BYTES * self.ops + CONSTANT_BYTES * self.constants
        if precision == FLOAT:
            return plain + FLOAT_BYTES * weights
        if precision == "dynamic-int8":  # depthwise convolutions stay as they are
            return plain + self.dense + FLOAT_BYTES * self.depthwise + CHANNEL_BYTES * self.dense_outputs
        if precision == "int8":  # of a channel, weights and bias each have a range
            ranges = 2 * CHANNEL_BYTES * outputs + RANGE_BYTES * (self.ranges + 2 * self.weights)
            return plain + weights + ranges + (OP_BYTES + RANGE_BYTES) * self.casts
        return plain + PRECISIONS[precision] * weights + OP_BYTES * self.weights  # float16: an op unpacks each


def file_bytes(arch: Arch) -> int:
    """Bytes of the TFLite file of a network at its precision, within 2 % from a million parameters on."""
    return FILE_BYTES + sum([_bytes(block, arch.precision) for block in arch.summaries])


@lru_cache(maxsize=1 << 17)
def _bytes(block: Summary, precision: str) -> int:
    return held(block).bytes(precision)


@lru_cache(maxsize=1 << 17)
def held(block: Summary) -> Held:
    """What a file holds of a block; what it is given and what it yields are taken to be in 8 bits in int8."""
    inputs, steps = block.trace()
    eight = dict.fromkeys(inputs, True)
    parts: list[Held] = []
    casts: set[tuple[Value, bool]] = set()  # a value and what it is cast to
    for value, step in steps:
        given = [value.inputs[i] for i in step.reads]
        if step.inner:
            parts.append(held(step.inner))
            wanted = eight[value] = True
        elif step.kernel:
            parts.append(_held(step.kernel))
            op = step.kernel[0]
            wanted = isinstance(op, EIGHT_BITS)
            eight[value] = wanted and getattr(op, "act", "") not in FLOAT_ACTS
        else:
            eight[value] = eight[given[0]]
            continue
        casts |= {(x, wanted) for x in given if eight[x] != wanted}
    total = [sum(column) for column in zip(*parts, strict=True)] if parts else [0] * len(Held._fields)
    return Held(*total)._replace(casts=total[-1] + len(casts))


@lru_cache(maxsize=1 << 17)
def _held(kernel: Kernel) -> Held:
    """What a file holds of a deployed op; of one that is not ours, its parameters in float32."""
    op, shapes = kernel
    x: Any = shapes[0]
    if isinstance(op, Conv | Linear):
        return _multiplied(op, x)
    params = op.params(*shapes)
    if isinstance(op, Attention | LinearAttention):
        return _attention(op, *shapes)
    if isinstance(op, SeparableAttention):
        return Held(ops=8)
    if isinstance(op, LayerNorm):
        return Held(ops=7, constants=1)
    if isinstance(op, Affine):
        return Held(floats=params, ops=1 + op.bias, constants=1 + op.bias)
    if isinstance(op, Normalise):
        return Held(floats=2, ops=2, constants=2)
    if isinstance(op, Spread):
        return Held(floats=params, ops=3, constants=2)
    if isinstance(op, Act):
        return Held(ops=max(1, _act_ops(op.act)))
    if isinstance(op, Unfold | Fold):
        return Held(ops=1 if op.patch == 1 else 2 if op.windows else 3)
    if isinstance(op, Mul):
        return Held(ops=1 + (shapes[0] != shapes[1]))
    if isinstance(op, Resize) and op.nearest:
        return Held(ops=2 * (op.size[0] // x.h).bit_length() - 2)
    if isinstance(op, Pool) and op.kernel == 1:  # a depthwise convolution of ones
        return Held(floats=2 * x.c, constants=2)
    return Held(floats=params, constants=bool(params), ranges=isinstance(op, Add | Concat))


def _act_ops(act: str) -> int:
    return ACT_OPS.get(act, 1)


def _multiplied(op: Conv | Linear, x: Any) -> Held:
    """Size of weights and biases, of an activation, and of ops that pad a map or make maps of tokens."""
    ops = 1 + _act_ops(op.act)
    casts = (op.act in FLOAT_ACTS) + 2 * (op.act == "hardsigmoid")
    if isinstance(op, Linear):
        return Held(op.out * x.c, op.out, ops=ops, constants=2, weights=1, ranges=ops - casts, casts=casts)
    weights = op.out * (x.c // op.groups) * op.kernel**2
    before = square(x)
    padded = op.pads(before) != same_pads(before, op.kernel, op.stride)
    ops += padded + 2 * isinstance(x, Tokens)
    rest = {"ops": ops, "constants": 2 + padded, "weights": 1, "ranges": ops - casts, "casts": casts}
    if op.depthwise(x):
        return Held(depthwise=weights, depthwise_outputs=op.out, **rest)
    return Held(weights, op.out, **rest)


def _attention(op: Attention | LinearAttention, q: Any, k: Any, v: Any) -> Held:
    """Products, with what brings heads first and back, and learned numbers in float32."""
    moved = 8  # three to heads and one back, each a reshape and a transpose
    if isinstance(op, LinearAttention):
        return Held(ops=moved + (3 if op.form == "scaled" else 8), constants=1)
    talk = q.p * op.heads**2 * 2 + 2 * op.heads if op.talking else 0
    bias = op.bias.params(op.heads, q, k) if op.bias else 0
    biased = bool(op.bias)
    ops = moved + (3 if op.form == SOFTMAX_FORMS[0] else 6) + biased + 8 * op.talking
    return Held(floats=talk + bias, ops=ops, constants=biased + 4 * op.talking)
