"""How far short scores may be trusted: a sample of a study's candidates is trained longer, and the orders are
compared.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from mvnas.data import Data
from mvnas.errors import StudyError
from mvnas.measuring.order import Array, rho, tau
from mvnas.studies.score import Score
from mvnas.studies.study import Study
from mvnas.system.progress import Progress, silent
from mvnas.verification.ceiling import Ceiling, ceiling
from mvnas.verification.retrain import accuracies, retrain, retrained, trainer

CANDIDATES, LONGER = 12, 4  # what is trained where the user says nothing: so many, so many times longer
FEWEST_RANKED = (
    8  # candidates whose order is worth a figure: fewer may agree wholly by luck, and their intervals would not show it
)
ENOUGH = 0.5  # what the lower end of tau's interval must reach: three pairs in four in the same order
CONFIDENCE, RESAMPLES = 0.95, 999
THIRD = 3  # the best of so many parts are looked at by themselves
PAIRS = 10**6  # of candidates compared at once, which bounds memory


@dataclass(frozen=True)
class Agreement:
    """How alike two scores order the same candidates: Kendall's tau-b and Spearman's rho, with CONFIDENCE intervals.

    The intervals are percentiles of a bootstrap over the candidates; a resample that holds a single one has no order
    and counts as 0.
    """

    candidates: int
    tau: float
    tau_low: float
    tau_high: float
    rho: float
    rho_low: float
    rho_high: float

    @classmethod
    def of(cls, one: Sequence[float], other: Sequence[float]) -> Agreement | None:
        """None if there are fewer than FEWEST_RANKED candidates, or all are equal in one of the scores."""
        if len(one) < FEWEST_RANKED or min(len(set(one)), len(set(other))) == 1:
            return None
        return cls(len(one), *_estimate(tau, one, other), *_estimate(rho, one, other))


def _estimate(
    measure: Callable[[Array, Array], Array], one: Sequence[float], other: Sequence[float]
) -> tuple[float, float, float]:
    """A correlation with its interval."""
    from scipy.stats import bootstrap

    def statistic(a: Array, b: Array, axis: int) -> Array:
        return measure(np.moveaxis(a, axis, -1), np.moveaxis(b, axis, -1))

    low, high = bootstrap(
        (one, other),
        statistic,
        paired=True,
        n_resamples=RESAMPLES,
        batch=max(1, PAIRS // len(one) ** 2),
        confidence_level=CONFIDENCE,
        method="percentile",
        rng=0,
    ).confidence_interval
    return float(measure(np.array(one), np.array(other))), float(low), float(high)


@dataclass(frozen=True)
class Ranking:
    """What training `longest` times as long says of a study's scores.

    `overall`, `frontier` and `top_third` compare the study's own scores, of the first training of each candidate, with
    the longest training: of all, of the frontier, and of the third that is best after the longest. `modelled` compares
    what the study expects of all, by its model of accuracy, with the longest. `lengths` compares other trainings, by
    how many times as long they are. 1 is the study's length again, from another seed: it tells what is luck, and so the
    `ceiling` of `overall`, None where fewer than FEWEST_RANKED have it. `enough` is the least length whose interval of
    tau lies above ENOUGH, None if no shorter one was found; `failed` trainings are left out.
    """

    longest: int
    overall: Agreement | None
    modelled: Agreement | None
    frontier: Agreement | None
    top_third: Agreement | None
    ceiling: Ceiling | None
    lengths: Mapping[int, Agreement | None]
    enough: int | None
    failed: int


def rank(
    study: Study,
    data: Data,
    *,
    candidates: int | None = None,
    longer: int = LONGER,
    engine: str | None = None,
    progress: Progress = silent,
    tell: Progress | None = None,
) -> Ranking:
    """Train a sample of the study's candidates longer, as far as that is not done yet, and compare the orders.

    `engine` is that of the user's own by which the study was searched, if it was one. `progress` is told of whole
    trainings, and `tell` of what is done in one.

    Raises:
        StudyError: nothing has finished, `candidates` are fewer than the frontier, `longer` is not longer, or the
            engine is another.
    """
    if longer < 2:
        raise StudyError(f"longer must be 2 or more times the epochs of the study, but got {longer}")
    chosen = sample(study, candidates)
    front = {score.number for score in study.frontier().scores}
    left = [(times, score) for times in reversed(lengths(longer)) for score in chosen]
    with trainer(study, data, engine, tell=tell) as train:
        for done, (times, score) in enumerate(left):
            progress("trainings", done, len(left))
            retrain(study, score, times, train, keep=times == longer and score.number in front)
    progress("trainings", len(left), len(left))
    found = ranking(study, longer)
    assert found
    return found


def lengths(longer: int) -> list[int]:
    """How many times as long is trained: 1, 2, 4 .. and `longer`.

    >>> lengths(6)
    [1, 2, 4, 6]
    """
    return [*(2**i for i in range((longer - 1).bit_length())), longer]


def sample(study: Study, count: int | None = None) -> list[Score]:
    """`count` candidates, from the least accurate to the most: the frontier, and of the others one in each of equally
    many strata.

    Strata are made in the order of accuracy; a candidate that was trained longer before is chosen again, else a random
    one. Without a count they are CANDIDATES, and more where the frontier has more.

    Raises:
        StudyError: nothing has finished, or the frontier is larger than the count.
    """
    front = study.frontier().scores
    if not front:
        raise StudyError(
            f"a study must have finished candidates to rank, but {study.place} has none; run the search first"
        )
    count = max(CANDIDATES, len(front)) if count is None else count
    if count < len(front):
        raise StudyError(
            f"candidates must be {len(front)} or more, since the frontier is always among them, but got {count}"
        )
    known = {number for number, _ in retrained(study)}
    numbers = {score.number for score in front}
    others = sorted((score for score in study.scores() if score.number not in numbers), key=_order)
    generator = random.Random(study.setup.seed)
    chosen = list(front)
    strata = min(count - len(front), len(others))
    for places in np.array_split(np.arange(len(others)), strata) if strata else ():
        stratum = [others[i] for i in places]
        drawn = generator.choice(stratum)
        chosen.append(next((score for score in stratum if score.number in known), drawn))
    return sorted(chosen, key=_order)


def _order(score: Score) -> tuple[float, int]:
    return score.quality.value, score.number


def ranking(study: Study, longest: int | None = None) -> Ranking | None:
    """What a study knows from longer trainings, those of `longest` times its epochs or of the longest that were
    made; None if none was.
    """
    rows = retrained(study)
    longest = longest or max((times for _, times in rows if times > 1), default=None)
    if longest is None:
        return None
    truth = accuracies(study, longest)
    scores = study.scores()
    short = {score.number: score.quality.observed[0] for score in scores}
    expected = {score.number: score.quality.value for score in scores}
    front = {score.number: short[score.number] for score in study.frontier().scores}

    def compare(told: Mapping[int, float]) -> Agreement | None:
        both = sorted(told.keys() & truth.keys())
        return Agreement.of([told[number] for number in both], [truth[number] for number in both])

    overall = compare(short)
    best = sorted(short.keys() & truth.keys(), key=lambda number: -truth[number])
    third = {number: short[number] for number in best[: -(-len(best) // THIRD)]}
    others = {times: compare(accuracies(study, times)) for times in lengths(longest)[:-1]}
    tried = {**others, 1: overall}
    enough = [times for times, found in sorted(tried.items()) if found and found.tau_low >= ENOUGH]
    failed = sum(row.accuracy is None for row in rows.values())
    top = _ceiling(short, accuracies(study, 1), truth, study.setup.judged)
    least = enough[0] if enough else None
    return Ranking(longest, overall, compare(expected), compare(front), compare(third), top, others, least, failed)


def _ceiling(
    short: Mapping[int, float], again: Mapping[int, float], long: Mapping[int, float], images: int
) -> Ceiling | None:
    """The ceiling of candidates by trial; None if too few have all three scores."""
    numbers = sorted(short.keys() & again.keys() & long.keys())
    if len(numbers) < FEWEST_RANKED:
        return None
    one, other, late = ([scores[number] for number in numbers] for scores in (short, again, long))
    return ceiling(one, other, late, images)
