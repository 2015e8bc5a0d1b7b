"""Attention in its three kinds, and what is added to its scores."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from math import isqrt, prod
from typing import ClassVar

from mvnas.errors import SpaceError, unknown
from mvnas.ops.shapes import Tokens
from mvnas.ops.value import Op, Products, Value

EPS = 1e-5  # of sums that attention divides by


SOFTMAX_FORMS = ("softmax", "relu_softmax")


LINEAR_FORMS = ("scaled", "relu_linear")


@dataclass(frozen=True)
class GridBias:
    """What `Attention` adds to its scores: a learned number a head for each distance |dy|, |dx| of a query from a key.

    `grid` is the height and width of the keys' map; the queries are at every `stride`-th key each way (LeViT,
    arXiv:2104.01136, sec. 4.2). On square maps of another size the farthest known distance stands for farther ones.
    With `signed` it is a number for every dy, dx; with `hidden` these are 16 sigmoid of what a network of so many
    ReLU units makes of them (Swin V2, arXiv:2111.09883, sec. 3.3). The first `extra` patches have no place on the
    map, and nothing is added to their scores.
    """

    grid: tuple[int, int]
    stride: int = 1
    signed: bool = False
    hidden: int = 0
    extra: int = 0

    def check(self, q: Tokens, k: Tokens) -> None:
        """Check that queries and keys are on its map.

        Raises:
            SpaceError: they are not, or it is no map.
        """
        if min(self.grid) < 1:
            raise SpaceError(f"a grid must have a height and a width, but is {self.grid}")
        if q.n - self.extra != prod(-(-side // self.stride) for side in self.sides(k.n)):
            raise SpaceError(f"queries must be every {self.stride}. of the keys each way, but are {q.n} of {k.n}")

    def sides(self, keys: int) -> tuple[int, int]:
        """Height and width of the keys' map: those of `grid`, or of a square."""
        keys -= self.extra
        if keys == prod(self.grid):
            return self.grid
        if isqrt(keys) ** 2 != keys:
            raise SpaceError(f"keys must be on a map of {self.grid[0]} x {self.grid[1]} or a square, but are {keys}")
        return isqrt(keys), isqrt(keys)

    @property
    def distances(self) -> int:
        """How many distances there are numbers for."""
        return prod(2 * side - 1 for side in self.grid) if self.signed else prod(self.grid)

    def params(self, heads: int, q: Tokens, k: Tokens) -> int:
        """Learned numbers."""
        return self.hidden * (2 + 1 + heads) if self.hidden else heads * self.distances

    def macs(self, heads: int) -> int:
        """Multiply-accumulates that it takes to make the numbers."""
        return self.distances * self.hidden * (2 + heads)


@dataclass(frozen=True)
class PairBias:
    """What `Attention` adds to its scores: a learned number a head, query and key. A `GridBias` deploys to it."""

    def check(self, q: Tokens, k: Tokens) -> None:
        """Any queries and keys will do."""

    def params(self, heads: int, q: Tokens, k: Tokens) -> int:
        """Learned numbers."""
        return heads * q.n * k.n

    def macs(self, heads: int) -> int:
        """None: the numbers are there."""
        return 0


@dataclass(frozen=True)
class Attention(Op):
    """Multi-head attention among the patches: queries (P, N, C), keys (P, M, C), values (P, M, V) -> (P, N, V).

    Each of the P pixel positions is a sequence of its own (arXiv:2110.02178, sec. 3.1). The product A of queries and
    keys is not scaled here: see `Linear.gain`. Shares of the values are, by `form`, softmax: exp(A) / sum over keys;
    relu_softmax: relu(A) / (sum over keys + 1e-5) (MPCViT, arXiv:2211.13955, sec. 3). `bias` is added to A. `talking`
    mixes heads before and after the softmax (arXiv:2003.02436).
    """

    takes: ClassVar = (Tokens,)

    heads: int
    form: str = SOFTMAX_FORMS[0]
    bias: GridBias | PairBias | None = None
    talking: bool = False

    def shape(self, q: Tokens, k: Tokens, v: Tokens) -> Tokens:
        if self.form not in SOFTMAX_FORMS:
            raise SpaceError(unknown("form", self.form, SOFTMAX_FORMS))
        made = _attended(self.heads, q, k, v)
        if self.bias:
            self.bias.check(q, k)
        return made

    def params(self, q: Tokens, k: Tokens, v: Tokens) -> int:
        bias = self.bias.params(self.heads, q, k) if self.bias else 0
        return bias + 2 * self.talking * self.heads * (self.heads + 1)

    def macs(self, q: Tokens, k: Tokens, v: Tokens) -> int:
        return (self.bias.macs(self.heads) if self.bias else 0) + int(sum(map(prod, self.products(q, k, v))))

    def products(self, q: Tokens, k: Tokens, v: Tokens) -> Products:
        count, width, values = q.p * self.heads, q.c // self.heads, v.c // self.heads
        talk = ((q.p, self.heads, self.heads, q.n * k.n),) * (2 * self.talking)
        return (count, q.n, width, k.n), (count, q.n, k.n, values), *talk

    def elements(self, q: Tokens, k: Tokens, v: Tokens) -> int:
        return q.p * self.heads * q.n * k.n

    def scratch(self, q: Tokens, k: Tokens, v: Tokens) -> int:
        return q.p * self.heads * q.n * k.n + prod(k) + prod(v)  # scores, and inputs with the heads first

    def traits(self, q: Tokens, k: Tokens, v: Tokens) -> Sequence[str]:
        words = "biased" * bool(self.bias), "talking" * self.talking, self.form * (self.form != SOFTMAX_FORMS[0])
        return *words, _unlike(q, k, v)

    def dimensions(self, q: Tokens, k: Tokens, v: Tokens) -> dict[str, int]:
        return super().dimensions(q, k, v) | _sizes(self.heads, q, k, v)

    def deploy(self, q: Value, k: Value, v: Value) -> Value:
        return replace(self, bias=PairBias())(q, k, v) if self.bias else self(q, k, v)


@dataclass(frozen=True)
class LinearAttention(Op):
    """Multi-head attention that multiplies keys and values first, so that no N x M numbers are made.

    Shapes are those of `Attention`.

    With A the product of queries and keys, shares of the values are, by `form`, scaled: A / M (MPCViT,
    arXiv:2211.13955, sec. 3); relu_linear: of relu(q) and relu(k), A / (sum over keys + 1e-5) (EfficientViT,
    arXiv:2205.14756, eq. 2).
    """

    takes: ClassVar = (Tokens,)

    heads: int
    form: str

    def shape(self, q: Tokens, k: Tokens, v: Tokens) -> Tokens:
        if self.form not in LINEAR_FORMS:
            raise SpaceError(unknown("form", self.form, LINEAR_FORMS))
        return _attended(self.heads, q, k, v)

    def macs(self, q: Tokens, k: Tokens, v: Tokens) -> int:
        return int(sum(map(prod, self.products(q, k, v))))

    def products(self, q: Tokens, k: Tokens, v: Tokens) -> Products:
        count, width, values = q.p * self.heads, q.c // self.heads, v.c // self.heads
        total = ((count, q.n, width, 1),) if self.form == "relu_linear" else ()
        return (count, width, k.n, values), (count, q.n, width, values), *total

    def traits(self, q: Tokens, k: Tokens, v: Tokens) -> Sequence[str]:
        return self.form, _unlike(q, k, v)

    def dimensions(self, q: Tokens, k: Tokens, v: Tokens) -> dict[str, int]:
        return super().dimensions(q, k, v) | _sizes(self.heads, q, k, v)

    def elements(self, q: Tokens, k: Tokens, v: Tokens) -> int:
        return prod(q) + prod(k)

    def scratch(self, q: Tokens, k: Tokens, v: Tokens) -> int:
        return prod(q) + prod(k) + prod(v)


@dataclass(frozen=True)
class SeparableAttention(Op):
    """Attention with one number a patch as query: queries (P, N, 1), keys (P, N, C), values (P, N, C) -> (P, N, C).

    A softmax of the queries weighs the keys, and their sum multiplies every value (MobileViTv2, arXiv:2206.02680, eq.
    3).
    """

    takes: ClassVar = (Tokens,)

    def shape(self, q: Tokens, k: Tokens, v: Tokens) -> Tokens:
        if q.c != 1:
            raise SpaceError(f"queries of separable attention must have 1 channel, but are {q}")
        if k != v or q[:2] != k[:2]:
            raise SpaceError(f"queries, keys and values must agree, but are {q}, {k} and {v}")
        return v

    def macs(self, q: Tokens, k: Tokens, v: Tokens) -> int:
        return prod(k)

    def dimensions(self, q: Tokens, k: Tokens, v: Tokens) -> dict[str, int]:
        return super().dimensions(q, k, v) | _sizes(1, q, k, v)

    def elements(self, q: Tokens, k: Tokens, v: Tokens) -> int:
        return 2 * prod(k)

    def scratch(self, q: Tokens, k: Tokens, v: Tokens) -> int:
        return q.p * q.n


def _attended(heads: int, q: Tokens, k: Tokens, v: Tokens) -> Tokens:
    """Shape of what `heads` make.

    Raises:
        SpaceError: queries, keys and values are not of the same sequences, or heads do not divide them.
    """
    if q.c % heads or v.c % heads:
        wrong = q.c if q.c % heads else v.c
        raise SpaceError(f"heads must divide the width, but got {heads} heads for width {wrong}")
    if k.c != q.c or k[:2] != v[:2] or q.p != k.p:
        raise SpaceError(f"queries, keys and values must agree, but are {q}, {k} and {v}")
    return Tokens(q.p, q.n, v.c)


def _unlike(*xs: Tokens) -> str:
    """What kernels are whose queries, keys and values are of several shapes."""
    return "unlike" * (len(set(xs)) > 1)


def _sizes(heads: int, q: Tokens, k: Tokens, v: Tokens) -> dict[str, int]:
    """What attention has of dimensions beside those of every op."""
    sizes = {"heads": heads, "head width": v.c // heads}
    return sizes if not _unlike(q, k, v) else sizes | {"keys": k.n, "key channels": k.c}
