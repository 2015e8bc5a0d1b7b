"""Roofline: arithmetic in place of a device. It computes nothing and is exact, as tests need it."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from mvnas import __version__
from mvnas.backends import one_by_one
from mvnas.backends._timing import Stopwatch
from mvnas.errors import ExportError
from mvnas.graph import Graph, Node
from mvnas.latency.table import read_kernel, write_op, write_shapes
from mvnas.ops import State


@dataclass(frozen=True)
class Backend:
    """A kernel takes as long as its multiply-accumulates or its bytes, whichever is longer, and an overhead.

    The roofline model (doi:10.1145/1498765.1498785). Rates are 1e9 a second, `gmacs` for each thread.
    """

    threads: int = 1
    gmacs: float = 50.0
    gbytes: float = 10.0
    overhead_us: float = 1.0
    suffix = ".json"

    def export(self, graph: Graph, path: Path, weights: State) -> None:
        """Write the ops of the deployed `graph`; weights do not matter."""
        rows = [{"op": write_op(node.op), "shapes": write_shapes(node.shapes)} for node in graph.work]
        path.write_text(json.dumps(rows, indent=1) + "\n")

    def export_each(self, graphs: Sequence[Graph], folder: Path) -> list[Path]:
        return one_by_one(self, graphs, folder)

    def run(self, path: Path, inputs: Sequence[np.ndarray]) -> list[np.ndarray]:
        """Nothing.

        Raises:
            ExportError: always.
        """
        raise ExportError("a backend must compute to be run, but roofline only counts; choose another backend")

    def stopwatch(self, path: Path) -> Stopwatch:
        """Function that returns the milliseconds by arithmetic, always the same."""
        ms = sum(self.kernel_ms(_node(row)) for row in json.loads(path.read_text()))
        return lambda: ms

    def kernel_ms(self, node: Node) -> float:
        """Milliseconds of one kernel."""
        compute, memory = node.macs / (self.gmacs * self.threads), node.traffic_bytes / self.gbytes
        return 1e-6 * max(compute, memory) + 1e-3 * self.overhead_us

    def conditions(self) -> Mapping[str, Any]:
        rates = f"{self.gmacs:g} GMAC/s a thread, {self.gbytes:g} GB/s, {self.overhead_us:g} us a kernel"
        return {
            "backend": "roofline",
            "runtime": f"arithmetic: {rates}",
            "versions": {"mvnas": __version__},
            "threads": self.threads,
            "precision": "float32",
        }


def _node(row: Mapping[str, str]) -> Node:
    return Graph.single(*read_kernel(row["op"], row["shapes"])).output
