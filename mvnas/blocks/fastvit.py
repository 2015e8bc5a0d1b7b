"""FastViT's block of RepMixer (arXiv:2303.14189, eq. 2-4, fig. 2): (C, H, W) -> (channels, H / stride, W / stride)."""

from dataclasses import dataclass
from math import gcd

from mvnas.blocks._parts import branched, same_channels
from mvnas.ops import BatchNorm, Branched, Conv, Value

START = 1e-5  # of layer scales


@dataclass(frozen=True)
class Block:
    """RepMixer, then a feed-forward layer behind a depthwise 7 x 7; of stride 2, after a large depthwise kernel and a 1
    x 1.

    RepMixer is x + scale * (mixed(x) - norm(x)), and one depthwise 3 x 3 convolution when deployed. A hidden width is
    `expand` times the channels; `channels` 0 are those of the input, which stride 1 keeps.
    """

    channels: int = 0
    stride: int = 1
    expand: float = 3.0

    def __call__(self, x: Value) -> Value:
        if self.stride > 1:
            c = self.channels or x.channels
            groups = gcd(c, x.channels)
            large, small = (Conv(c, kernel, self.stride, groups, act="") for kernel in (7, 3))
            y = Branched((large, small))(x, role="down")
            x = branched(y, c, act="gelu")(y, role="down_mix")
        c = same_channels(x, self.channels)
        mixed = branched(x, c, 3, 1, c)
        difference = Branched((*mixed.branches, BatchNorm(start=-1.0)), scale=START)
        x = Branched((difference, None))(x, role="mixer")
        y = Conv(c, 7, groups=c, act="")(x, role="mlp.depthwise")
        y = Conv(int(self.expand * c), norm=False, bias=True, act="gelu")(y, role="mlp.expand")
        return x + Conv(c, norm=False, bias=True, scale=START, act="")(y, role="mlp.project")
