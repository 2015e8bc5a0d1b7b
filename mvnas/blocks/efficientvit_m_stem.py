"""The overlapping patch embedding of MSRA's EfficientViT (arXiv:2305.07027, sec. 3.2): (3, H, W) -> (channels, H /
16, W / 16).
"""

from dataclasses import dataclass

from mvnas.ops import Conv, Value


@dataclass(frozen=True)
class Block:
    """Four 3 x 3 convolutions of stride 2, each twice as wide as the one before, with ReLU between them."""

    channels: int

    def __call__(self, x: Value) -> Value:
        for i, part in enumerate((8, 4, 2)):
            x = Conv(self.channels // part, 3, 2, act="relu")(x, role=f"convs.{i}")
        return Conv(self.channels, 3, 2, act="")(x, role="convs.3")
