"""What the ops of mvnas become in a file, in the primitives of a `Builder`. No tensor has more than four axes."""

from __future__ import annotations

from typing import cast

from mvnas import ops
from mvnas.lowering.builder import Builder, Tensor
from mvnas.lowering.registry import Call, Weights, lowers
from mvnas.ops import Map, Tokens

HEADS_FIRST, COLUMNS = (0, 2, 1, 3), (0, 2, 3, 1)  # (P, N, heads, C) to (P, heads, N, C) and to (P, heads, C, N)


@lowers(ops.Conv)
def conv(b: Builder, op: ops.Conv, call: Call) -> Tensor:
    given = cast(Map | Tokens, call.shapes[0])
    (x,), before, windows = call.inputs, ops.square(given), isinstance(given, Tokens)
    if isinstance(given, Tokens):  # each sequence is a map
        x = b.maps(b.reshape(x, (given.p, before.h, before.w, before.c)))
    y = b.conv(
        x,
        call.weights["conv.weight"],
        call.weights.get("conv.bias"),
        stride=op.stride,
        pads=op.pads(before),
        groups=op.groups,
        act=op.act,
    )
    return b.reshape(b.pixels_last(y), b.axes(call.shape)) if windows else y


@lowers(ops.Linear)
def linear(b: Builder, op: ops.Linear, call: Call) -> Tensor:
    assert op.gain == 1
    return b.linear(call.inputs[0], call.weights["weight"], call.weights["bias"], act=op.act)


@lowers(ops.Act)
def act(b: Builder, op: ops.Act, call: Call) -> Tensor:
    return b.activate(call.inputs[0], op.act)


@lowers(ops.LayerNorm)
def layer_norm(b: Builder, op: ops.LayerNorm, call: Call) -> Tensor:
    assert not op.affine
    axes = range(1, len(b.axes(call.shape))) if op.whole else [b.channel_axis(call.shape)]
    return b.normalise(call.inputs[0], axes, eps=op.eps)


@lowers(ops.Affine)
def affine(b: Builder, op: ops.Affine, call: Call) -> Tensor:
    y = b.mul(call.inputs[0], b.a_channel(call.weights["weight"], call.shape))
    return b.add(y, b.a_channel(call.weights["bias"], call.shape)) if op.bias else y


@lowers(ops.Normalise)
def normalise(b: Builder, op: ops.Normalise, call: Call) -> Tensor:
    return b.add(b.mul(call.inputs[0], 255 / op.deviation), -op.mean / op.deviation)


@lowers(ops.Position)
def position(b: Builder, op: ops.Position, call: Call) -> Tensor:
    return b.add(call.inputs[0], call.weights["weight"])


@lowers(ops.Attention)
def attention(b: Builder, op: ops.Attention, call: Call) -> Tensor:
    q, k, v = _heads(b, op.heads, call)
    scores = b.matmul(q, k, flip_b=b.flips)
    if op.bias:
        scores = b.add(scores, call.weights["bias"][None])
    if op.talking:
        scores = _talk(b, scores, call.weights, "before")
    if op.form == "softmax":
        shares = b.softmax(scores)
    else:
        scores = b.activate(scores, "relu")
        shares = b.div(scores, b.add(b.total(scores, 3), ops.EPS))
    if op.talking:
        shares = _talk(b, shares, call.weights, "after")
    return _joined(b, b.matmul(shares, v), call)


@lowers(ops.LinearAttention)
def linear_attention(b: Builder, op: ops.LinearAttention, call: Call) -> Tensor:
    q, k, v = _heads(b, op.heads, call)
    if op.form == "scaled":
        keys = cast(Tokens, call.shapes[1]).n
        return _joined(b, b.matmul(q, b.mul(b.matmul(k, v, flip_a=b.flips), 1 / keys)), call)
    q, k = b.activate(q, "relu"), b.activate(k, "relu")
    mixed = b.matmul(q, b.matmul(k, v, flip_a=b.flips))
    total = b.matmul(q, b.total(k, 2 if b.flips else 3), flip_b=b.flips)
    return _joined(b, b.div(mixed, b.add(total, ops.EPS)), call)


@lowers(ops.SeparableAttention)
def separable_attention(b: Builder, op: ops.SeparableAttention, call: Call) -> Tensor:
    q, k, v = call.inputs
    _, p, n, _ = b.shape(q)
    shares = b.softmax(b.reshape(q, (1, p, 1, n)))
    return b.mul(v, b.matmul(shares, k))


def _heads(b: Builder, heads: int, call: Call) -> list[Tensor]:
    """Queries (P, heads, N, C), keys (P, heads, C, M) or, where products flip, (P, heads, M, C), and values."""
    split = []
    for x in call.inputs:
        _, p, n, width = b.shape(x)
        split.append(b.reshape(x, (p, n, heads, width // heads)))
    orders = (HEADS_FIRST, HEADS_FIRST if b.flips else COLUMNS, HEADS_FIRST)
    return [b.transpose(x, order) for x, order in zip(split, orders, strict=True)]


def _joined(b: Builder, mixed: Tensor, call: Call) -> Tensor:
    """(P, heads, N, V) as tokens."""
    return b.reshape(b.transpose(mixed, HEADS_FIRST), b.axes(call.shape))


def _talk(b: Builder, scores: Tensor, weights: Weights, when: str) -> Tensor:
    """Scores of heads (P, heads, N, M), each a mixture of all heads'."""
    p, heads, n, m = shape = b.shape(scores)
    mixed = b.matmul(weights[f"{when}.weight"][None, :, :, 0], b.reshape(scores, (p, heads, n * m)))
    return b.reshape(b.add(mixed, weights[f"{when}.bias"][None, :, None]), shape)


@lowers(ops.Unfold)
def unfold(b: Builder, op: ops.Unfold, call: Call) -> Tensor:
    shape = cast(Map, call.shapes[0])
    c, h, w = shape.c, shape.h, shape.w
    side, x = op.patch, b.pixels_last(call.inputs[0])
    if not whole(op, h, w):
        x = b.reshape(x, (h // side, side, w // side, side * c))
        if op.windows:
            x = b.transpose(x, (0, 2, 1, 3))
        else:
            x = b.reshape(b.transpose(x, (1, 0, 2, 3)), (side, h * w // side**2, side, c))
            x = b.transpose(x, (0, 2, 1, 3))
    return b.reshape(x, b.axes(call.shape))


@lowers(ops.Fold)
def fold(b: Builder, op: ops.Fold, call: Call) -> Tensor:
    shape = cast(Map, call.shape)
    c, h, w = shape.c, shape.h, shape.w
    side, x = op.patch, call.inputs[0]
    if not whole(op, h, w):
        if op.windows:
            x = b.reshape(x, (h // side, w // side, side, side * c))
            x = b.transpose(x, (0, 2, 1, 3))
        else:
            x = b.transpose(b.reshape(x, (side, side, h * w // side**2, c)), (0, 2, 1, 3))
            x = b.transpose(b.reshape(x, (side, h // side, w // side, side * c)), (1, 0, 2, 3))
    return b.maps(b.reshape(x, (1, h, w, c)))


def whole(op: ops.Unfold | ops.Fold, h: int, w: int) -> bool:
    """Whether a map (H, W) has its pixels in the order of the tokens, so that nothing moves."""
    return op.patch == 1 or (op.windows and h == w == op.patch)


@lowers(ops.Spread)
def spread(b: Builder, op: ops.Spread, call: Call) -> Tensor:
    y = b.mul(b.transpose(call.inputs[0], (0, 2, 1, 3)), call.weights["weight"])
    return b.add(y, call.weights["bias"])


@lowers(ops.Resize)
def resize(b: Builder, op: ops.Resize, call: Call) -> Tensor:
    shape = cast(Map, call.shape)
    return b.resize(call.inputs[0], shape.h, shape.w, nearest=op.nearest)


@lowers(ops.Add)
def add(b: Builder, op: ops.Add, call: Call) -> Tensor:
    return b.add(*call.inputs)


@lowers(ops.Sub)
def sub(b: Builder, op: ops.Sub, call: Call) -> Tensor:
    return b.sub(*call.inputs)


@lowers(ops.Mul)
def mul(b: Builder, op: ops.Mul, call: Call) -> Tensor:
    x, y = call.inputs
    gate = call.shapes[0] != call.shapes[1]
    return b.mul(x, b.reshape(y, b.axes(Map(call.shapes[1].c, 1, 1))) if gate else y)


@lowers(ops.Concat)
def concat(b: Builder, op: ops.Concat, call: Call) -> Tensor:
    return b.concat(call.inputs, 2 if op.patches else b.channel_axis(call.shape))


@lowers(ops.Slice)
def cut(b: Builder, op: ops.Slice, call: Call) -> Tensor:
    return b.cut(call.inputs[0], 2 if op.patches else b.channel_axis(call.shape), op.first, op.size)


@lowers(ops.Pool)
def pool(b: Builder, op: ops.Pool, call: Call) -> Tensor:
    (x,), (shape,) = call.inputs, call.shapes
    if not op.kernel:
        return b.mean(x, b.position_axes(shape), keep=False)
    return b.pool(x, op.kernel, stride=op.stride, pads=op.pads(cast(Map, shape)), largest=op.largest)
