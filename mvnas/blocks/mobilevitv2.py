"""MobileViTv2 block (arXiv:2206.02680, fig. 4 and sec. 3): depthwise convolution, separable self-attention over
patches.
"""

from dataclasses import dataclass

from mvnas.blocks._parts import check_fits, feed_forward
from mvnas.graph import Layer
from mvnas.ops import Conv, Fold, LayerNorm, Linear, Resize, SeparableAttention, Unfold, Value

NORM = LayerNorm(whole=True)  # over all patches, pixels and channels of an image together


@dataclass(frozen=True)
class Block:
    """(C, H, W) -> (C, H', W'): `layers` transformer layers of width `dim`, linear in the number of `patch` x `patch`
    patches.

    Where H or W is no multiple of `patch`, the map is resized to the next multiple and stays so, as in the reference
    code (which aligns corners; here they are not aligned). `mlp` is the hidden width of a feed-forward layer as a
    multiple of `dim`.

    Raises:
        SpaceError: the map is smaller than the patch.
    """

    dim: int
    layers: int
    patch: int = 2
    mlp: float = 2.0

    def __call__(self, x: Value) -> Value:
        check_fits(self.patch, x)
        local = Conv(x.channels, kernel=3, groups=x.channels)(Resize(self.patch)(x), role="local")
        grid = Conv(self.dim, norm=False, act="")(local, role="embed")
        y = Unfold(self.patch)(grid)
        layer = Layer(Transformer(self.mlp))
        for i in range(self.layers):
            y = layer(y, role=f"layers.{i}")
        return Conv(x.channels, act="")(Fold(self.patch)(NORM(y, role="norm"), grid), role="project")


@dataclass(frozen=True)
class Transformer:
    """Pre-norm layer (P, N, C) -> (P, N, C): separable self-attention (eq. 3), then a feed-forward layer with SiLU."""

    mlp: float

    def __call__(self, x: Value) -> Value:
        dim = x.channels
        y = NORM(x, role="norm")
        score, key = Linear(1)(y, role="attention.score"), Linear(dim)(y, role="attention.key")
        mixed = SeparableAttention()(score, key, Linear(dim, act="relu")(y, role="attention.value"))
        return feed_forward(x + Linear(dim)(mixed, role="attention.project"), self.mlp, act="silu", norm=NORM)
