"""Residual block of two convolutions (ResNet, arXiv:1512.03385, fig. 2): (C, H, W) -> (C, H, W)."""

from dataclasses import dataclass

from mvnas.ops import Conv, Value


@dataclass(frozen=True)
class Block:
    """Two 3 x 3 convolutions, `act` after the first, and the input. `eps` is the batch norms'."""

    act: str = "relu"
    eps: float = 1e-5

    def __call__(self, x: Value) -> Value:
        c = x.channels
        return x + Conv(c, 3, act="", eps=self.eps)(
            Conv(c, 3, act=self.act, eps=self.eps)(x, role="convs.0"), role="convs.1"
        )
