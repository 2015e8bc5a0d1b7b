"""Parameters."""

from mvnas import costs
from mvnas.spaces.arch import Arch


class Cost(costs.Counted):
    """Numbers that the deployed network holds."""

    name = "params"

    def count(self, arch: Arch) -> float:
        return arch.params
