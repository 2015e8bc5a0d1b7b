"""Search spaces: every list in a YAML file is a choice, and everything else is fixed."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from itertools import chain
from math import prod
from pathlib import Path
from typing import Any

from mvnas.blocks import Block
from mvnas.errors import SpaceError, quoted, unknown
from mvnas.spaces.arch import BLOCKS, FLOAT, Arch, check_precision, check_resolution
from mvnas.spaces.check import check_rows
from mvnas.spaces.reading import data_folder, names, read_yaml
from mvnas.spaces.rows import Picks, Row, Stage, choice, options, row_of
from mvnas.system import trust

Choose = Callable[[str, Sequence[Any]], Any]  # has the signature of optuna.Trial.suggest_categorical
KEYS = ("resolution", "precision", "stages")


@dataclass(frozen=True)
class Space:
    """Choices of networks: rows in order, a resolution in pixels and a precision, where a tuple is a choice.

    Where a row has stages of several kinds, the choices of those that are not picked do not matter: points that differ
    in them alone are one network, and `settled` makes them one point.

    >>> space = Space.load("mobilevit")
    >>> arch = space.sample(lambda name, options: options[0])
    >>> arch.resolution, arch == space.at(space.locate(arch))
    (160, True)
    """

    name: str
    resolution: Any
    rows: tuple[Row, ...]
    precision: Any = FLOAT

    @classmethod
    def load(cls, name: str | Path) -> Space:
        """The shipped space or published network `name`, or the one in a YAML file, whose blocks may be modules of the
        user's.

        Raises:
            SpaceError: there is no such space, or it is not legal; the message names file, stage and key.
        """
        path = Path(name)
        if path.suffix not in (".yaml", ".yml"):
            path = data_folder("search_spaces") / f"{name}.yaml"
            if not os.path.isfile(path):  # false also of what can be no name
                raise SpaceError(f"{unknown('space', name, names())}; a file's path must end in .yaml")
        data = read_yaml(path)
        trust.allow(*_dotted(data))
        return cls.from_data(data, source=str(path), name=str(name))

    @classmethod
    def from_data(cls, data: Any, *, source: str, name: str = "") -> Space:
        """The space that plain data, such as a YAML file's, describes; `source` names it in errors.

        Raises:
            SpaceError: the data is no legal space.
            TrustError: it names modules that are not trusted.
        """
        if not isinstance(data, dict):
            raise SpaceError(f"{source} must hold the keys resolution and stages, but holds {quoted(data)}")
        for key in data:
            if key not in KEYS:
                raise SpaceError(f"{source}: {unknown('key', key, KEYS)}")
        for key in ("resolution", "stages"):
            if key not in data:
                raise SpaceError(
                    f"{source} must have the key {key!r}, but has only {', '.join(map(str, data)) or 'none'}"
                )
        resolution = choice(data["resolution"], f"{source}: resolution")
        for side in options(resolution):
            check_resolution(side, source)
        precision = choice(data.get("precision", FLOAT), f"{source}: precision")
        for word in options(precision):
            check_precision(word, source)
        if not isinstance(data["stages"], list) or not data["stages"]:
            raise SpaceError(f"{source}: stages must be a list of blocks, but got {quoted(data['stages'])}")
        if len(data["stages"]) > BLOCKS:
            raise SpaceError(f"{source}: a network must have {BLOCKS:,} blocks at most, but has more stages")
        rows = tuple(row_of(row, i, f"{source}, stage {i}") for i, row in enumerate(data["stages"]))
        most = sum(max(max(options(stage.repeat)) for stage in row.stages) for row in rows)
        if most > BLOCKS:
            raise SpaceError(f"{source}: a network must have {BLOCKS:,} blocks at most, but has {most:,}")
        check_rows(rows, options(resolution), source)
        return cls(name or source, resolution, rows, precision)

    @cached_property
    def choices(self) -> dict[str, tuple[Any, ...]]:
        """Every choice by name, such as `4.mobilevit.dim`, with its options."""
        named = {f"{i}.{name}": values for i, row in enumerate(self.rows) for name, values in row.choices().items()}
        whole = {"resolution": self.resolution, "precision": self.precision}
        return named | {key: values for key, values in whole.items() if isinstance(values, tuple)}

    @property
    def ends(self) -> tuple[dict[str, Any], dict[str, Any]]:
        """The point with every choice at its first option, and that with all at their last."""
        first = {name: values[0] for name, values in self.choices.items()}
        return first, {name: values[-1] for name, values in self.choices.items()}

    @property
    def kinds(self) -> list[str]:
        """The kinds of its blocks, row by row."""
        return [stage.kind for row in self.rows for stage in row.stages]

    @property
    def mixed(self) -> bool:
        """Whether a row has stages of several kinds."""
        return bool(self._mixed)

    @property
    def size(self) -> int:
        """Number of points that differ in more than what does not matter."""
        rows = [sum(prod(map(len, stage.choices().values())) for stage in row.stages) for row in self.rows]
        return prod(rows) * len(options(self.resolution)) * len(options(self.precision))

    def active(self, picks: Picks) -> Sequence[str]:
        """Names of the choices that matter at a point: all but those of kinds that are not picked."""
        if not self._mixed:
            return list(self.choices)
        names = [*self._always]
        for pick, kinds in self._mixed:
            names += [pick, *kinds[picks[pick]]]
        return names

    def activated(self, picks: Picks, name: str) -> Picks:
        """The point with the choice `name` made to matter: with that kind picked in its row."""
        for pick, kinds in self._mixed:
            if any(name in names for names in kinds.values()) and name not in kinds[picks[pick]]:
                return {**picks, pick: next(kind for kind, names in kinds.items() if name in names)}
        return picks

    def settled(self, picks: Picks) -> dict[str, Any]:
        """The point of the same network at which choices that do not matter have their first option."""
        if not self._mixed:
            return dict(picks)
        active = set(self.active(picks))
        return {name: picks[name] if name in active else values[0] for name, values in self.choices.items()}

    def sample(self, choose: Choose) -> Arch:
        """The architecture that `choose(name, options)` picks, for example a trial's suggest_categorical."""
        return self.at({name: choose(name, values) for name, values in self.choices.items()})

    def at(self, picks: Picks) -> Arch:
        """The architecture at one point."""
        blocks: list[Block] = []
        counts: list[int] = []
        taps: list[tuple[int, int]] = []
        for pick, stages in self._stages:
            stage, keys = stages[picks[pick] if pick else ""]
            chosen = {key: picks[name] for key, name in keys}
            made = stage.blocks(chosen)
            if stage.taps:
                taps += [(len(blocks), sum(counts[: read + 1]) - 1) for read in stage.tapped(chosen)]
            blocks += made
            counts.append(len(made))
        return Arch(
            tuple(blocks),
            picks["resolution"] if isinstance(self.resolution, tuple) else self.resolution,
            picks["precision"] if isinstance(self.precision, tuple) else self.precision,
            tuple(taps),
            tuple([sum(counts[: i + 1]) - 1 for i in self._outputs]),
            tuple(counts),
        )

    @cached_property
    def _outputs(self) -> list[int]:
        """The rows that are outputs besides the last."""
        return [i for i, row in enumerate(self.rows[:-1]) if row.output]

    @cached_property
    def _stages(self) -> list[tuple[str, dict[str, tuple[Stage, list[tuple[str, str]]]]]]:
        """Of each row the choice of its kind, if it is one, and by kind the stage with field and name of each of its
        choices.
        """
        rows = []
        for i, row in enumerate(self.rows):
            keys = {
                stage.kind: (stage, [(key, f"{i}.{name}") for key, name in stage.named().items()])
                for stage in row.stages
            }
            rows.append((f"{i}.block", keys) if len(keys) > 1 else ("", {"": next(iter(keys.values()))}))
        return rows

    @cached_property
    def _mixed(self) -> list[tuple[str, dict[str, list[str]]]]:
        """The choice of kind of each row that has one, and the names of the choices of each kind."""
        rows = [(pick, stages) for pick, stages in self._stages if pick]
        return [
            (pick, {kind: [name for _, name in keys] for kind, (_, keys) in stages.items()}) for pick, stages in rows
        ]

    @cached_property
    def _always(self) -> list[str]:
        """The choices that matter at every point."""
        picked = {name for pick, kinds in self._mixed for name in (pick, *chain.from_iterable(kinds.values()))}
        return [name for name in self.choices if name not in picked]

    def arch(self) -> Arch:
        """The only architecture of a space without choices, such as a published network.

        Raises:
            SpaceError: the space has choices.
        """
        if self.choices:
            raise SpaceError(f"a network must have no choice left, but {self.name} has {len(self.choices)}; search it")
        return self.at({})

    def locate(self, arch: Arch) -> dict[str, Any] | None:
        """The picks at which this space yields `arch`, its number of classes aside; None if it is no point of it."""

        whole = {"resolution": arch.resolution, "precision": arch.precision}
        for key, value in whole.items():
            if value not in options(getattr(self, key)):
                return None
        chosen = {key: value for key, value in whole.items() if isinstance(getattr(self, key), tuple)}

        def search(index: int, blocks: Sequence[Block], picks: Picks) -> dict[str, Any] | None:
            if index == len(self.rows):
                point = self.ends[0] | dict(picks) | chosen  # what does not matter is at its first option
                made = None if blocks else self.at(point)
                return point if made and (made.taps, made.outputs) == (arch.taps, arch.outputs) else None
            for count, own in self.rows[index].match(blocks):
                named = {f"{index}.{name}": value for name, value in own.items()}
                found = search(index + 1, blocks[count:], {**picks, **named})
                if found is not None:
                    return found
            return None

        return search(0, arch.blocks, {})

    def with_classes(self, classes: int) -> Space:
        """The same space with another number of classes in its last block."""
        *others, last = self.rows

        def classed(stage: Stage) -> Stage:
            settings = [(key, value) for key, value in stage.settings if key != "classes"]
            return replace(
                stage,
                settings=(*settings, ("classes", classes)),
                shared=tuple([key for key in stage.shared if key != "classes"]),
            )

        return replace(self, rows=(*others, replace(last, stages=tuple(map(classed, last.stages)))))

    def with_precisions(self, precisions: Sequence[str]) -> Space:
        """The same space at one precision, or with the choice among some."""
        return replace(self, precision=tuple(precisions) if len(precisions) > 1 else precisions[0])


def _dotted(data: Any) -> list[str]:
    """The dotted names of blocks in plain data of a space."""
    rows = data.get("stages") if isinstance(data, dict) else None
    kinds = [row.get("block") for row in rows if isinstance(row, dict)] if isinstance(rows, list) else []
    words = chain.from_iterable(kind if isinstance(kind, list) else [kind] for kind in kinds)
    return [word for word in words if isinstance(word, str) and "." in word]
