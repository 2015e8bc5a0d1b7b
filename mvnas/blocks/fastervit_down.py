"""FasterViT's down-sampling (arXiv:2306.06189, sec. 3.3): (C, H, W) -> (channels, H / 2, W / 2)."""

from dataclasses import dataclass

from mvnas.ops import Affine, Conv, LayerNorm, Value


@dataclass(frozen=True)
class Block:
    """Layer norm and a 3 x 3 convolution of stride 2. Its zeros around the map keep scale and shift of the norm from
    folding.
    """

    channels: int

    def __call__(self, x: Value) -> Value:
        return Conv(self.channels, 3, 2, norm=False, act="")(
            Affine()(LayerNorm(affine=False, eps=1e-6)(x), role="norm"), role="conv"
        )
