"""EfficientViT's sandwich (MSRA, arXiv:2305.07027, fig. 6 and eq. 1-4): cascaded group attention."""

from dataclasses import dataclass

from mvnas.blocks._parts import SqueezeExcite, check_divides, divisible, joined, same_channels
from mvnas.errors import SpaceError
from mvnas.graph import Layer
from mvnas.ops import Act, Attention, Branched, Conv, Fold, GridBias, Resize, Slice, Unfold, Value


@dataclass(frozen=True)
class Block:
    """(C, H, W) -> (C, H, W), or of stride 2 an inverted residual with a gate: (channels, H / 2, W / 2).

    Attention is within windows of `window` x `window` pixels, or over a smaller map. Each of the `heads` has queries
    and keys of `width` numbers, and `kernels` holds a digit for each: the size of the convolution on its queries. The
    reference code pads maps that windows do not divide, by pixels that are attended to; here these are illegal.

    Raises:
        SpaceError: windows do not divide the map, heads do not divide the channels, a head has no odd kernel, or the
            block keeps the size and does not keep the channels.
    """

    channels: int = 0
    stride: int = 1
    heads: int = 4
    kernels: str = "5555"
    width: int = 16
    window: int = 7

    def __call__(self, x: Value) -> Value:
        x = mix(x, "before")
        if self.stride == 1 and same_channels(x, self.channels):
            return mix(x + self.attend(x), "after")
        hidden = 4 * x.channels
        y = Conv(hidden, act="relu")(x, role="expand")
        y = Conv(hidden, 3, self.stride, groups=hidden, act="relu")(y, role="depthwise")
        y = Layer(SqueezeExcite(divisible(hidden / 4, guard=0)))(y, role="gate")
        return mix(Conv(self.channels, act="")(y, role="project"), "after")

    def attend(self, x: Value) -> Value:
        """Cascaded group attention (eq. 2-4): a head sees its channels and what the one before it made."""
        c, side = x.channels, min(self.window, *x.shape[1:])
        check_divides(side, x)
        if c % self.heads or len(self.kernels) < self.heads or set(self.kernels) - set("13579"):
            raise SpaceError(f"{self.heads} heads must divide {c} channels and have kernels, but got {self.kernels}")
        grid = Resize(side)(x)
        tokens, share = Unfold(side, windows=True)(grid), c // self.heads
        made: list[Value] = []
        for i, kernel in enumerate(self.kernels[: self.heads]):
            y = Slice(share, first=i * share)(tokens)
            y = made[-1] + y if made else y
            widths = {"query": self.width, "key": self.width, "value": share}
            query, key, value = (Conv(width, act="")(y, role=f"heads.{i}.{name}") for name, width in widths.items())
            around = Conv(self.width, int(kernel), groups=self.width, act="", gain=self.width**-0.5)
            query = around(query, role=f"heads.{i}.around")
            made.append(Attention(1, bias=GridBias((side, side)))(query, key, value, role=f"heads.{i}.attend"))
        mixed = Conv(c, act="")(Act("relu")(joined(made)), role="heads_project")
        return Resize()(Fold(side, windows=True)(mixed, grid), x)


def mix(x: Value, role: str) -> Value:
    """Mix pixels by a depthwise convolution, then channels by a feed-forward layer: (C, H, W) -> (C, H, W)."""
    x = Branched((Conv(x.channels, 3, groups=x.channels, act=""), None))(x, role=f"{role}.depthwise")
    hidden = Conv(2 * x.channels, act="relu")(x, role=f"{role}.expand")
    return x + Conv(x.channels, act="")(hidden, role=f"{role}.project")
