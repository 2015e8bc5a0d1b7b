"""Latency."""

from mvnas import costs
from mvnas.latency.estimate import Estimate
from mvnas.latency.model import Latency
from mvnas.spaces.arch import Arch


class Cost(costs.Cost):
    """Milliseconds of a run at batch 1."""

    name, unit = "latency", "ms"

    def of(self, arch: Arch, model: Latency) -> Estimate:
        return model.predict(arch)
