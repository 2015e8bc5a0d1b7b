"""Energy."""

from mvnas import costs
from mvnas.latency.estimate import Estimate
from mvnas.latency.model import Latency
from mvnas.spaces.arch import Arch


class Cost(costs.Cost):
    """Millijoules that a run adds to what the machine draws at rest; a table made with a counter has them."""

    name, unit = "energy", "mJ"

    def check(self, model: Latency) -> None:
        _ = model.energy

    def of(self, arch: Arch, model: Latency) -> Estimate:
        return model.energy.predict(arch)
