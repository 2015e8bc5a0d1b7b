"""torch: an exported program in a .pt2 file, which torch.export.load reads without mvnas."""

from __future__ import annotations

import io
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
from mvnas.errors import ExportError
from mvnas.graph import Graph
from mvnas.nn import program
from mvnas.ops import State


@dataclass(frozen=True)
class Backend:
    """torch at float32 on `threads` threads, maps channel-first.

    Files are of `batch` images at once, and milliseconds are those of a batch. `device` is torch's, cpu or cuda. With
    `compiled` a file is timed as torch.compile makes it, which fuses ops across a network: a lone op is not what it is
    there.

    Raises:
        ExportError: torch has no such device here.
    """

    threads: int = 1
    batch: int = 1
    device: str = "cpu"
    compiled: bool = False
    suffix = ".pt2"
    ships = True
    tolerance = 1e-4

    def __post_init__(self) -> None:
        if self.device != "cpu" and not (self.device.startswith("cuda") and torch.cuda.is_available()):
            raise ExportError(f"a device of torch must be cpu, or cuda where torch finds a GPU, but got {self.device}")

    def export(self, graph: Graph, path: Path, weights: State) -> None:
        """Write the deployed `graph` with `weights`."""
        stream = io.BytesIO()  # torch ends the process where a disk is full
        with quiet():
            torch.export.save(program(graph, weights, batch=self.batch), stream)
        path.write_bytes(stream.getbuffer())

    def export_each(self, graphs: Sequence[Graph], folder: Path) -> list[Path]:
        return one_by_one(self, graphs, folder)

    def run(self, path: Path, inputs: Sequence[np.ndarray]) -> list[np.ndarray]:
        """Outputs for inputs (1, C, H, W), or as the graph's inputs have them."""
        with self._limited():
            made = _load(path).module()(*[torch.from_numpy(x) for x in inputs])
        return [y.numpy() for y in (made if isinstance(made, tuple) else (made,))]

    def stopwatch(self, path: Path) -> Stopwatch:
        """Function that runs the file once, inputs in place, and returns the milliseconds it took, a GPU's work done.

        The graph is called with its weights in hand, without the checks that `module()` puts before it: they
        would cost a lone op what they cost a network.
        """
        exported = _load(path)
        stored = exported.state_dict | exported.constants
        weights = [stored[spec.target] for spec in exported.graph_signature.input_specs if spec.target]
        inputs, _ = exported.example_inputs
        function = torch.compile(exported.graph_module) if self.compiled else exported.graph_module
        call = partial(function, *[x.to(self.device) for x in (*weights, *inputs)])

        def finished() -> None:
            call()
            if self.device != "cpu":
                torch.cuda.synchronize(self.device)

        def limited() -> float:
            with self._limited():
                return run()

        with self._limited():
            run = stopwatch(finished)
        return limited

    def conditions(self) -> Mapping[str, Any]:
        return {
            "backend": "torch",
            "runtime": f"exported program, {'compiled' if self.compiled else 'eager kernels'}, {self._where()}",
            "versions": {"torch": torch.__version__},
            "batch": self.batch,
            "threads": self.threads,
            "precision": "float32",
        }

    def _where(self) -> str:
        return self.device if self.device == "cpu" else torch.cuda.get_device_name(self.device)

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
