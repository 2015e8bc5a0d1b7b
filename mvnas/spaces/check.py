"""Whether every point of a space is a network: pairs of choices of each row are tried on every map that it can be
given.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from itertools import chain, combinations, product
from typing import Any

from mvnas.errors import SpaceError
from mvnas.ops import Map, Shape
from mvnas.spaces.arch import IMAGE_CHANNELS, STEPS, check_block, check_last
from mvnas.spaces.rows import Row

Held = tuple[tuple[int, Shape], ...]  # rows that are yet to be read by later ones than the next, and what each yields


def check_rows(rows: Sequence[Row], sides: Sequence[int], source: str) -> None:
    """Build every pair of choices of a stage on every size of map it can get; the last block must be a classifier.

    On the first number of channels, that is; on the others every choice is built by itself.

    Raises:
        SpaceError: a block is not defined on a map that it gets; `source` names the space.
    """
    until = {read: i for i, row in enumerate(rows) for stage in row.stages for read in stage.reads}
    images = {side: Map(IMAGE_CHANNELS, side, side) for side in sides}
    states: dict[Any, list[tuple[Held, Shape]]] = {(side, _sizes((), x)): [((), x)] for side, x in images.items()}
    steps = 0
    for i, row in enumerate(rows):
        reached: dict[Any, dict[tuple[Held, Shape], None]] = {}
        for stage, ((side, _), given) in product(row.stages, states.items()):
            first = {key: values[0] for key, values in stage.choices().items()}
            alone = product(given[1:], _singles(stage.choices()))
            for (held, shape), picks in chain(((given[0], picks) for picks in _pairs(stage.choices())), alone):
                reads = [dict(held)[read] for read in stage.tapped(first | picks)]
                try:
                    for part in stage.blocks(first | picks):
                        made = check_block(part, (shape, *reads))
                        shape, reads = made.shape, []
                        steps += 4 + len(made.steps)
                except SpaceError as error:
                    at = ", ".join(f"{key} {value}" for key, value in (picks | {"resolution": side}).items())
                    raise SpaceError(f"{source}, stage {i} ({stage.kind}) at {at}: {error}") from None
                if steps > STEPS:
                    raise SpaceError(
                        f"{source} must need {STEPS:,} ops at most to be checked, but needs more; take fewer options or"
                        " stages"
                    )
                kept = tuple([one for one in (*held, (i, shape)) if until.get(one[0], 0) > i])
                reached.setdefault((side, _sizes(kept, shape)), {})[kept, shape] = None
            if row is rows[-1]:
                check_last(part, shape, f"{source}, stage {i} ({stage.kind})")
        states = {key: list(found) for key, found in reached.items()}


def _sizes(held: Held, shape: Shape) -> tuple[Any, ...]:
    """What is held and the shape without numbers of channels."""
    return *[(i, one._replace(c=0)) for i, one in held], shape._replace(c=0)


def _pairs(choices: Mapping[str, tuple[Any, ...]]) -> Iterator[dict[str, Any]]:
    """Every two choices at every pair of their options; every option of a lone choice; nothing of none."""
    for keys in combinations(choices, min(2, len(choices))):
        for values in product(*(choices[key] for key in keys)):
            yield dict(zip(keys, values, strict=True))


def _singles(choices: Mapping[str, tuple[Any, ...]]) -> Iterator[dict[str, Any]]:
    """Every option of every choice alone; nothing of none."""
    yield {}
    for key, values in choices.items():
        yield from ({key: value} for value in values[1:])
