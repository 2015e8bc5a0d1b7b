"""The walk over a deployed graph that writes a file op by op, the same for every format."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TypeVar

import numpy as np

from mvnas.errors import ExportError
from mvnas.graph import Graph, Node

Weights = Mapping[str, np.ndarray]  # by parameter, such as `conv.weight`; of a whole graph with the node before it
Place = TypeVar("Place")
Value = TypeVar("Value")
Form = Callable[[Place, Node, list[Value], Weights], Value]


def lower(
    graph: Graph,
    weights: Weights,
    forms: Mapping[type, Form[Place, Value]],
    *,
    format: str,
    place: Callable[[Node], Place],
    feed: Callable[[Place, Node], Value],
) -> list[Value]:
    """What each node of a deployed `graph` becomes, in order.

    `place` is where the ops of a node go, `feed` makes an input of the file, and `forms` say what an op becomes of its inputs.

    Raises:
        ExportError: the format has no form of an op.
    """
    made: list[Value] = []
    for node in graph.nodes:
        if not node.inputs:
            made.append(feed(place(node), node))
            continue
        form = forms.get(type(node.op))
        if form is None:
            raise ExportError(f"{format} must have a form of every op, but has none of {type(node.op).__name__}")
        own = {k.removeprefix(f"{node.name}."): v for k, v in weights.items() if k.startswith(f"{node.name}.")}
        made.append(form(place(node), node, [made[i] for i in node.inputs], own))
    return made
