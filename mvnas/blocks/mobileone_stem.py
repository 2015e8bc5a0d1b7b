"""MobileOne's first convolution (arXiv:2206.04040, table 2): (3, H, W) -> (channels, H / 2, W / 2)."""

from dataclasses import dataclass

from mvnas.blocks._parts import branched
from mvnas.ops import Value


@dataclass(frozen=True)
class Block:
    """A 3 x 3 convolution of stride 2 with a 1 x 1 branch until deployed, and ReLU."""

    channels: int

    def __call__(self, x: Value) -> Value:
        return branched(x, self.channels, 3, 2, act="relu")(x, role="conv")
