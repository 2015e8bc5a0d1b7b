"""MobileViT block (arXiv:2110.02178, fig. 1b): local convolution, transformer over patches, fusion."""

from dataclasses import dataclass

from mvnas.errors import SpaceError
from mvnas.ops import Attention, Concat, Conv, Fold, Layer, LayerNorm, Linear, Resize, Unfold, Value


@dataclass(frozen=True)
class Block:
    """(C, H, W) -> (C, H, W): `layers` transformer layers of width `dim` with `heads` heads over `patch` x `patch` patches.

    Where H or W is no multiple of `patch`, the map is resized to the next multiple and back. `mlp` is the hidden width
    of a feed-forward layer as a multiple of `dim`.

    Raises:
        SpaceError: the map is smaller than the patch.
    """

    dim: int
    layers: int
    heads: int = 4
    patch: int = 2
    mlp: float = 2.0

    def __call__(self, x: Value) -> Value:
        if min(x.shape[1:]) < self.patch:
            raise SpaceError(
                f"the patch must fit into the map, but got patch {self.patch} on {x.shape.h} x {x.shape.w}"
            )
        local = Conv(self.dim, norm=False, act="")(Conv(x.channels, kernel=3)(x))
        grid = Resize(self.patch)(local)
        y = Unfold(self.patch)(grid)
        layer = Layer(Transformer(self.heads, self.mlp))
        for _ in range(self.layers):
            y = layer(y)
        y = Resize()(Fold(self.patch)(LayerNorm()(y), grid), local)
        return Conv(x.channels, kernel=3)(Concat()(x, Conv(x.channels)(y)))


@dataclass(frozen=True)
class Transformer:
    """Pre-norm transformer layer: (P, N, C) -> (P, N, C); multi-head self-attention, then a feed-forward layer with SiLU."""

    heads: int
    mlp: float

    def __call__(self, x: Value) -> Value:
        dim = x.channels
        y = LayerNorm()(x)
        query = Linear(dim, gain=(dim / self.heads) ** -0.5)(y)
        x = x + Linear(dim)(Attention(self.heads)(query, Linear(dim)(y), Linear(dim)(y)))
        return x + Linear(dim)(Linear(int(self.mlp * dim), act="silu")(LayerNorm()(x)))
