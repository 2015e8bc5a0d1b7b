"""FastViT's stem (arXiv:2303.14189, sec. 3.2.2): (3, H, W) -> (channels, H / 4, W / 4)."""

from dataclasses import dataclass

from mvnas.blocks._parts import branched
from mvnas.ops import Value


@dataclass(frozen=True)
class Block:
    """MobileOne's convolutions: 3 x 3 of stride 2, depthwise 3 x 3 of stride 2, 1 x 1; GELU after each."""

    channels: int

    def __call__(self, x: Value) -> Value:
        y = branched(x, self.channels, 3, 2, act="gelu")(x, role="convs.0")
        y = branched(y, self.channels, 3, 2, self.channels, act="gelu")(y, role="convs.1")
        return branched(y, self.channels, act="gelu")(y, role="convs.2")
