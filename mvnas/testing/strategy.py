"""Laws of a strategy, for whoever writes one. In a test file of yours:

from mvnas.testing.strategy import StrategyContract

class TestMine(StrategyContract):
    def make(self, context):
        return Strategy(context)
"""

from __future__ import annotations

import json
import random
from collections.abc import Callable, Iterator
from copy import deepcopy
from dataclasses import replace
from itertools import product
from typing import Any, NamedTuple

import yaml

from mvnas.spaces.arch import Arch
from mvnas.spaces.rows import Picks
from mvnas.spaces.space import Space
from mvnas.strategies import Asked, Context, Proposal, Strategy, Told, Validation, check

SPACE = """
resolution: [64, 96]
stages:
  - {block: stem, channels: 8}
  - {block: inverted_residual, channels: [8, 16], stride: 2, expand: [1, 2]}
  - {block: inverted_residual, channels: 16, stride: 2, expand: 2, repeat: [1, 2]}
  - {block: mobilevit, dim: [16, 32], layers: [1, 2], heads: 2, patch: 2, mlp: 2}
  - {block: head, channels: [32, 64]}
"""
LIMIT = 3e6  # MACs, of networks between 1 and 6 million such
TURNS = 12
RUNGS = (1 / 3, 1.0)


class Turn(NamedTuple):
    """What a strategy was asked, and what it answered."""

    history: tuple[Told, ...]
    pending: tuple[Asked, ...]
    proposal: Proposal | None


class StrategyContract:
    """A test class for each strategy: subclasses say how it is made. Its trainings are made up and take no time."""

    def make(self, context: Context) -> Strategy:
        """The strategy for a context, as `search` would have it made."""
        raise NotImplementedError

    def test_proposals_are_new_points_within_the_budget(self) -> None:
        for workers in (1, 3):
            for turn in play(self.make(context()), context(), workers=workers):
                if turn.proposal:
                    check(turn.proposal, context(), turn.history, turn.pending)

    def test_it_is_a_function_of_its_arguments(self) -> None:
        turns = [*play(self.make(context()), context(), workers=2)]
        another = self.make(context())
        for turn in turns[::-3]:  # from the last to the first, as if it began there
            random.seed(len(turn.history))
            history, pending = deepcopy(turn.history), deepcopy(turn.pending)
            assert another.next(history, pending, 0) == turn.proposal, "the same arguments must give the same proposal"
            assert (history, pending) == (turn.history, turn.pending), "arguments must be left as they are"

    def test_it_goes_on_where_all_trainings_fail(self) -> None:
        turns = play(self.make(context()), context(), workers=1, accuracy=lambda arch, share: None)
        assert all(turn.proposal for turn in turns)

    def test_it_ends_where_nothing_new_is_left(self) -> None:
        space = Space.from_data({**_data(), "resolution": 64}, source="few")
        costs = sorted(cost(space.at(picks)) for picks in _points(space))
        few = replace(context(), space=space, excess=lambda arch: max(0.0, cost(arch) / costs[4] - 1))
        *begun, last = play(self.make(few), few, workers=1, turns=len(costs))
        assert begun, "there are networks within the budget"
        assert last.proposal is None, "where nothing new is left the answer is None"

    def test_notes_are_plain_data(self) -> None:
        for turn in play(self.make(context()), context(), workers=1):
            notes = dict(turn.proposal.notes) if turn.proposal else {}
            assert json.loads(json.dumps(notes)) == notes
            assert not [name for name in notes if name.startswith(("constraints", "fixed"))]

    def test_with_rungs_candidates_are_trained_on_if_it_promotes(self) -> None:
        rungs = replace(context(), shares=RUNGS)
        strategy = self.make(context())
        if not getattr(strategy, "promotes", False):
            return
        reached = set()
        for turn in play(self.make(rungs), rungs, workers=1, turns=2 * TURNS):
            assert turn.proposal
            reached.add(check(turn.proposal, rungs, turn.history, turn.pending).rung)
        assert reached == {0, 1}


def context() -> Context:
    """A small space, of which a part is within the budget."""
    space = Space.from_data(_data(), source="small")
    return Context(space, cost, lambda arch: max(0.0, arch.macs / LIMIT - 1), Validation(1000, 0.1), trials=TURNS)


def cost(arch: Arch) -> float:
    """A made-up cost."""
    return arch.macs / 1e6


def accuracy(arch: Arch, share: float) -> float | None:
    """A made-up accuracy, which grows with size and with the length of the training; some trainings fail."""
    return None if arch.params % 7 == 3 else share**0.2 * arch.params / (arch.params + 2e4)


def play(
    strategy: Strategy,
    context: Context,
    *,
    workers: int,
    turns: int = TURNS,
    accuracy: Callable[[Arch, float], float | None] = accuracy,
) -> Iterator[Turn]:
    """The turns of a search whose trainings end in order, so many of which run at a time; the last one's answer may be
    None.
    """
    history: list[Told] = []
    pending: list[Asked] = []
    begun = 0
    for _ in range(turns):
        proposal = strategy.next(history, pending, 0)
        yield Turn((*history,), (*pending,), proposal)
        if proposal is None:
            if not pending:
                return
        else:
            number = begun if proposal.number is None else proposal.number
            begun += proposal.number is None
            pending.append(Asked(number, proposal.picks, proposal.rung, proposal.notes, proposal.repeat))
        if len(pending) == workers or proposal is None:
            one = pending.pop(0)
            score = accuracy(context.space.at(one.picks), context.shares[one.rung])
            told = Told(one.number, one.picks, one.rung, score, one.notes, one.repeat)
            history = sorted([*history, told], key=lambda one: one.number)


def _data() -> dict[str, Any]:
    data: dict[str, Any] = yaml.safe_load(SPACE)
    return data


def _points(space: Space) -> Iterator[Picks]:
    """Every point of a space."""
    for values in product(*space.choices.values()):
        yield dict(zip(space.choices, values, strict=True))
