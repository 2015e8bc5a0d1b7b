"""The most bytes that are alive at once while steps run one after the other."""

from __future__ import annotations

from collections.abc import Container, Sequence
from itertools import product
from typing import NamedTuple, Protocol

FLOAT_BYTES = 4  # costs in bytes are those of float32, the precision networks are trained and measured in


class Part(Protocol):
    """What several steps are summed up in, such as a block."""

    def peak(self, held: tuple[bool, ...]) -> int:
        """Most bytes alive while it runs, of its inputs all `held` ones to the end and each other until it is not
        read any more.
        """


class Use(NamedTuple):
    """A step as memory sees it: the steps that it reads, bytes that it yields, and bytes that it makes and drops
    within.

    `inner` is what it consists of, if it is no single op. What is given from outside is a step that reads nothing.
    """

    reads: tuple[int, ...]
    size: int
    scratch: int = 0
    inner: Part | None = None


def alive(uses: Sequence[Use], held: Container[int]) -> list[int]:
    """Most bytes alive during each step, where each but the `held` is freed once it has been read for the last time.

    First a step's inputs and its output are alive; then, its inputs freed if nobody needs them any more, its output and
    its scratch.
    """
    last = {i: place for place, use in enumerate(uses) for i in use.reads}
    now, peaks = 0, []
    for place, (reads, size, scratch, inner) in enumerate(uses):
        freed = [i for i in dict.fromkeys(reads) if last[i] == place and i not in held]
        left = sum([uses[i].size for i in freed])
        if inner:
            others = now - sum([uses[i].size for i in reads])
            peaks.append(others + max([inner.peak(held) for held in _held(reads, freed)]))
        else:
            peaks.append(now + size + max(0, scratch - left))
        now += size - left
    return peaks


def _held(reads: Sequence[int], freed: Sequence[int]) -> list[tuple[bool, ...]]:
    """Which of what it reads a step holds to its end; of one that it reads several times any may be the last to go."""
    if len(set(reads)) == len(reads):
        return [tuple([i not in freed for i in reads])]
    leaving = product(*[[place for place, read in enumerate(reads) if read == i] for i in freed])
    return [tuple([place not in left for place in range(len(reads))]) for left in leaving]
