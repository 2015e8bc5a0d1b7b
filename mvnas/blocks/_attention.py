"""Self-attention, as blocks of windows and tokens use it."""

from typing import Any

from mvnas.errors import SpaceError
from mvnas.ops import Attention, Linear, Value


def attend(x: Value, head_width: int, **options: Any) -> Value:
    """Self-attention among the patches of `x`, between linear layers: (P, N, C) -> (P, N, C).

    Heads have `head_width` channels; `options` are fields of `Attention`.

    Raises:
        SpaceError: the width of a head does not divide the channels.
    """
    c = x.channels
    if c % head_width:
        raise SpaceError(f"the width of a head must divide the channels, but got {head_width} of {c}")
    query = Linear(c, gain=head_width**-0.5)(x)
    return Linear(c)(Attention(c // head_width, **options)(query, Linear(c)(x), Linear(c)(x)))
