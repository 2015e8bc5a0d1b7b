"""Inverted residual with squeeze and excitation (MobileNetV3, arXiv:1905.02244, fig. 4; EfficientNetV2,
arXiv:2104.00298, fig. 2).
"""

from dataclasses import dataclass

from mvnas.blocks._parts import SqueezeExcite, divisible
from mvnas.errors import SpaceError, unknown
from mvnas.graph import Layer
from mvnas.ops import Conv, Value

GATES = ("", "hidden", "input")


@dataclass(frozen=True)
class Block:
    """(C, H, W) -> (channels, H / stride, W / stride): expansion 1 x 1, depthwise, gate, linear projection 1 x 1.

    The hidden width is C * expand rounded to a multiple of 8; `expand` 1 has no expansion. The input is added where the
    shapes agree. A gate `se` squeezes a quarter of the `hidden` width, with ReLU and a hard sigmoid (MobileNetV3), or
    of the width of the `input`, with `act` and a sigmoid (EfficientNet). `same` pads as TensorFlow does; `eps` is the
    batch norms'.
    """

    channels: int
    kernel: int = 3
    stride: int = 1
    expand: float = 4.0
    act: str = "silu"
    se: str = ""
    same: bool = False
    eps: float = 1e-5

    def __call__(self, x: Value) -> Value:
        if self.se not in GATES:
            raise SpaceError(unknown("se", self.se, GATES))
        hidden = divisible(x.channels * self.expand)
        y = x if self.expand == 1 else Conv(hidden, act=self.act, eps=self.eps)(x, role="expand")
        depthwise = Conv(
            y.channels, self.kernel, self.stride, groups=y.channels, act=self.act, same=self.same, eps=self.eps
        )
        y = depthwise(y, role="depthwise")
        if self.se == "hidden":
            y = Layer(SqueezeExcite(divisible(y.channels / 4), gate="hardsigmoid"))(y, role="gate")
        elif self.se:
            y = Layer(SqueezeExcite(max(1, x.channels // 4), act=self.act))(y, role="gate")
        y = Conv(self.channels, act="", eps=self.eps)(y, role="project")
        return x + y if y.shape == x.shape else y
