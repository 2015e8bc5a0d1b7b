"""Last convolution, pool and classifier: (C, H, W) -> (classes,)."""

from dataclasses import dataclass

from mvnas.ops import Conv, Linear, Pool, Value


@dataclass(frozen=True)
class Block:
    """1 x 1 convolution to `channels`, global average pool, linear classifier."""

    channels: int
    classes: int = 1000

    def __call__(self, x: Value) -> Value:
        return Linear(self.classes)(Pool()(Conv(self.channels)(x, role="conv")), role="classify")
