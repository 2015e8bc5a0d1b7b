"""FastViT's last convolution and classifier (arXiv:2303.14189, fig. 2): (C, H, W) -> (classes,)."""

from dataclasses import dataclass
from math import gcd

from mvnas.blocks._parts import SqueezeExcite, branched
from mvnas.ops import Act, Linear, Pool, Value


@dataclass(frozen=True)
class Block:
    """MobileOne's 3 x 3 convolution, with as many groups as divide both widths, squeeze and excitation, GELU; pool,
    classifier.
    """

    channels: int
    classes: int = 1000

    def __call__(self, x: Value) -> Value:
        y = branched(x, self.channels, 3, 1, gcd(self.channels, x.channels))(x, role="conv")
        y = Act("gelu")(SqueezeExcite(round(self.channels / 16))(y, "gate."))
        return Linear(self.classes)(Pool()(y), role="classify")
