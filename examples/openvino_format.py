"""OpenVINO as a format and a runtime of one's own (pip install openvino): what mvnas writes as ONNX, converted.

    mvnas measure --backend examples.openvino_format --space mobilevit --table tables/openvino
    mvnas export STUDY --format examples.openvino_format

A file is a folder with OpenVINO's model.xml and model.bin. Where a converter knows another format of ours, no `Builder`
is needed; `examples/numpy_format.py` is a format that writes each op itself.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import openvino

from mvnas.backends import Stopwatch, backend, one_by_one, stopwatch
from mvnas.graph import Graph
from mvnas.ops import State
from mvnas.system.disk import work_folder


@dataclass(frozen=True)
class Backend:
    """OpenVINO on the CPU at float32, maps channel-first, `threads` threads."""

    threads: int = 1
    suffix = ".openvino"
    ships = True
    tolerance = 1e-4

    def export(self, graph: Graph, path: Path, weights: State) -> None:
        with work_folder() as folder:
            backend("onnx").export(graph, folder / "model.onnx", weights)
            model = openvino.convert_model(folder / "model.onnx")
            path.mkdir(exist_ok=True)
            openvino.save_model(model, path / "model.xml", compress_to_fp16=False)

    def export_each(self, graphs: Sequence[Graph], folder: Path) -> list[Path]:
        return one_by_one(self, graphs, folder)

    def run(self, path: Path, inputs: Sequence[np.ndarray]) -> list[np.ndarray]:
        made = self._open(path).infer(list(inputs))
        return [made[i] for i in range(len(made))]

    def stopwatch(self, path: Path) -> Stopwatch:
        request = self._open(path)
        for tensor in request.input_tensors:
            tensor.data[:] = np.random.default_rng(0).standard_normal(tensor.shape)
        return stopwatch(request.infer)

    def conditions(self) -> Mapping[str, Any]:
        return {
            "backend": __name__,
            "runtime": "OpenVINO on the CPU",
            "versions": {"openvino": version("openvino")},
            "threads": self.threads,
            "precision": "float32",
        }

    def _open(self, path: Path) -> openvino.InferRequest:
        settings = {"INFERENCE_NUM_THREADS": self.threads, "INFERENCE_PRECISION_HINT": "f32"}
        return openvino.Core().compile_model(path / "model.xml", "CPU", settings).create_infer_request()
