"""The default strategy: propose many, train few, by a model of accuracy that learns from those that were trained."""

from __future__ import annotations

import random
from collections.abc import Collection, Sequence

import numpy as np

from mvnas.accuracy import PATIENCE
from mvnas.strategies import Asked, Context, Proposal, Told
from mvnas.strategies._points import Points, Row
from mvnas.strategies._proposing import Choice, propose
from mvnas.strategies.rungs import promote, rivals

FIRST = 3  # candidates that fill the space before a model chooses, the very first the cheapest of as many draws
DRAWS = 20  # of which each other one is the farthest from all before

BEHIND = "behind"  # notes behind how many candidates another training of one was chosen


class Strategy:
    """A space-filling start, then what promises the most hypervolume by a model of accuracy: a new candidate, or one
    from another seed.

    With several rungs candidates begin at the first, and are promoted by `mvnas.strategies.rungs`. Of a long study a
    batch of candidates is chosen at a time, since its model hardly changes with one more of a thousand scores; it is
    remembered, and whoever goes on chooses it again by what is known of the candidates before it.
    """

    promotes = True

    def __init__(self, context: Context) -> None:
        self.points = Points(context.space, context.cost, context.excess, context.listed)
        self.validation, self.shares = context.validation, context.shares
        self.begun = context.shares[0] if context.repeats else 0.0  # what a new candidate costs beside a repeat
        # The last batch, behind how many candidates there were before it and the seed that it was chosen with.
        self._made: tuple[int, int, list[Choice]] = (-1, 0, [])

    def next(self, history: Sequence[Told], pending: Sequence[Asked], seed: int) -> Proposal | None:
        every: list[Told | Asked] = [*history, *pending]
        if len(self.shares) > 1 and (promoted := self._promoted(history, every)):
            return promoted
        numbers = sorted({one.number for one in every})
        batch = max(1, len(numbers) // PATIENCE)
        for begun in dict.fromkeys((len(numbers) - len(numbers) % batch, len(numbers))):
            new = set(numbers[begun:])
            later = [one for one in every if one.number in new or (batch > 1 and one.notes.get(BEHIND, -1) >= begun)]
            taken = {self.points.row(one.picks) for one in later}
            for choice in self._batch(begun, batch, history, pending, later, seed):
                if choice.row not in taken:
                    return self._proposal(choice, every, begun)
        return None

    def _proposal(self, choice: Choice, every: Sequence[Told | Asked], begun: int) -> Proposal:
        """The proposal of a choice that was made behind so many candidates."""
        picks = self.points.picks(choice.row)
        if choice.number is None:
            return Proposal(picks, 0)
        repeat = 1 + max(one.repeat for one in every if one.number == choice.number)
        return Proposal(picks, len(self.shares) - 1, choice.number, {BEHIND: begun}, repeat)

    def _promoted(self, history: Sequence[Told], every: Sequence[Told | Asked]) -> Proposal | None:
        """The candidate that goes on to the next rung, if one does."""
        picks = {one.number: one.picks for one in every}
        begun: list[set[int]] = [set() for _ in self.shares]
        for one in every:
            if not one.repeat:
                begun[one.rung].add(one.number)
        rungs = self._rungs(history)
        rows = {number: self.points.row(its) for number, its in picks.items()}
        fits = set(self.points.fitting(rows.values()))
        costs = dict(zip(rows, self.points.look(list(rows.values()))[:, 0], strict=True))
        finished = [
            {number: (accuracy, costs[number]) for number, accuracy in rung.items() if rows[number] in fits}
            for rung in rungs
        ]
        found = promote(finished, begun, rivals(rungs))
        return Proposal(picks[found[0]], found[1], found[0]) if found else None

    def _rungs(self, history: Sequence[Told]) -> list[dict[int, float]]:
        """Accuracies of the candidates that finished each rung."""
        rungs: list[dict[int, float]] = [{} for _ in self.shares]
        for one in sorted(history, key=lambda one: one.number):
            if one.accuracy is not None and not one.repeat:
                rungs[one.rung][one.number] = one.accuracy
        return rungs

    def _batch(
        self,
        begun: int,
        count: int,
        history: Sequence[Told],
        pending: Sequence[Asked],
        later: Collection[Told | Asked],
        seed: int,
    ) -> list[Choice]:
        """The next `count` trainings after the first `begun` candidates, as if there were none of the `later` ones;
        remembered if several.
        """
        if count > 1 and self._made[:2] == (begun, seed):
            return self._made[2]
        ignored = {(one.number, one.rung, one.repeat) for one in later}
        history = [one for one in history if (one.number, one.rung, one.repeat) not in ignored]
        pending = [one for one in pending if (one.number, one.rung, one.repeat) not in ignored]
        every: list[Told | Asked] = [*history, *pending]
        points, rungs = self.points, self._rungs(history)
        rows = {one.number: points.row(one.picks) for one in sorted(every, key=lambda one: one.number)}
        generator = random.Random(f"{seed} {len(history)} {len(pending)}")
        scored = sum(map(len, rungs))
        found: list[Choice] = []
        if len(rows) < FIRST or scored < 2:
            found = [Choice(row) for row in self._apart(set(rows.values()), generator)]
        if not found and scored >= 2:
            asked, repeats = {one.number for one in pending}, repeated(history)
            found = propose(
                points,
                rows,
                rungs,
                asked,
                generator,
                validation=self.validation,
                repeats=repeats,
                begun=self.begun,
                count=count,
            )
        self._made = begun, seed, found
        return found

    def _apart(self, seen: set[Row], generator: random.Random) -> list[Row]:
        """Of DRAWS random points within the budget and new, the one farthest from the seen ones; if none is, the
        cheapest of FIRST.
        """
        drawn = [row for _ in range(DRAWS) if (row := self.points.draw(generator)) is not None and row not in seen]
        if not drawn:
            return []
        if not seen:
            # Of equal accuracy, which is all that is known, the cheapest has the most volume; not of all, a corner.
            few = drawn[:FIRST]
            return [few[int(self.points.look(few)[:, 0].argmin())]]
        features = np.hstack([*self.points.features([*drawn, *seen])])
        spread = features.std(0)
        scaled = features / np.where(spread > 0, spread, 1)
        new, old = scaled[: len(drawn)], scaled[len(drawn) :]
        return [drawn[int(np.linalg.norm(new[:, None] - old, axis=2).min(1).argmax())]]


def repeated(history: Sequence[Told]) -> dict[int, list[float]]:
    """Accuracies of the further full trainings of candidates, by number."""
    found: dict[int, list[float]] = {}
    for one in sorted(history, key=lambda one: (one.number, one.repeat)):
        if one.repeat and one.accuracy is not None:
            found.setdefault(one.number, []).append(one.accuracy)
    return found
