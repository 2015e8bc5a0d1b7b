"""TFLite: litert-torch converts, ai-edge-litert runs with XNNPACK."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

import ai_edge_litert.interpreter as litert
import numpy as np
from ai_edge_litert import schema_py_generated as schema
from torch import Tensor, nn

from mvnas.backends._quiet import quiet
from mvnas.backends._timing import Stopwatch, stopwatch
from mvnas.errors import ExportError
from mvnas.graph import Graph
from mvnas.nn import arbitrary, build, example
from mvnas.ops import Map, State


@dataclass(frozen=True)
class Backend:
    """TFLite at float32, maps channel-last at every boundary, `threads` XNNPACK threads."""

    threads: int = 1
    suffix = ".tflite"

    def export(self, graph: Graph, path: Path, weights: State) -> None:
        """Write the deployed `graph` with `weights`.

        Raises:
            ExportError: the converter failed.
        """
        _convert([graph], [weights], path)

    def export_each(self, graphs: Sequence[Graph], folder: Path) -> list[Path]:
        """One file a graph, from one conversion of all of them side by side, cut into its parts.

        Each part is what the converter makes of the graph; one by one takes longer and gives the same ops.
        """
        whole = folder / "whole.tflite"
        _convert(graphs, [arbitrary(graph) for graph in graphs], whole)
        paths = [folder / f"{i}.tflite" for i in range(len(graphs))]
        for path, part in zip(paths, cut(whole.read_bytes()), strict=True):
            path.write_bytes(part)
        return paths

    def run(self, path: Path, inputs: Sequence[np.ndarray]) -> list[np.ndarray]:
        """Outputs for maps (1, C, H, W) or vectors; not for tokens, which a file does not tell from maps."""
        interpreter = self._open(path)
        for detail, x in zip(interpreter.get_input_details(), inputs, strict=True):
            interpreter.set_tensor(detail["index"], np.moveaxis(x, 1, -1) if _is_map(x) else x)
        interpreter.invoke()
        outputs = [interpreter.get_tensor(detail["index"]) for detail in interpreter.get_output_details()]
        return [np.moveaxis(y, -1, 1) if _is_map(y) else y for y in outputs]

    def stopwatch(self, path: Path) -> Stopwatch:
        """Function that runs the file once, inputs in place, and returns the milliseconds it took."""
        interpreter = self._open(path)
        generator = np.random.default_rng(0)
        for detail in interpreter.get_input_details():
            normal = generator.standard_normal(detail["shape"], dtype=np.float32)
            interpreter.set_tensor(detail["index"], normal)
        invoke = interpreter._interpreter.Invoke  # without the wrapper's checks: an empty model takes 0.3 us
        return stopwatch(invoke)

    def conditions(self) -> Mapping[str, Any]:
        packages = ("ai-edge-litert", "litert-torch", "torch")
        return {
            "backend": "tflite",
            "runtime": "ai-edge-litert with XNNPACK",
            "versions": {package: version(package) for package in packages},
            "threads": self.threads,
            "precision": "float32",
        }

    def _open(self, path: Path) -> litert.Interpreter:
        with quiet():
            interpreter = litert.Interpreter(str(path), num_threads=self.threads)
            interpreter.allocate_tensors()
        if not any(op["op_name"] == "DELEGATE" for op in interpreter._get_ops_details()):
            raise ExportError(f"XNNPACK must run {path.name}, or its timings mislead, but it was not delegated to it")
        return interpreter


class ChannelLast(nn.Module):
    """Modules side by side, each with its own inputs and one output, with maps as (B, H, W, C) outside."""

    def __init__(self, modules: Sequence[nn.Module], graphs: Sequence[Graph]) -> None:
        super().__init__()
        self.parts = nn.ModuleList(modules)
        self.maps_in = [[isinstance(node.shape, Map) for node in graph.inputs] for graph in graphs]
        self.maps_out = [isinstance(graph.output.shape, Map) for graph in graphs]

    def forward(self, *xs: Tensor) -> tuple[Tensor, ...]:
        feed = iter(xs)
        outputs = []
        for part, maps_in, map_out in zip(self.parts, self.maps_in, self.maps_out, strict=True):
            inputs = [next(feed).permute(0, 3, 1, 2) if is_map else next(feed) for is_map in maps_in]
            y = part(*inputs)
            outputs.append(y.permute(0, 2, 3, 1) if map_out else y)
        return tuple(outputs)


def cut(model: bytes) -> list[bytes]:
    """For each output of a TFLite model, a model of just the ops that compute it."""
    whole = schema.ModelT.InitFromPackedBuf(model, 0)
    (graph,) = whole.subgraphs
    makers = {tensor: op for op in graph.operators for tensor in op.outputs}
    return [_part(whole, makers, output) for output in graph.outputs]


def _part(whole: Any, makers: Mapping[int, Any], output: int) -> bytes:
    import flatbuffers

    graph = whole.subgraphs[0]
    ops: dict[int, Any] = {}
    used: dict[int, None] = {}

    def visit(tensor: int) -> None:
        op = makers.get(tensor)
        if op is None or id(op) in ops:
            return
        for x in op.inputs:
            if x >= 0:
                visit(x)
        ops[id(op)] = op
        used.update(dict.fromkeys([x for x in (*op.inputs, *op.outputs) if x >= 0]))

    visit(output)
    new = {tensor: place for place, tensor in enumerate(used)}
    tensors, buffers = [], [schema.BufferT()]
    for tensor in used:
        old = graph.tensors[tensor]
        row = schema.TensorT()
        row.__dict__.update(old.__dict__)
        data = whole.buffers[old.buffer]
        row.buffer = len(buffers) if data.data is not None else 0
        if row.buffer:
            buffers.append(data)
        tensors.append(row)
    part = schema.SubGraphT()
    part.tensors = tensors
    part.inputs = [new[x] for x in graph.inputs if x in new]
    part.outputs = [new[output]]
    part.operators = []
    for op in ops.values():
        row = schema.OperatorT()
        row.__dict__.update(op.__dict__)
        row.inputs = [new.get(x, -1) for x in op.inputs]
        row.outputs = [new[x] for x in op.outputs]
        part.operators.append(row)
    model = schema.ModelT()
    model.version = whole.version
    model.operatorCodes = whole.operatorCodes
    model.subgraphs = [part]
    model.buffers = buffers
    builder = flatbuffers.Builder(1 << 16)
    builder.Finish(model.Pack(builder), b"TFL3")
    return bytes(builder.Output())


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


def _convert(graphs: Sequence[Graph], weights: Sequence[State], path: Path) -> None:
    modules = [build(graph) for graph in graphs]
    for module, state in zip(modules, weights, strict=True):
        module.load_state_dict(state)
    inputs = [
        x.permute(0, 2, 3, 1).contiguous() if isinstance(node.shape, Map) else x
        for graph in graphs
        for x, node in zip(example(graph), graph.inputs, strict=True)
    ]
    os.environ["LITERT_TORCH_SHOW_PROGRESS"] = "n"
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    with quiet() as said:
        try:
            import litert_torch

            litert_torch.convert(ChannelLast(modules, graphs).eval(), tuple(inputs)).export(str(path))
        except Exception as error:
            told = f"litert-torch must convert the network, but failed: {error}; {said()}"
            raise ExportError(told) from error
