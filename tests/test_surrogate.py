"""Laws of the surrogate: what it proposes is new, affordable, repeatable, and better than chance."""

from __future__ import annotations

import random
from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
import yaml
from small import SPACE

from mvnas.arch import Arch
from mvnas.rungs import SHARES
from mvnas.space import Space
from mvnas.strategy import Asked, Proposal, Surrogate, Told
from mvnas.surrogate import Model, Points, _together, evolve, improvement, propose

SMALL = Space.from_data(yaml.safe_load(SPACE), source="small")
LARGE = Space.load("mobilevit")
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


def run(strategy: Surrogate, count: int, seed: int = 0, workers: int = 1) -> tuple[list[Told], list[Proposal]]:
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
        history.append(Told(*one, None if failed else accuracy(arch, strategy.shares[one.rung])))
    return history, proposals


@pytest.mark.parametrize("shares", [(1.0,), SHARES])
@pytest.mark.parametrize("workers", [1, 3])
def test_proposals_are_new_affordable_and_repeat(shares: Sequence[float], workers: int) -> None:
    history, proposals = run(Surrogate(SMALL, cost, excess, shares=shares), 20, workers=workers)
    begun = [tuple(one.picks.items()) for one in proposals if one.number is None]
    assert len(set(begun)) == len(begun)
    assert all(excess(SMALL.at(one.picks)) == 0 for one in proposals)
    again = Surrogate(SMALL, cost, excess, shares=shares)
    assert run(again, 20, workers=workers) == (history, proposals)
    assert run(again, 20, seed=1, workers=workers)[1] != proposals
    if workers == 1:  # goes on from any point of its history, whoever asks
        for i in (3, 9, 18):
            assert Surrogate(SMALL, cost, excess, shares=shares).next(history[:i], (), 0) == proposals[i]


def test_a_batch_of_a_long_study_is_chosen_once_and_again_by_whoever_goes_on(monkeypatch: pytest.MonkeyPatch) -> None:
    chosen: list[int] = []

    def counting(*args: Any, count: int, **settings: Any) -> list[tuple[int, ...]]:
        chosen.append(count)
        return propose(*args, count=count, **settings)

    monkeypatch.setattr("mvnas.strategy.propose", counting)
    monkeypatch.setattr("mvnas.strategy.PATIENCE", 5)
    history, proposals = run(Surrogate(SMALL, cost, excess), 30)
    assert chosen == [1] * 7 + [2, 2, 2, 3, 3, 4, 4, 5]  # from the third on; a fifth of what there is from the tenth on
    assert len({tuple(one.picks.items()) for one in proposals}) == 30
    for i in (11, 17, 28):
        assert Surrogate(SMALL, cost, excess).next(history[:i], (), 0) == proposals[i]


def test_a_space_is_searched_to_its_end_and_no_further() -> None:
    points = Points(SMALL, cost, lambda arch: 0.0)
    costs = points.look(list(np.ndindex(*points.sizes)))[:, 0]
    limit = np.sort(costs)[14]
    tight = Surrogate(SMALL, cost, lambda arch: max(0.0, cost(arch) / limit - 1), shares=(1.0,))
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
    model = Model.fit(features[:30], scores[:30], np.zeros(30))
    mean, deviation = model.predict(features[30:])
    assert np.abs(mean - scores[30:]).max() < 0.05
    together, covariance = model.joint(features[30:])
    assert together == pytest.approx(mean) and np.diag(covariance) ** 0.5 == pytest.approx(deviation)
    assert np.linalg.eigvalsh(covariance).min() > 0

    draws = np.append(
        model.predict(20 * features)[0], Model.fit(features, scores.round(), np.zeros(40)).predict(features)[0]
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
    batch = propose(points, rows, [scores], (), random.Random(0), count=4)
    assert len(set(batch)) == 4 and not set(batch) & set(rows.values())
    asked = {**rows, 100: batch[0]}
    assert propose(points, asked, [scores], {100}, random.Random(0)) == batch[1:2]


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
    assert len(met) > 500 and not np.isnan(points.look(met)).any()
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
        strategy, history = Surrogate(SMALL, cost, lambda arch: 0.0, shares=(1.0,)), []
        while len(history) < 25:
            picks = strategy.next(history, (), seed).picks
            history.append(Told(len(history), picks, 0, truth[points.row(picks)][0]))
        ours.append(missing([points.row(one.picks) for one in history]))
        chance.append(missing(random.Random(seed).sample(rows, 25)))
    assert np.mean(ours) < np.mean(chance) / 3
