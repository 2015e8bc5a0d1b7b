"""TurboViT's block (arXiv:2308.11421): mask-unit attention and Q-pooling, as in Hiera (arXiv:2306.00989)."""

from dataclasses import dataclass

from mvnas.errors import SpaceError
from mvnas.ops import Attention, Conv, Fold, LayerNorm, Linear, Pool, Resize, Unfold, Value

EPS = 1e-6  # of layer norms


@dataclass(frozen=True)
class Block:
    """(C, H, W) -> (channels, H / stride, W / stride): attention within `window` x `window` pixels, then a feed-forward layer.

    A window of 0 is the whole map. At stride 2 the queries, and what they are added to, are maxima of 2 x 2 pixels (Q-pooling),
    and the input is projected to `channels`; else these stay (0). Heads have `head_width` channels, a hidden width is `mlp` times
    the channels. Maps of other sizes, as in training, are resized to whole windows. TurboViT's own table of layers is not public:
    Hiera-T is what this block is tested by.

    Raises:
        SpaceError: the window does not divide the map, or at stride 2 is odd, or the head's width does not divide the channels.
    """

    channels: int = 0
    stride: int = 1
    window: int = 0
    head_width: int = 32
    mlp: float = 4.0

    def __call__(self, x: Value) -> Value:
        c = self.channels or x.channels
        if c % self.head_width:
            raise SpaceError(f"the width of a head must divide the channels, but got {self.head_width} of {c}")
        if self.window:
            if x.shape.h % self.window or x.shape.w % self.window or self.window % self.stride:
                told = f"window {self.window} and stride {self.stride} on {x.shape.h} x {x.shape.w}"
                raise SpaceError(f"the window must divide the map, and the stride the window, but got {told}")
            x = Resize(self.window)(x)
        y = LayerNorm(eps=EPS)(x)
        tokens = self.unfold(y)
        query = Linear(c, gain=self.head_width**-0.5)(tokens)
        if self.stride > 1 or c != x.channels:
            x = Conv(c, norm=False, bias=True, act="")(y)
        if self.stride > 1:
            pool = Pool(self.stride, self.stride, largest=True)
            x, query = pool(x), self.unfold(pool(self.fold(query, y)), self.stride)
        mixed = Attention(c // self.head_width)(query, Linear(c)(tokens), Linear(c)(tokens))
        x = x + self.fold(Linear(c)(mixed), x, self.stride)
        y = Conv(int(self.mlp * c), norm=False, bias=True, act="gelu")(LayerNorm(eps=EPS)(x))
        return x + Conv(c, norm=False, bias=True, act="")(y)

    def unfold(self, x: Value, pooled: int = 1) -> Value:
        """The tokens of each window of a map, which may be of `pooled` pixels each way."""
        return Unfold(self.window // pooled, windows=True)(x) if self.window else Unfold(1)(x)

    def fold(self, tokens: Value, like: Value, pooled: int = 1) -> Value:
        """The map of tokens of windows."""
        fold = Fold(self.window // pooled, windows=True) if self.window else Fold(1)
        return fold(tokens, like)
