"""Regularised evolution (Real et al., arXiv:1802.01548) as a strategy: a child of the best of a few of the latest
candidates.

mvnas search --budget 6M-params --strategy examples.evolution
"""

from __future__ import annotations

import random
from collections.abc import Sequence

from mvnas.strategies import Asked, Context, Proposal, Told, seen


class Strategy:
    """Of the latest `population` candidates so many `rivals` are drawn; the most accurate is changed in one choice."""

    def __init__(self, context: Context, population: int = 10, rivals: int = 3) -> None:
        self.context, self.population, self.rivals = context, population, rivals

    def next(self, history: Sequence[Told], pending: Sequence[Asked], seed: int) -> Proposal | None:
        generator = random.Random(f"{seed} {len(history)} {len(pending)}")
        space = self.context.space
        living = [(one.accuracy, one.number, one.picks) for one in history if one.accuracy is not None]
        if len(living) < self.rivals:
            picks = {name: generator.choice(options) for name, options in space.choices.items()}
        else:
            _, _, parent = max(generator.sample(living[-self.population :], self.rivals))
            name = generator.choice(space.active(parent))
            picks = {**parent, name: generator.choice(space.choices[name])}
        led = self.context.lead(picks, seen(history, pending), generator)
        return None if led is None else Proposal(led)
