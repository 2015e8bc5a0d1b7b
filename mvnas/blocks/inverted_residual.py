"""MobileNetV2 inverted residual (arXiv:1801.04381, fig. 4): (C, H, W) -> (channels, H / stride, W / stride)."""

from dataclasses import dataclass

from mvnas.blocks._parts import divisible
from mvnas.ops import Conv, Value


@dataclass(frozen=True)
class Block:
    """Expansion 1 x 1, depthwise 3 x 3, linear projection 1 x 1; the input is added where the shapes agree.

    The hidden width is C * expand rounded to a multiple of 8, as in the reference code; `expand` 1 has no expansion.
    """

    channels: int
    stride: int = 1
    expand: float = 4.0

    def __call__(self, x: Value) -> Value:
        hidden = divisible(x.channels * self.expand)
        y = x if self.expand == 1 else Conv(hidden)(x, role="expand")
        y = Conv(y.channels, kernel=3, stride=self.stride, groups=y.channels)(y, role="depthwise")
        y = Conv(self.channels, act="")(y, role="project")
        return x + y if y.shape == x.shape else y
