"""First convolution: (3, H, W) -> (channels, H / 2, W / 2)."""

from dataclasses import dataclass

from mvnas.ops import Conv, Value


@dataclass(frozen=True)
class Block:
    """Convolution 3 x 3 of stride 2, batch norm and SiLU."""

    channels: int

    def __call__(self, x: Value) -> Value:
        return Conv(self.channels, kernel=3, stride=2)(x, role="conv")
