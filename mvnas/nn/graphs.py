"""Graphs as torch modules: building, folding for deployment, exporting."""

from __future__ import annotations

from collections.abc import Mapping
from math import prod

import torch
from torch import Tensor, fx
from torch.nn import Module

from mvnas.errors import ExportError
from mvnas.graph import Graph
from mvnas.nn.forms import absorb, fold, module, owes
from mvnas.ops import State


def build(graph: Graph) -> fx.GraphModule:
    """Fresh module that computes `graph`; it works at any batch size and, where shapes are not fixed, any input size.

    It yields the tensor of the graph's output, or where there are several a tuple of these.
    """
    root = Module()
    wires: list[fx.Node] = []
    program = fx.Graph()
    for node in graph.nodes:
        if node.inputs:
            _put(root, node.name, module(node.op, *node.shapes))
            wires.append(program.call_module(node.name, tuple(wires[i] for i in node.inputs)))
        else:
            wires.append(program.placeholder(node.name))
    outputs = tuple([wires[i] for i in graph.outputs])
    program.output(outputs if len(outputs) > 1 else outputs[0])
    return fx.GraphModule(root, program)


def _put(root: Module, name: str, part: Module) -> None:
    """Put a module at a dotted name."""
    *scopes, last = name.split(".")
    for scope in scopes:
        inside = dict(root.named_children())
        if scope not in inside:
            root.add_module(scope, inside.setdefault(scope, Module()))
        root = inside[scope]
    root.add_module(last, part)


def deploy(graph: Graph, state: Mapping[str, Tensor]) -> tuple[Graph, State]:
    """The deployed graph of `graph` and its weights, folded from `state` in float64.

    Raises:
        ExportError: `state` lacks weights of the graph, or a norm is read by what cannot absorb its scale and shift.
    """
    shipped = graph.deployed()
    ops = {node.name: node.op for node in shipped.nodes}
    folded: State = {}
    pending: dict[int, tuple[Tensor, Tensor]] = {}  # node -> scale and shift of channels that its output still lacks
    for place, node in enumerate(graph.nodes):
        weights = {k[len(node.name) + 1 :]: v.double() for k, v in state.items() if k.startswith(node.name + ".")}
        if node.params and not weights:
            raise ExportError(f"the weights must hold {node.name}.*, but do not; are they another architecture's?")
        lacks = [pending[i] for i in node.inputs if i in pending]
        owed = owes(node.op, weights)
        if owed:
            if lacks:
                absorb(node.op, {}, *lacks[0])
            pending[place] = owed
        elif node.op.moves and lacks:
            if node.inputs[0] in pending:  # of another input only the size is read
                pending[place] = pending[node.inputs[0]]
        elif node.params:
            weights = fold(node.op, weights, *node.shapes)
            for scale, shift in lacks:
                weights = absorb(ops[node.name], weights, scale, shift)
            folded |= {f"{node.name}.{k}": v.float() for k, v in weights.items()}
        elif lacks:
            absorb(node.op, {}, *lacks[0])
    if any(i in pending for i in graph.outputs):
        raise ExportError(
            "an output of a network must not be a norm's, or its scale and shift cannot be folded, but is"
        )
    return shipped, folded


def example(graph: Graph, *, seed: int = 0, batch: int = 1) -> tuple[Tensor, ...]:
    """Normal random inputs for `build(graph)`."""
    generator = torch.Generator().manual_seed(seed)
    return tuple(torch.randn(batch, *node.shape, generator=generator) for node in graph.inputs)


def arbitrary(graph: Graph, *, seed: int = 0) -> State:
    """Normal random weights of a deployed graph, for files that are only timed.

    Fresh ones will not do: a converter drops a scale of 1 or a shift of 0, which a trained network does not have.
    """
    generator = torch.Generator().manual_seed(seed)
    with torch.device("meta"):
        shapes = {name: weight.shape for name, weight in build(graph).state_dict().items()}
    return {k: torch.randn(shape, generator=generator) / prod(shape[1:]) ** 0.5 for k, shape in shapes.items()}


def program(graph: Graph, weights: State, *, batch: int = 1) -> torch.export.ExportedProgram:
    """Exported program of `graph` with `weights` at one batch size, without the paths of the sources traced."""
    module = build(graph)
    module.load_state_dict(weights)
    exported = torch.export.export(module.eval(), example(graph, batch=batch))
    for node in exported.graph.nodes:
        node.meta.pop("stack_trace", None)
    return exported


def most_axes(exported: torch.export.ExportedProgram) -> int:
    """Most axes of any tensor in an exported program, intermediate results included."""
    values = (node.meta.get("val") for node in exported.graph.nodes)
    return max(value.dim() for value in values if isinstance(value, Tensor))
