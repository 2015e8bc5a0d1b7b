"""Graphs and ops as torch modules.

What an op is in torch is registered by its class (`mvnas.nn.forms`), for ops of ours in the files beside this one.
"""

from mvnas.nn import attention, conv, elementwise, layout, linear, norm, pooling  # noqa: F401 (they register)
from mvnas.nn.activations import activation
from mvnas.nn.attention import Attend
from mvnas.nn.forms import Function, absorb, computes, fold, module, owes
from mvnas.nn.graphs import arbitrary, build, deploy, example, most_axes, program
from mvnas.nn.layout import Spread
from mvnas.nn.linear import Position
from mvnas.nn.norm import Affine

__all__ = [
    "Affine",
    "Attend",
    "Function",
    "Position",
    "Spread",
    "absorb",
    "activation",
    "arbitrary",
    "build",
    "computes",
    "deploy",
    "example",
    "fold",
    "module",
    "most_axes",
    "owes",
    "program",
]
