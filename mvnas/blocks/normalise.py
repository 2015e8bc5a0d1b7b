"""What comes before the stem of a network that was trained on images of another range: (3, H, W) -> (3, H, W)."""

from dataclasses import dataclass

from mvnas.ops import Normalise, Value


@dataclass(frozen=True)
class Block:
    """Images in [0, 1] to (255 x - mean) / deviation, without anything to learn."""

    mean: float = 127.0
    deviation: float = 128.0

    def __call__(self, x: Value) -> Value:
        return Normalise(self.mean, self.deviation)(x)
