"""Which function lowers which op, and the walk over a graph that calls them."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple, TypeVar

import numpy as np

from mvnas.errors import ExportError
from mvnas.graph import Graph
from mvnas.lowering.builder import Builder, Tensor
from mvnas.ops import Op, Shape

Weights = Mapping[str, np.ndarray]  # by parameter, such as `conv.weight`; of a whole graph with the node before it
Form = TypeVar("Form", bound=Callable[[Any, Any, "Call"], Tensor])

_forms: dict[tuple[type[Builder], type[Op]], Callable[[Any, Any, Call], Tensor]] = {}


class Call(NamedTuple):
    """What an op is lowered from: tensors of the file, their shapes and the output's, and the op's own weights."""

    inputs: Sequence[Tensor]
    shapes: tuple[Shape, ...]
    shape: Shape
    weights: Weights


def lowers(*kinds: type[Op], to: type[Builder] = Builder) -> Callable[[Form], Form]:
    """Decorator of the function that says what ops of these classes become, of all builders or of one.

    A function of one builder goes before that of all, for a runtime that has a better op.
    """

    def register(form: Form) -> Form:
        _forms.update({(to, kind): form for kind in kinds})
        return form

    return register


def lower(builder: Builder, graph: Graph, weights: Weights, inputs: Callable[[str, Shape], Tensor]) -> list[Tensor]:
    """Append a deployed `graph` to a file; the tensor of each node, in order. `inputs` makes those it is fed through.

    Raises:
        ExportError: an op has no form.
    """
    made: list[Tensor] = []
    for node in graph.nodes:
        builder.at(node)
        if not node.inputs:
            made.append(inputs(node.name, node.shape))
            continue
        own = {k.removeprefix(f"{node.name}."): v for k, v in weights.items() if k.startswith(f"{node.name}.")}
        call = Call([made[i] for i in node.inputs], node.shapes, node.shape, own)
        made.append(_form(builder, type(node.op))(builder, node.op, call))
    return made


def output_names(count: int) -> list[str]:
    """Names of a file's outputs, in order: y, or y0, y1, ..."""
    return [f"y{i}" for i in range(count)] if count > 1 else ["y"]


def _form(builder: Builder, kind: type[Op]) -> Callable[[Any, Any, Call], Tensor]:
    for own in type(builder).__mro__:
        if (own, kind) in _forms:
            return _forms[own, kind]
    raise ExportError(
        f"{builder.format} must have a form of every op, but has none of {kind.__name__}; "
        "give it one with mvnas.lowering.lowers"
    )
