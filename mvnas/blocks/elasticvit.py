"""ElasticViT's transformer block (arXiv:2303.09730; microsoft/Moonlit): (C, H, W) -> (C, H, W)."""

from dataclasses import dataclass

from mvnas.blocks._attention import heads_of
from mvnas.blocks._parts import feed_forward
from mvnas.ops import Act, Attention, Conv, Fold, GridBias, LayerNorm, Linear, Unfold, Value


@dataclass(frozen=True)
class Block:
    """Attention among all pixels with values `values` times as wide, through a depthwise 3 x 3 convolution;
    feed-forward layer.

    A head has `head_width` channels of queries and keys, and its scores a learned number for every distance added. What
    it yields goes through a hard swish, as in the feed-forward layer, whose hidden width is `mlp` times the channels.

    Raises:
        SpaceError: the width of a head does not divide the channels.
    """

    values: int = 2
    mlp: float = 2.0
    head_width: int = 16

    def __call__(self, x: Value) -> Value:
        c, h, w = x.shape
        tokens = Unfold(1)(x)
        y = LayerNorm()(tokens, role="norm")
        wide = Fold(1)(Linear(self.values * c, bias=False)(y, role="attention.value"), x)
        local = Conv(self.values * c, 3, groups=self.values * c, norm=False, act="")
        value = Unfold(1)(local(wide, role="attention.local"))
        query = Linear(c, gain=self.head_width**-0.5, bias=False)(y, role="attention.query")
        key = Linear(c, bias=False)(y, role="attention.key")
        attention = Attention(heads_of(x, self.head_width), bias=GridBias((h, w), signed=True))
        mixed = attention(query, key, value, role="attention.attend")
        tokens = tokens + Linear(c)(Act("hardswish")(mixed), role="attention.project")
        return Fold(1)(feed_forward(tokens, self.mlp, act="hardswish"), x)
