"""ONNX: torch.onnx writes, onnxruntime runs on the CPU."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import torch

from mvnas.backends import one_by_one
from mvnas.backends._quiet import quiet
from mvnas.backends._timing import Stopwatch, stopwatch
from mvnas.errors import ExportError
from mvnas.graph import Graph
from mvnas.nn import program
from mvnas.ops import State

OPSET = 20


@dataclass(frozen=True)
class Backend:
    """ONNX at float32, maps channel-first, `threads` threads inside an op."""

    threads: int = 1
    suffix = ".onnx"

    def export(self, graph: Graph, path: Path, weights: State) -> None:
        """Write the deployed `graph` with `weights` as one file, checked.

        Raises:
            ExportError: the exporter failed, or wrote what is not ONNX.
        """
        with quiet() as said:
            exported = program(graph, weights)
            try:
                made = torch.onnx.export(exported, (), dynamo=True, opset_version=OPSET, output_names=["y"])
                assert made is not None
                model = _without_metadata(made.model_proto)
                onnx.checker.check_model(model, full_check=True)
                onnx.save(model, path)
            except Exception as error:
                told = f"torch.onnx must export the network, but failed: {error}; {said()}"
                raise ExportError(told) from error

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

    def conditions(self) -> Mapping[str, Any]:
        packages = ("onnx", "onnxruntime", "onnxscript", "torch")
        return {
            "backend": "onnx",
            "runtime": "onnxruntime on the CPU",
            "versions": {package: version(package) for package in packages},
            "threads": self.threads,
            "precision": "float32",
        }

    def _open(self, path: Path) -> onnxruntime.InferenceSession:
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = self.threads
        options.inter_op_num_threads = 1
        with quiet():
            return onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])


def op_names(path: Path) -> list[str]:
    """Names of the ops of an ONNX file, in execution order, such as Conv."""
    return [node.op_type for node in onnx.load(path).graph.node]


def _without_metadata(model: onnx.ModelProto) -> onnx.ModelProto:
    """The model without the exporter's notes on where each op comes from, a fifth of a small file."""
    graph = model.graph
    values = (*graph.input, *graph.output, *graph.initializer, *graph.value_info)
    for row in (model, graph, *graph.node, *values):
        row.ClearField("metadata_props")
    return model
