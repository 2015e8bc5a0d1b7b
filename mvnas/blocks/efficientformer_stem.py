"""EfficientFormer's stem (arXiv:2206.01191, sec. 3.2): (3, H, W) -> (channels, H / 4, W / 4)."""

from dataclasses import dataclass

from mvnas.ops import Conv, Value


@dataclass(frozen=True)
class Block:
    """Two 3 x 3 convolutions of stride 2, each with bias, batch norm and `act`."""

    channels: int
    act: str = "relu"

    def __call__(self, x: Value) -> Value:
        half = Conv(self.channels // 2, 3, 2, act=self.act, bias=True)(x, role="convs.0")
        return Conv(self.channels, 3, 2, act=self.act, bias=True)(half, role="convs.1")
