"""TFLite: mvnas writes the file, ai-edge-litert runs it with XNNPACK."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import ai_edge_litert.interpreter as litert
import numpy as np
from ai_edge_litert import schema_py_generated as schema

from mvnas.backends._quiet import quiet
from mvnas.backends._timing import Stopwatch, stopwatch
from mvnas.backends.tflite._flatbuffer import FORM, write
from mvnas.backends.tflite._quantise import quantise
from mvnas.errors import ExportError, unknown
from mvnas.graph import Graph
from mvnas.nn import arbitrary
from mvnas.ops import State
from mvnas.spaces.arch import PRECISIONS

TOLERANCES = {"float32": 1e-4, "float16": 2e-2, "dynamic-int8": 0.1, "int8": None}


@dataclass(frozen=True)
class Backend:
    """TFLite, maps channel-last at every boundary, `threads` XNNPACK threads.

    `precision` is float32 or one of those of `mvnas.backends.tflite._quantise`. The ranges of int8 come from `images`
    (1, 3, H, W); a file that is made without them computes nothing useful, and is for timing only.

    Raises:
        ExportError: there is no such precision, or its package is not installed.
    """

    threads: int = 1
    precision: str = "float32"
    images: Sequence[np.ndarray] | None = field(default=None, compare=False, repr=False)
    suffix = ".tflite"
    ships = True

    def __post_init__(self) -> None:
        if self.precision not in PRECISIONS:
            raise ExportError(unknown("precision", self.precision, PRECISIONS))
        if self.precision != "float32" and find_spec("ai_edge_quantizer") is None:
            raise ExportError(
                f"{self.precision} needs the package ai-edge-quantizer, which is not installed; "
                "pip install 'mvnas[int8]'"
            )

    @property
    def tolerance(self) -> float | None:
        """None in 8 bits throughout, where only answers are compared."""
        return TOLERANCES[self.precision]

    def export(self, graph: Graph, path: Path, weights: State) -> None:
        """Write the deployed `graph` with `weights`.

        Raises:
            ExportError: TFLite has no form of an op.
        """
        path.write_bytes(self._quantised(write(graph, _arrays(weights))))

    def export_each(self, graphs: Sequence[Graph], folder: Path) -> list[Path]:
        """One file a graph, with arbitrary weights, whose output stays inside but for its first element."""
        paths = [folder / f"{i}{self.suffix}" for i in range(len(graphs))]
        for graph, path in zip(graphs, paths, strict=True):
            path.write_bytes(self._quantised(write(graph, _arrays(arbitrary(graph)), inner=True), alone=True))
        return paths

    def _quantised(self, model: bytes, *, alone: bool = False) -> bytes:
        """The float32 model at the precision of this backend."""
        if self.precision == "float32":
            return model
        images = None if self.images is None else [np.moveaxis(image, 1, -1) for image in self.images]
        return quantise(model, self.precision, images, alone=alone)

    def run(self, path: Path, inputs: Sequence[np.ndarray]) -> list[np.ndarray]:
        """Outputs for maps (1, C, H, W) or vectors; not for tokens, which a file does not tell from maps."""
        return self.runner(path)(inputs)

    def runner(self, path: Path) -> Callable[[Sequence[np.ndarray]], list[np.ndarray]]:
        """Function that does what `run` does, again and again."""
        interpreter = self._open(path)

        def run(inputs: Sequence[np.ndarray]) -> list[np.ndarray]:
            for detail, x in zip(interpreter.get_input_details(), inputs, strict=True):
                interpreter.set_tensor(detail["index"], np.moveaxis(x, 1, -1) if _is_map(x) else x)
            interpreter.invoke()
            outputs = [interpreter.get_tensor(detail["index"]) for detail in interpreter.get_output_details()]
            return [np.moveaxis(y, -1, 1) if _is_map(y) else y for y in outputs]

        return run

    def stopwatch(self, path: Path) -> Stopwatch:
        """Function that runs the file once, inputs in place, and returns the milliseconds it took."""
        interpreter = self._open(path)
        generator = np.random.default_rng(0)
        for detail in interpreter.get_input_details():
            normal = generator.standard_normal(detail["shape"], dtype=np.float32)
            interpreter.set_tensor(detail["index"], normal.astype(detail["dtype"]))
        invoke = interpreter._interpreter.Invoke  # without the wrapper's checks: an empty model takes 0.3 us
        return stopwatch(invoke)

    def conditions(self) -> Mapping[str, Any]:
        return {
            "backend": "tflite",
            "runtime": "ai-edge-litert with XNNPACK",
            "versions": {package: version(package) for package in self._packages()},
            "form": FORM,
            "threads": self.threads,
            "precision": self.precision,
        }

    def _packages(self) -> list[str]:
        return ["ai-edge-litert"] + ["ai-edge-quantizer"] * (self.precision != "float32")

    def _open(self, path: Path) -> litert.Interpreter:
        with quiet():
            interpreter = litert.Interpreter(str(path), num_threads=self.threads)
            interpreter.allocate_tensors()
        if not any(op["op_name"] == "DELEGATE" for op in interpreter._get_ops_details()):
            raise ExportError(f"XNNPACK must run {path.name}, or its timings mislead, but it was not delegated to it")
        return interpreter


def _arrays(weights: State) -> dict[str, np.ndarray]:
    return {name: weight.numpy() for name, weight in weights.items()}


def op_names(path: Path) -> list[str]:
    """Names of the ops of a TFLite file, in execution order, such as CONV_2D."""
    model = schema.ModelT.InitFromPackedBuf(path.read_bytes(), 0)
    known = {code: name for name, code in vars(schema.BuiltinOperator).items() if isinstance(code, int)}
    codes = [max(code.builtinCode, code.deprecatedBuiltinCode) for code in model.operatorCodes]
    return [known[codes[op.opcodeIndex]] for graph in model.subgraphs for op in graph.operators]


def tensor_ranks(path: Path) -> list[int]:
    """Number of axes of each tensor of a TFLite file."""
    model = schema.ModelT.InitFromPackedBuf(path.read_bytes(), 0)
    return [0 if t.shape is None else len(t.shape) for graph in model.subgraphs for t in graph.tensors]


def _is_map(x: np.ndarray) -> bool:
    return x.ndim == 4
