"""Multiply-accumulates."""

from mvnas import costs
from mvnas.spaces.arch import Arch


class Cost(costs.Counted):
    """Multiplications of a run, each with the addition of its product."""

    name, title = "macs", "MACs"

    def count(self, arch: Arch) -> float:
        return arch.macs
