"""RepViT blocks (arXiv:2307.09283, fig. 4 and sec. 3.3): (C, H, W) -> (channels, H / stride, W / stride)."""

from dataclasses import dataclass

from mvnas.blocks._parts import SqueezeExcite, divisible, same_channels
from mvnas.graph import Layer
from mvnas.ops import Branched, Conv, Value


@dataclass(frozen=True)
class Block:
    """Two blocks that keep the shape, the first with squeeze and excitation; or of stride 2, one before a
    down-sampling.

    The gate is in every other block ("cross-block"), so blocks come in pairs. A hidden width is `expand` times the
    channels. `channels` 0 are those of the input, which stride 1 keeps.
    """

    channels: int = 0
    stride: int = 1
    expand: float = 2.0

    def __call__(self, x: Value) -> Value:
        mix = Layer(Mixers(self.expand))
        if self.stride == 1:
            same_channels(x, self.channels)
            return mix(Layer(Mixers(self.expand, gated=True))(x, role="gated"), role="plain")
        y = Conv(x.channels, 3, self.stride, groups=x.channels, act="")(mix(x, role="plain"), role="down")
        return feed_forward(Conv(self.channels or x.channels, act="")(y, role="down_mix"), self.expand)


@dataclass(frozen=True)
class Mixers:
    """A depthwise convolution that mixes tokens, with a 1 x 1 branch and the input until deployed; then channels are
    mixed.
    """

    expand: float
    gated: bool = False

    def __call__(self, x: Value) -> Value:
        c = x.channels
        branches = Conv(c, 3, groups=c, act=""), Conv(c, groups=c, norm=False, bias=True, act=""), None
        y = Branched(branches, norm=True)(x, role="mixer")
        return feed_forward(SqueezeExcite(divisible(c / 4, guard=0))(y, "gate.") if self.gated else y, self.expand)


def feed_forward(x: Value, expand: float) -> Value:
    """Two 1 x 1 convolutions that widen by `expand` and return, the input added."""
    return x + Conv(x.channels, act="")(
        Conv(int(expand * x.channels), act="gelu")(x, role="mlp.expand"), role="mlp.project"
    )
