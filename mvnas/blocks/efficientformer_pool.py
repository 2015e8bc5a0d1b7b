"""EfficientFormer's block on maps, MB4D (arXiv:2206.01191, eq. 3): (C, H, W) -> (channels, H / stride, W / stride)."""

from dataclasses import dataclass

from mvnas.blocks._parts import same_channels
from mvnas.ops import Affine, Conv, Pool, Sub, Value

START = 1e-5  # of layer scales


@dataclass(frozen=True)
class Block:
    """x + scale * (mean of 3 x 3 pixels - x), then a feed-forward layer; of stride 2, after a convolution.

    A hidden width is `expand` times the channels; `channels` 0 are those of the input, which stride 1 keeps.
    """

    channels: int = 0
    stride: int = 1
    expand: float = 4.0

    def __call__(self, x: Value) -> Value:
        if self.stride > 1:
            x = Conv(self.channels or x.channels, 3, self.stride, act="", bias=True)(x, role="down")
        c = same_channels(x, self.channels)
        x = x + Affine(START, bias=False)(Sub()(Pool(3)(x), x), role="scale")
        hidden = Conv(int(self.expand * c), act="gelu", bias=True)(x, role="mlp.expand")
        return x + Conv(c, act="", bias=True, scale=START)(hidden, role="mlp.project")
