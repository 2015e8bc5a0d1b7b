"""A transformer layer with a choice of attention (MPCViT, arXiv:2211.13955, sec. 3): (C, H, W) -> (channels, H /
stride, W / stride).
"""

from dataclasses import dataclass

from mvnas.blocks._attention import mix, multi_head
from mvnas.blocks._parts import feed_forward, joined, same_channels
from mvnas.errors import SpaceError
from mvnas.ops import Conv, Fold, LayerNorm, Linear, Position, SeparableAttention, Unfold, Value, check_unused


@dataclass(frozen=True)
class Block:
    """Attention of `form` among all pixels, but of `scaled` heads only scaled; then a feed-forward layer.

    The forms are softmax and relu_softmax (`Attention`), scaled and relu_linear (`LinearAttention`), and separable,
    which has no heads. `act` may be nothing, as in MPCViT+. A hidden width is `mlp` times the channels. Of another
    stride than 1, patches of `stride` x `stride` pixels are embedded first and told where they are, as in ViT-Lite
    (arXiv:2104.05704).

    Raises:
        SpaceError: the heads do not divide the channels, all heads or some of a separable attention are to be only
            scaled, a separable attention is given heads, or the block keeps the size and does not keep the channels.
    """

    channels: int = 0
    stride: int = 1
    heads: int = 4
    form: str = "softmax"
    scaled: int = 0
    mlp: float = 2.0
    act: str = "gelu"

    def __call__(self, x: Value) -> Value:
        if self.stride > 1:
            x = Conv(self.channels, self.stride, self.stride, norm=False, bias=True, same=True, act="")(x, role="embed")
        dim = same_channels(x, self.channels)
        y = Unfold(1)(x)
        y = Position()(y, role="position") if self.stride > 1 else y
        y = y + Linear(dim)(self.attend(LayerNorm()(y, role="norm")), role="project")
        return Fold(1)(feed_forward(y, self.mlp, self.act), x)

    def attend(self, y: Value) -> Value:
        """What the heads make, beside one another."""
        dim = y.channels
        if dim % self.heads:
            raise SpaceError(f"heads must divide the channels, but got {self.heads} heads for {dim}")
        if self.scaled >= self.heads or (self.scaled and self.form == "separable"):
            raise SpaceError(f"some heads must be {self.form}, but {self.scaled} of {self.heads} are to be only scaled")
        if self.form == "separable":
            check_unused(self, ("heads",), "with the form separable")
            score = Linear(1, bias=False)(y, role="attention.score")
            key = Linear(dim, bias=False)(y, role="attention.key")
            value = Linear(dim, bias=False, act="relu")(y, role="attention.value")
            return SeparableAttention()(score, key, value)
        width = dim // self.heads
        groups = ((self.heads - self.scaled, self.form, "attention"), (self.scaled, "scaled", "scaled"))
        made = [
            mix(y, multi_head(heads, form), channels=heads * width, bias=False, role=role)
            for heads, form, role in groups
            if heads
        ]
        return joined(made)
