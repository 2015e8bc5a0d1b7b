"""How kernels and networks are timed: how often, for how long, and beside which reference ops."""

from __future__ import annotations

from dataclasses import dataclass

from mvnas.graph import Kernel
from mvnas.latency.table import (
    write_op,
    write_shapes,
)
from mvnas.measuring.clock import DRIFT
from mvnas.ops import Add, Conv, Map

REFERENCES: tuple[Kernel, ...] = (  # one bound by arithmetic, and one by memory
    (Conv(128, norm=False, bias=True, act=""), (Map(128, 32, 32),)),
    (Add(), (Map(64, 128, 128), Map(64, 128, 128))),
)
SUSPICIOUS = 1.15  # a timing this many times what its kind lets expect is made again
SECOND_LOOKS = 2


@dataclass(frozen=True)
class Protocol:
    """How long to time: at least so many clean runs and seconds, and at most `patience` seconds of trying."""

    op_openings: int = 2
    op_runs: int = 12
    op_seconds: float = 0.01
    op_patience: float = 2.0
    network_runs: int = 5
    network_seconds: float = 0.1
    network_patience: float = 6.0
    passes: int = 3

    def describe(self, *, inside: bool = False) -> str:
        """The protocol in words, for a table; `inside` where ops are timed inside networks."""
        alone = (
            f"minimum and median of at least {self.op_runs} clean runs and {self.op_seconds} s an op, opened"
            f" {self.op_openings} times; an op {SUSPICIOUS} times above what its kind lets expect is timed again,"
            f" {SECOND_LOOKS} times at most"
        )
        references = ", ".join(f"{write_op(op)} on {write_shapes(shapes)}" for op, shapes in REFERENCES)
        within = (
            f"ops by the runtime's profile of a network in {self.network_seconds} s, the mean of a network's equal ops,"
            " the median of networks"
        )
        return (
            f"batch 1; pinned to the quietest cores; {within if inside else alone}; at least {self.network_runs} clean"
            f" runs and {self.network_seconds} s a network and pass, {self.passes} passes that interleave the networks;"
            f" a run is clean if the reference ops ({references}) just before and just after it take at most {DRIFT}"
            f" times their fastest and the process was not interrupted; tried for {self.op_patience} s an op and"
            f" {self.network_patience} s a network, after which all runs count"
        )


STANDARD = Protocol()
