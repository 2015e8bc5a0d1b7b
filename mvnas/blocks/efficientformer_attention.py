"""EfficientFormer's block on tokens, MB3D (arXiv:2206.01191, eq. 4-5): (1, N, C) -> (1, N, C)."""

from dataclasses import dataclass

from mvnas.ops import Attention, GridBias, LayerNorm, Linear, Map, Unfold, Value

START = 1e-5  # of layer scales


@dataclass(frozen=True)
class Block:
    """Attention with a bias for each distance on a map of `side` x `side`, then a feed-forward layer; a map becomes
    tokens first.

    A head has queries and keys of width `key` and values four times as wide. A hidden width is `expand` times the
    channels.
    """

    heads: int = 8
    key: int = 32
    side: int = 7
    expand: float = 4.0

    def __call__(self, x: Value) -> Value:
        if isinstance(x.shape, Map):
            x = Unfold(1)(x)
        c, width = x.channels, self.heads * self.key
        y = LayerNorm()(x, role="norm")
        query = Linear(width, gain=self.key**-0.5)(y, role="attention.query")
        key, value = Linear(width)(y, role="attention.key"), Linear(4 * width)(y, role="attention.value")
        attention = Attention(self.heads, bias=GridBias((self.side, self.side)))
        mixed = attention(query, key, value, role="attention.attend")
        x = x + Linear(c, scale=START)(mixed, role="attention.project")
        hidden = Linear(int(self.expand * c), act="gelu")(LayerNorm()(x, role="mlp.norm"), role="mlp.expand")
        return x + Linear(c, scale=START)(hidden, role="mlp.project")
