"""torch: an exported program in a .pt2 file, which torch.export.load reads without mvnas."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch

from mvnas.backends import one_by_one
from mvnas.backends._quiet import quiet
from mvnas.backends._timing import Stopwatch, stopwatch
from mvnas.graph import Graph
from mvnas.nn import program
from mvnas.ops import State


@dataclass(frozen=True)
class Backend:
    """torch at float32 on `threads` threads, maps channel-first."""

    threads: int = 1
    suffix = ".pt2"

    def export(self, graph: Graph, path: Path, weights: State) -> None:
        """Write the deployed `graph` with `weights`."""
        with quiet():
            torch.export.save(program(graph, weights), path)

    def export_each(self, graphs: Sequence[Graph], folder: Path) -> list[Path]:
        return one_by_one(self, graphs, folder)

    def run(self, path: Path, inputs: Sequence[np.ndarray]) -> list[np.ndarray]:
        """Outputs for inputs (1, C, H, W), or as the graph's inputs have them."""
        with self._limited():
            output = _load(path).module()(*[torch.from_numpy(x) for x in inputs])
        return [output.numpy()]

    def stopwatch(self, path: Path) -> Stopwatch:
        """Function that runs the file once, inputs in place, and returns the milliseconds it took.

        The graph is called with its weights in hand, without the checks that `module()` puts before it: they
        would cost a lone op what they cost a network.
        """
        exported = _load(path)
        stored = exported.state_dict | exported.constants
        weights = [stored[spec.target] for spec in exported.graph_signature.input_specs if spec.target]
        inputs, _ = exported.example_inputs
        call = partial(exported.graph_module, *weights, *inputs)

        def limited() -> float:
            with self._limited():
                return run()

        with self._limited():
            run = stopwatch(call)
        return limited

    def conditions(self) -> Mapping[str, Any]:
        return {
            "backend": "torch",
            "runtime": "exported program, eager kernels",
            "versions": {"torch": torch.__version__},
            "threads": self.threads,
            "precision": "float32",
        }

    @contextmanager
    def _limited(self) -> Iterator[None]:
        """Run on this backend's number of threads, without gradients."""
        before = torch.get_num_threads()
        torch.set_num_threads(self.threads)
        try:
            with torch.inference_mode():
                yield
        finally:
            torch.set_num_threads(before)


def _load(path: Path) -> torch.export.ExportedProgram:
    with quiet():
        return torch.export.load(path)
