"""MobileOne block (arXiv:2206.04040, fig. 3): (C, H, W) -> (channels, H / stride, W / stride)."""

from dataclasses import dataclass

from mvnas.blocks._parts import branched
from mvnas.ops import Value


@dataclass(frozen=True)
class Block:
    """A depthwise 3 x 3 and a 1 x 1 convolution, each a sum of `branches` equal ones, a 1 x 1 and a batch norm until
    deployed.
    """

    channels: int
    stride: int = 1
    branches: int = 1
    act: str = "relu"

    def __call__(self, x: Value) -> Value:
        y = branched(x, x.channels, 3, self.stride, x.channels, branches=self.branches, act=self.act)(
            x, role="depthwise"
        )
        return branched(y, self.channels, branches=self.branches, act=self.act)(y, role="pointwise")
