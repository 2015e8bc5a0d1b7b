"""The precisions of a TFLite file beside float32, which ai-edge-quantizer brings it to.

    float16        weights in 16 bits, which XNNPACK unpacks when it opens the file: half the size, the same time
    dynamic-int8   weights of dense convolutions and linear layers in 8 bits, a scale a channel, their inputs quantised
                   as they come; depthwise convolutions stay in float32, since XNNPACK does not run them so
    int8           convolutions, linear layers, sums and concatenations in 8 bits throughout, ranges from images;
                   attention, layer norms and whatever only moves data stay in float32

The rules say which op of a file is quantised within which op of ours, whose class is in the names of tensors,
`block3.conv1/12`.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from mvnas.backends._quiet import quiet
from mvnas.errors import ExportError

ACTIVATIONS = ("LOGISTIC", "MUL", "HARD_SWISH")
DENSE = ("CONV_2D", "FULLY_CONNECTED")
INT8 = {
    r"\.conv\d+/": ("CONV_2D", "DEPTHWISE_CONV_2D", "PAD", *ACTIVATIONS),
    r"\.linear\d+/": ("FULLY_CONNECTED", *ACTIVATIONS),
    r"\.add\d+/": ("ADD",),
    r"\.concat\d+/": ("CONCATENATION",),
}
ALONE = {".*": ("INPUT",), "^y/": ("SLICE",)}  # inside a network an op is given 8 bits and gives 8 bits
RANGE = 4.0  # of every tensor, in standard deviations of what a file is timed on


def quantise(model: bytes, precision: str, images: Sequence[np.ndarray] | None, *, alone: bool = False) -> bytes:
    """The float32 `model` at a precision. `images` (1, H, W, C) give the ranges of int8; without them the file is for
    timing only.

    Raises:
        ExportError: the quantizer failed.
    """
    from ai_edge_quantizer import quantizer

    with quiet() as said:
        try:
            work = quantizer.Quantizer(bytearray(model))
            work.load_quantization_recipe(_recipe(precision, alone=alone))
            ranges = None
            if precision == "int8":
                ranges = (
                    _ranges(model)
                    if images is None
                    else work.calibrate({"serving_default": [{"x0": image} for image in images]})
                )
            return bytes(work.quantize(ranges).quantized_model)
        except Exception as error:
            raise ExportError(f"a file must be quantised to {precision}, but that failed: {error}; {said()}") from error


def _recipe(precision: str, *, alone: bool) -> Any:
    from ai_edge_quantizer.algorithm_manager import AlgorithmName
    from ai_edge_quantizer.qtyping import TFLOperationName
    from ai_edge_quantizer.recipe_manager import RecipeManager

    recipe = RecipeManager()
    if precision == "float16":
        recipe.add_weight_only_config(
            ".*", TFLOperationName.ALL_SUPPORTED, 16, algorithm_key=AlgorithmName.FLOAT_CASTING
        )
    elif precision == "dynamic-int8":
        for name in DENSE:
            recipe.add_dynamic_config(".*", TFLOperationName[name], 8)
    else:
        for nodes, names in (INT8 | ALONE if alone else INT8).items():
            for name in names:
                recipe.add_static_config(nodes, TFLOperationName[name], 8, 8)
    return recipe.get_quantization_recipe()


def _ranges(model: bytes) -> dict[str, dict[str, np.ndarray]]:
    """One range for every tensor that ops fill."""
    from ai_edge_litert import schema_py_generated as schema

    (graph,) = schema.ModelT.InitFromPackedBuf(model, 0).subgraphs
    filled = {tensor.name.decode(): (1,) * len(tensor.shape) for tensor in graph.tensors if tensor.buffer == 0}
    return {
        name: {"min": np.full(ones, -RANGE, np.float32), "max": np.full(ones, RANGE, np.float32)}
        for name, ones in filled.items()
    }
