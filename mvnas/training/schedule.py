"""How long and how hard a network is trained."""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass

from mvnas.errors import TrainingError

POSITIVE = ("epochs", "batch", "lr", "crop")
SHARES = ("warmup", "label_smoothing", "ema", "crop")


@dataclass(frozen=True)
class Schedule:
    """Hyper-parameters of one training; JSON-able, so that a study can hold every candidate to the same ones.

    The defaults are the recipe of MobileViT (arXiv:2110.02178, section 4.1) but for its length, 300 epochs of
    ImageNet at 8 x 128 images a step, and the crops: the usual `crop` of 0.08 needs a long training.

    Fields:
        epochs: passes over the training images; may be a fraction.
        batch: images a step at the base resolution; other sizes get as many as keep the pixels constant.
        lr: highest learning rate of AdamW.
        weight_decay: of weights of convolutions and linear layers; norms, layer scales, biases and positions have none.
        warmup: share of the steps in which the learning rate rises from lr / 10 to lr.
        label_smoothing: share of the target that is spread over all classes.
        ema: decay of the averaged weights once the training is long enough for it.
        crop: smallest share of an image's area that a random crop keeps; 1 crops nothing.
        clip: largest norm of a step's gradient, longer ones are shortened to it; 0 shortens none.

    Raises:
        TrainingError: a field is outside its range.

    >>> Schedule(epochs=3).rate(0, 100), Schedule(lr=1.0, warmup=0.1).rate(9, 100)
    (0.0002, 1.0)
    """

    epochs: float = 4.0
    batch: int = 32
    lr: float = 2e-3
    weight_decay: float = 0.01
    warmup: float = 0.1
    label_smoothing: float = 0.1
    ema: float = 0.9995
    crop: float = 0.7
    clip: float = 0.0

    def __post_init__(self) -> None:
        for name, value in asdict(self).items():
            least, most = "above 0" if name in POSITIVE else "at least 0", 1 if name in SHARES else math.inf
            if not (0 <= value <= most and value < math.inf) or (value == 0 and name in POSITIVE):
                told = f"{least} and at most 1" if name in SHARES else f"{least} and finite"
                raise TrainingError(f"{name} of a schedule must be {told}, but is {value}; choose another value")

    def to_json(self) -> dict[str, float]:
        """Plain data for a study; without `clip` where it is off, as studies had it before there was one."""
        return {name: value for name, value in asdict(self).items() if name != "clip" or value}

    def rate(self, step: int, steps: int) -> float:
        """Learning rate of `step` (from 0) among `steps`: linear lr / 10 -> lr, then cosine -> lr / 10."""
        low, rising = self.lr / 10, round(self.warmup * steps)
        if step < rising:
            share = step / max(1, rising - 1)
        else:
            share = (1 + math.cos(math.pi * (step - rising) / max(1, steps - rising))) / 2
        return low + (self.lr - low) * share
