"""EdgeViT's local-global-local block (arXiv:2205.03436, fig. 2 and eq. 1)."""

from dataclasses import dataclass

from mvnas.blocks._attention import mix
from mvnas.blocks._parts import check_divides, dense, feed_forward, normed, same_channels
from mvnas.ops import Attention, BatchNorm, Branched, Conv, Fold, LayerNorm, Linear, Pool, Resize, Spread, Unfold, Value

NORM = LayerNorm(eps=1e-6)  # before attention and feed-forward layer


@dataclass(frozen=True)
class Block:
    """(C, H, W) -> (channels, H / stride, W / stride): one delegate of `rate` x `rate` pixels attends to the others.

    Pixels are gathered locally before, and the result is spread to them. Rate 1 has attention among all pixels. A
    hidden width is `expand` times the channels. Of stride 2 or more, patches of `stride` x `stride` are embedded first.

    Raises:
        SpaceError: the rate does not divide the map, or the block keeps the size and does not keep the channels.
    """

    channels: int = 0
    stride: int = 1
    rate: int = 2
    heads: int = 4
    expand: float = 4.0

    def __call__(self, x: Value) -> Value:
        if self.stride > 1:
            patches = Conv(self.channels, self.stride, self.stride, norm=False, bias=True, same=True, act="")
            x = normed(patches(x, role="embed"), "embed_norm")
        same_channels(x, self.channels)
        check_divides(self.rate, x, "rate")
        x = Resize(self.rate)(x)
        return self.attend(around(self.gather(x) if self.rate > 1 else x, "position"))

    def gather(self, x: Value) -> Value:
        """Local aggregation: each pixel takes up those around it, then a feed-forward layer."""
        c, x = x.channels, around(x, "gather.position")
        y = dense(BatchNorm()(x, role="gather.norm"), c, role="gather.expand")
        y = dense(depthwise(c, kernel=5)(y, role="gather.depthwise"), c, role="gather.project")
        return feed_forward(x + y, self.expand, norm=BatchNorm(), role="gather.mlp")

    def attend(self, x: Value) -> Value:
        """Global sparse attention among delegates, local propagation, and a feed-forward layer."""
        apart = self.rate > 1
        tokens = Unfold(1)(Pool(1, self.rate)(x) if apart else x)
        mixed = mix(NORM(tokens, role="norm"), Attention(self.heads))
        mixed = LayerNorm()(Spread(self.rate)(mixed, role="spread"), role="spread_norm") if apart else mixed
        y = Unfold(self.rate, windows=apart)(x) + Linear(x.channels)(mixed, role="project")
        return Fold(self.rate, windows=apart)(feed_forward(y, self.expand, norm=NORM), x)


def depthwise(channels: int, kernel: int) -> Conv:
    """A depthwise convolution with a bias, without norm and activation."""
    return Conv(channels, kernel, groups=channels, norm=False, bias=True, act="")


def around(x: Value, role: str) -> Value:
    """The map and a depthwise convolution of it, by which pixels know where they are (arXiv:2102.10882)."""
    return Branched((depthwise(x.channels, kernel=3), None))(x, role=role)
