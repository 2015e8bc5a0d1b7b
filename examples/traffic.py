"""Bytes that a run reads and writes, as a cost: what a small processor's memory limits.

mvnas search --budget 20MB-examples.traffic --objective examples.traffic
"""

from math import prod

from mvnas import costs
from mvnas.graph import FLOAT_BYTES
from mvnas.spaces.arch import Arch


class Cost(costs.Counted):
    """Inputs, parameters and outputs of every deployed op at float32, each once."""

    name, unit = "traffic", "B"

    def count(self, arch: Arch) -> float:
        kernels = [(kernel, times) for block in arch.summaries for kernel, times in block.kernels]
        return FLOAT_BYTES * sum(
            times * (sum(map(prod, shapes)) + op.params(*shapes) + prod(op.shape(*shapes)))
            for (op, shapes), times in kernels
        )
