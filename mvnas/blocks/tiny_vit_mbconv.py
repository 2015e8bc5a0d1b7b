"""TinyViT's convolutions of the first stage and between stages (arXiv:2207.10666, sec. 3.2; microsoft/Cream)."""

from dataclasses import dataclass

from mvnas.blocks._parts import same_channels
from mvnas.ops import Act, Conv, Value


@dataclass(frozen=True)
class Block:
    """(C, H, W) -> (channels, H / stride, W / stride): 1 x 1, depthwise 3 x 3 and 1 x 1 convolution, GELU between them.

    At stride 1 the channels stay, the hidden width is `expand` times theirs, the input is added, and GELU follows the
    sum. At stride 2 the hidden width is that of the output (patch merging). With `channels` 0 they stay as well.

    Raises:
        SpaceError: the block keeps the size and does not keep the channels.
    """

    channels: int = 0
    stride: int = 1
    expand: float = 4.0

    def __call__(self, x: Value) -> Value:
        out = same_channels(x, self.channels) if self.stride == 1 else self.channels or x.channels
        hidden = int(self.expand * out) if self.stride == 1 else out
        y = Conv(hidden, act="gelu")(x, role="expand")
        y = Conv(hidden, 3, self.stride, groups=hidden, act="gelu")(y, role="depthwise")
        y = Conv(out, act="")(y, role="project")
        return Act("gelu")(x + y) if self.stride == 1 else y
