"""Pool and classifier: (C, H, W) or (P, N, C) -> (classes,)."""

from dataclasses import dataclass

from mvnas.errors import SpaceError, unknown
from mvnas.ops import BatchNorm, LayerNorm, Linear, Pool, Value, check_unused

NORMS = ("", "batch", "layer", "pooled", "pooled_layer")


@dataclass(frozen=True)
class Block:
    """Global average pool, a linear layer to `hidden` features with `act` if there are any, linear classifier.

    `norm` is a batch norm or a layer norm before the pool, or a batch norm (`pooled`) or layer norm of what was pooled;
    `eps` is the norm's. Of several `copies` of the classifier, such as one for labels and one for a teacher's, the mean
    counts (DeiT, arXiv:2012.12877, sec. 4). `bias` is the classifier's.

    Raises:
        SpaceError: there is no such norm, or `eps` or `act` is given without what it is of.
    """

    norm: str = ""
    hidden: int = 0
    act: str = "hardswish"
    copies: int = 1
    eps: float = 1e-5
    bias: bool = True
    classes: int = 1000

    def __call__(self, x: Value) -> Value:
        if self.norm not in NORMS:
            raise SpaceError(unknown("norm", self.norm, NORMS))
        if not self.norm:
            check_unused(self, ("eps",), "without norm")
        if not self.hidden:
            check_unused(self, ("act",), "without hidden")
        if self.norm in ("batch", "layer"):
            x = (BatchNorm if self.norm == "batch" else LayerNorm)(eps=self.eps)(x, role=f"{self.norm}_norm")
        y = Pool()(x)
        if self.norm.startswith("pooled"):
            y = (BatchNorm if self.norm == "pooled" else LayerNorm)(eps=self.eps)(y, role=f"{self.norm}_norm")
        if self.hidden:
            y = Linear(self.hidden, act=self.act)(y, role="hidden")
        return Linear(self.classes, bias=self.bias, copies=self.copies)(y, role="classify")
