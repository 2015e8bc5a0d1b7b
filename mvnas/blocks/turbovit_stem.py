"""The patch embedding of TurboViT and Hiera (arXiv:2306.00989): (3, H, W) -> (channels, H / 4, W / 4)."""

from dataclasses import dataclass

from mvnas.ops import Conv, Fold, Position, Unfold, Value


@dataclass(frozen=True)
class Block:
    """Convolution 7 x 7 of stride 4; a learned vector is added to every pixel."""

    channels: int

    def __call__(self, x: Value) -> Value:
        y = Conv(self.channels, 7, 4, norm=False, bias=True, act="")(x, role="conv")
        return Fold(1)(Position()(Unfold(1)(y), role="position"), y)
