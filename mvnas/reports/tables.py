"""What a study, a network, a space or a predictor tells as tables of text."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from itertools import chain
from statistics import fmean
from typing import TYPE_CHECKING, Any

from mvnas.costs import cost
from mvnas.measuring.holdout import Errors
from mvnas.reports.lines import gap_line, ranking_line
from mvnas.studies.score import Quality
from mvnas.tasks import ACCURACY, Metric

if TYPE_CHECKING:
    from mvnas.studies.study import Study
    from mvnas.verification.rank import Ranking
    from mvnas.verification.verify import Verification


def text_table(rows: Sequence[Sequence[str]]) -> str:
    """Rows of cells in aligned columns; the first row is the header, and all but the first column align right."""
    widths = [max(len(row[i]) for row in rows) for i in range(len(rows[0]))]
    lines = [
        "  ".join([row[0].ljust(widths[0]), *(c.rjust(w) for c, w in zip(row[1:], widths[1:], strict=True))])
        for row in rows
    ]
    return "\n".join(line.rstrip() for line in [lines[0], "-" * len(lines[0]), *lines[1:]])


def errors_table(rows: Iterable[Errors], of: str = "predictor") -> str:
    """Errors of predictors, or of what else rows are `of`, as text; one network has no order."""
    cells = [(of, "MAPE", "within 5 %", "within 10 %", "worst", "tau", "90 % interval")]
    for row in rows:
        interval = "" if row.covered is None else f"covers {row.covered:.0%}, +-{row.width:.1%}"
        cells.append((row.name, f"{row.mape:.1%}", f"{row.within_5:.0%}", f"{row.within_10:.0%}", f"{row.worst:.1%}",
                      "" if row.tau is None else f"{row.tau:.3f}", interval))  # fmt: skip
    return text_table(cells)


def frontier_table(study: Study) -> str:
    """The Pareto set as text, knee marked: what is expected of each network, with its interval, and what was
    observed.
    """
    frontier, metric = study.frontier(), study.setup.quality
    knee = frontier.pick("knee")
    predicted = study.setup.predicted
    counted = [name for name in study.setup.costs if name not in predicted]
    heads = [(f"{cost(name).heading} {cost(name).unit}", "90 % interval") for name in predicted]
    rows = [
        (
            "network",
            metric.name,
            "90 % interval",
            "observed",
            *chain(*heads),
            *(cost(name).heading for name in counted),
            "px",
            "",
        )
    ]
    for score in frontier.scores:
        each = [score.costs[name] for name in predicted]
        rows.append(
            (
                score.label,
                metric.told(score.quality.value),
                _quality_interval(score.quality, metric),
                _observed(score.quality, metric),
                *chain(*((f"{one.value:.2f}", f"{one.low:.2f} .. {one.high:.2f}") for one in each)),
                *(cost(name).told(score.costs[name].value) for name in counted),
                str(score.arch.resolution),
                "knee" if score == knee else "",
            )
        )
    return text_table(_with_tests(rows, study, rows[0].index(heads[0][0])))


def _with_tests(rows: Sequence[tuple[str, ...]], study: Study, place: int) -> list[tuple[str, ...]]:
    """Rows of the frontier with a column of what is known of test images, if anything is."""
    from mvnas.verification.tested import on_test

    known, metric = on_test(study), study.setup.quality
    tests = [known.get(score.number) for score in study.frontier().scores]
    cells = ["test", *("" if row is None else metric.told(row.quality) for row in tests)]
    return [(*row[:place], *[cell] * any(tests), *row[place:]) for row, cell in zip(rows, cells, strict=True)]


def _quality_interval(quality: Quality, metric: Metric) -> str:
    """The interval of a quality, from the metric's lesser value to its greater, with its unit once."""
    if quality.low is None or quality.high is None:
        return ""
    low, high = sorted((quality.low, quality.high), key=metric.value)
    return f"{metric.told(low).removesuffix('%').removesuffix(f' {metric.unit}').strip()} .. {metric.told(high)}"


def _observed(quality: Quality, metric: Metric) -> str:
    """What the trainings of a network came to, on average, and how many there were if several."""
    if not quality.observed:
        return ""
    several = f" of {len(quality.observed)}" if len(quality.observed) > 1 else ""
    return metric.told(fmean(quality.observed)) + several


def rank_told(found: Ranking, epochs: float) -> str:
    """A ranking as text; `epochs` are those of the study."""
    from mvnas.verification.rank import ENOUGH

    rows = [("trained", "epochs", "candidates", "tau", "95 % interval", "rho", "95 % interval")]
    compared = {
        "scores of the study": (1, found.overall),
        "as modelled": (1, found.modelled),
        "of its frontier": (1, found.frontier),
        "of the best third": (1, found.top_third),
    }
    compared |= {f"{times}x{' again' * (times == 1)}": (times, row) for times, row in found.lengths.items()}
    for name, (times, row) in compared.items():
        cells = ("too few", "", "", "", "") if row is None else (
            str(row.candidates),
            f"{row.tau:.2f}",
            f"{row.tau_low:.2f} .. {row.tau_high:.2f}",
            f"{row.rho:.2f}",
            f"{row.rho_low:.2f} .. {row.rho_high:.2f}",
        )  # fmt: skip
        rows.append((name, f"{times * epochs:g}", *cells))
    if top := found.ceiling:
        interval = f"{top.tau_low:.2f} .. {top.tau_high:.2f}"
        rows.append(("at most, by noise", f"{epochs:g}", str(top.candidates), f"{top.tau:.2f}", interval, "", ""))
    enough = "none that was tried" if found.enough is None else f"{found.enough}x, {found.enough * epochs:g} epochs"
    lines = [
        f"orders compared with that after {found.longest}x, {found.longest * epochs:g} epochs:\n",
        text_table(rows),
        f"\n{ranking_line(found)}",
        *_luck_told(found),
        f"least training that orders three pairs in four like the longest (interval of tau above {ENOUGH}): {enough}",
    ]
    return "\n".join(lines + [f"trainings that failed: {found.failed}"] * bool(found.failed))


def _luck_told(found: Ranking) -> list[str]:
    """What luck does to a ranking, in sentences."""
    from mvnas.verification.rank import FEWEST_RANKED, THIRD

    lines = []
    if top := found.ceiling:
        lines.append(
            f"luck moves a score of the study by {100 * top.short_noise:.1f} points (standard deviation of seeds) and"
            f" one of the longest by up to {100 * top.long_noise:.1f}: were both true orders the same, tau would be"
            f" {top.tau:.2f}"
        )
    if not found.top_third:
        lines.append(
            f"the best third is compared of {THIRD * (FEWEST_RANKED - 1) + 1} candidates or more: --candidates"
        )
    return lines


def verified_told(found: Verification, metric: Metric = ACCURACY) -> str:
    """A verified frontier as text: predicted and measured latency, what short and longer training reach by a metric,
    and what that comes to.
    """
    rows = [
        (
            "network",
            "predicted ms",
            "90 % interval",
            "measured ms",
            "inside",
            "in budget",
            metric.name,
            f"{found.longer}x",
            "test",
            "judged at",
            "deployed at",
        )
    ]
    for row in found.rows:
        score, latency = row.score, row.score.costs["latency"]
        rows.append((
            score.label,
            f"{latency.value:.2f}",
            f"{latency.low:.2f} .. {latency.high:.2f}",
            "" if row.measured_ms is None else f"{row.measured_ms:.2f}",
            _answer(row.inside),
            _answer(None if row.excess is None else row.excess == 0),
            metric.told(score.quality.value),
            "" if row.accuracy is None else metric.told(row.accuracy),
            "" if row.tested is None else metric.told(row.tested.quality),
            f"{row.pixels} px",
            f"{score.arch.resolution} px",
        ))  # fmt: skip
    lines = [text_table(rows), "", *(f"{row.score.label}: {row.told}" for row in found.rows), ""]
    if both := found.tests:
        lines.append(gap_line(both, metric))
    count = len(found.measured)
    if found.coverage is None or found.kept is None:
        return "\n".join([*lines, "latency is predicted only: none of these networks was timed"])
    lines.append(f"measured within the 90 % interval: {found.coverage:.0%} of {count}")
    lines.append(f"within the budget as measured: {found.kept:.0%} of {count}")
    if found.tau is not None:
        lines.append(f"Kendall's tau of predicted and measured latency: {found.tau:.2f}")
    return "\n".join(lines)


def _answer(held: bool | None) -> str:
    return "" if held is None else "yes" if held else "no"


def network_table(told: dict[str, Any]) -> str:
    """The blocks of `network_json` as text."""
    rows = [("block", "output", "params", "MACs", "activations", "ms", "share", "timed")]
    for i, block in enumerate(told["blocks"]):
        rows.append(
            (
                f"{i} {block['block']}",
                " x ".join(map(str, block["output"])),
                f"{block['params']:,}",
                cost("macs").told(block["macs"]),
                cost("memory").told(block["peak_bytes"]),
                f"{block['latency_ms']:.3f}",
                f"{block['latency_ms'] / told['latency_ms']:.1%}",
                f"{block['measured_share']:.0%}",
            )
        )
    return text_table(rows)


def space_table(told: dict[str, Any]) -> str:
    """The costs of `space_json` as text."""
    rows = [("cost", "min", "median", "max")]
    rows += [
        (name, *(cost(name).told(values[key]) for key in ("min", "median", "max")))
        for name, values in told["costs"].items()
    ]
    return text_table(rows)
