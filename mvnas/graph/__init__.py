"""Networks as plain data (`Graph`), and what their blocks cost, found without building them (`summary`)."""

from mvnas.graph.costing import Kernel, Layer, Step, Summary, summary
from mvnas.graph.graph import Costs, Graph, Node
from mvnas.graph.memory import FLOAT_BYTES, Use, alive

__all__ = [
    "FLOAT_BYTES",
    "POINTER_BYTES",
    "Costs",
    "Graph",
    "Kernel",
    "Layer",
    "Node",
    "Step",
    "Summary",
    "Use",
    "alive",
    "summary",
]

POINTER_BYTES = 8
