"""What a study, a network or a space tells as plain data: JSON and CSV."""

from __future__ import annotations

import csv
import random
from collections.abc import Iterable
from dataclasses import asdict
from pathlib import Path
from statistics import median
from typing import TYPE_CHECKING, Any

from mvnas.blocks import kind_of, rules
from mvnas.budgets import Budget
from mvnas.costs import Price, cost, estimates, known, names, to_json
from mvnas.latency.model import Latency
from mvnas.reports.lines import mean_gap
from mvnas.spaces.arch import Arch
from mvnas.spaces.space import Space
from mvnas.studies.score import Score
from mvnas.studies.setup import SHORT
from mvnas.system.disk import whole

if TYPE_CHECKING:
    from mvnas.studies.study import Study
    from mvnas.verification.verify import Verification

SAMPLES = 2000  # random networks of a space whose costs are told


def score_row(score: Score) -> dict[str, Any]:
    """A score as one row of a table: what is known of it, what is predicted before what is counted."""
    costs = dict(sorted(score.costs.items(), key=lambda row: not cost(row[0]).interval))
    known = {
        "trial": score.number,
        "name": score.name,
        **score.quality.to_json(),
        **to_json(costs),
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


def verified_json(found: Verification) -> dict[str, Any]:
    """A verified frontier as plain data."""
    return {
        "longer": found.longer,
        "measured": len(found.measured),
        "interval_coverage": found.coverage,
        "share_within_budget": found.kept,
        "tau": found.tau,
        "test_images": found.tests[0][1].count if found.tests else 0,
        "test_gap": mean_gap(found.tests) if found.tests else None,
        "cautions": list(found.cautions),
        "frontier": [
            score_row(row.score)
            | {
                "accuracy_longer": row.accuracy,
                "test_longer": row.tested and row.tested.quality,
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


def summary_json(study: Study, untested: str = "") -> dict[str, Any]:
    """The Pareto set and what it came from, as plain data; `untested` is why test images are not known of."""
    from mvnas.verification.rank import ranking
    from mvnas.verification.retrain import trained_after
    from mvnas.verification.tested import compared, on_test

    frontier, setup = study.frontier(), study.setup
    worst = worst_cost(study)
    trained = trained_after(study)
    ranked, tests, both = ranking(study), on_test(study), compared(study)
    return {
        "study": study.place,
        "budget": setup.budget,
        "space": setup.space,
        "data": setup.data,
        "device": study.device,
        "objective": setup.objective,
        "trained": len(study.scores()),
        "trainings": sum(len(score.quality.observed) for score in study.scores()),
        "explained": study.explained,
        "failed": len(study.failures()),
        "resting": study.resting,
        "infeasible": study.infeasible(),
        "hypervolume": frontier.hypervolume(worst=worst),
        "hypervolume_worst": worst,
        "knee": frontier.pick("knee").number,
        "rank": ranked and asdict(ranked),
        "test_images": both[0][1].count if both else 0,
        "test_gap": mean_gap(both) if both else None,
        "test_missing": untested,
        "frontier": [
            score_row(score)
            | {"test": tests[score.number].quality if score.number in tests else None}
            | ({"trained": trained.get(score.number)} if setup.scores != SHORT else {})
            for score in frontier.scores
        ],
    }


def worst_cost(study: Study) -> float:
    """Most that a finished candidate costs, such as ms of latency: where the hypervolume is measured from."""
    return max(map(study.frontier().cost, study.scores()), default=1.0)


def network_json(arch: Arch, model: Latency) -> dict[str, Any]:
    """Costs and predicted latency of a network, in total and by block."""
    graph = arch.graph()
    shipped = graph.deployed().block_costs()
    return {
        "trained_params": graph.params,
        "peak_bytes": arch.peak_bytes,
        **to_json(estimates(arch, model, (name for name in names() if known(name, model)))),
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


def space_json(space: Space, model: Latency, budget: Budget | None, *, seed: int = 0) -> dict[str, Any]:
    """Number of points of a space; of random ones least, median and most of each cost, and the share that fits."""
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
