"""Laws of order among points, and of promotion from rung to rung."""

from __future__ import annotations

import numpy as np
import pytest

from mvnas.strategies.pareto import by_crowding, by_net, ranks
from mvnas.strategies.rungs import ETA, lift, promote, rivals


def brute_force(points: np.ndarray) -> list[int]:
    """Ranks by peeling off, front after front, what no other point left dominates."""
    found, left, front = [0] * len(points), set(range(len(points))), 0
    while left:
        free = {
            i for i in left if not any((points[j] <= points[i]).all() and (points[j] != points[i]).any() for j in left)
        }
        for i in free:
            found[i] = front
        left, front = left - free, front + 1
    return found


@pytest.mark.parametrize("objectives", [1, 2, 3, 4])
@pytest.mark.parametrize("seed", range(20))
def test_ranks_are_those_of_brute_force_and_orders_obey_them(seed: int, objectives: int) -> None:
    generator = np.random.default_rng(seed)
    points = generator.integers(0, 8, (generator.integers(1, 60), objectives)).astype(float)  # with ties and equals
    assert ranks(points).tolist() == brute_force(points)
    for order in (by_crowding(points), by_net(points)):
        assert sorted(order) == list(range(len(points)))
        assert (np.diff(ranks(points)[order]) >= 0).all()


def test_within_a_front_the_net_takes_each_farthest_from_those_before() -> None:
    line = np.array([(x, 10 - x) for x in range(11)], float)
    assert by_net(line)[:3].tolist() == [0, 10, 5]


def ladder(rung: dict[int, tuple[float, float]]) -> list[int]:
    """All that is promoted from a first rung, in order."""
    begun: list[set[int]] = [set(rung), set()]
    order = []
    while (found := promote([rung, {}], begun, (ETA, 1))) is not None:
        number, reached = found
        assert reached == 1
        begun[1].add(number)
        order.append(number)
    return order


@pytest.mark.parametrize("front", [1, 3, 8])
def test_when_a_third_is_not_dominated_exactly_that_third_is_promoted(front: int) -> None:
    best = {number: (0.5 + number / 100, 10.0 + number) for number in range(front)}
    worse = {number: (0.1, 10.0 + number) for number in range(front, 3 * front)}
    assert sorted(ladder(worse | best)) == sorted(best)


def test_nobody_is_promoted_before_there_are_enough_nor_twice_nor_past_the_last_rung() -> None:
    points = {number: (number / 10, 1.0) for number in range(9)}
    assert promote([{0: (0.1, 1.0), 1: (0.2, 1.0)}, {}], [{0, 1}, set()], (ETA, 1)) is None
    assert ladder(points) == [8, 7, 6]
    assert promote([points], [set(points)], (1,)) is None
    assert (
        promote([points, {}], [set(points), {8, 7, 6}], (ETA, 1)) is None
    )  # whether in training, finished or failed there


def test_candidates_far_up_go_first() -> None:
    points = {number: (number / 10, 1.0) for number in range(9)}
    upper = {number: points[number] for number in (6, 7, 8)}
    assert promote([points | {9: (0.9, 1.0)}, upper, {}], [{*points, 9}, set(upper), set()], (ETA, ETA, 1)) == (8, 2)


def test_a_score_of_a_low_rung_is_lifted_by_those_who_went_on() -> None:
    low = {number: number / 100 for number in range(40)}
    high = {number: 0.3 + 1.5 * low[number] for number in range(20, 40)}
    found = lift([low, high])
    assert found[39] == (high[39], 0.0)
    assert found[0][0] == pytest.approx(0.3, abs=0.05)
    assert found[0][1] > 0
    assert lift([low, {}])[5][0] == low[5]
    assert set(lift([low, high, {}])) == set(low)


@pytest.mark.parametrize(("noise", "expected"), [(0.0, [ETA, ETA, 1]), (0.1, [ETA, ETA, 1]), (3.0, [1, 1, 1])])
def test_a_rung_holds_candidates_back_only_where_it_tells_of_the_last(noise: float, expected: list[int]) -> None:
    generator = np.random.default_rng(0)
    truth = generator.random(60)
    rungs = [dict(enumerate(length * (truth + noise * generator.standard_normal(60)))) for length in (0.3, 0.6)]
    rungs += [dict(enumerate(truth[:20]))]
    assert rivals(rungs)[:2] == expected[:2]
    assert rivals([*rungs[:2], dict(enumerate(truth[:5]))])[:2] == [1, 1]  # five say nothing yet
