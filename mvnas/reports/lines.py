"""What is told of a study or a latency table in a line."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from importlib import metadata
from itertools import pairwise
from math import isnan
from statistics import fmean
from typing import TYPE_CHECKING

from mvnas.latency.table import Table
from mvnas.measuring.clock import DRIFT
from mvnas.studies.setup import SCORES, SHORT
from mvnas.tasks import Metric

if TYPE_CHECKING:
    from mvnas.studies.study import Study
    from mvnas.verification.rank import Agreement, Ranking
    from mvnas.verification.tested import OnTest

SLOW = 0.1  # share of a table's timings that may be made on a machine slower than in its best tenth
LUCK = 0.1  # of R2, below which an order says nothing
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
            f"{slow:.0%} of {table.name} was measured while its machine was {DRIFT - 1:.0%} slower or more; `mvnas"
            " measure` times that again"
        )
    pairs = [abs(a.min_ms / b.min_ms - 1) for passes in table.passes.values() for a, b in pairwise(passes)]
    if pairs and fmean(pairs) > RESTLESS:
        told.append(
            f"networks of {table.name} took {fmean(pairs):.0%} more or less from pass to pass; measure on a quieter"
            " machine"
        )
    return told


def gap_of(study: Study) -> str | None:
    """How far the networks of a frontier are from their validation scores on test images, in one line; None where none
    was judged.
    """
    from mvnas.verification.tested import compared

    both = compared(study)
    return gap_line(both, study.setup.quality) if both else None


def gap_line(both: Sequence[tuple[float, OnTest]], metric: Metric) -> str:
    """How far test scores of networks are from their validation scores on average, in one line."""
    gap = mean_gap(both)
    apart = metric.value(1 - gap) - metric.value(1)
    amount = f"{abs(apart):.3g} {metric.unit}" if metric.unit else f"{100 * abs(apart):.1f} points"
    way = "lower" if apart < 0 else "higher"
    chosen = ", by which they were chosen" if gap > 0 else ""
    count = both[0][1].count
    share = fmean(row.quality for _, row in both)
    unsure = "" if metric.unit else f", which tell a share to {100 * (share * (1 - share) / count) ** 0.5:.1f} points"
    return (
        f"test {metric.name} of {len(both)} networks is {amount} {way} on average than on validation images{chosen}"
        f" ({count:,} test images{unsure})"
    )


def mean_gap(both: Sequence[tuple[float, OnTest]]) -> float:
    """How much less the quality of networks is on test images than on validation images, on average."""
    return fmean(quality - row.quality for quality, row in both)


def trained_line(study: Study) -> str:
    """How many trainings of how many networks a study has."""
    scores = study.scores()
    trainings = sum(len(score.quality.observed) for score in scores)
    if trainings == len(scores):
        return f"{trainings} networks were trained"
    return f"{trainings} trainings of {len(scores)} networks: the likeliest of the frontier were trained more than once"


def explained_line(study: Study) -> str:
    """How much of the differences between qualities is the networks' own, and what to do where it is little."""
    share = study.explained
    if share is None:
        return "too few networks were trained to tell what is theirs of their differences and what is luck"
    told = f"choices and costs explain {max(0.0, share):.0%} of the differences between scores (cross-validated R2)"
    if share < LUCK:
        return f"{told}: the order is luck; train longer (--epochs), on more images, or at one size (--technique none)"
    return told


def rank_line(study: Study) -> str | None:
    """How far a study's short scores may be trusted, in one line; None where nothing was trained longer."""
    from mvnas.verification.rank import ranking

    found = ranking(study)
    return ranking_line(found) if found else None


def ranking_line(found: Ranking) -> str:
    """How well short trainings rank candidates, in one line."""
    if not found.overall:
        return f"too few candidates were trained {found.longest}x longer to compare orders"
    most = f"; noise lets it be {found.ceiling.tau:.2f} at most" if found.ceiling else ""
    return f"short scores rank like {found.longest}x longer ones: {_tau(found.overall)}{most}"


def _tau(found: Agreement) -> str:
    return f"tau {found.tau:.2f} ({found.tau_low:.2f} .. {found.tau_high:.2f}), {found.candidates} candidates"


def slices_line(study: Study) -> str | None:
    """What became of the frontier of a study whose scores are of slices of a supernet, in one line; None for others."""
    from mvnas.verification.retrain import trained_after

    if study.setup.scores == SHORT:
        return None
    known, told = trained_after(study), study.setup.quality.told
    rows = [
        f"{score.label} {told(known[score.number])} after {told(score.quality.value)}"
        for score in study.frontier().scores
        if score.number in known
    ]
    trained = (
        f"trained from them for {study.setup.schedule['epochs']:g} epochs: {', '.join(rows)}"
        if rows
        else ("none was trained; the same search does that")
    )
    return f"scores are of {SCORES[study.setup.scores]}; {trained}"


def rests(resting: Mapping[str, int]) -> str:
    """How many candidates rest at which rung, in words."""
    return ", ".join(f"{count} rest after {share} of the epochs" for share, count in resting.items())


def rest_line(study: Study) -> str | None:
    """How many candidates were not trained in full, in one line; None where all are."""
    return f"not trained in full: {rests(study.resting)}; the frontier is of those that were" if study.resting else None
