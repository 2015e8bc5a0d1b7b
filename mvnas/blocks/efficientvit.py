"""EfficientViT's module (MIT, arXiv:2205.14756, fig. 2 and 3): multi-scale linear attention and an inverted
residual.
"""

from dataclasses import dataclass

from mvnas.blocks._attention import heads_of
from mvnas.ops import Concat, Conv, Fold, LinearAttention, Unfold, Value


@dataclass(frozen=True)
class Block:
    """(C, H, W) -> (channels, H / stride, W / stride): attention of heads `width` channels wide, then an inverted
    residual.

    Attention is over the pixels and, as further heads, over sums of the `kernel` x `kernel` pixels around them. The
    inverted residual has biases instead of its first two norms, and at stride 2 or without `attention` it is all there
    is. Its hidden width is `expand` times the channels; the input is added where the shapes agree. Channels of 0 stay
    as they are. `eps` is the batch norms'.

    Raises:
        SpaceError: the width of a head does not divide the channels.
    """

    channels: int = 0
    stride: int = 1
    expand: float = 4.0
    attention: bool = True
    width: int = 16
    kernel: int = 5
    act: str = "hardswish"
    eps: float = 1e-5

    def __call__(self, x: Value) -> Value:
        if self.stride == 1 and self.attention:
            x = x + self.attend(x)
        hidden = int(self.expand * x.channels)
        y = Conv(hidden, norm=False, bias=True, act=self.act)(x, role="expand")
        y = Conv(hidden, 3, self.stride, groups=hidden, norm=False, bias=True, act=self.act)(y, role="depthwise")
        y = Conv(self.channels or x.channels, act="", eps=self.eps)(y, role="project")
        return x + y if y.shape == x.shape else y

    def attend(self, x: Value) -> Value:
        """Linear attention at two scales (eq. 2, fig. 3): a ReLU takes the place of the softmax."""
        heads = heads_of(x, self.width)
        queries, keys, values = (
            Unfold(1)(self.scales(x, heads, f"attention.{name}")) for name in ("query", "key", "value")
        )
        mixed = LinearAttention(2 * heads, form="relu_linear")(queries, keys, values)
        return Conv(x.channels, act="", eps=self.eps)(Fold(1)(mixed, x), role="attention.project")

    def scales(self, x: Value, heads: int, role: str) -> Value:
        """A projection of every pixel, and of its surroundings: (2 C, H, W)."""
        c = x.channels
        y = Conv(c, norm=False, act="")(x, role=f"{role}.pixel")
        around = Conv(c, self.kernel, groups=c, norm=False, act="")(y, role=f"{role}.around")
        return Concat()(y, Conv(c, groups=heads, norm=False, act="")(around, role=f"{role}.mix"))
