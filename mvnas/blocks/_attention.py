"""Self-attention among tokens, as several blocks use it."""

from dataclasses import dataclass

from mvnas.blocks._parts import feed_forward
from mvnas.errors import SpaceError
from mvnas.ops import LINEAR_FORMS, Attention, LayerNorm, Linear, LinearAttention, Value


def heads_of(x: Value, width: int) -> int:
    """How many heads of `width` channels the channels of `x` make.

    Raises:
        SpaceError: the width of a head does not divide the channels.
    """
    if x.channels % width:
        raise SpaceError(f"the width of a head must divide the channels, but got {width} of {x.channels}")
    return x.channels // width


def multi_head(heads: int, form: str) -> Attention | LinearAttention:
    """Attention of a form of either."""
    return (LinearAttention if form in LINEAR_FORMS else Attention)(heads, form)


def mix(
    x: Value,
    attention: Attention | LinearAttention,
    *,
    channels: int = 0,
    bias: bool = True,
    role: str = "attention",
) -> Value:
    """What each head makes of the patches of `x`, beside one another: (P, N, C) -> (P, N, channels), of which 0 are C.

    `bias` is that of the linear layers before the attention. Roles of its ops begin with `role`.

    Raises:
        SpaceError: the heads do not divide the channels.
    """
    c = channels or x.channels
    query = Linear(c, gain=(c / attention.heads) ** -0.5, bias=bias)(x, role=f"{role}.query")
    key, value = (Linear(c, bias=bias)(x, role=f"{role}.{name}") for name in ("key", "value"))
    return attention(query, key, value, role=f"{role}.attend")


def attend(x: Value, attention: Attention | LinearAttention, *, bias: bool = True, role: str = "attention") -> Value:
    """Self-attention among the patches of `x`: `mix`, and a linear layer that joins the heads."""
    return Linear(x.channels, bias=bias)(mix(x, attention, bias=bias, role=role), role=f"{role}.project")


@dataclass(frozen=True)
class Transformer:
    """Pre-norm transformer layer: (P, N, C) -> (P, N, C); self-attention, then a feed-forward layer."""

    attention: Attention | LinearAttention
    expand: float
    act: str = "gelu"

    def __call__(self, x: Value) -> Value:
        return feed_forward(x + attend(LayerNorm()(x, role="norm"), self.attention), self.expand, self.act)
