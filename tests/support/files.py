"""What files of the backends compute, beside what torch does."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch.nn.functional import avg_pool2d, conv2d, gelu, interpolate, layer_norm, linear, max_pool2d, pad, silu

from mvnas import nn
from mvnas.backends import backend
from mvnas.backends._quiet import quiet
from mvnas.graph import Graph
from mvnas.ops import Map, State

TOLERANCE = {"float32": 1e-4, "float16": 2e-2}


def compute(graph: Graph, weights: State, inputs: list[np.ndarray]) -> np.ndarray:
    module = nn.build(graph)
    module.load_state_dict(weights)
    with torch.inference_mode():
        return module.eval()(*map(torch.from_numpy, inputs)).numpy()


def execute(name: str, path: Path, graph: Graph, inputs: list[np.ndarray]) -> np.ndarray:
    """Output of the file of an op; tokens, which TFLite's `run` does not take, go in and out as they are."""
    if name == "coreml":
        return evaluate(path, inputs)
    if name != "tflite":
        return backend(name).run(path, inputs)[0]
    interpreter = backend("tflite")._open(path)  # type: ignore[attr-defined]
    for node, slot, x in zip(graph.inputs, interpreter.get_input_details(), inputs, strict=True):
        interpreter.set_tensor(slot["index"], np.moveaxis(x, 1, -1) if isinstance(node.shape, Map) else x)
    interpreter.invoke()
    y = interpreter.get_tensor(interpreter.get_output_details()[0]["index"])
    return np.moveaxis(y, -1, 1) if isinstance(graph.output.shape, Map) else y


def runs_here(name: str) -> bool:
    return name not in ("android", "roofline") and (name != "coreml" or sys.platform == "darwin")


def assert_close(name: str, got: np.ndarray, wanted: np.ndarray) -> None:
    assert got.shape == wanted.shape
    assert got.dtype == np.float32
    bound = TOLERANCE[backend(name).conditions()["precision"]]
    assert np.abs(got - wanted).max() <= bound * max(1, np.abs(wanted).max())


def evaluate(path: Path, inputs: list[np.ndarray]) -> np.ndarray:
    """Output of the program in an .mlpackage."""
    (y,) = evaluate_all(path, inputs)
    return y


def evaluate_all(path: Path, inputs: list[np.ndarray]) -> list[np.ndarray]:
    """Outputs of the program in an .mlpackage with the weights that lie beside it."""
    import coremltools as ct
    from coremltools.converters.mil.frontend.milproto.load import load

    spec = ct.utils.load_spec(str(path))
    with quiet():
        program = load(spec, spec.specificationVersion, str(next(path.rglob("weights"))))
    main = program.functions["main"]
    values = dict(zip(main.inputs, map(torch.from_numpy, inputs), strict=True))

    def value(var: Any) -> Any:
        if isinstance(var, list | tuple):
            return [value(x) for x in var]
        if var is None or var.name in values:
            return None if var is None else values[var.name]
        return torch.from_numpy(var.val).float() if np.ndim(var.val) and var.val.dtype == np.float16 else var.val

    for op in main.operations:
        if op.op_type != "const":
            arguments = {key: value(var) for key, var in op.inputs.items()}
            values[op.outputs[0].name] = MIL[op.op_type](op, **arguments)
    return [values[output.name].numpy() for output in main.outputs]


def padded(x: Any, edges: Any, value: float = 0.0) -> Any:
    top, bottom, left, right = map(int, edges)
    return pad(x, (left, right, top, bottom), value=value)


def mil_conv(op: Any, x: Any, weight: Any, strides: Any, pad: Any, groups: Any, bias: Any = None, **_: Any) -> Any:
    return conv2d(padded(x, pad), weight, bias, tuple(strides), groups=int(groups))


def mil_layer_norm(op: Any, x: Any, axes: Any, epsilon: Any, gamma: Any = None, beta: Any = None) -> Any:
    assert gamma is None and beta is None
    moved = x.movedim(tuple(int(axis) for axis in axes), tuple(range(-len(axes), 0)))
    normed = layer_norm(moved, moved.shape[-len(axes) :], eps=float(epsilon))
    return normed.movedim(tuple(range(-len(axes), 0)), tuple(int(axis) for axis in axes))


def mil_avg_pool(op: Any, x: Any, kernel_sizes: Any, strides: Any, pad: Any, **_: Any) -> Any:
    assert op.inputs["exclude_padding_from_average"].val
    total, inside = (avg_pool2d(padded(y, pad), tuple(kernel_sizes), tuple(strides)) for y in (x, torch.ones_like(x)))
    return total / inside


MIL: dict[str, Callable[..., Any]] = {
    "add": lambda op, x, y: x + y,
    "avg_pool": mil_avg_pool,
    "concat": lambda op, values, axis, interleave: torch.cat(values, int(axis)),
    "conv": mil_conv,
    "gelu": lambda op, x, mode: gelu(x, approximate={"EXACT": "none", "TANH_APPROXIMATION": "tanh"}[mode]),
    "layer_norm": mil_layer_norm,
    "linear": lambda op, x, weight, bias: linear(x, weight, bias),
    "matmul": lambda op, x, y, transpose_x, transpose_y: x @ y,
    "max_pool": lambda op, x, kernel_sizes, strides, pad, **_: max_pool2d(
        padded(x, pad, float("-inf")), tuple(kernel_sizes), tuple(strides)
    ),
    "mul": lambda op, x, y: x * y,
    "real_div": lambda op, x, y: x / y,
    "reduce_mean": lambda op, x, axes, keep_dims: x.mean(tuple(axes)),
    "reduce_sum": lambda op, x, axes, keep_dims: x.sum(tuple(axes), keepdim=bool(keep_dims)),
    "relu": lambda op, x: x.relu(),
    "relu6": lambda op, x: x.clamp(0, 6),
    "reshape": lambda op, x, shape: x.reshape(tuple(shape)),
    "sigmoid_hard": lambda op, x, alpha, beta: (float(alpha) * x + float(beta)).clamp(0, 1),
    "sigmoid": lambda op, x: x.sigmoid(),
    "silu": lambda op, x: silu(x),
    "slice_by_index": lambda op, x, begin, end, stride, **_: x[tuple(map(slice, begin, end, stride))],
    "slice_by_size": lambda op, x, begin, size: x[tuple(slice(a, a + n) for a, n in zip(begin, size, strict=True))],
    "softmax": lambda op, x, axis: x.softmax(int(axis)),
    "sub": lambda op, x, y: x - y,
    "transpose": lambda op, x, perm: x.permute(tuple(perm)),
    "upsample_bilinear": lambda op, x, **_: interpolate(x, size=op.outputs[0].shape[2:], mode="bilinear"),
    "upsample_nearest_neighbor": lambda op, x, **_: interpolate(x, size=op.outputs[0].shape[2:]),
}
