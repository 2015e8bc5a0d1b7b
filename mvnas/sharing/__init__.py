"""Which weights of a larger network a smaller one is made of: what a supernet and a trained start have in common.

Ops of two networks that have one name (`mvnas.graph.Graph.of`: row, repeat, kind, role) are one op. Of the channels of
a value the smaller network has the first, or the first of each head where attention reads them; of a kernel the centre;
of repeats and layers the first. What an op's class says of that is in `mvnas.sharing.forms`; whatever cannot be shared
is refused by its name.

    slices = plan(larger.graph(), smaller.graph()).slices       # name of a weight -> where in the larger network
    logits = functional_call(build(smaller.graph()), views(slices, weights), (x,))   # gradients reach `weights`
"""

from mvnas.sharing.forms import Axis, Held, Pair, axes, channels, wishes
from mvnas.sharing.order import ordered
from mvnas.sharing.plan import Plan, Slice, plan
from mvnas.sharing.slices import filled, views

__all__ = ["Axis", "Held", "Pair", "Plan", "Slice", "axes", "channels", "filled", "ordered", "plan", "views", "wishes"]
