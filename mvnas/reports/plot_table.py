"""The picture of a latency table: how far to trust its model."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import product
from pathlib import Path

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from mvnas.errors import TableError
from mvnas.latency.model import LatencyModel
from mvnas.latency.table import Table
from mvnas.measuring.holdout import Unseen, shares, unseen
from mvnas.reports._figure import BLUE, GREY, VERMILION, literal, save

KINDS = 24  # of ops that a picture names, those that take most time


def plot_table(table: Table, path: Path) -> None:
    """Write how far to trust a table's model as PNG, PDF or SVG: errors of networks and of ops, and shares of time.

    Raises:
        TableError: the table only corrects another, or the path has another suffix.
        FileError: the path cannot be written.
    """
    if "like" in table.device:
        raise TableError(
            f"a picture needs a table of its own, but {table.name} corrects {table.device['like']}; draw that one"
        )
    save(draw_table(table), path, TableError)


def draw_table(table: Table) -> Figure:
    """Figure of a table: each network predicted without it, and by system; errors of kinds of ops; where time goes."""
    row = unseen(table)
    several = len(row.systems) > 1
    figure = Figure(figsize=(14.5 if several else 10.5, 4.6), layout="constrained")
    left, *middle, right = figure.subplots(1, 2 + several, width_ratios=(1, 0.7, 1.15) if several else (1, 1.15))
    _draw_networks(left, middle, row)
    _draw_kinds(right, table)
    for axes in (left, right):
        axes.legend(fontsize=8.5, loc="upper center", bbox_to_anchor=(0.5, -0.13), ncols=2, frameon=False)
    for axes in figure.axes:
        axes.spines[["top", "right"]].set_visible(False)
    device = table.device
    how = f"{device['backend']} {device['precision']}, {device['threads']} thread(s)"
    figure.suptitle(f"{table.name}: {device.get('cpu')}, {how}", fontsize=10)
    return literal(figure)


def _draw_networks(left: Axes, middle: Sequence[Axes], row: Unseen) -> None:
    """How far each network is off, by its latency with its interval; and by system, where there are axes for it."""
    parts = row.systems
    error = 100 * (row.ms / row.truth - 1)
    reach = 100 * np.array([(row.ms - row.low) / row.truth, (row.high - row.ms) / row.truth])
    inside = (row.low <= row.truth) & (row.truth <= row.high)
    for chosen, colour, marker, told in (
        (inside, BLUE, "o", "its 90 % interval holds the measurement"),
        (~inside, VERMILION, "D", "it does not"),
    ):
        if chosen.any():
            left.errorbar(
                row.truth[chosen],
                error[chosen],
                yerr=reach[:, chosen],
                fmt=marker,
                color=colour,
                markersize=4,
                elinewidth=0.7,
                label=f"{told} ({chosen.sum()})",
            )
        for axes, (place, of) in product(middle, enumerate(parts.values())):
            x = error[of][chosen[of]]
            axes.scatter(x, np.full(len(x), place), s=16, c=colour, marker=marker, linewidths=0, alpha=0.8)
    left.axhline(0, color=GREY, linewidth=1)
    left.set_xscale("log")
    left.xaxis.set_major_formatter("{x:g}")
    left.set_xlabel("measured latency in ms")
    left.set_ylabel("predicted, off by %")
    left.set_title(f"{len(row.archs)} networks, each predicted without it", fontsize=10)
    for axes in middle:
        axes.axvline(0, color=GREY, linewidth=1, zorder=0)
        axes.set_yticks(range(len(parts)), parts, fontsize=8)
        axes.invert_yaxis()
        axes.set_xlabel("predicted, off by %")
        axes.set_title("the same by system (networks)", fontsize=10)


def _draw_kinds(axes: Axes, table: Table) -> None:
    """The kinds of ops that take most of the networks' time, with the error of one that was not timed."""
    spent, errors = shares(table), LatencyModel.of_kernels(table).errors
    kinds = list(spent)[:KINDS][::-1]
    bars = np.arange(len(kinds))
    axes.barh(bars + 0.2, [100 * spent[name] for name in kinds], 0.38, color=GREY, label="share of the networks' time")
    known = [(place, 100 * errors[name]) for place, name in enumerate(kinds) if name in errors]
    axes.barh([place - 0.2 for place, _ in known], [size for _, size in known], 0.38, color=BLUE, hatch="///",
              edgecolor="white", label="error of an op that was not timed")  # fmt: skip
    axes.set_yticks(bars, kinds, fontsize=8)
    axes.set_xlabel("%")
    others = sum(list(spent.values())[KINDS:])
    rest = f"; {len(spent) - KINDS} others take {others:.0%}" if others else ""
    axes.set_title(f"kinds of ops{rest}", fontsize=10)
