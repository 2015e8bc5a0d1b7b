"""ONNX: mvnas writes the file, onnxruntime runs it on the CPU."""

from __future__ import annotations

import json
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from importlib.metadata import version
from itertools import count
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime

from mvnas.backends import one_by_one
from mvnas.backends._quiet import quiet
from mvnas.backends._timing import Stopwatch, stopwatch
from mvnas.backends.onnx._onnxfile import FORM, write
from mvnas.errors import ExportError, FileError
from mvnas.graph import Graph
from mvnas.latency.table import INSIDE
from mvnas.ops import State
from mvnas.system.disk import work_folder

onnxruntime.disable_telemetry_events()

FEWEST_RUNS = 5  # of a profile, of which the first does not count


@dataclass(frozen=True)
class Backend:
    """ONNX at float32, maps channel-first, `threads` threads inside an op."""

    threads: int = 1
    suffix = ".onnx"
    ships = True
    tolerance = 1e-4

    def export(self, graph: Graph, path: Path, weights: State) -> None:
        """Write the deployed `graph` with `weights` as one file, checked.

        Raises:
            ExportError: ONNX has no form of an op.
        """
        model = write(graph, {name: weight.numpy() for name, weight in weights.items()})
        try:
            onnx.checker.check_model(model, full_check=True)
        except onnx.checker.ValidationError as error:
            raise ExportError(f"{path.name} must be valid ONNX, but {error}") from error
        path.write_bytes(model.SerializeToString())

    def export_each(self, graphs: Sequence[Graph], folder: Path) -> list[Path]:
        return one_by_one(self, graphs, folder)

    def run(self, path: Path, inputs: Sequence[np.ndarray]) -> list[np.ndarray]:
        """Outputs for inputs (1, C, H, W), or as the graph's inputs have them."""
        session = self._open(path)
        return list(session.run(None, {slot.name: x for slot, x in zip(session.get_inputs(), inputs, strict=True)}))

    def stopwatch(self, path: Path) -> Stopwatch:
        """Function that runs the file once, inputs in place, and returns the milliseconds it took."""
        session = self._open(path)
        binding = session.io_binding()
        generator = np.random.default_rng(0)
        for slot in session.get_inputs():
            binding.bind_cpu_input(slot.name, generator.standard_normal(slot.shape, dtype=np.float32))
        for slot in session.get_outputs():
            binding.bind_output(slot.name)
        return stopwatch(partial(session.run_with_iobinding, binding))

    def profile(self, path: Path, *, seconds: float) -> Mapping[str, Sequence[float]]:
        """Milliseconds of each run of each node of the graph, without the first run.

        onnxruntime times what it makes of the nodes, in whole microseconds: convolutions in a layout of its own, fused
        activations. What it adds between nodes, to change the layout, counts to the node before.
        """
        with work_folder() as folder:
            session = self._open(path, profile_to=folder / "profile")
            generator = np.random.default_rng(0)
            inputs = {
                slot.name: generator.standard_normal(slot.shape, dtype=np.float32) for slot in session.get_inputs()
            }
            end = time.monotonic() + seconds
            for run in count():
                if run >= FEWEST_RUNS and time.monotonic() > end:
                    break
                session.run(None, inputs)
            try:
                events = json.loads(Path(session.end_profiling()).read_text())
            except (OSError, ValueError):  # onnxruntime does not tell that it could not write
                raise FileError(
                    f"{folder.parent} must have space for a profile; free some, or set TMPDIR to another folder"
                ) from None
        runs: list[dict[str, float]] = [{}]
        owner = ""
        for event in events:
            if event["name"] == "model_run":
                runs.append({})
            elif event["name"].endswith("_kernel_time"):
                node, told, _ = event["name"].partition("/")
                owner = node if told else owner
                runs[-1][owner] = runs[-1].get(owner, 0.0) + event["dur"] / 1e3
        return {node: [run[node] for run in runs[1:-1]] for node in runs[0]}

    def conditions(self) -> Mapping[str, Any]:
        return {
            "backend": "onnx",
            "runtime": "onnxruntime on the CPU",
            "versions": {"onnxruntime": version("onnxruntime")},
            "form": FORM,
            "ops": INSIDE,
            "threads": self.threads,
            "precision": "float32",
        }

    def _open(self, path: Path, *, profile_to: Path | None = None) -> onnxruntime.InferenceSession:
        options = onnxruntime.SessionOptions()
        if profile_to:
            options.enable_profiling, options.profile_file_prefix = True, str(profile_to)
        options.intra_op_num_threads = self.threads
        options.inter_op_num_threads = 1
        with quiet():
            return onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])


def op_names(path: Path) -> list[str]:
    """Names of the ops of an ONNX file, in execution order, such as Conv."""
    return [node.op_type for node in onnx.load(path).graph.node]
