"""Laws of frontiers: brute force, a fine grid and plain geometry say the same."""

from __future__ import annotations

import json
import random
from dataclasses import replace
from math import log

import numpy as np
import pytest

from mvnas.errors import StudyError
from mvnas.latency.estimate import Estimate
from mvnas.spaces.space import Space
from mvnas.studies.score import Frontier, Quality, Score

ARCH = Space.load("mobilevit_xxs").arch()


def score(accuracy: float, latency_ms: float, number: int = 0) -> Score:
    return Score(ARCH, Quality(accuracy), {"latency": Estimate.exactly(latency_ms, "ms")}, number)


def accuracy(one: Score) -> float:
    return one.quality.value


def ms(one: Score) -> float:
    return one.costs["latency"].value


def cloud(seed: int, count: int = 40) -> list[Score]:
    """Scores on a coarse grid, so that many tie in one or both objectives."""
    generator = random.Random(seed)
    return [score(generator.randint(0, 20) / 20, generator.randint(1, 20), number) for number in range(count)]


each_cloud = pytest.mark.parametrize("scores", [cloud(seed) for seed in range(20)], ids=range(20))


@each_cloud
def test_a_frontier_holds_what_nothing_beats_and_nothing_else(scores: list[Score]) -> None:
    points = np.array([(-accuracy(one), ms(one)) for one in scores])
    no_worse = (points[:, None] <= points[None]).all(-1)
    better = (points[:, None] < points[None]).any(-1)
    unbeaten = ~(no_worse & better).any(0)
    frontier = Frontier.of(scores)
    assert {one.number for one in frontier.scores} == set(np.flatnonzero(unbeaten))
    latencies = [ms(one) for one in frontier.scores]
    accuracies = [accuracy(one) for one in frontier.scores]
    assert latencies == sorted(latencies)
    assert accuracies == sorted(accuracies)
    assert Frontier.of(frontier.scores) == frontier
    assert Frontier.of(reversed(scores)) == frontier


@each_cloud
def test_hypervolume_is_the_share_of_a_grid_that_is_beaten(scores: list[Score]) -> None:
    slowest = 15.0  # some scores are slower
    heights = (np.arange(20) + 0.5) / 20  # the middle of each cell of the grid the scores lie on
    latency = np.arange(15) + 0.5
    beaten = [(heights[:, None] < accuracy(one)) & (latency > ms(one)) for one in scores]
    expected = np.mean(np.any(beaten, axis=0))
    assert Frontier.of(scores).hypervolume(worst=slowest) == pytest.approx(expected)


def test_hypervolume_of_none_and_of_the_perfect_network() -> None:
    assert Frontier.of([]).hypervolume(worst=10) == 0
    assert Frontier.of([score(1.0, 1e-9)]).hypervolume(worst=10) == pytest.approx(1)
    assert Frontier.of([score(0.9, 10.0)]).hypervolume(worst=10) == 0


@each_cloud
def test_best_and_fastest_are_the_ends(scores: list[Score]) -> None:
    frontier = Frontier.of(scores)
    best, fastest, knee = (frontier.pick(what) for what in ("best", "fastest", "knee"))
    assert accuracy(best) == max(accuracy(one) for one in scores)
    assert ms(best) == min(ms(one) for one in scores if accuracy(one) == accuracy(best))
    assert ms(fastest) == min(ms(one) for one in scores)
    assert accuracy(fastest) == max(accuracy(one) for one in scores if ms(one) == ms(fastest))
    assert knee in frontier.scores


@each_cloud
def test_the_knee_is_farthest_above_the_line_between_the_ends(scores: list[Score]) -> None:
    frontier = Frontier.of(scores)
    start, end = frontier.pick("fastest"), frontier.pick("best")
    span = np.array([log(ms(end) / ms(start)), accuracy(end) - accuracy(start)])

    def distance(one: Score) -> float:
        x, y = np.array([log(ms(one) / ms(start)), accuracy(one) - accuracy(start)]) / span
        return float((y - x) / np.sqrt(2))

    if span.all():
        assert distance(frontier.pick("knee")) == pytest.approx(max(map(distance, frontier.scores)))


@each_cloud
def test_a_frontier_of_energy_is_that_of_the_same_latencies_but_for_what_is_fastest(scores: list[Score]) -> None:
    powered = [
        replace(one, costs={"latency": Estimate.exactly(30 - ms(one), "ms"), "energy": one.costs["latency"]})
        for one in scores
    ]
    frontier, energy = Frontier.of(scores), Frontier.of(powered, ["energy"])
    assert [one.number for one in energy.scores] == [one.number for one in frontier.scores]
    assert all(energy.pick(what).number == frontier.pick(what).number for what in ("knee", "best"))
    assert energy.hypervolume(worst=15) == frontier.hypervolume(worst=15)
    assert ms(energy.pick("fastest")) == ms(energy.scores[-1])


def test_the_knee_of_a_known_curve() -> None:
    curve = [score(0.50, 1), score(0.70, 2), score(0.72, 4), score(0.74, 8)]
    assert Frontier.of(curve).pick("knee") == curve[1]


def test_equal_scores_stay_in_the_order_of_their_trials() -> None:
    twins = [score(0.8, 2.0, 5), score(0.8, 2.0, 3)]
    frontier = Frontier.of(twins)
    assert [one.number for one in frontier.scores] == [3, 5]
    assert {frontier.pick(what).number for what in ("best", "fastest", "knee")} == {3}


def test_more_objectives_keep_more() -> None:
    made = score(0.7, 3.0, 1), score(0.8, 2.0, 2)
    small, large = (
        replace(one, costs={**one.costs, "params": Estimate.exactly(number)})
        for one, number in zip(made, (1, 9), strict=True)
    )
    assert Frontier.of([small, large]).scores == (large,)
    assert Frontier.of([small, large], ["latency", "params"]).scores == (large, small)


def test_what_cannot_be_picked_is_told() -> None:
    with pytest.raises(StudyError, match="must have a finished candidate to pick from"):
        Frontier.of([]).pick("knee")
    with pytest.raises(StudyError, match="unknown pick 'bset'; did you mean 'best'"):
        Frontier.of([score(0.5, 1)]).pick("bset")


def test_a_score_is_plain_data() -> None:
    data = json.loads(json.dumps(score(0.5, 2.0, 4).to_json()))
    assert (data["accuracy"], data["latency_ms"], data["number"]) == (0.5, 2.0, 4)
    assert list(data)[-1] == "arch"
    assert data["arch"] == ARCH.to_json()
