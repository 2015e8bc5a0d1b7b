"""Laws of every strategy that comes with mvnas, and of finding one by its name."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import pytest

from mvnas.errors import StudyError
from mvnas.strategies import Asked, Context, Proposal, Strategy, Told, check, made, names, strategy
from mvnas.testing.strategy import StrategyContract, context, play


class TestSurrogate(StrategyContract):
    def make(self, context: Context) -> Strategy:
        return strategy("surrogate")(context)


class TestRandom(StrategyContract):
    def make(self, context: Context) -> Strategy:
        return strategy("random")(context)


class TestTPE(StrategyContract):
    def make(self, context: Context) -> Strategy:
        return strategy("TPESampler")(context)


class TestGenetic(StrategyContract):
    """Of NSGA-II generations follow one another: the parents of each are noted."""

    def make(self, context: Context) -> Strategy:
        return strategy("nsgaii")(replace(context, trials=6))


class First:
    """Always the first option, whatever there is."""

    def __init__(self, context: Context) -> None:
        self.context = context

    def next(self, history: Sequence[Told], pending: Sequence[Asked], seed: int) -> Proposal | None:
        return Proposal({name: options[0] for name, options in self.context.space.choices.items()})


@pytest.mark.parametrize(
    "law",
    [
        "test_proposals_are_new_points_within_the_budget",
        "test_it_ends_where_nothing_new_is_left",
    ],
)
def test_the_contract_finds_a_strategy_that_is_none(law: str) -> None:
    class Suite(StrategyContract):
        def make(self, context: Context) -> Strategy:
            return First(context)

    with pytest.raises((StudyError, AssertionError)):
        getattr(Suite(), law)()


def test_the_contract_finds_a_memory_and_another_randomness() -> None:
    class Remembering(First):
        def next(self, history: Sequence[Told], pending: Sequence[Asked], seed: int) -> Proposal | None:
            self.asked = getattr(self, "asked", 0) + 1
            found = strategy("random")(self.context).next(history, pending, self.asked)
            return found

    class Suite(StrategyContract):
        def make(self, context: Context) -> Strategy:
            return Remembering(context)

    with pytest.raises(AssertionError, match="the same arguments must give the same proposal"):
        Suite().test_it_is_a_function_of_its_arguments()


def test_what_no_search_may_train_is_refused() -> None:
    where = context()
    *_, turn = play(strategy("random")(where), where, workers=2)
    good = turn.proposal
    assert good and check(good, where, turn.history, turn.pending).picks == good.picks
    name = next(iter(good.picks))
    largest = {name: options[-1] for name, options in where.space.choices.items()}
    for bad, said in [
        (dict(good.picks), "answer with a Proposal or None, but got"),
        (good._replace(picks={**good.picks, name: 7}), f"propose points of the space, but got {name} is 7"),
        (good._replace(picks={}), "propose points of the space"),
        (good._replace(picks=turn.history[0].picks), "begin new candidates at rung 0"),
        (good._replace(picks=turn.pending[0].picks), "begin new candidates at rung 0"),
        (good._replace(rung=1), "begin new candidates at rung 0"),
        (good._replace(number=0, rung=1), "train candidates on by a rung, but got trial 0 to rung 1"),
        (Proposal(largest), "propose networks within the budget"),
    ]:
        with pytest.raises(StudyError, match="a strategy must " + said):
            check(bad, where, turn.history, turn.pending)


def test_a_strategy_is_found_by_its_file_its_sampler_or_its_module(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert names() == ["optuna", "surrogate"]
    assert strategy("tpe").keywords == strategy("TPESampler").keywords == {"sampler": "TPESampler"}  # type: ignore[attr-defined]
    (tmp_path / "theirs").mkdir()
    (tmp_path / "theirs" / "own.py").write_text(
        "class Strategy:\n    def __init__(self, context): pass\n    def next(self, *told): pass\n"
    )
    (tmp_path / "theirs" / "empty.py").write_text("")
    monkeypatch.setattr(sys, "path", [str(tmp_path), *sys.path])
    assert strategy("theirs.own").__module__ == "theirs.own"
    for name, said in [
        ("surogate", "did you mean 'surrogate'"),
        ("theirs.none", "or a module of yours, but none of that name is found"),
        ("theirs.empty", "must define the class Strategy, but theirs.empty does not"),
    ]:
        with pytest.raises(StudyError, match=said):
            strategy(name)


def test_what_cannot_search_is_refused_before_a_study_is_opened() -> None:
    where = context()
    with pytest.raises(StudyError, match="a strategy must have a method next"):
        made(lambda context: 7, where)  # type: ignore[arg-type, return-value]
    with pytest.raises(StudyError, match="must be given as what makes it of a Context"):
        made("surrogate", where)  # type: ignore[arg-type]
    with pytest.raises(
        StudyError, match="rungs need the strategy surrogate, or another that promotes, but got TPESampler"
    ):
        made(strategy("tpe"), replace(where, shares=(0.5, 1.0)))
    with pytest.raises(StudyError, match="must take two objectives and choices, but CmaEsSampler does not"):
        strategy("cmaes")(where).next((), (), 0)
