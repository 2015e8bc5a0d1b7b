"""What a study or a network tells in words and tables."""

from __future__ import annotations

import csv
import random
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict
from importlib import metadata
from itertools import chain, pairwise
from math import isnan
from pathlib import Path
from statistics import fmean, median
from typing import TYPE_CHECKING, Any

from mvnas.budgets import Budget
from mvnas.costs import Price, cost, estimates, known, names, plain
from mvnas.latency.model import Latency
from mvnas.latency.table import Table
from mvnas.measuring.clock import DRIFT
from mvnas.measuring.holdout import Quality
from mvnas.spaces.arch import Arch, kind_of, rules
from mvnas.spaces.space import Space
from mvnas.studies.score import Score
from mvnas.system.disk import whole

if TYPE_CHECKING:
    from mvnas.studies.study import Study
    from mvnas.verification.rank import Agreement, Ranking
    from mvnas.verification.verify import Verification

SAMPLES = 2000
SLOW = 0.1  # share of a table's timings that may be made on a machine slower than in its best tenth
RESTLESS = 0.1  # mean difference between passes of a network that is too much


def cautions(table: Table) -> list[str]:
    """What speaks against trusting a table's figures as they are, a sentence each."""
    told = []
    for package, version in table.device["versions"].items():
        try:
            here = metadata.version(package)
        except metadata.PackageNotFoundError:
            continue
        if here != version:
            told.append(
                f"{table.name} was measured with {package} {version}, but {here} is installed; latency may differ"
            )
    every = [timing.reference_ms for timing in (*table.ops.values(), *table.networks.values())]
    looks = sorted(look for look in every if not isnan(look))  # where others timed networks there was no reference op
    slow = fmean(look > DRIFT * looks[len(looks) // 10] for look in looks) if looks else 0.0
    if slow > SLOW:
        told.append(
            f"{slow:.0%} of {table.name} was measured while its machine was {DRIFT - 1:.0%} slower or more; `mvnas measure` times that again"
        )
    pairs = [abs(a.min_ms / b.min_ms - 1) for passes in table.passes.values() for a, b in pairwise(passes)]
    if pairs and fmean(pairs) > RESTLESS:
        told.append(
            f"networks of {table.name} took {fmean(pairs):.0%} more or less from pass to pass; measure on a quieter machine"
        )
    return told


def score_row(score: Score) -> dict[str, Any]:
    """A score as one row of a table: what is known of it, what is predicted before what is counted."""
    costs = dict(sorted(score.costs.items(), key=lambda row: not cost(row[0]).interval))
    known = {
        "trial": score.number,
        "name": score.name,
        **score.quality.to_json(),
        **plain(costs),
        "resolution": score.arch.resolution,
        "precision": score.arch.precision,
    }
    return {column: round(value, 6) if isinstance(value, float) else value for column, value in known.items()}


def write_csv(scores: Iterable[Score], path: Path) -> None:
    """Write scores of one study, one or more, as CSV.

    Raises:
        FileError: the path cannot be written.
    """
    rows = list(map(score_row, scores))
    with whole(path) as part, part.open("w", newline="", encoding="utf-8") as stream:
        writer = csv.DictWriter(stream, rows[0], lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)


def text_table(rows: Sequence[Sequence[str]]) -> str:
    """Rows of cells in aligned columns; the first row is the header, and all but the first column align right."""
    widths = [max(len(row[i]) for row in rows) for i in range(len(rows[0]))]
    lines = [
        "  ".join([row[0].ljust(widths[0]), *(c.rjust(w) for c, w in zip(row[1:], widths[1:], strict=True))])
        for row in rows
    ]
    return "\n".join(line.rstrip() for line in [lines[0], "-" * len(lines[0]), *lines[1:]])


def quality_table(rows: Iterable[Quality], of: str = "predictor") -> str:
    """Errors of predictors, or of what else rows are `of`, as text; one network has no order."""
    cells = [(of, "MAPE", "within 5 %", "within 10 %", "worst", "tau", "90 % interval")]
    for row in rows:
        interval = "" if row.covered is None else f"covers {row.covered:.0%}, +-{row.width:.1%}"
        cells.append((row.name, f"{row.mape:.1%}", f"{row.within_5:.0%}", f"{row.within_10:.0%}", f"{row.worst:.1%}",
                      "" if row.tau is None else f"{row.tau:.3f}", interval))  # fmt: skip
    return text_table(cells)


def frontier_table(study: Study) -> str:
    """The Pareto set as text, knee marked."""
    frontier = study.frontier()
    knee = frontier.pick("knee")
    predicted = study.setup.predicted
    counted = [name for name in study.setup.costs if name not in predicted]
    heads = [(f"{cost(name).heading} {cost(name).unit}", "90 % interval") for name in predicted]
    rows = [("network", "accuracy", *chain(*heads), *(cost(name).heading for name in counted), "px", "")]
    for score in frontier.scores:
        each = [score.costs[name] for name in predicted]
        rows.append(
            (
                score.label,
                f"{score.quality.value:.1%}",
                *chain(*((f"{one.value:.2f}", f"{one.low:.2f} .. {one.high:.2f}") for one in each)),
                *(cost(name).told(score.costs[name].value) for name in counted),
                str(score.arch.resolution),
                "knee" if score == knee else "",
            )
        )
    return text_table(rows)


def rank_line(study: Study) -> str | None:
    """How far a study's short scores may be trusted, in one line; None where nothing was trained longer."""
    from mvnas.verification.rank import ranking

    found = ranking(study)
    return _rank_line(found) if found else None


def _rank_line(found: Ranking) -> str:
    return (
        f"short scores rank like {found.longest}x longer ones: {_tau(found.overall)}"
        if found.overall
        else f"too few candidates were trained {found.longest}x longer to compare orders"
    )


def _tau(found: Agreement) -> str:
    return f"tau {found.tau:.2f} ({found.tau_low:.2f} .. {found.tau_high:.2f}), {found.candidates} candidates"


def rank_told(found: Ranking, epochs: float) -> str:
    """A ranking as text; `epochs` are those of the study."""
    from mvnas.verification.rank import ENOUGH

    rows = [("trained", "epochs", "candidates", "tau", "95 % interval", "rho", "95 % interval")]
    compared = {"scores of the study": (1, found.overall), "of its frontier": (1, found.frontier)}
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
    enough = "none that was tried" if found.enough is None else f"{found.enough}x, {found.enough * epochs:g} epochs"
    lines = [
        f"orders compared with that after {found.longest}x, {found.longest * epochs:g} epochs:\n",
        text_table(rows),
        f"\n{_rank_line(found)}",
        f"least training that orders three pairs in four like the longest (interval of tau above {ENOUGH}): {enough}",
    ]
    return "\n".join(lines + [f"trainings that failed: {found.failed}"] * bool(found.failed))


def verified_json(found: Verification) -> dict[str, Any]:
    """A verified frontier as plain data."""
    return {
        "longer": found.longer,
        "measured": len(found.measured),
        "interval_coverage": found.coverage,
        "share_within_budget": found.kept,
        "tau": found.tau,
        "cautions": list(found.cautions),
        "frontier": [
            score_row(row.score)
            | {
                "accuracy_longer": row.accuracy,
                "accuracy_px": row.pixels,
                "measured_ms": row.measured_ms,
                "inside_interval": row.inside,
                "excess": row.excess,
                "file": row.file and str(row.file),
                "told": row.told,
            }
            for row in found.rows
        ],
    }


def verified_told(found: Verification) -> str:
    """A verified frontier as text: predicted and measured latency, short and longer accuracy, then what that comes to."""
    rows = [("network", "predicted ms", "90 % interval", "measured ms", "inside", "in budget", "accuracy", f"{found.longer}x",
             "judged at", "deployed at")]  # fmt: skip
    for row in found.rows:
        score, latency = row.score, row.score.costs["latency"]
        rows.append((
            score.label,
            f"{latency.value:.2f}",
            f"{latency.low:.2f} .. {latency.high:.2f}",
            "" if row.measured_ms is None else f"{row.measured_ms:.2f}",
            _answer(row.inside),
            _answer(None if row.excess is None else row.excess == 0),
            f"{score.quality.value:.1%}",
            "" if row.accuracy is None else f"{row.accuracy:.1%}",
            f"{row.pixels} px",
            f"{score.arch.resolution} px",
        ))  # fmt: skip
    lines = [text_table(rows), "", *(f"{row.score.label}: {row.told}" for row in found.rows), ""]
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


def rests(resting: Mapping[str, int]) -> str:
    """How many candidates rest at which rung, in words."""
    return ", ".join(f"{count} rest after {share} of the epochs" for share, count in resting.items())


def rest_line(study: Study) -> str | None:
    """How many candidates were not trained in full, in one line; None where all are."""
    return f"not trained in full: {rests(study.resting)}; the frontier is of those that were" if study.resting else None


def summary_json(study: Study) -> dict[str, Any]:
    """The Pareto set and what it came from, as plain data."""
    from mvnas.verification.rank import ranking

    frontier, setup = study.frontier(), study.setup
    worst = worst_cost(study)
    ranked = ranking(study)
    return {
        "study": study.place,
        "budget": setup.budget,
        "space": setup.space,
        "data": setup.data,
        "device": study.device,
        "objective": setup.objective,
        "trained": len(study.scores()),
        "failed": len(study.failures()),
        "resting": study.resting,
        "infeasible": study.infeasible(),
        "hypervolume": frontier.hypervolume(worst=worst),
        "hypervolume_worst": worst,
        "knee": frontier.pick("knee").number,
        "rank": ranked and asdict(ranked),
        "frontier": [score_row(score) for score in frontier.scores],
    }


def worst_cost(study: Study) -> float:
    """What the finished candidate of most cost costs, such as its ms of latency: where the hypervolume is measured from."""
    return max(map(study.frontier().cost, study.scores()), default=1.0)


def network_json(arch: Arch, model: Latency) -> dict[str, Any]:
    """Costs and predicted latency of a network, in total and by block."""
    graph = arch.graph()
    shipped = graph.deployed().block_costs()
    return {
        "trained_params": graph.params,
        "peak_bytes": arch.peak_bytes,
        **plain(estimates(arch, model, (name for name in names() if known(name, model)))),
        "measured_share": model.predict(arch).measured_share,
        "device": model.device,
        "blocks": [
            {
                "block": kind_of(part),
                "output": list(row.shape),
                "params": row.params,
                "macs": row.macs,
                "traffic_bytes": costs.traffic_bytes,
                "peak_bytes": costs.peak_bytes,
                "latency_ms": ms,
                "measured_share": measured,
            }
            for part, row, costs, (ms, measured) in zip(
                arch.blocks, arch.summaries, shipped, model.predict_blocks(arch), strict=True
            )
        ],
    }


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


def space_json(space: Space, model: Latency, budget: Budget | None, *, seed: int = 0) -> dict[str, Any]:
    """Number of points of a space, and of random points the least, median and largest of each cost and the share that fits."""
    generator = random.Random(seed)
    archs = [
        space.sample(lambda name, values: generator.choice(values)) for _ in range(SAMPLES if space.choices else 1)
    ]
    costs = [Price(arch, model) for arch in archs]
    bounded = [bound.cost for bound in budget.bounds] if budget else []
    spread = {}
    for name in dict.fromkeys((*costs[0], *bounded)):
        values = [row[name] for row in costs]
        spread[name] = {"min": min(values), "median": median(values), "max": max(values)}
    return {
        "space": space.name,
        "points": space.size,
        "choices": {name: list(values) for name, values in space.choices.items()},
        "rules": {kind: rules(kind) for kind in dict.fromkeys(space.kinds) if rules(kind)},
        "device": model.device,
        "samples": len(archs),
        "costs": spread,
        "budget": budget.text if budget else None,
        "share_that_fits": sum(budget.excess(row) == 0 for row in costs) / len(costs) if budget else None,
    }


def space_table(told: dict[str, Any]) -> str:
    """The costs of `space_json` as text."""
    rows = [("cost", "min", "median", "max")]
    rows += [
        (name, *(cost(name).told(values[key]) for key in ("min", "median", "max")))
        for name, values in told["costs"].items()
    ]
    return text_table(rows)
