"""EdgeViT's local-global-local block (arXiv:2205.03436, fig. 2 and eq. 1): (C, H, W) -> (channels, H / stride, W / stride)."""

from dataclasses import dataclass

from mvnas.blocks._parts import kept
from mvnas.errors import SpaceError
from mvnas.ops import (
    Affine,
    Attention,
    BatchNorm,
    Branched,
    Conv,
    Fold,
    LayerNorm,
    Linear,
    Pool,
    Resize,
    Spread,
    Unfold,
    Value,
)

EPS = 1e-6  # of the layer norms before attention and feed-forward layer


@dataclass(frozen=True)
class Block:
    """Pixels are gathered locally, one delegate of `rate` x `rate` pixels attends to the others, and its result is spread to them.

    Rate 1 has attention among all pixels. A hidden width is `expand` times the channels. Of another stride than 1, patches of
    `stride` x `stride` pixels are embedded first.

    Raises:
        SpaceError: the rate does not divide the map, or the block keeps the size and does not keep the channels.
    """

    channels: int = 0
    stride: int = 1
    rate: int = 2
    heads: int = 4
    expand: float = 4.0

    def __call__(self, x: Value) -> Value:
        if self.stride > 1:
            patches = Conv(self.channels, self.stride, self.stride, norm=False, bias=True, same=True, act="")
            x = Affine()(LayerNorm(affine=False)(patches(x)))
        kept(x, self.channels)
        if x.shape.h % self.rate or x.shape.w % self.rate:
            raise SpaceError(f"the rate must divide the map, but got rate {self.rate} on {x.shape.h} x {x.shape.w}")
        x = Resize(self.rate)(x)
        return self.attend(around(self.gather(x) if self.rate > 1 else x))

    def gather(self, x: Value) -> Value:
        """Local aggregation: each pixel takes up those around it, then a feed-forward layer."""
        c, x = x.channels, around(x)
        y = linear(c, kernel=5, groups=c)(linear(c)(BatchNorm()(x)))
        x = x + linear(c)(y)
        return x + linear(c)(linear(int(self.expand * c), act="gelu")(BatchNorm()(x)))

    def attend(self, x: Value) -> Value:
        """Global sparse attention among delegates, local propagation, and a feed-forward layer."""
        c, apart = x.channels, self.rate > 1
        y = LayerNorm(eps=EPS)(Unfold(1)(Pool(1, self.rate)(x) if apart else x))
        query = Linear(c, gain=(c / self.heads) ** -0.5)(y)
        mixed = Attention(self.heads)(query, Linear(c)(y), Linear(c)(y))
        mixed = LayerNorm()(Spread(self.rate)(mixed)) if apart else mixed
        y = Unfold(self.rate, windows=apart)(x) + Linear(c)(mixed)
        y = y + Linear(c)(Linear(int(self.expand * c), act="gelu")(LayerNorm(eps=EPS)(y)))
        return Fold(self.rate, windows=apart)(y, x)


def linear(out: int, kernel: int = 1, groups: int = 1, act: str = "") -> Conv:
    """Convolution with bias and no norm."""
    return Conv(out, kernel, groups=groups, norm=False, bias=True, act=act)


def around(x: Value) -> Value:
    """The map and a depthwise convolution of it, by which pixels know where they are (arXiv:2102.10882)."""
    return Branched((linear(x.channels, kernel=3, groups=x.channels), None))(x)
