"""TinyViT's transformer block (arXiv:2207.10666, sec. 3.2; microsoft/Cream): (C, H, W) -> (C, H, W)."""

from dataclasses import dataclass

from mvnas.blocks._attention import attend, heads_of
from mvnas.blocks._parts import check_divides, feed_forward
from mvnas.ops import Attention, Conv, Fold, GridBias, LayerNorm, Resize, Unfold, Value


@dataclass(frozen=True)
class Block:
    """Attention within windows of `window` x `window`, a depthwise 3 x 3 convolution, a feed-forward layer.

    A head has `head_width` channels, and its scores a learned number for every distance added. The hidden width is
    `mlp` times the channels. Attention and the feed-forward layer have a layer norm before and the input added after
    them. Maps of other sizes, as in training, are resized to whole windows.

    Raises:
        SpaceError: the window does not divide the map, or the head's width not the channels.
    """

    window: int = 7
    head_width: int = 32
    mlp: float = 4.0

    def __call__(self, x: Value) -> Value:
        check_divides(self.window, x)
        x = Resize(self.window)(x)
        y = LayerNorm()(Unfold(self.window, windows=True)(x), role="norm")
        y = attend(y, Attention(heads_of(x, self.head_width), bias=GridBias((self.window, self.window))))
        x = x + Fold(self.window, windows=True)(y, x)
        x = Conv(x.channels, 3, groups=x.channels, act="")(x, role="local")
        return feed_forward(x, self.mlp)
