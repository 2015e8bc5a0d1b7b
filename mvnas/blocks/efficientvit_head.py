"""EfficientViT's head (mit-han-lab/efficientvit, `ClsHead`): (C, H, W) -> (classes,)."""

from dataclasses import dataclass

from mvnas.ops import Act, Affine, Conv, LayerNorm, Linear, Pool, Value


@dataclass(frozen=True)
class Block:
    """1 x 1 convolution to `channels`, pool, a layer to `hidden` features with layer norm, classifier. `eps` is the
    norms'.
    """

    channels: int
    hidden: int
    act: str = "hardswish"
    eps: float = 1e-5
    classes: int = 1000

    def __call__(self, x: Value) -> Value:
        y = Pool()(Conv(self.channels, act=self.act, eps=self.eps)(x, role="conv"))
        y = LayerNorm(affine=False, eps=self.eps)(Linear(self.hidden, bias=False)(y, role="hidden"))
        return Linear(self.classes)(Act(self.act)(Affine()(y, role="norm")), role="classify")
