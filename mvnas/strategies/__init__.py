"""What is trained next. One file a strategy; the file name is the name, and a dotted name is any importable module.

A strategy is told of every training that has ended and of those that run, and says which candidate is trained next. It
has no memory: the same arguments give the same proposal, so that an interrupted study goes on as if it had not been.
This is all of one, which draws at random:

    class Strategy:
        def __init__(self, context):
            self.context = context

        def next(self, history, pending, seed):
            generator = random.Random(f"{seed} {len(history)} {len(pending)}")
            picks = {name: generator.choice(options) for name, options in self.context.space.choices.items()}
            led = self.context.lead(picks, seen(history, pending), generator)
            return Proposal(led) if led else None

`mvnas.search.search` takes the class, or whatever else makes a strategy from a `Context`; the command line takes the
module's name. Laws that every strategy is held to are tested by `mvnas.testing.strategy`.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Container, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from importlib import import_module
from typing import Any, NamedTuple, Protocol, runtime_checkable

import numpy as np
from numpy.typing import NDArray

from mvnas.accuracy import Validation as Validation
from mvnas.budgets.feasible import repair
from mvnas.errors import StudyError, quoted
from mvnas.spaces.arch import Arch
from mvnas.spaces.rows import Picks
from mvnas.spaces.space import Space
from mvnas.system import plugins

PARTS = ("pareto", "rungs")  # files of this folder that are no strategies
DEFAULT = "surrogate"
WALKS = 50  # attempts at a candidate that fits and is new, before the space counts as exhausted
NOTHING: Mapping[str, Any] = {}

Key = tuple[tuple[str, Any], ...]


@dataclass(frozen=True)
class Context:
    """What a strategy is made from.

    Fields:
        space: of which candidates are points.
        cost: what is minimised beside accuracy, of a network, in ms or mJ.
        excess: how far a network is over the budget, 0 if it fits.
        validation: what accuracies are shares of.
        shares: the rungs, as shares of the full training length, that rise to 1; several only for strategies with
            `promotes`.
        trials: full trainings that the study is to have in the end; None if time alone ends it.
        repeats: whether another training of a candidate, from another seed, tells more of it.
        listed: the only points that there are, such as those of a table of trained networks; None: all of the space.
    """

    space: Space
    cost: Callable[[Arch], float]
    excess: Callable[[Arch], float]
    validation: Validation
    shares: Sequence[float] = (1.0,)
    trials: int | None = None
    repeats: bool = True
    listed: Sequence[Picks] | None = None

    def lead(self, picks: Picks, seen: Container[Key], generator: random.Random) -> Picks | None:
        """The point itself if it is within the budget and new, else one near it that is; None if none was found."""
        if self.listed is not None:
            return self._nearest(picks, seen, generator)
        for _ in range(WALKS):
            picks, excess, _ = repair(picks, self.space, self.excess, generator)
            if excess == 0 and key_of(picks) not in seen:
                return picks
            if not self.space.choices:
                return None
            name = generator.choice(self.space.active(picks))
            picks = {**picks, name: generator.choice(self.space.choices[name])}
        return None

    def _nearest(self, picks: Picks, seen: Container[Key], generator: random.Random) -> Picks | None:
        """Of the listed points within the budget and new the one that differs in fewest choices, any of several."""
        apart = (self._places != self._place(picks)).sum(1)
        for least in np.unique(apart):
            near = [self._listed[i] for i in np.flatnonzero(apart == least)]
            new = [one for one, key in near if key not in seen and self.excess(self.space.at(one)) == 0]
            if new:
                return generator.choice(new)
        return None

    @cached_property
    def _listed(self) -> list[tuple[Picks, Key]]:
        """The listed points, each with what sets hold of it."""
        return [(picks, key_of(picks)) for picks in self.listed or ()]

    @cached_property
    def _places(self) -> NDArray[np.int64]:
        """Numbers of the options of the listed points: (n, choices)."""
        return np.array([self._place(picks) for picks, _ in self._listed])

    def _place(self, picks: Picks) -> list[int]:
        return [options.index(picks[name]) for name, options in self.space.choices.items()]


class Asked(NamedTuple):
    """A candidate in training: its number, its point of the space, the rung that it is to reach, the strategy's notes,
    and which of its trainings from another seed it is, 0 for the first.
    """

    number: int
    picks: Picks
    rung: int
    notes: Mapping[str, Any] = NOTHING
    repeat: int = 0


class Told(NamedTuple):
    """A candidate that was trained to a rung, and its accuracy there; None if that failed.

    All trainings of a candidate have its number: those to one rung after the other, and its repeats.
    """

    number: int
    picks: Picks
    rung: int
    accuracy: float | None
    notes: Mapping[str, Any] = NOTHING
    repeat: int = 0


class Proposal(NamedTuple):
    """A point to train to a rung: as a new candidate, or the one with this number on from where it is.

    With `repeat` above 0 the candidate with this number, which has finished the last rung, is trained anew in full from
    another seed: its accuracy is known better then, and it is no other candidate. Repeats of one are 1, 2 and so on.

    `notes`, plain data by names, are kept with the training and handed back with it: a strategy that needs to know
    later what it did writes it there. Names must not begin with "constraints" or "fixed".
    """

    picks: Picks
    rung: int = 0
    number: int | None = None
    notes: Mapping[str, Any] = NOTHING
    repeat: int = 0


class Strategy(Protocol):
    """Chooses candidates. A class attribute `promotes = True` says that it also trains candidates on from rung to
    rung.
    """

    def next(self, history: Sequence[Told], pending: Sequence[Asked], seed: int) -> Proposal | None:
        """What to train next: a point within the budget that is not in `history` or `pending`, which are in the order
        of numbers.

        A function of its arguments alone: whatever is drawn is seeded by `seed`, which is the study's and the same at
        each call, and by what there is. None if nothing new within the budget is left.
        """


@runtime_checkable
class Noting(Strategy, Protocol):
    """A strategy that takes note of candidates that it did not choose too: published networks, and those that were
    interrupted.
    """

    def notes(self, history: Sequence[Told], pending: Sequence[Asked], seed: int) -> Mapping[str, Any]:
        """The notes of a candidate that is trained next whatever the strategy would propose."""


Maker = Callable[[Context], Strategy]


def key_of(picks: Mapping[str, Any]) -> Key:
    """Picks in a form that sets can hold."""
    return tuple(sorted(picks.items()))


def every(history: Iterable[Told], pending: Iterable[Asked]) -> list[Told | Asked]:
    """All trainings so far, in the order of their candidates' numbers."""
    trainings: list[Told | Asked] = [*history, *pending]
    return sorted(trainings, key=lambda one: one.number)


def seen(history: Iterable[Told], pending: Iterable[Asked]) -> set[Key]:
    """The points of all candidates so far."""
    return {key_of(one.picks) for one in every(history, pending)}


def names() -> list[str]:
    """The strategies of this folder."""
    return [name for name in plugins.names(__name__) if name not in PARTS]


def strategy(name: str) -> Maker:
    """What makes the strategy `name`: a file of this folder, a sampler of Optuna (TPESampler, or tpe), or any module if
    dotted.

    Raises:
        StudyError: there is no such strategy, or a package that it needs is not installed.
    """
    if "." not in name and name not in names():
        sampler: Maker = import_module(f"{__name__}.optuna").sampler(name)
        return sampler
    found: Maker = plugins.load_class("strategy", name, __name__, "Strategy", StudyError)
    return found


def made(maker: Maker, context: Context) -> Strategy:
    """The strategy for a context.

    Raises:
        StudyError: it is none, or cannot do what is asked for.
    """
    if not callable(maker):
        raise StudyError(
            f"a strategy must be given as what makes it of a Context, such as its class, but got {quoted(maker)}"
        )
    strategy = maker(context)
    if not callable(getattr(strategy, "next", None)):
        raise StudyError(f"a strategy must have a method next, but {quoted(strategy)} has none")
    if len(context.shares) > 1 and not getattr(strategy, "promotes", False):
        name = getattr(strategy, "name", type(strategy).__module__)
        raise StudyError(
            f"rungs need the strategy {DEFAULT}, or another that promotes, but got {name}; leave out one of the two"
        )
    return strategy


def check(proposal: object, context: Context, history: Sequence[Told], pending: Sequence[Asked]) -> Proposal:
    """The proposal, at the point that stands for its network, if a search may train it.

    Raises:
        StudyError: it may not.
    """
    if not isinstance(proposal, Proposal):
        raise _refused("answer with a Proposal or None", quoted(proposal))
    for name, options in context.space.choices.items():
        if name not in proposal.picks or proposal.picks[name] not in options:
            raise _refused("propose points of the space", f"{name} is {quoted(proposal.picks.get(name))}")
    proposal = proposal._replace(picks=context.space.settled(proposal.picks))
    trainings = every(history, pending)
    if proposal.repeat:
        _check_repeat(proposal, context, trainings)
    elif proposal.number is not None:
        _check_promotion(proposal, context, trainings)
    elif proposal.rung or any(one.picks == proposal.picks for one in trainings):
        raise _refused("begin new candidates at rung 0", f"{quoted(dict(proposal.picks))} at rung {proposal.rung}")
    if context.excess(context.space.at(proposal.picks)) > 0:
        raise _refused("propose networks within the budget", quoted(dict(proposal.picks)))
    return proposal


def _check_promotion(proposal: Proposal, context: Context, trainings: Sequence[Told | Asked]) -> None:
    """Return if a candidate may be trained on to the rung of a proposal."""
    its = [one for one in _of(proposal, trainings) if not one.repeat]
    ended = [one.rung for one in its if isinstance(one, Told) and one.accuracy is not None]
    if len(ended) != len(its) or len(ended) != proposal.rung or not 0 < proposal.rung < len(context.shares):
        raise _refused("train candidates on by a rung", f"trial {proposal.number} to rung {proposal.rung}")


def _check_repeat(proposal: Proposal, context: Context, trainings: Sequence[Told | Asked]) -> None:
    """Return if a candidate may be trained anew from another seed."""
    its, last = _of(proposal, trainings), len(context.shares) - 1
    finished = [one for one in its if one.rung == last and isinstance(one, Told) and one.accuracy is not None]
    if not finished or proposal.rung != last or proposal.repeat != 1 + max(one.repeat for one in its):
        raise _refused(
            "repeat trainings of finished candidates one by one", f"repeat {proposal.repeat} of trial {proposal.number}"
        )


def _of(proposal: Proposal, trainings: Sequence[Told | Asked]) -> list[Told | Asked]:
    """The trainings of the candidate of a proposal."""
    return [one for one in trainings if one.number == proposal.number and one.picks == proposal.picks]


def _refused(must: str, got: str) -> StudyError:
    return StudyError(f"a strategy must {must}, but got {got}")
