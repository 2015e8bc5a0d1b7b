"""Laws of the surrogate: what it proposes is new, affordable, repeatable, and better than chance."""

from __future__ import annotations

import random
from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
import yaml
from scipy.stats import kendalltau
from small import SPACE

from mvnas.spaces.arch import Arch
from mvnas.spaces.space import Space
from mvnas.strategies import Asked, Context, Proposal, Told, Validation
from mvnas.strategies._accuracy import Model, logits
from mvnas.strategies._points import Points
from mvnas.strategies._proposing import _together, evolve, improvement, propose
from mvnas.strategies.rungs import SHARES
from mvnas.strategies.surrogate import Strategy

SMALL = Space.from_data(yaml.safe_load(SPACE), source="small")
LARGE = Space.load("mobilevit")
VALIDATION = Validation(1000, 1 / 10)
LIMIT = 1.2e7  # MACs, of networks between 0.7 and 2.6 such


def cost(arch: Arch) -> float:
    return arch.macs / 1e6


def excess(arch: Arch) -> float:
    return max(0.0, arch.macs / LIMIT - 1)


def accuracy(arch: Arch, share: float = 1.0) -> float:
    """A smooth truth that grows with params and MACs, and with the length of the training."""
    return share**0.2 / (1 + np.exp(-np.log(arch.params / 2e4) - 0.5 * np.log(arch.macs / 1e7)))


def area(points: np.ndarray, worst: float) -> float:
    """Hypervolume of (accuracy, cost): from accuracy 0, up to cost `worst`."""
    ordered = points[points[:, 1].argsort()]
    rises = np.diff(np.maximum.accumulate(np.append(0.0, ordered[:, 0])))
    return float((rises * np.maximum(worst - ordered[:, 1], 0)).sum())


def run(strategy: Strategy, count: int, seed: int = 0, workers: int = 1) -> tuple[list[Told], list[Proposal]]:
    """History and proposals of a search whose `workers` trainings finish in order."""
    history: list[Told] = []
    pending: list[Asked] = []
    proposals: list[Proposal] = []
    for _ in range(count):
        while len(pending) < workers and (proposal := strategy.next(history, pending, seed)):
            number = proposal.number if proposal.number is not None else sum(p.number is None for p in proposals)
            pending.append(Asked(number, proposal.picks, proposal.rung))
            proposals.append(proposal)
        if not pending:
            break
        one = pending.pop(0)
        arch = strategy.points.space.at(one.picks)
        failed = one.number % 7 == 3
        history.append(
            Told(one.number, one.picks, one.rung, None if failed else accuracy(arch, strategy.shares[one.rung]))
        )
    return history, proposals


@pytest.mark.parametrize("shares", [(1.0,), SHARES])
@pytest.mark.parametrize("workers", [1, 3])
def test_proposals_are_new_affordable_and_repeat(shares: Sequence[float], workers: int) -> None:
    history, proposals = run(Strategy(Context(SMALL, cost, excess, VALIDATION, shares)), 20, workers=workers)
    begun = [tuple(one.picks.items()) for one in proposals if one.number is None]
    assert len(set(begun)) == len(begun)
    assert all(excess(SMALL.at(one.picks)) == 0 for one in proposals)
    again = Strategy(Context(SMALL, cost, excess, VALIDATION, shares))
    assert run(again, 20, workers=workers) == (history, proposals)
    assert run(again, 20, seed=1, workers=workers)[1] != proposals
    if workers == 1:  # goes on from any point of its history, whoever asks
        for i in (3, 9, 18):
            assert Strategy(Context(SMALL, cost, excess, VALIDATION, shares)).next(history[:i], (), 0) == proposals[i]


def test_a_batch_of_a_long_study_is_chosen_once_and_again_by_whoever_goes_on(monkeypatch: pytest.MonkeyPatch) -> None:
    chosen: list[int] = []

    def counting(*args: Any, count: int, **settings: Any) -> list[tuple[int, ...]]:
        chosen.append(count)
        return propose(*args, count=count, **settings)

    monkeypatch.setattr("mvnas.strategies.surrogate.propose", counting)
    monkeypatch.setattr("mvnas.strategies.surrogate.PATIENCE", 5)
    history, proposals = run(Strategy(Context(SMALL, cost, excess, VALIDATION)), 30)
    assert chosen == [1] * 7 + [2, 2, 2, 3, 3, 4, 4, 5]  # from the third on; a fifth of what there is from the tenth on
    assert len({tuple(one.picks.items()) for one in proposals}) == 30
    for i in (11, 17, 28):
        assert Strategy(Context(SMALL, cost, excess, VALIDATION)).next(history[:i], (), 0) == proposals[i]


def test_a_space_is_searched_to_its_end_and_no_further() -> None:
    points = Points(SMALL, cost, lambda arch: 0.0)
    costs = points.look(list(np.ndindex(*points.sizes)))[:, 0]
    limit = np.sort(costs)[14]
    tight = Strategy(Context(SMALL, cost, lambda arch: max(0.0, cost(arch) / limit - 1), VALIDATION, (1.0,)))
    history, _ = run(tight, 100)
    assert len(history) == (costs <= limit).sum()


def test_improvement_is_the_mean_growth_of_hypervolume() -> None:
    generator = np.random.default_rng(0)
    front = np.column_stack([generator.random(6), 10 * generator.random(6)])
    costs, mean, deviation = 12 * generator.random(5), generator.random(5), 0.2 * generator.random(5) + 0.01
    worst = 11.0

    draws = mean + deviation * generator.standard_normal((20_000, 5))
    found = improvement(front, costs, mean, deviation, worst)
    for i in range(5):
        grown = [area(np.vstack([front, (draw, costs[i])]), worst) - area(front, worst) for draw in draws[:, i]]
        assert found[i] == pytest.approx(np.mean(grown), abs=5 * np.std(grown) / len(grown) ** 0.5 + 1e-9)


def test_expected_accuracies_are_accuracies_and_alike_together_and_one_by_one() -> None:
    generator = np.random.default_rng(0)
    features = generator.standard_normal((40, 3))
    scores = 1 / (1 + np.exp(-2 - features @ (1.0, 0.5, 0.0) - 0.1 * generator.standard_normal(40)))
    model = Model.fit(features[:30], scores[:30], np.zeros(30), VALIDATION)
    mean, deviation = model.predict(features[30:])
    assert np.abs(mean - scores[30:]).max() < 0.05
    together, covariance = model.joint(features[30:])
    assert together == pytest.approx(mean) and np.diag(covariance) ** 0.5 == pytest.approx(deviation)
    assert np.linalg.eigvalsh(covariance).min() > 0

    draws = np.append(
        model.predict(20 * features)[0],
        Model.fit(features, scores.round(), np.zeros(40), VALIDATION).predict(features)[0],
    )
    assert (draws >= 0).all() and (draws <= 1).all()  # far outside, and where all that was seen is 0 or 1
    assert (model.predict(100 * features)[1] > 0).all()  # which expected growth is divided by
    least, greatest = (model.predict(np.array([[x, 0.0, 0.0]]))[1] for x in (0.0, 3.0))
    assert greatest < least  # accuracies near 1 differ less


def test_of_a_batch_each_is_chosen_beside_those_before_it() -> None:
    rows = list(dict.fromkeys(Points(SMALL, cost, excess).draw(random.Random(seed)) for seed in range(9)))[:3]
    # What tells of the first tells all of the second.
    alike = np.array([[1.0, 1.0, 0.0], [1.0, 1.0, 0.0], [0.0, 0.0, 0.5]]) * 0.01
    arguments = rows, np.ones(3), np.full(3, 0.5), alike, np.array([[0.4, 2.0]]), 3.0
    assert _together(2, *arguments) == [rows[0], rows[2]]


def test_what_is_in_training_counts_as_if_it_had_the_accuracy_expected_of_it() -> None:
    points = Points(SMALL, cost, excess)
    generator = random.Random(0)
    rows = dict(enumerate(dict.fromkeys(points.draw(generator) for _ in range(20))))
    scores = {number: accuracy(SMALL.at(points.picks(row))) for number, row in rows.items()}
    batch = propose(points, rows, [scores], (), random.Random(0), validation=VALIDATION, count=4)
    assert len(set(batch)) == 4 and not set(batch) & set(rows.values())
    asked = {**rows, 100: batch[0]}
    assert propose(points, asked, [scores], {100}, random.Random(0), validation=VALIDATION) == batch[1:2]


def volume(values: np.ndarray, worst: np.ndarray) -> float:
    """Area that points (n, 2), of which less is better in both, dominate below `worst`."""
    area, low = 0.0, worst[0]
    for first, second in sorted(map(tuple, values), key=lambda row: (row[1], row[0])):
        area += max(0.0, low - first) * (worst[1] - second)
        low = min(low, first)
    return area


def test_breeding_finds_more_than_as_many_random_points() -> None:
    points = Points(LARGE, cost, lambda arch: max(0.0, arch.params / 6e6 - 1))

    def judge(rows: Sequence[tuple[int, ...]]) -> np.ndarray:
        return np.array(
            [(-accuracy(LARGE.at(points.picks(row))) * 100, cost(LARGE.at(points.picks(row)))) for row in rows]
        )

    generator = random.Random(0)
    first = [points.draw(generator) for _ in range(20)]
    met = evolve(points, judge, first, np.random.default_rng(0))
    drawn = [points.draw(generator) for _ in range(len(met))]
    assert len(met) > 500 and points.fitting(met) == met
    bred, random_ones = judge(met), judge(drawn)
    worst = np.maximum(bred.max(0), random_ones.max(0))
    assert volume(bred, worst) > volume(random_ones, worst)


def test_it_beats_chance_by_a_wide_margin() -> None:
    """What is missing of the whole space's hypervolume after 25 of 256 trainings."""
    points = Points(SMALL, cost, lambda arch: 0.0)
    rows = [tuple(row) for row in np.ndindex(*points.sizes)]
    noise = dict(zip(rows, 0.01 * np.random.default_rng(0).standard_normal(len(rows)), strict=True))
    truth = {row: (accuracy(SMALL.at(points.picks(row))) + noise[row], points.look([row])[0, 0]) for row in rows}
    worst = max(latency for _, latency in truth.values())

    def missing(chosen: Sequence[tuple[int, ...]]) -> float:
        return 1 - area(np.array([truth[row] for row in chosen]), worst) / area(np.array(list(truth.values())), worst)

    ours, chance = [], []
    for seed in range(4):
        strategy, history = Strategy(Context(SMALL, cost, lambda arch: 0.0, VALIDATION, (1.0,))), []
        while len(history) < 25:
            picks = strategy.next(history, (), seed).picks
            history.append(Told(len(history), picks, 0, truth[points.row(picks)][0]))
        ours.append(missing([points.row(one.picks) for one in history]))
        chance.append(missing(random.Random(seed).sample(rows, 25)))
    assert np.mean(ours) < np.mean(chance) / 3


@pytest.mark.parametrize(
    ("validation", "low", "high"),
    [
        (Validation(50_000, 1 / 1000), 0.0011, 0.005),  # a thousand classes after a short training
        (Validation(50_000, 1 / 1000), 0.10, 0.49),
        (Validation(10_000, 1 / 10), 0.995, 0.9995),
    ],
)
def test_accuracies_are_told_apart_wherever_they_lie(validation: Validation, low: float, high: float) -> None:
    points = Points(SMALL, cost, lambda arch: 0.0)
    rows = points.all()
    truth = np.array([accuracy(SMALL.at(points.picks(row))) for row in rows])
    scores = low * (high / low) ** ((truth - truth.min()) / np.ptp(truth))
    known, features = np.arange(0, len(rows), 6), points.features(rows)
    model = Model.fit(features[known], scores[known], np.zeros(len(known)), validation)
    found, _ = model.predict(features)
    assert kendalltau(found, scores).statistic > 0.8
    assert np.abs(found - scores).max() < 0.25 * (high - low)


def test_an_accuracy_is_known_to_half_an_image_at_both_ends_and_tells_nothing_below_chance() -> None:
    few, many = Validation(100, 1 / 1000), Validation(50_000, 1 / 1000)
    accuracies = np.array([0.02, 0.3, 0.995, 1.0])
    for validation, bound in ((few, np.log(199)), (many, np.log(99_999))):
        found, variance = logits(validation, accuracies, np.zeros(4))
        assert found[-1] == pytest.approx(bound) and (np.diff(found) >= 0).all()
        mirrored, same = logits(validation, 1 - accuracies[1:3], np.zeros(2))
        assert mirrored == pytest.approx(-found[1:3]) and same == pytest.approx(variance[1:3])
    assert logits(few, np.zeros(1), np.zeros(1))[0] == pytest.approx(-np.log(199))
    chance, _ = logits(many, np.array([0.0, 0.0004, 0.001, 0.0011]), np.zeros(4))
    assert chance[:2] == pytest.approx(chance[2]) == pytest.approx(-np.log(999)) and chance[3] > chance[2]
    assert logits(many, np.array([0.5]), np.array([0.01]))[1] == pytest.approx(0.16)


def test_the_same_order_is_proposed_for_whatever_its_accuracies_are() -> None:
    points = Points(LARGE, lambda arch: arch.macs / 1e9, lambda arch: max(0.0, arch.params / 6e6 - 1))
    generator = random.Random(1)
    rows = dict(enumerate(dict.fromkeys(points.draw(generator) for _ in range(20))))
    sizes = np.log([LARGE.at(points.picks(row)).macs for row in rows.values()])
    order = (sizes - sizes.min()) / np.ptp(sizes)

    def costs(low: float, high: float) -> np.ndarray:
        scores = dict(enumerate(low + (high - low) * order))
        proposed = propose(
            points, rows, [scores], (), random.Random(0), validation=Validation(50_000, 1 / 1000), count=5
        )
        return points.look(proposed)[:, 0]

    long, short = costs(0.10, 0.49), costs(0.001, 0.0049)
    assert np.median(short) == pytest.approx(np.median(long), rel=0.5)


@pytest.mark.parametrize("over", [1, 20])
@pytest.mark.parametrize("shares", [(1.0,), SHARES])
def test_candidates_that_have_come_to_be_over_the_budget_are_learnt_from_and_left_alone(
    over: int, shares: Sequence[float]
) -> None:
    history, _ = run(Strategy(Context(SMALL, cost, excess, VALIDATION, shares)), 20)
    costs = sorted(cost(SMALL.at(one.picks)) for one in history)
    limit = (costs[-over - 1] + costs[-over]) / 2 if over < len(history) else costs[0] * 0.999
    shifted = Strategy(Context(SMALL, cost, lambda arch: max(0.0, cost(arch) / limit - 1), VALIDATION, shares))
    proposal = shifted.next(history, (), 0)
    assert proposal is None or cost(SMALL.at(proposal.picks)) <= limit
    assert proposal is not None or over == len(history)
