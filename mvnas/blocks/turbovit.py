"""TurboViT's block (arXiv:2308.11421): mask-unit attention and Q-pooling, as in Hiera (arXiv:2306.00989)."""

from dataclasses import dataclass

from mvnas.blocks._attention import heads_of
from mvnas.blocks._parts import check_divides, dense, feed_forward
from mvnas.errors import SpaceError
from mvnas.ops import Attention, Fold, LayerNorm, Linear, Pool, Resize, Unfold, Value

NORM = LayerNorm(eps=1e-6)


@dataclass(frozen=True)
class Block:
    """(C, H, W) -> (channels, H / stride, W / stride): attention within `window` x `window` pixels, then a feed-forward
    layer.

    A window of 0 is the whole map. At stride 2 the queries, and what they are added to, are maxima of 2 x 2 pixels
    (Q-pooling), and the input is projected to `channels`; else these stay (0). Heads have `head_width` channels, a
    hidden width is `mlp` times the channels. Maps of other sizes, as in training, are resized to whole windows.
    TurboViT's own table of layers is not public: Hiera-T is what this block is tested by.

    Raises:
        SpaceError: the window does not divide the map, or the stride not the window, or the head's width does not
            divide the channels.
    """

    channels: int = 0
    stride: int = 1
    window: int = 0
    head_width: int = 32
    mlp: float = 4.0

    def __call__(self, x: Value) -> Value:
        c = self.channels or x.channels
        if self.window % self.stride:
            raise SpaceError(f"the stride must divide the window, but got stride {self.stride} of {self.window}")
        if self.window:
            check_divides(self.window, x)
            x = Resize(self.window)(x)
        y = NORM(x, role="norm")
        tokens = self.unfold(y)
        query = Linear(c, gain=self.head_width**-0.5)(tokens, role="attention.query")
        if self.stride > 1 or c != x.channels:
            x = dense(y, c, role="skip")
        if self.stride > 1:
            pool = Pool(self.stride, self.stride, largest=True)
            x, query = pool(x), self.unfold(pool(self.fold(query, y)), self.stride)
        key, value = (Linear(c)(tokens, role=f"attention.{name}") for name in ("key", "value"))
        mixed = Attention(heads_of(query, self.head_width))(query, key, value)
        x = x + self.fold(Linear(c)(mixed, role="attention.project"), x, self.stride)
        return feed_forward(x, self.mlp, norm=NORM)

    def unfold(self, x: Value, pooled: int = 1) -> Value:
        """The tokens of each window of a map, which may be of `pooled` pixels each way."""
        return Unfold(self.window // pooled, windows=True)(x) if self.window else Unfold(1)(x)

    def fold(self, tokens: Value, like: Value, pooled: int = 1) -> Value:
        """The map of tokens of windows."""
        fold = Fold(self.window // pooled, windows=True) if self.window else Fold(1)
        return fold(tokens, like)
