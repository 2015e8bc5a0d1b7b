"""Size of a file."""

from mvnas import costs
from mvnas.costs._filesize import file_bytes
from mvnas.spaces.arch import Arch


class Cost(costs.Counted):
    """Bytes of the network's TFLite file at its precision."""

    name, unit = "size", "B"

    def count(self, arch: Arch) -> float:
        return file_bytes(arch)
