"""The picture of a study: quality against what was minimised beside it."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from statistics import fmean

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from mvnas.costs import cost
from mvnas.errors import StudyError
from mvnas.reports._figure import BLUE, GREY, VERMILION, literal, save
from mvnas.studies.score import Frontier, Score
from mvnas.studies.study import Study
from mvnas.tasks import ACCURACY


def plot(study: Study, path: Path) -> None:
    """Write the frontier of `study`, quality against what was minimised, as PNG, PDF or SVG, by the suffix of `path`.

    Raises:
        StudyError: nothing has finished yet, or the path has another suffix.
        FileError: the path cannot be written.
    """
    scores = study.scores()
    if not scores:
        raise StudyError(f"a plot needs a finished candidate, but {study.place} has none; run the search first")
    setup = study.setup
    trained = f"trained {setup.schedule['epochs']:g} epochs on {Path(setup.data).name}"
    title = f"{len(scores)} networks within {setup.budget}, {trained}"
    save(
        draw(scores, title=title, device=study.device, objective=setup.objective, quality=setup.quality.label),
        path,
        StudyError,
    )


def draw(
    scores: Sequence[Score], *, title: str, device: str, objective: str = "latency", quality: str = ACCURACY.label
) -> Figure:
    """Figure of scores: candidates by what is expected of them, their frontier in steps with intervals both ways and
    what was observed, names, the knee.
    """
    front, its = Frontier.of(scores, [objective]), cost(objective)
    figure = Figure(figsize=(7.2, 4.5), layout="constrained")
    axes = figure.add_subplot()
    others = [score for score in scores if score not in front.scores]
    if others:
        x, y = zip(*(_point(front, score) for score in others), strict=True)
        axes.scatter(x, y, s=24, c=GREY, marker="o", label="other candidates", alpha=0.8, linewidths=0, zorder=2)
    _draw_frontier(axes, front, right=max(map(front.cost, scores)) * 1.1)
    _draw_names(axes, front, [score for score in scores if score.name])
    axes.set_xscale("log")
    axes.margins(x=0.08, y=0.08)
    axes.xaxis.set_major_formatter("{x:g}")
    axes.xaxis.set_minor_formatter(lambda x, _: f"{x:g}" if f"{x:e}"[0] in "2357" else "")  # more would touch
    axes.tick_params(axis="x", which="minor", labelsize=8)
    unit = f" in {its.unit}" if its.unit else ""
    axes.set_xlabel(its.heading + unit + f" at batch 1, predicted for {device}" * its.interval)
    axes.set_ylabel(f"expected {quality} on validation images in %")
    axes.set_title(title, fontsize=10)
    axes.grid(True, which="major", color="#E5E5E5", linewidth=0.8, zorder=0)
    axes.spines[["top", "right"]].set_visible(False)
    figure.legend(loc="outside lower center", ncols=3, fontsize=8.5, frameon=False)  # where it hides no candidate
    return literal(figure)


def _point(front: Frontier, score: Score) -> tuple[float, float]:
    return front.cost(score), 100 * score.quality.value


def _draw_frontier(axes: Axes, front: Frontier, right: float) -> None:
    """A step line up to `right`, intervals of what is minimised, and the knee."""
    its = cost(front.costs[0])
    x, y = zip(*(_point(front, score) for score in front.scores), strict=True)
    axes.step([*x, right], [*y, y[-1]], where="post", color=BLUE, linewidth=1.6, zorder=3)
    estimates = [score.costs[front.costs[0]] for score in front.scores]
    reach = [[one.value - one.low for one in estimates], [one.high - one.value for one in estimates]]
    label = "frontier, with 90 % intervals"
    seen = [score for score in front.scores if score.quality.observed]
    axes.errorbar(x, y, xerr=reach if its.interval else None, yerr=_ends(front), fmt="s", color=BLUE, markersize=6,
                  elinewidth=1, capsize=2.5, zorder=4, label=label)  # fmt: skip
    if seen:
        heights = [100 * fmean(score.quality.observed) for score in seen]
        axes.scatter([*map(front.cost, seen)], heights, s=30, c=VERMILION, marker="x", linewidths=1.2, label="observed",
                     zorder=5)  # fmt: skip
    axes.annotate("knee", _point(front, front.pick("knee")), xytext=(0, 9), textcoords="offset points", ha="center",
                  fontsize=8.5, color=BLUE, zorder=6)  # fmt: skip


def _ends(front: Frontier) -> list[list[float]]:
    """How far the intervals of the qualities of a frontier reach down and up, in per cent."""
    told = [score.quality for score in front.scores]
    return [[100 * abs(one.ends[end] - one.value) for one in told] for end in (0, 1)]


def _draw_names(axes: Axes, front: Frontier, named: Sequence[Score]) -> None:
    """Rings around published networks, with their names."""
    if not named:
        return
    x, y = zip(*(_point(front, score) for score in named), strict=True)
    axes.scatter(x, y, s=95, facecolors="none", edgecolors=VERMILION, marker="D", linewidths=1.5,
                 label="published network", zorder=5)  # fmt: skip
    for score in named:
        axes.annotate(score.name, _point(front, score), xytext=(7, -11), color=VERMILION, textcoords="offset points",
                      fontsize=8.5, zorder=6)  # fmt: skip
