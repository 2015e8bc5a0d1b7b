"""ElasticViT's mobile block (arXiv:2303.09730; microsoft/Moonlit): (C, H, W) -> (channels, H / stride, W / stride)."""

from dataclasses import dataclass

from mvnas.blocks._parts import SqueezeExcite
from mvnas.graph import Layer
from mvnas.ops import Conv, Pool, Value


@dataclass(frozen=True)
class Block:
    """Expansion 1 x 1, depthwise, gate with `se`, projection 1 x 1, hard swish; the input is always added.

    To be added, the input is averaged where the stride is 2, and goes through a 1 x 1 convolution where channels
    change. (The authors' average of an odd map begins outside of it and counts zeros; this one ends outside and counts
    none.) `expand` 1 has no expansion.
    """

    channels: int
    kernel: int = 3
    stride: int = 1
    expand: float = 4.0
    se: bool = False

    def __call__(self, x: Value) -> Value:
        hidden = int(self.expand * x.channels)
        y = x if self.expand == 1 else Conv(hidden, act="hardswish")(x, role="expand")
        y = Conv(hidden, self.kernel, self.stride, groups=hidden, act="hardswish")(y, role="depthwise")
        if self.se:
            y = Layer(SqueezeExcite(hidden // 4, gate="hardsigmoid"))(y, role="gate")
        y = Conv(self.channels, act="")(y, role="project")
        x = Pool(self.stride, self.stride)(x) if self.stride > 1 else x
        return y + (x if x.channels == self.channels else Conv(self.channels, norm=False, act="")(x, role="skip"))
