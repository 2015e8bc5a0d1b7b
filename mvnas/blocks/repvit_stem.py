"""RepViT's early convolutions (arXiv:2307.09283, sec. 3.2): (3, H, W) -> (channels, H / 4, W / 4)."""

from dataclasses import dataclass

from mvnas.ops import Conv, Value


@dataclass(frozen=True)
class Block:
    """Two 3 x 3 convolutions of stride 2 with GELU between them."""

    channels: int

    def __call__(self, x: Value) -> Value:
        return Conv(self.channels, 3, 2, act="")(
            Conv(self.channels // 2, 3, 2, act="gelu")(x, role="convs.0"), role="convs.1"
        )
