"""MobileViT block (arXiv:2110.02178, fig. 1b): local convolution, transformer over patches, fusion."""

from dataclasses import dataclass

from mvnas.blocks._attention import Transformer
from mvnas.blocks._parts import check_fits
from mvnas.graph import Layer
from mvnas.ops import Attention, Concat, Conv, Fold, LayerNorm, Resize, Unfold, Value


@dataclass(frozen=True)
class Block:
    """(C, H, W) -> (C, H, W): `layers` transformer layers of width `dim` with `heads` heads over `patch` x `patch`
    patches.

    Where H or W is no multiple of `patch`, the map is resized to the next multiple and back. `mlp` is the hidden width
    of a feed-forward layer as a multiple of `dim`.

    Raises:
        SpaceError: the map is smaller than the patch, or the heads do not divide `dim`.
    """

    dim: int
    layers: int
    heads: int = 4
    patch: int = 2
    mlp: float = 2.0

    def __call__(self, x: Value) -> Value:
        check_fits(self.patch, x)
        local = Conv(self.dim, norm=False, act="")(Conv(x.channels, kernel=3)(x, role="local"), role="embed")
        grid = Resize(self.patch)(local)
        y = Unfold(self.patch)(grid)
        layer = Layer(Transformer(Attention(self.heads), self.mlp, act="silu"))
        for i in range(self.layers):
            y = layer(y, role=f"layers.{i}")
        y = Resize()(Fold(self.patch)(LayerNorm()(y, role="norm"), grid), local)
        return Conv(x.channels, kernel=3)(Concat()(x, Conv(x.channels)(y, role="project")), role="fuse")
