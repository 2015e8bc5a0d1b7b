"""Attention as torch modules, written out so that every converter sees plain products."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor
from torch.nn import Conv1d, Module, Parameter
from torch.nn.functional import pad

from mvnas import ops
from mvnas.nn.forms import computes, fold, module
from mvnas.nn.linear import Small, small_network
from mvnas.ops import EPS, GridBias, State, Tokens


@module.register
def attend(op: ops.Attention, q: Tokens, k: Tokens, v: Tokens) -> Module:
    return Attend(op, q, k)


@fold.register
def fold_attention(op: ops.Attention, state: Mapping[str, Tensor], q: Tokens, k: Tokens, v: Tokens) -> State:
    if not isinstance(op.bias, GridBias):
        return dict(state)
    kept = {key: weight for key, weight in state.items() if key.startswith(("before.", "after."))}
    return kept | {"bias": biases(op.bias, state, k.n)}


class Attend(Module):
    """Attention, with learned numbers a head and distance, or a head, query and key, and from head to head."""

    def __init__(self, op: ops.Attention, q: Tokens, k: Tokens) -> None:
        super().__init__()
        self.op = op
        if isinstance(op.bias, GridBias) and op.bias.hidden:
            self.distances = Small(op.bias.hidden, op.heads)
        elif op.bias:
            count = (op.bias.distances,) if isinstance(op.bias, GridBias) else (q.n, k.n)
            self.bias = Parameter(torch.zeros(op.heads, *count))
        if op.talking:
            self.before, self.after = Conv1d(op.heads, op.heads, 1), Conv1d(op.heads, op.heads, 1)

    def forward(self, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        bias = getattr(self, "bias", None)
        if isinstance(self.op.bias, GridBias):
            bias = biases(self.op.bias, dict(self.named_parameters()), k.shape[2])
        return attention(q, k, v, self.op, bias, (self.before, self.after) if self.op.talking else ())


def biases(grid: GridBias, state: Mapping[str, Tensor], keys: int) -> Tensor:
    """The number that is added for each head, query and key: (heads, N, M)."""
    if grid.hidden:
        far = [
            torch.arange(1 - side if grid.signed else 0, side, dtype=torch.float64) * 8 / max(side - 1, 1)
            for side in grid.grid
        ]
        places = torch.cartesian_prod(*far)
        table = 16 * small_network(state, "distances", places.sign() * (places.abs() + 1).log2() / 3).sigmoid().T
    else:
        table = state["bias"]
    places = offsets(grid.sides(keys), grid.stride, grid.grid, signed=grid.signed)
    return pad(table[:, places], (grid.extra, 0, grid.extra, 0))


def offsets(sides: tuple[int, int], stride: int, grid: tuple[int, int], *, signed: bool = False) -> Tensor:
    """For queries at every `stride`-th pixel of a map and keys at each, the place of their distance in a table: (N, M).

    The table has a number for every |dy|, |dx| of `grid`, or `signed` for every dy, dx.
    """
    far = []
    for side, most in zip(sides, grid, strict=True):
        distance = torch.arange(0, side, stride)[:, None] - torch.arange(side)
        far.append(distance.clamp(1 - most, most - 1) + most - 1 if signed else distance.abs().clamp(max=most - 1))
    columns = 2 * grid[1] - 1 if signed else grid[1]
    places = far[0][:, None, :, None] * columns + far[1][None, :, None]
    return places.flatten(2).flatten(0, 1)


def attention(
    q: Tensor, k: Tensor, v: Tensor, op: ops.Attention, bias: Tensor | None = None, talk: tuple[Conv1d, ...] = ()
) -> Tensor:
    """`op` without scaling, written out so that every converter sees plain products: (B, P, N, C) each.

    `bias` is added to the products of queries and keys, (heads, N, M); `talk` mixes heads before and after the softmax.
    """
    queries, keys, values = heads_first(q, k, v, op.heads)
    scores = queries @ keys
    if bias is not None:
        scores = (scores.view(-1, *bias.shape) + bias).view_as(scores)
    if talk:
        scores = mix(scores, talk[0])
    if op.form == "relu_softmax":
        shares = scores.relu() / (scores.relu().sum(-1, keepdim=True) + EPS)
    else:
        shares = scores.softmax(-1)
    return heads_last((mix(shares, talk[1]) if talk else shares) @ values, q, op.heads)


def mix(scores: Tensor, talk: Conv1d) -> Tensor:
    """Scores of heads, each a mixture of all heads': (B * heads, N, M)."""
    return talk(scores.reshape(-1, talk.in_channels, scores[0].numel())).view_as(scores)  # type: ignore[no-any-return]


@computes(ops.LinearAttention)
def linear_attention(op: ops.LinearAttention, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    """`op`, which multiplies keys and values first: (B, P, N, C) each."""
    queries, keys, values = heads_first(q, k, v, op.heads)
    if op.form == "scaled":
        mixed = queries @ (keys @ values / keys.shape[2])
    else:
        queries, keys = queries.relu(), keys.relu()
        mixed = queries @ (keys @ values) / (queries @ keys.sum(2, keepdim=True) + EPS)
    return heads_last(mixed, q, op.heads)


@computes(ops.SeparableAttention)
def separable_attention(op: ops.SeparableAttention, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    """`op`: queries (B, P, N, 1), keys and values (B, P, N, C) each."""
    return v * (q.transpose(2, 3).softmax(-1) @ k)


def heads_first(q: Tensor, k: Tensor, v: Tensor, heads: int) -> tuple[Tensor, Tensor, Tensor]:
    """Queries (B P heads, N, C), keys (B P heads, C, M) and values (B P heads, M, V) of (B, P, N, ...) each."""
    b, p = q.shape[:2]
    q, k, v = (x.reshape(b * p, x.shape[2], heads, x.shape[3] // heads) for x in (q, k, v))
    queries, values = (x.transpose(1, 2).reshape(b * p * heads, x.shape[1], x.shape[3]) for x in (q, v))
    return queries, k.permute(0, 2, 3, 1).reshape(b * p * heads, k.shape[3], k.shape[1]), values


def heads_last(mixed: Tensor, q: Tensor, heads: int) -> Tensor:
    """What heads make, (B P heads, N, V), beside one another: (B, P, N, heads V), for queries `q` as they were
    given.
    """
    b, p, n, _ = q.shape
    width = mixed.shape[2]
    return mixed.reshape(b * p, heads, n, width).transpose(1, 2).reshape(b, p, n, heads * width)
