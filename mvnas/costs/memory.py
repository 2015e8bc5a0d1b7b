"""Memory."""

from mvnas import costs
from mvnas.spaces.arch import Arch


class Cost(costs.Counted):
    """Bytes that it takes to run the network at float32: weights, activations and a runtime's tables."""

    name, unit = "memory", "B"

    def count(self, arch: Arch) -> float:
        return arch.memory_bytes
