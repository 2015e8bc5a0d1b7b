"""Pictures: of a study, accuracy against what was minimised beside it; of a table, how far to trust its model."""

from __future__ import annotations

import io
from collections.abc import Sequence
from itertools import product
from pathlib import Path

import numpy as np
from matplotlib.figure import Figure
from matplotlib.text import Text

from mvnas.costs import cost
from mvnas.errors import MvnasError, StudyError, TableError, plain
from mvnas.latency.model import LatencyModel
from mvnas.latency.table import Table
from mvnas.measuring.holdout import shares, unseen
from mvnas.studies.score import Frontier, Score
from mvnas.studies.study import Study
from mvnas.system.disk import whole

BLUE, VERMILION, GREY = (
    "#0072B2",
    "#D55E00",
    "#8C8C8C",
)  # of Okabe and Ito: told apart by all, and in grey print by marker
KINDS = 24  # of ops that a picture names, those that take most time
FORMATS = (".png", ".pdf", ".svg")


def plot(study: Study, path: Path) -> None:
    """Write the frontier of `study`, accuracy against what was minimised beside it, as PNG, PDF or SVG, by the suffix of `path`.

    Raises:
        StudyError: nothing has finished yet, or the path has another suffix.
        FileError: the path cannot be written.
    """
    scores = study.scores()
    if not scores:
        raise StudyError(f"a plot needs a finished candidate, but {study.place} has none; run the search first")
    setup = study.setup
    figure = draw(
        scores,
        title=f"{len(scores)} networks within {setup.budget}, trained {setup.schedule['epochs']:g} epochs on {Path(setup.data).name}",
        device=study.device,
        objective=setup.objective,
    )
    _save(figure, path, StudyError)


def plot_table(table: Table, path: Path) -> None:
    """Write how far to trust a table's model as PNG, PDF or SVG: predicted against measured networks, errors, shares of time.

    Raises:
        TableError: the table only corrects another, or the path has another suffix.
        FileError: the path cannot be written.
    """
    if "like" in table.device:
        raise TableError(
            f"a picture needs a table of its own, but {table.name} corrects {table.device['like']}; draw that one"
        )
    _save(draw_table(table), path, TableError)


def _save(figure: Figure, path: Path, error: type[MvnasError]) -> None:
    if path.suffix not in FORMATS:
        raise error(f"a plot must end in {', '.join(FORMATS)}, but got {path.name!r}")
    picture = io.BytesIO()  # matplotlib does not tell a full disk from a mistake of its own
    figure.savefig(picture, dpi=200, format=path.suffix[1:])
    with whole(path) as part:
        part.write_bytes(picture.getbuffer())


def draw_table(table: Table) -> Figure:
    """Figure of a table: each network predicted without it, with its interval, and by system; errors of kinds of ops; where time goes."""
    row, spent = unseen(table), shares(table)
    errors = LatencyModel.of_kernels(table).errors
    parts = row.systems
    several = len(parts) > 1
    figure = Figure(figsize=(14.5 if several else 10.5, 4.6), layout="constrained")
    left, *middle, right = figure.subplots(1, 2 + several, width_ratios=(1, 0.7, 1.15) if several else (1, 1.15))
    error = 100 * (row.ms / row.truth - 1)
    reach = 100 * np.array([(row.ms - row.low) / row.truth, (row.high - row.ms) / row.truth])
    inside = (row.low <= row.truth) & (row.truth <= row.high)
    for chosen, colour, marker, told in (
        (inside, BLUE, "o", "its 90 % interval holds the measurement"),
        (~inside, VERMILION, "D", "it does not"),
    ):
        if chosen.any():
            left.errorbar(row.truth[chosen], error[chosen], yerr=reach[:, chosen], fmt=marker, color=colour, markersize=4,
                          elinewidth=0.7, label=f"{told} ({chosen.sum()})")  # fmt: skip
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
    kinds = list(spent)[:KINDS][::-1]
    bars = np.arange(len(kinds))
    right.barh(bars + 0.2, [100 * spent[name] for name in kinds], 0.38, color=GREY, label="share of the networks' time")
    known = [(place, 100 * errors[name]) for place, name in enumerate(kinds) if name in errors]
    right.barh([place - 0.2 for place, _ in known], [size for _, size in known], 0.38, color=BLUE, hatch="///",
               edgecolor="white", label="error of an op that was not timed")  # fmt: skip
    right.set_yticks(bars, kinds, fontsize=8)
    right.set_xlabel("%")
    others = sum(list(spent.values())[KINDS:])
    right.set_title(
        "kinds of ops" + (f"; {len(spent) - KINDS} others take {others:.0%}" if others else ""), fontsize=10
    )
    for axes in (left, right):
        axes.legend(fontsize=8.5, loc="upper center", bbox_to_anchor=(0.5, -0.13), ncols=2, frameon=False)
    for axes in figure.axes:
        axes.spines[["top", "right"]].set_visible(False)
    device = table.device
    figure.suptitle(
        f"{table.name}: {device.get('cpu')}, {device['backend']} {device['precision']}, {device['threads']} thread(s)",
        fontsize=10,
    )
    return _literal(figure)


def draw(scores: Sequence[Score], *, title: str, device: str, objective: str = "latency") -> Figure:
    """Figure of scores: candidates, their frontier as a step line with intervals of the objective, named baselines, the knee."""
    front, its = Frontier.of(scores, [objective]), cost(objective)
    frontier = front.scores
    others = [score for score in scores if score not in frontier]
    figure = Figure(figsize=(7.2, 4.5), layout="constrained")
    axes = figure.add_subplot()
    if others:
        x, y = [front.cost(s) for s in others], [100 * s.quality.value for s in others]
        axes.scatter(x, y, s=24, c=GREY, marker="o", label="other candidates", alpha=0.8, linewidths=0, zorder=2)
    x, y = [front.cost(s) for s in frontier], [100 * s.quality.value for s in frontier]
    right = max(map(front.cost, scores)) * 1.1
    axes.step([*x, right], [*y, y[-1]], where="post", color=BLUE, linewidth=1.6, zorder=3)
    estimates = [s.costs[objective] for s in frontier]
    reach = [[one.value - one.low for one in estimates], [one.high - one.value for one in estimates]]
    axes.errorbar(
        x,
        y,
        xerr=reach,
        fmt="s",
        color=BLUE,
        markersize=6,
        elinewidth=1,
        capsize=2.5,
        zorder=4,
        label="frontier" + f", with 90 % {its.name} interval" * its.interval,
    )
    named = [s for s in scores if s.name]
    if named:
        axes.scatter(
            [front.cost(s) for s in named],
            [100 * s.quality.value for s in named],
            s=95,
            facecolors="none",
            edgecolors=VERMILION,
            marker="D",
            linewidths=1.5,
            label="published network",
            zorder=5,
        )
    for score in named:
        axes.annotate(
            score.name,
            (front.cost(score), 100 * score.quality.value),
            xytext=(7, -11),
            color=VERMILION,
            textcoords="offset points",
            fontsize=8.5,
            zorder=6,
        )
    knee = front.pick("knee")
    axes.annotate(
        "knee",
        (front.cost(knee), 100 * knee.quality.value),
        xytext=(0, 9),
        textcoords="offset points",
        ha="center",
        fontsize=8.5,
        color=BLUE,
        zorder=6,
    )
    axes.set_xscale("log")
    axes.margins(x=0.08, y=0.08)
    axes.xaxis.set_major_formatter("{x:g}")
    axes.xaxis.set_minor_formatter(lambda x, _: f"{x:g}" if f"{x:e}"[0] in "2357" else "")  # more would touch
    axes.tick_params(axis="x", which="minor", labelsize=8)
    axes.set_xlabel(
        its.name + f" in {its.unit}" * bool(its.unit) + f" at batch 1, predicted for {device}" * its.interval
    )
    axes.set_ylabel("accuracy on held-out images in %")
    axes.set_title(title, fontsize=10)
    axes.grid(True, which="major", color="#E5E5E5", linewidth=0.8, zorder=0)
    axes.spines[["top", "right"]].set_visible(False)
    figure.legend(loc="outside lower center", ncols=3, fontsize=8.5, frameon=False)  # where it hides no candidate
    return _literal(figure)


def _literal(figure: Figure) -> Figure:
    """The figure with its texts as they are: what stands between the dollar signs of a folder's name is no formula."""
    axes = [axis for part in figure.axes for axis in (part.xaxis, part.yaxis)]
    ticks = {label for axis in axes for label in axis.get_ticklabels(which="both")}  # matplotlib's own, which are
    for text in figure.findobj(Text):
        if isinstance(text, Text) and text not in ticks:
            text.set_parse_math(False)
            text.set_text(plain(text.get_text()))
    return figure
