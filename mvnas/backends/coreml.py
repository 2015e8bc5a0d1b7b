"""Core ML: coremltools converts everywhere; a model runs on macOS only."""

from __future__ import annotations

import os
import platform
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np

from mvnas.backends import one_by_one
from mvnas.backends._milfile import FORM, node_of, write
from mvnas.backends._quiet import quiet
from mvnas.backends._timing import Stopwatch, stopwatch
from mvnas.errors import ExportError
from mvnas.graph import Graph
from mvnas.ops import State

with quiet():  # its import logs each native part that this system lacks
    import coremltools as ct

MAX_RANK = 4  # Core ML takes 5, but see mvnas.ops


@dataclass(frozen=True)
class Backend:
    """ML Program at float16, inputs and output included, maps channel-first, on whatever Core ML picks.

    The converter's default is float16, and the Neural Engine computes in nothing else. Float16 inputs and
    outputs (iOS 16, macOS 13) spare a lone op the casts that a network has at its ends.
    """

    suffix = ".mlpackage"
    runs_here = sys.platform == "darwin"

    def export(self, graph: Graph, path: Path, weights: State) -> None:
        """Write the deployed `graph` with `weights`.

        Raises:
            ExportError: Core ML has no form of an op, or a tensor has more than four axes.
        """
        with quiet():
            model = ct.convert(
                write(graph, {name: weight.numpy() for name, weight in weights.items()}),
                convert_to="mlprogram",
                minimum_deployment_target=ct.target.iOS16,
                compute_precision=ct.precision.FLOAT32,  # which leaves the float16 of the program as it is
                pass_pipeline=ct.PassPipeline.EMPTY,
                skip_model_load=True,
            )
            model.save(str(path))
        self.inspect(path)

    def inspect(self, path: Path) -> Mapping[str, Any]:
        """Number of ops, and most axes of a tensor, as read back from the file.

        Raises:
            ExportError: a tensor has more than four axes.
        """
        most = max(ranks(path))
        if most > MAX_RANK:
            raise ExportError(f"no tensor of {path.name} may have more than {MAX_RANK} axes, but one has {most}")
        return {"ops": len(op_names(path)), "max_rank": most}

    def export_each(self, graphs: Sequence[Graph], folder: Path) -> list[Path]:
        return one_by_one(self, graphs, folder)

    def run(self, path: Path, inputs: Sequence[np.ndarray]) -> list[np.ndarray]:
        """Outputs for inputs (1, C, H, W), or as the graph's inputs have them; macOS only.

        Raises:
            ExportError: this is not macOS.
        """
        model = _open(path)
        slots = model.get_spec().description
        y = model.predict({slot.name: x for slot, x in zip(slots.input, inputs, strict=True)})
        return [np.asarray(y[slot.name], dtype=np.float32) for slot in slots.output]

    def stopwatch(self, path: Path) -> Stopwatch:
        """Function that runs the model once and returns the milliseconds it took; macOS only.

        Raises:
            ExportError: this is not macOS.
        """
        model = _open(path)
        generator = np.random.default_rng(0)
        inputs = {
            slot.name: generator.standard_normal(slot.type.multiArrayType.shape, dtype=np.float32)
            for slot in model.get_spec().description.input
        }
        return stopwatch(partial(model.predict, inputs))

    def conditions(self) -> Mapping[str, Any]:
        return {
            "backend": "coreml",
            "runtime": f"Core ML, all compute units, macOS {platform.mac_ver()[0] or 'none'}",
            "versions": {package: version(package) for package in ("coremltools", "torch")},
            "threads": os.cpu_count() or 1,
            "precision": "float16",
        }


def op_names(path: Path) -> list[str]:
    """Names of the ops of an .mlpackage, in execution order and without constants, such as conv."""
    return [op.type for op in _operations(path) if op.type != "const"]


def nodes(path: Path) -> list[str]:
    """Name of the node of the graph that each op of an .mlpackage serves, in the order of `op_names`."""
    return [node_of(_name(op)) for op in _operations(path) if op.type != "const"]


def ranks(path: Path) -> list[int]:
    """Number of axes of each tensor of an .mlpackage, constants included."""
    return [output.type.tensorType.rank for op in _operations(path) for output in op.outputs]


def _name(op: Any) -> str:
    return str(op.attributes["name"].immediateValue.tensor.strings.values[0])


def _operations(path: Path) -> Iterator[Any]:
    (function,) = ct.utils.load_spec(str(path)).mlProgram.functions.values()
    return iter(function.block_specializations[function.opset].operations)


def _open(path: Path) -> Any:
    if not Backend.runs_here:
        raise ExportError(
            f"running a Core ML model needs macOS, but this is {platform.system()}; "
            f"run {path.name} on a Mac, or export to another format"
        )
    with quiet():
        return ct.models.MLModel(str(path))
