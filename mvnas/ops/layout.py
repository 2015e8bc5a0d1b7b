"""What moves numbers and computes little: maps to tokens and back, sizes, parts and wholes."""

from __future__ import annotations

from dataclasses import dataclass
from math import prod
from typing import Any, ClassVar

from mvnas.errors import SpaceError
from mvnas.ops.shapes import Map, Shape, Tokens
from mvnas.ops.value import Op, Value, check_unused


@dataclass(frozen=True)
class Unfold(Op):
    """Map to tokens: (C, H, W) -> (P, N, C) with P = patch ** 2, N = H * W / P; H and W must be multiples of `patch`.

    With `windows` it is (N, P, C): each patch is a sequence of its pixels. A patch of 1 takes the pixels in reading
    order.
    """

    takes: ClassVar = (Map,)
    patch: int
    windows: bool = False

    @property
    def moves(self) -> bool:
        return True

    def shape(self, x: Map) -> Tokens:
        if x[1] % self.patch or x[2] % self.patch:
            raise SpaceError(f"the patch must divide the map, but got patch {self.patch} on a map of {x.h} x {x.w}")
        pixels, patches = self.patch * self.patch, x[1] * x[2] // (self.patch * self.patch)
        return Tokens(patches, pixels, x[0]) if self.windows else Tokens(pixels, patches, x[0])

    def scratch(self, x: Map) -> int:
        return prod(x) if self.patch > 1 and not self.windows else 0  # it moves twice


@dataclass(frozen=True)
class Fold(Op):
    """Tokens back to the map they were unfolded from: (P, N, C) -> (C, H, W).

    Height and width are those of `like`, or once deployed the fixed `size`.
    """

    takes: ClassVar = (Tokens, Map)
    usual: ClassVar = Tokens

    patch: int
    size: tuple[int, int] = (0, 0)
    windows: bool = False

    @property
    def moves(self) -> bool:
        return True

    def shape(self, x: Tokens, like: Map | None = None) -> Map:
        if like:
            check_unused(self, ("size",), "beside a map of that size")
        elif not all(self.size):
            raise SpaceError(f"tokens must be folded to a size or that of a map, but got size {self.size} and no map")
        return Map(x[2], like[1], like[2]) if like else Map(x[2], *self.size)

    def scratch(self, x: Tokens, like: Map | None = None) -> int:
        return prod(x) if self.patch > 1 and not self.windows else 0

    def deploy(self, x: Value, *like: Value) -> Value:
        return Fold(self.patch, like[0].shape[1:], self.windows)(x) if like else self(x)


@dataclass(frozen=True)
class Spread(Op):
    """Each token becomes the pixels of a patch: (1, N, C) -> (N, patch ** 2, C).

    Each pixel is the token times a learned factor a pixel and channel, plus a learned shift a channel: folded with
    `windows`, a depthwise transposed convolution whose kernel is its stride.
    """

    takes: ClassVar = (Tokens,)

    patch: int

    def shape(self, x: Tokens) -> Tokens:
        if x.p != 1:
            raise SpaceError(f"tokens to spread must be one sequence, but got {x}")
        return Tokens(x.n, self.patch**2, x.c)

    def params(self, x: Tokens) -> int:
        return x.c * (self.patch**2 + 1)

    def elements(self, x: Tokens) -> int:
        return prod(self.shape(x))

    def scratch(self, x: Tokens) -> int:
        return prod(self.shape(x))  # products, before the shift


@dataclass(frozen=True)
class Resize(Op):
    """Bilinear resize of a map to the next multiple of `multiple`, to the size of `like`, or to the fixed `size`.

    Where the size is right already it does nothing, and vanishes on deployment. With `nearest` each pixel
    becomes 2 x 2, 4 x 4, ... equal ones.
    """

    takes: ClassVar = (Map,)
    multiple: int = 1
    size: tuple[int, int] = (0, 0)
    nearest: bool = False

    @property
    def moves(self) -> bool:
        return True

    def shape(self, x: Map, like: Map | None = None) -> Map:
        if like or self.size != (0, 0):
            check_unused(self, ("multiple", "size") if like else ("multiple",), "where the size is given")
        m = self.multiple
        size = like[1:] if like else self.size if self.size[0] else (-(-x[1] // m) * m, -(-x[2] // m) * m)
        if self.nearest and (times := size[0] // x[1]) & (times - 1) | (x[1] * times - size[0]) | (
            x[2] * times - size[1]
        ):
            raise SpaceError(f"pixels must be repeated 2, 4, ... times each way, but got {x[1]} x {x[2]} -> {size}")
        return Map(x[0], *size)

    def scratch(self, x: Map, like: Map | None = None) -> int:
        return prod(self.shape(x, like)) if self.nearest else 0  # copies beside one another

    def deploy(self, x: Value, *like: Value) -> Value:
        target = self.shape(x.shape, *(y.shape for y in like))
        return x if target == x.shape else Resize(size=target[1:], nearest=self.nearest)(x)


@dataclass(frozen=True)
class Concat(Op):
    """Concatenation along channels: (C1, H, W), (C2, H, W), ... -> (C1 + C2 + ..., H, W).

    With `patches` it is along the patches of tokens.
    """

    takes: ClassVar = (Map, Tokens)
    usual: ClassVar = Map

    patches: bool = False

    def shape(self, *xs: Any) -> Map | Tokens:
        first = xs[0]
        if isinstance(first, Map):
            if len({x[1:] for x in xs}) > 1 or self.patches:
                raise SpaceError(f"maps to concatenate must have one size, but got {xs}")
            return Map(sum(x.c for x in xs), first.h, first.w)
        if len({(x.p, x.c if self.patches else x.n) for x in xs}) > 1:
            raise SpaceError(f"tokens to concatenate must agree, but got {xs}")
        return (
            Tokens(*first)._replace(n=sum(x.n for x in xs))
            if self.patches
            else Tokens(*first)._replace(c=sum(x.c for x in xs))
        )


@dataclass(frozen=True)
class Slice(Op):
    """`size` channels of a map or of tokens from `first` on; with `patches`, patches of tokens."""

    takes: ClassVar = (Map, Tokens)

    size: int
    first: int = 0
    patches: bool = False

    def shape(self, x: Map | Tokens) -> Map | Tokens:
        whole = x[1] if self.patches else x.c
        if not 0 <= self.first < self.first + self.size <= whole:
            raise SpaceError(f"a slice must lie in 0..{whole}, but got {self.size} from {self.first} on")
        if not self.patches:
            return x._replace(c=self.size)
        if isinstance(x, Map):
            raise SpaceError(f"patches must be those of tokens, but got {x}")
        return x._replace(n=self.size)


def axis(x: Shape, patches: bool) -> int:
    """The axis of channels, or of patches, of a tensor with a batch axis."""
    return 1 if isinstance(x, Map) else 2 if patches else 3
