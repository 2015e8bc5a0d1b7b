"""EfficientFormerV2's block (arXiv:2212.08059, fig. 2): (C, H, W) -> (C, H, W)."""

from dataclasses import dataclass

from mvnas.graph import Layer
from mvnas.ops import Act, Attention, Conv, Fold, GridBias, Resize, Unfold, Value, check_unused

START = 1e-5  # of layer scales


@dataclass(frozen=True)
class Block:
    """With `heads`, attention with a local branch; then a feed-forward layer with a depthwise 3 x 3 in it.

    Attention is at half the size with `half` (stride attention, sec. 3.4), and has a bias for each distance on a map of
    `side` x `side`. A head has queries and keys of width `key` and values four times as wide. A hidden width is
    `expand` times the channels.

    Raises:
        SpaceError: fields of the attention are given without `heads`.
    """

    expand: float = 4.0
    heads: int = 0
    key: int = 32
    half: bool = False
    side: int = 7

    def __call__(self, x: Value) -> Value:
        c = x.channels
        if not self.heads:
            check_unused(self, ("key", "half", "side"), "without heads")
        else:
            x = Layer(Mixer(self.heads, self.key, self.half, self.side))(x, role="mixer")
        y = Conv(int(self.expand * c), act="gelu", bias=True)(x, role="mlp.expand")
        y = Conv(y.channels, 3, groups=y.channels, act="gelu", bias=True)(y, role="mlp.depthwise")
        return x + Conv(c, act="", bias=True, scale=START)(y, role="mlp.project")


@dataclass(frozen=True)
class Mixer:
    """Attention whose heads talk, with a depthwise 3 x 3 of the values beside it, and a residual: (C, H, W) -> (C,
    H, W).
    """

    heads: int
    key: int
    half: bool
    side: int

    def __call__(self, x: Value) -> Value:
        c, width = x.channels, self.heads * self.key
        y = Conv(c, 3, 2, groups=c, act="", bias=True)(x, role="down") if self.half else x
        value = Conv(4 * width, act="", bias=True)(y, role="value")
        query = Conv(width, act="", bias=True, gain=self.key**-0.5)(y, role="query")
        key = Conv(width, act="", bias=True)(y, role="key")
        local = Conv(4 * width, 3, groups=4 * width, act="", bias=True)(value, role="local")
        attention = Attention(self.heads, bias=GridBias((self.side, self.side)), talking=True)
        mixed = attention(*(Unfold(1)(z) for z in (query, key, value)), role="attend")
        y = Act("gelu")(Resize()(Fold(1)(mixed, y) + local, x))
        return x + Conv(c, act="", bias=True, scale=START)(y, role="project")
