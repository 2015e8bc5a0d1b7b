"""Fused inverted residual (EfficientNetV2, arXiv:2104.00298, fig. 2): (C, H, W) -> (channels, H / stride, W /
stride).
"""

from dataclasses import dataclass

from mvnas.blocks._parts import divisible
from mvnas.ops import Conv, Value


@dataclass(frozen=True)
class Block:
    """A full convolution to the hidden width C * expand, linear projection 1 x 1; the input is added where the shapes
    agree.

    With `expand` 1 it is only the convolution. `same` pads as TensorFlow does; `eps` is the batch norms'.
    """

    channels: int
    kernel: int = 3
    stride: int = 1
    expand: float = 4.0
    act: str = "silu"
    same: bool = False
    eps: float = 1e-5

    def __call__(self, x: Value) -> Value:
        out = self.channels if self.expand == 1 else divisible(x.channels * self.expand)
        y = Conv(out, self.kernel, self.stride, act=self.act, same=self.same, eps=self.eps)(x, role="expand")
        y = y if self.expand == 1 else Conv(self.channels, act="", eps=self.eps)(y, role="project")
        return x + y if y.shape == x.shape else y
