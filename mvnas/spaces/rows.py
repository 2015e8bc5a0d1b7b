"""Rows of a search space: a block whose fields are choices, or several such of which one is picked."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from functools import lru_cache
from itertools import combinations, product
from typing import Any, cast

from mvnas.blocks import Block, block_class, built, check_complete, check_field, check_size, check_taps, kind_of
from mvnas.errors import SpaceError, quoted

OPTIONS = 100  # of a choice [11]

Picks = Mapping[str, Any]  # the option picked for each choice


def options(value: Any) -> tuple[Any, ...]:
    """The options of a choice, or the one fixed value."""
    return value if isinstance(value, tuple) else (value,)


@dataclass(frozen=True)
class Stage:
    """A block whose fields are fixed or, where the value is a tuple, choices.

    `repeat` puts the block several times, all with the same fields but the stride, which only the first one has. Only
    the first one reads `taps` as well: indices of earlier rows with spaces between them, whose last blocks' outputs it
    takes after that of the block before it. The choice of a `shared` field is one with that of the other stages of its
    row.
    """

    kind: str
    settings: tuple[tuple[str, Any], ...]
    repeat: Any = 1
    shared: tuple[str, ...] = ()
    taps: Any = ""

    def choices(self) -> dict[str, tuple[Any, ...]]:
        values = (*self.settings, ("repeat", self.repeat), ("taps", self.taps))
        return {key: value for key, value in values if isinstance(value, tuple)}

    def named(self) -> dict[str, str]:
        """The name in its row of each choice, by field: that of a field that is not shared tells the kind."""
        return {key: key if key in self.shared else f"{self.kind}.{key}" for key in self.choices()}

    def blocks(self, picks: Picks) -> list[Block]:
        """The blocks at one point of the stage; `picks` are by field name."""
        values = tuple([(key, picks[key] if isinstance(value, tuple) else value) for key, value in self.settings])
        count = picks["repeat"] if isinstance(self.repeat, tuple) else self.repeat
        first = built(self.kind, values)
        if count == 1:
            return [first]
        return [first] + [built(self.kind, tuple([(k, 1 if k == "stride" else v) for k, v in values]))] * (count - 1)

    def tapped(self, picks: Picks) -> tuple[int, ...]:
        """The earlier rows that the first block reads at one point of the stage."""
        return _rows_of(picks["taps"] if isinstance(self.taps, tuple) else self.taps)

    @property
    def reads(self) -> set[int]:
        """The earlier rows that it reads at any point."""
        return {row for taps in options(self.taps) for row in _rows_of(taps)}

    def match(self, blocks: Sequence[Block]) -> Iterator[tuple[int, Picks]]:
        """Numbers of leading `blocks` that this stage can yield, its number of classes aside, each with the picks.

        Taps leave no trace in blocks: any are matched.
        """
        for count, taps in product(options(self.repeat), options(self.taps)):
            if len(blocks) < count or kind_of(blocks[0]) != self.kind:
                continue
            have = asdict(cast(Any, blocks[0])) | {"repeat": count, "taps": taps}
            picks = {key: have[key] for key in self.choices()}
            if all(have[key] in values for key, values in self.choices().items()):
                made = self.blocks(picks)
                if "classes" in have:
                    made = [replace(cast(Any, part), classes=have["classes"]) for part in made]
                if made == list(blocks[:count]):
                    yield count, picks


@lru_cache(maxsize=1 << 12)
def _rows_of(taps: str) -> tuple[int, ...]:
    """The rows that the text of taps names."""
    return tuple(map(int, taps.split()))


@dataclass(frozen=True)
class Row:
    """One row of a space: a stage, or stages of different kinds, of which the choice `block` picks one.

    What its last block yields is an output of the network if the row is an `output`.
    """

    stages: tuple[Stage, ...]
    output: bool = False

    def choices(self) -> dict[str, tuple[Any, ...]]:
        """Every choice by its name in the row, `block` first."""
        kinds = tuple([stage.kind for stage in self.stages])
        named = {stage.named()[key]: values for stage in self.stages for key, values in stage.choices().items()}
        return ({"block": kinds} if len(kinds) > 1 else {}) | named

    def match(self, blocks: Sequence[Block]) -> Iterator[tuple[int, Picks]]:
        """Numbers of leading `blocks` that this row can yield, each with the picks that decide it, by name in the
        row.
        """
        for stage in self.stages:
            kind = {"block": stage.kind} if len(self.stages) > 1 else {}
            for count, picks in stage.match(blocks):
                yield count, kind | {stage.named()[key]: value for key, value in picks.items()}


def choice(value: Any, where: str) -> Any:
    """A YAML list as a tuple of options, anything else as it is."""
    if not isinstance(value, list):
        return value
    if not value:
        raise SpaceError(f"{where} must have at least one option, but the list is empty")
    if len(value) > OPTIONS:
        raise SpaceError(f"{where} must have {OPTIONS} options at most, but has {len(value):,}")
    if any(one == other for one, other in combinations(value, 2)):
        raise SpaceError(f"{where} must have different options, but got {quoted(value)}")
    return tuple(value)


def row_of(row: Any, index: int, where: str) -> Row:
    """What the row at `index` of a YAML file describes.

    Where `block` is a list, the row's fields are those of every kind in it, and what is under the name of a kind is its
    own.

    Raises:
        SpaceError: it describes none; `where` names it.
    """
    kinds = row.get("block") if isinstance(row, Mapping) else None
    output = row.get("output", False) if isinstance(row, Mapping) else False
    if not isinstance(output, bool):
        raise SpaceError(f"{where}: output must be yes or no, but got {quoted(output)}")
    if isinstance(kinds, str):
        return Row((_stage(row, index, where),), output)
    if not isinstance(kinds, list) or len(kinds) < 2 or not all(isinstance(kind, str) for kind in kinds):
        raise SpaceError(
            f"{where} must be a mapping with the key block, the name of one or a list of several, but got {quoted(row)}"
        )
    kinds = choice(kinds, f"{where}, key block")
    try:
        for kind in kinds:
            block_class(kind)
    except SpaceError as error:
        raise SpaceError(f"{where}: {error}") from None
    shared = {key: value for key, value in row.items() if key not in (*kinds, "block", "output")}
    stages = []
    for kind in kinds:
        own = row.get(kind, {})
        if not isinstance(own, Mapping) or "block" in own or "output" in own:
            raise SpaceError(f"{where}, key {kind} must hold fields of that block, but got {quoted(own)}")
        stage = _stage({"block": kind, **shared, **own}, index, where)
        stages.append(replace(stage, shared=tuple([key for key in shared if key not in own])))
    return Row(tuple(stages), output)


def _stage(row: Mapping[str, Any], index: int, where: str) -> Stage:
    """The stage that a mapping with the name of one block describes."""
    kind, told_as = row["block"], where
    where = f"{where} ({kind:.60})"
    settings = {
        key: choice(value, f"{where}, key {key}") for key, value in row.items() if key not in ("block", "output")
    }
    try:
        block_class(kind)
    except SpaceError as error:
        raise SpaceError(f"{told_as}: {error}") from None
    try:
        for key, value in settings.items():
            for option in options(value):
                _check_option(kind, key, option, index)
    except SpaceError as error:
        raise SpaceError(f"{where}: {error}") from None
    try:
        check_complete(kind, settings)
    except SpaceError as error:
        raise SpaceError(f"{where} {error}") from None
    repeat, taps = settings.pop("repeat", 1), settings.pop("taps", "")
    taps = choice([_plain(text) for text in taps], f"{where}, key taps") if isinstance(taps, tuple) else _plain(taps)
    try:
        for text in options(taps):
            check_taps(kind, len(_rows_of(text)))
    except SpaceError as error:
        raise SpaceError(f"{where}: {error}") from None
    return Stage(kind, tuple(settings.items()), repeat, taps=taps)


def _plain(taps: int | str) -> str:
    """The one text of what names the same rows."""
    return " ".join(map(str, _rows_of(str(taps))))


def _check_option(kind: str, key: str, option: Any, index: int) -> None:
    """Check an option of a key of the row at `index`.

    Raises:
        SpaceError: the key has no such option.
    """
    if key == "repeat":
        if type(option) is not int or option < 1:
            raise SpaceError(f"repeat must be a whole number, 1 or more, but got {quoted(option)}")
        check_size(key, option)
    elif key == "taps":
        words = str(option).split() if type(option) in (int, str) else ["?"]
        if not all(word.isascii() and word.isdigit() and int(word) < index - 1 for word in words) or len(
            set(words)
        ) < len(words):
            known = f"0 to {index - 2}" if index > 1 else "of which there is none"
            raise SpaceError(
                f"taps must be different numbers of stages before the one that is read anyway, {known}, with spaces"
                f" between them, but got {quoted(option)}"
            )
    else:
        check_field(kind, key, option)
