"""FastViT's block of RepMixer (arXiv:2303.14189, eq. 2-4, fig. 2): (C, H, W) -> (channels, H / stride, W / stride)."""

from dataclasses import dataclass

from mvnas.blocks._parts import branched
from mvnas.errors import SpaceError
from mvnas.ops import BatchNorm, Branched, Conv, Value

START = 1e-5  # of layer scales


@dataclass(frozen=True)
class Block:
    """RepMixer, then a feed-forward layer behind a depthwise 7 x 7; of stride 2, after a large depthwise kernel and a 1 x 1.

    RepMixer is x + scale * (mixed(x) - norm(x)), and one depthwise 3 x 3 convolution when deployed. A hidden width is `expand`
    times the channels.

    Raises:
        SpaceError: the block keeps the size and does not keep the channels.
    """

    channels: int
    stride: int = 1
    expand: float = 3.0

    def __call__(self, x: Value) -> Value:
        c = self.channels
        if self.stride > 1:
            if c % x.channels:
                raise SpaceError(f"channels must become a multiple of {x.channels}, but become {c}")
            large, small = (Conv(c, kernel, self.stride, groups=x.channels, act="") for kernel in (7, 3))
            y = Branched((large, small))(x)
            x = branched(y, c, act="gelu")(y)
        elif x.channels != c:
            raise SpaceError(f"channels must stay as they are at stride 1, but are {x.channels} -> {c}")
        mixed = branched(x, c, 3, 1, c)
        difference = Branched((*mixed.branches, BatchNorm(start=-1.0)), scale=START)
        x = Branched((difference, None))(x)
        y = Conv(int(self.expand * c), norm=False, bias=True, act="gelu")(Conv(c, 7, groups=c, act="")(x))
        return x + Conv(c, norm=False, bias=True, scale=START, act="")(y)
