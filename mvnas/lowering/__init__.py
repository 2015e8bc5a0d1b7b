"""Lowering: what each op of a deployed graph becomes in a file, said once for all formats.

An op is lowered by a function of a `Builder`, which appends what TFLite, ONNX or Core ML have, and a `Call`, which
holds what the op is given. An op of your own needs one such function to be written in every format:

    from mvnas.lowering import Builder, Call, Tensor, lowers

    @lowers(Swish)
    def swish(b: Builder, op: Swish, call: Call) -> Tensor:
        (x,) = call.inputs
        return b.mul(x, b.activate(b.mul(x, op.beta), "sigmoid"))

A format of your own needs a `Builder` (`mvnas/lowering/builder.py`), and has all ops then.
"""

from __future__ import annotations

from mvnas.lowering import forms as forms
from mvnas.lowering.builder import Builder as Builder
from mvnas.lowering.builder import Tensor as Tensor
from mvnas.lowering.registry import Call as Call
from mvnas.lowering.registry import Weights as Weights
from mvnas.lowering.registry import lower as lower
from mvnas.lowering.registry import lowers as lowers
from mvnas.lowering.registry import output_names as output_names
