"""EfficientViT's sandwich (MSRA, arXiv:2305.07027, fig. 6 and eq. 1-4): cascaded group attention between feed-forward layers."""

from dataclasses import dataclass

from mvnas.blocks._parts import SqueezeExcite, divisible, kept
from mvnas.errors import SpaceError
from mvnas.ops import Act, Attention, Branched, Concat, Conv, Fold, Layer, Resize, Slice, Unfold, Value


@dataclass(frozen=True)
class Block:
    """(C, H, W) -> (C, H, W), or of stride 2 a down-sampling, which does not attend: (channels, H / 2, W / 2).

    Attention is within windows of `window` x `window` pixels, or over a smaller map. Each of the `heads` has queries and keys
    of `width` numbers, and `kernels` holds a digit for each: the size of the convolution on its queries. The reference code pads
    maps that windows do not divide, by pixels that are attended to; here these are illegal.

    Raises:
        SpaceError: windows do not divide the map, heads do not divide the channels, a head has no odd kernel, or the block keeps
            the size and does not keep the channels.
    """

    channels: int = 0
    stride: int = 1
    heads: int = 4
    kernels: str = "5555"
    width: int = 16
    window: int = 7

    def __call__(self, x: Value) -> Value:
        if self.stride > 1:
            return mix(self.merge(mix(x)))
        kept(x, self.channels)
        x = mix(x)
        return mix(x + self.attend(x))

    def merge(self, x: Value) -> Value:
        """Down-sampling by an inverted residual with squeeze and excitation."""
        hidden = 4 * x.channels
        y = Conv(hidden, 3, self.stride, groups=hidden, act="relu")(Conv(hidden, act="relu")(x))
        return Conv(self.channels, act="")(Layer(SqueezeExcite(divisible(hidden / 4, guard=0)))(y))

    def attend(self, x: Value) -> Value:
        """Cascaded group attention (eq. 2-4): each head sees its share of the channels and what the one before it made."""
        c, h, w = x.shape
        side = min(self.window, h, w)
        if h % side or w % side:
            raise SpaceError(f"windows must divide the map, but got window {side} on {h} x {w}")
        if c % self.heads or len(self.kernels) < self.heads or set(self.kernels) - set("13579"):
            raise SpaceError(
                f"{self.heads} heads must divide {c} channels and have a kernel each, but got {self.kernels}"
            )
        grid = Resize(side)(x)
        tokens, share = Unfold(side, windows=True)(grid), c // self.heads
        heads: list[Value] = []
        for i, kernel in enumerate(self.kernels[: self.heads]):
            y = Slice(share, first=i * share)(tokens)
            y = heads[-1] + y if heads else y
            query = Conv(self.width, int(kernel), groups=self.width, act="", gain=self.width**-0.5)
            attention = Attention(1, grid=(side, side))
            heads.append(
                attention(query(Conv(self.width, act="")(y)), Conv(self.width, act="")(y), Conv(share, act="")(y))
            )
        joined = Act("relu")(Concat()(*heads) if len(heads) > 1 else heads[0])
        return Resize()(Fold(side, windows=True)(Conv(c, act="")(joined), grid), x)


def mix(x: Value) -> Value:
    """Pixels mixed by a depthwise convolution beside the input, then channels by a feed-forward layer: (C, H, W) -> (C, H, W)."""
    c = x.channels
    x = Branched((Conv(c, 3, groups=c, act=""), None))(x)
    return x + Conv(c, act="")(Conv(2 * c, act="relu")(x))
