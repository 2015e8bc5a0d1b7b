"""EfficientFormerV2's down-sampling (arXiv:2212.08059, sec. 3.4 and fig. 2): (C, H, W) -> (channels, H / 2, W / 2)."""

from dataclasses import dataclass

from mvnas.ops import Act, Attention, Conv, Fold, GridBias, Pool, Unfold, Value, check_unused


@dataclass(frozen=True)
class Block:
    """A 3 x 3 convolution of stride 2; with `heads`, plus attention of every other pixel to all (attention
    down-sampling).

    The biases are those of distances on a map of `side` x `side`. A head has queries and keys of width `key` and values
    four times as wide.

    Raises:
        SpaceError: fields of the attention are given without `heads`.
    """

    channels: int
    heads: int = 0
    key: int = 16
    side: int = 14

    def __call__(self, x: Value) -> Value:
        down = Conv(self.channels, 3, 2, act="", bias=True)(x, role="down")
        if not self.heads:
            check_unused(self, ("key", "side"), "without heads")
            return down
        c, width = x.channels, self.heads * self.key
        near = Conv(c, 3, 2, groups=c, norm=False, act="", bias=True)(x, role="near") + Pool(1, 2)(x)
        query = Conv(width, act="", bias=True, gain=self.key**-0.5)(near, role="query")
        key = Conv(width, act="", bias=True)(x, role="key")
        value = Conv(4 * width, act="", bias=True)(x, role="value")
        local = Conv(4 * width, 3, 2, groups=4 * width, act="", bias=True)(value, role="local")
        attention = Attention(self.heads, bias=GridBias((self.side, self.side), stride=2))
        mixed = attention(*(Unfold(1)(z) for z in (query, key, value)), role="attend")
        return down + Conv(self.channels, act="", bias=True)(Act("gelu")(Fold(1)(mixed, local) + local), role="project")
