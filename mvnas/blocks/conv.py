"""Convolution, batch norm and activation: (C, H, W) -> (channels, H / stride, W / stride)."""

from dataclasses import dataclass

from mvnas.ops import Conv, Value


@dataclass(frozen=True)
class Block:
    """One convolution, as a stem or before the head. `same` pads as TensorFlow does; `eps` is the batch norm's."""

    channels: int
    kernel: int = 3
    stride: int = 1
    act: str = "silu"
    same: bool = False
    eps: float = 1e-5

    def __call__(self, x: Value) -> Value:
        return Conv(self.channels, self.kernel, self.stride, act=self.act, same=self.same, eps=self.eps)(x, role="conv")
