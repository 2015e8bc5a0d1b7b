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

from mvnas.accuracy import AccuracyModel
from mvnas.spaces.arch import Arch
from mvnas.spaces.space import Space
from mvnas.strategies import Asked, Context, Proposal, Told, Validation, check, key_of
from mvnas.strategies._points import Points
from mvnas.strategies._proposing import _together, evolve, improvement, propose
from mvnas.strategies.pareto import ranks
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
            pending.append(Asked(number, proposal.picks, proposal.rung, proposal.notes, proposal.repeat))
            proposals.append(proposal)
        if not pending:
            break
        one = pending.pop(0)
        arch = strategy.points.space.at(one.picks)
        failed = one.number % 7 == 3
        score = None if failed else accuracy(arch, strategy.shares[one.rung])
        history.append(Told(one.number, one.picks, one.rung, score, one.notes, one.repeat))
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
    assert len({one.number for one in history}) == (costs <= limit).sum()


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


def test_of_a_batch_each_is_chosen_beside_those_before_it() -> None:
    rows = list(dict.fromkeys(Points(SMALL, cost, excess).draw(random.Random(seed)) for seed in range(9)))[:3]
    # What tells of the first tells all of the second.
    alike = np.array([[1.0, 1.0, 0.0], [1.0, 1.0, 0.0], [0.0, 0.0, 0.5]]) * 0.01
    arguments = rows, np.ones(3), np.full(3, 0.5), alike, np.ones(3), np.array([[0.4, 2.0]]), 3.0
    assert [row for _, row in _together(2, *arguments)] == [rows[0], rows[2]]


def test_what_is_in_training_counts_as_if_it_had_the_accuracy_expected_of_it() -> None:
    points = Points(SMALL, cost, excess)
    generator = random.Random(0)
    rows = dict(enumerate(dict.fromkeys(points.draw(generator) for _ in range(20))))
    scores = {number: accuracy(SMALL.at(points.picks(row))) for number, row in rows.items()}
    batch = propose(points, rows, [scores], (), random.Random(0), validation=VALIDATION, count=4)
    assert len(set(batch)) == 4 and not {choice.row for choice in batch} & set(rows.values())
    asked = {**rows, 100: batch[0].row}
    assert propose(points, asked, [scores], {100}, random.Random(0), validation=VALIDATION) == batch[1:2]


def noisy(truth: float, seed: int, number: int, repeat: int) -> float:
    """A score whose luck is half as great as the differences between networks."""
    return float(np.clip(truth + 0.05 * np.random.default_rng((seed, number, repeat)).standard_normal(), 0.01, 0.99))


@pytest.mark.parametrize("patience", [100, 5])
def test_where_luck_is_great_candidates_are_trained_again_from_other_seeds(
    monkeypatch: pytest.MonkeyPatch, patience: int
) -> None:
    monkeypatch.setattr("mvnas.strategies.surrogate.PATIENCE", patience)
    context = Context(SMALL, cost, excess, VALIDATION)
    strategy, history, proposals = Strategy(context), list[Told](), list[Proposal]()
    for _ in range(40):
        proposal = strategy.next(history, (), 0)
        assert proposal
        check(proposal, context, history, ())
        number = proposal.number if proposal.repeat else len({one.number for one in history})
        score = noisy(accuracy(SMALL.at(proposal.picks)), 0, number, proposal.repeat)
        history.append(Told(number, proposal.picks, 0, score, proposal.notes, proposal.repeat))
        proposals.append(proposal)
    again = [one for one in proposals if one.repeat]
    assert 1 <= len(again) <= 30
    archs = [SMALL.at(one.picks) for one in proposals if not one.repeat]
    fronts = ranks(np.array([(-accuracy(arch), cost(arch)) for arch in archs]))
    assert np.mean([fronts[archs.index(SMALL.at(one.picks))] for one in again]) < np.mean(fronts)
    for i in (12, 25, 39):
        assert Strategy(context).next(history[:i], (), 0) == proposals[i]


def test_where_there_is_no_luck_all_trainings_are_of_new_candidates() -> None:
    _, proposals = run(Strategy(Context(SMALL, cost, excess, VALIDATION)), 30)
    assert sum(one.repeat > 0 for one in proposals) <= 2


def test_only_listed_points_are_proposed_until_none_is_left() -> None:
    points = Points(SMALL, cost, excess)
    listed = [points.picks(row) for row in points.all()[::13]]
    few = [picks for picks in listed if excess(SMALL.at(picks)) == 0]
    _, proposals = run(Strategy(Context(SMALL, cost, excess, VALIDATION, listed=listed)), 60)
    new = [key_of(one.picks) for one in proposals if not one.repeat]
    assert set(new) == {key_of(picks) for picks in few} and len(new) == len(few)


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
    model = AccuracyModel.fit(features.rows(known), [[score] for score in scores[known]], validation)
    found, _ = model.predict(features)
    assert kendalltau(found, scores).statistic > 0.8
    assert np.abs(found - scores).max() < 0.25 * (high - low)


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
        return points.look([choice.row for choice in proposed])[:, 0]

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
