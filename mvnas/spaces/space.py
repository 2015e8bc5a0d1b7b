"""Search spaces: every list in a YAML file is a choice, and everything else is fixed."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from functools import cache, cached_property
from itertools import chain, combinations, product
from math import prod
from pathlib import Path
from typing import Any, cast

from mvnas.errors import SpaceError, told, unknown
from mvnas.graph import summary
from mvnas.ops import Map, Shape, Vector
from mvnas.spaces.arch import (
    FLOAT,
    IMAGE_CHANNELS,
    PRECISIONS,
    Arch,
    Block,
    block,
    block_class,
    check_field,
    check_size,
    data_folder,
    kind_of,
    required_fields,
)
from mvnas.system import trust
from mvnas.system.reading import read_text

Choose = Callable[[str, Sequence[Any]], Any]  # has the signature of optuna.Trial.suggest_categorical
KEYS = ("resolution", "precision", "stages")

# Bounds, far beyond what shipped spaces need (in brackets), so that every file is answered at once: docs/security.md.
SMALLEST, LARGEST_SIDE = 32, 4096  # pixels of an image's side [384]
BLOCKS = 1000  # of a network [43]
OPTIONS = 100  # of a choice [11]
VALUES = 10_000  # of a YAML file, where what is repeated by an alias counts each time [610]
DEPTH = 20  # of lists and mappings within one another [5]
LETTERS = 200  # of a value [25]
NUMBERS = 2**31 - 1  # parameters of a block, and numbers that it yields: what files of 2 GB hold at most
STEPS = 300_000  # ops in what is built to check a space, of which a block is 4 more [210,000]

Picks = Mapping[str, Any]  # the option picked for each choice


def names() -> list[str]:
    """Names of the shipped spaces and published networks."""
    return sorted(path.stem for path in data_folder("search_spaces").glob("*.yaml"))


@cache
def published() -> tuple[str, ...]:
    """Names of the shipped networks: the spaces without a choice."""
    folder = data_folder("search_spaces")
    return tuple([name for name in names() if not _holds_list(_read(folder / f"{name}.yaml"))])


def systems(archs: Iterable[Arch]) -> dict[Arch, str]:
    """The system of each network: the shipped space that its published name begins with, or else one that it is a point of.

    What is of none goes by its published name, or as "other".
    """
    shipped = [name for name in names() if name not in published()]
    named = {_shipped(name).arch(): name for name in published()}
    found: dict[Arch, str] = {}
    for arch in archs:
        title = named.get(arch, "")
        begins = [name for name in shipped if title.startswith(name)]
        likely = dict.fromkeys([*(name for name in found.values() if name in shipped), *shipped])
        holds = (name for name in likely if _shipped(name).locate(arch) is not None)
        found[arch] = max(begins, key=len) if begins else next(holds, title or "other")
    return found


@cache
def _shipped(name: str) -> Space:
    return Space.load(name)


def _holds_list(data: Any) -> bool:
    stages = data["stages"]
    return any(isinstance(value, list) for row in (data | {"stages": 0}, *stages) for value in row.values())


def _read(path: Path) -> Any:
    """Content of a YAML file.

    Raises:
        SpaceError: it is not there, not YAML or too large, or a mapping in it has a key twice.
    """
    import yaml

    class Loader(getattr(yaml, "CSafeLoader", yaml.SafeLoader)):  # type: ignore[misc]
        def construct_mapping(self, node: Any, deep: bool = False) -> Any:
            seen: set[str] = set()
            for key, _ in node.value:
                if not isinstance(key, yaml.ScalarNode):
                    raise yaml.MarkedYAMLError(problem="a key must be a word", problem_mark=key.start_mark)
                if key.value in seen:  # of which YAML itself would silently take the last
                    raise yaml.MarkedYAMLError(
                        problem=f"the key {key.value!r} is there twice", problem_mark=key.start_mark
                    )
                seen.add(key.value)
            return super().construct_mapping(node, deep)

    try:
        text = read_text(path)
        _check_events(yaml.parse(text, Loader=Loader))
        return yaml.load(text, Loader=Loader)
    except yaml.YAMLError as error:
        raise SpaceError(f"{path} must be YAML, but {' '.join(str(error).split())}") from None
    except (OSError, ValueError, ArithmeticError) as error:
        raise SpaceError(f"{path} must be a readable YAML file, but got {error}") from None


def _check_events(events: Iterable[Any]) -> None:
    """Check what a YAML file would become, before anything is made of it.

    Raises:
        ValueError: it is too much, too deep, or repeats itself without end.
    """
    import yaml

    values, named = (
        0,
        dict[str, int | None](),
    )  # how many values there are, and within what has a name, None while that is open
    opened: list[tuple[str | None, int]] = []
    for event in events:
        values += 1
        if isinstance(event, yaml.AliasEvent):
            inside = named.get(str(event.anchor), 0)
            if inside is None:
                raise ValueError(f"an alias within what it repeats: {told(event.anchor)}")
            values += inside
        elif isinstance(event, yaml.CollectionStartEvent):
            opened.append((event.anchor, values))
            named |= {event.anchor: None} if event.anchor else {}
        elif isinstance(event, yaml.CollectionEndEvent):
            anchor, begun = opened.pop()
            named |= {anchor: values - begun} if anchor else {}
        elif isinstance(event, yaml.ScalarEvent) and len(event.value) > LETTERS:
            raise ValueError(f"a value of more than {LETTERS} letters: {told(event.value)}")
        if values > VALUES:
            raise ValueError(f"more than {VALUES:,} values, those repeated by aliases among them")
        if len(opened) > DEPTH:
            raise ValueError(f"more than {DEPTH} lists and mappings within one another")


def options(value: Any) -> tuple[Any, ...]:
    """The options of a choice, or the one fixed value."""
    return value if isinstance(value, tuple) else (value,)


@dataclass(frozen=True)
class Stage:
    """A block whose fields are fixed or, where the value is a tuple, choices.

    `repeat` puts the block several times, all with the same fields but the stride, which only the first one has. The choice
    of a `shared` field is one with that of the other stages of its row.
    """

    kind: str
    settings: tuple[tuple[str, Any], ...]
    repeat: Any = 1
    shared: tuple[str, ...] = ()

    def choices(self) -> dict[str, tuple[Any, ...]]:
        return {key: value for key, value in (*self.settings, ("repeat", self.repeat)) if isinstance(value, tuple)}

    def named(self) -> dict[str, str]:
        """The name in its row of each choice, by field: that of a field that is not shared tells the kind."""
        return {key: key if key in self.shared else f"{self.kind}.{key}" for key in self.choices()}

    def blocks(self, picks: Picks) -> list[Block]:
        """The blocks at one point of the stage; `picks` are by field name."""
        values = tuple([(key, picks[key] if isinstance(value, tuple) else value) for key, value in self.settings])
        count = picks["repeat"] if isinstance(self.repeat, tuple) else self.repeat
        first = block(self.kind, values)
        if count == 1:
            return [first]
        return [first] + [block(self.kind, tuple([(k, 1 if k == "stride" else v) for k, v in values]))] * (count - 1)

    def match(self, blocks: Sequence[Block]) -> Iterator[tuple[int, Picks]]:
        """Numbers of leading `blocks` that this stage can yield, its number of classes aside, each with the picks."""
        for count in options(self.repeat):
            if len(blocks) < count or kind_of(blocks[0]) != self.kind:
                continue
            have = asdict(cast(Any, blocks[0])) | {"repeat": count}
            picks = {key: have[key] for key in self.choices()}
            if all(have[key] in values for key, values in self.choices().items()):
                made = self.blocks(picks)
                if "classes" in have:
                    made = [replace(cast(Any, part), classes=have["classes"]) for part in made]
                if made == list(blocks[:count]):
                    yield count, picks


@dataclass(frozen=True)
class Row:
    """One row of a space: a stage, or stages of different kinds, of which the choice `block` picks one."""

    stages: tuple[Stage, ...]

    def choices(self) -> dict[str, tuple[Any, ...]]:
        """Every choice by its name in the row, `block` first."""
        kinds = tuple([stage.kind for stage in self.stages])
        named = {stage.named()[key]: values for stage in self.stages for key, values in stage.choices().items()}
        return ({"block": kinds} if len(kinds) > 1 else {}) | named

    def match(self, blocks: Sequence[Block]) -> Iterator[tuple[int, Picks]]:
        """Numbers of leading `blocks` that this row can yield, each with the picks that decide it, by name in the row."""
        for stage in self.stages:
            kind = {"block": stage.kind} if len(self.stages) > 1 else {}
            for count, picks in stage.match(blocks):
                yield count, kind | {stage.named()[key]: value for key, value in picks.items()}


@dataclass(frozen=True)
class Space:
    """Choices of networks: rows in order, a resolution in pixels and a precision, where a tuple is a choice.

    Where a row has stages of several kinds, the choices of those that are not picked do not matter: points that differ in
    them alone are one network, and `settled` makes them one point.

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
        """The shipped space or published network `name`, or the one in a YAML file, whose blocks may be modules of the user's.

        Raises:
            SpaceError: there is no such space, or it is not legal; the message names file, stage and key.
        """
        path = Path(name)
        if path.suffix not in (".yaml", ".yml"):
            path = data_folder("search_spaces") / f"{name}.yaml"
            if not os.path.isfile(path):  # false also of what can be no name
                raise SpaceError(f"{unknown('space', name, names())}; a file's path must end in .yaml")
        data = _read(path)
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
            raise SpaceError(f"{source} must hold the keys resolution and stages, but holds {told(data)}")
        for key in data:
            if key not in KEYS:
                raise SpaceError(f"{source}: {unknown('key', key, KEYS)}")
        for key in ("resolution", "stages"):
            if key not in data:
                raise SpaceError(
                    f"{source} must have the key {key!r}, but has only {', '.join(map(str, data)) or 'none'}"
                )
        resolution = _choice(data["resolution"], f"{source}: resolution")
        for side in options(resolution):
            if type(side) is not int or side < SMALLEST:
                raise SpaceError(f"{source}: resolution must be whole pixels, {SMALLEST} or more, but got {told(side)}")
            if side > LARGEST_SIDE:
                raise SpaceError(f"{source}: resolution must be {LARGEST_SIDE} pixels at most, but got {told(side)}")
        precision = _choice(data.get("precision", FLOAT), f"{source}: precision")
        for word in options(precision):
            if not isinstance(word, str) or word not in PRECISIONS:
                raise SpaceError(f"{source}: {unknown('precision', word, PRECISIONS)}")
        if not isinstance(data["stages"], list) or not data["stages"]:
            raise SpaceError(f"{source}: stages must be a list of blocks, but got {told(data['stages'])}")
        if len(data["stages"]) > BLOCKS:
            raise SpaceError(f"{source}: a network must have {BLOCKS:,} blocks at most, but has more stages")
        rows = tuple(_row(row, f"{source}, stage {i}") for i, row in enumerate(data["stages"]))
        most = sum(max(max(options(stage.repeat)) for stage in row.stages) for row in rows)
        if most > BLOCKS:
            raise SpaceError(f"{source}: a network must have {BLOCKS:,} blocks at most, but has {most:,}")
        space = cls(name or source, resolution, rows, precision)
        space._check(source)
        return space

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
        for pick, stages in self._stages:
            stage, keys = stages[picks[pick] if pick else ""]
            blocks += stage.blocks({key: picks[name] for key, name in keys})
        resolution = picks["resolution"] if isinstance(self.resolution, tuple) else self.resolution
        return Arch(
            tuple(blocks), resolution, picks["precision"] if isinstance(self.precision, tuple) else self.precision
        )

    @cached_property
    def _stages(self) -> list[tuple[str, dict[str, tuple[Stage, list[tuple[str, str]]]]]]:
        """Of each row the choice of its kind, if it is one, and by kind the stage with field and name of each of its choices."""
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

        def search(index: int, blocks: Sequence[Block]) -> dict[str, Any] | None:
            if index == len(self.rows):
                return None if blocks else {}
            for count, picks in self.rows[index].match(blocks):
                rest = search(index + 1, blocks[count:])
                if rest is not None:
                    return {f"{index}.{name}": value for name, value in picks.items()} | rest
            return None

        if arch.resolution not in options(self.resolution) or arch.precision not in options(self.precision):
            return None
        found = search(0, arch.blocks)
        whole = {"resolution": arch.resolution, "precision": arch.precision}
        chosen = {key: value for key, value in whole.items() if isinstance(getattr(self, key), tuple)}
        if found is None:
            return None
        return self.ends[0] | found | chosen  # what does not matter is at its first option

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

        return replace(self, rows=(*others, Row(tuple(map(classed, last.stages)))))

    def with_precisions(self, precisions: Sequence[str]) -> Space:
        """The same space at one precision, or with the choice among some."""
        return replace(self, precision=tuple(precisions) if len(precisions) > 1 else precisions[0])

    def _check(self, source: str) -> None:
        """Build every pair of choices of a stage on every size of map it can get; the last block must be a classifier.

        On the first number of channels, that is; on the others every choice is built by itself.
        """
        shapes: dict[tuple[int, Shape], list[Shape]] = {}  # of each resolution and size of map, those that it can have
        steps = 0
        for side in options(self.resolution):
            shapes[side, Map(0, side, side)] = [Map(IMAGE_CHANNELS, side, side)]
        for i, row in enumerate(self.rows):
            reached: dict[tuple[int, Shape], dict[Shape, None]] = {}
            for stage, ((side, _), given) in product(row.stages, shapes.items()):
                first = {key: values[0] for key, values in stage.choices().items()}
                alone = product(given[1:], _singles(stage.choices()))
                for shape, picks in chain(((given[0], picks) for picks in _pairs(stage.choices())), alone):
                    try:
                        for part in stage.blocks(first | picks):
                            if isinstance(shape, Vector):
                                raise SpaceError("a classifier must come last and once, but this block follows one")
                            made = summary(part, (shape,))
                            shape = made.shape
                            steps += 4 + len(made.steps)
                            _check_built(made.params, shape)
                    except SpaceError as error:
                        at = ", ".join(f"{key} {value}" for key, value in (picks | {"resolution": side}).items())
                        raise SpaceError(f"{source}, stage {i} ({stage.kind}) at {at}: {error}") from None
                    if steps > STEPS:
                        raise SpaceError(
                            f"{source} must need {STEPS:,} ops at most to be checked, but needs more; take fewer options or stages"
                        )
                    reached.setdefault((side, shape._replace(c=0)), {})[shape] = None
                if row is self.rows[-1] and not (isinstance(shape, Vector) and hasattr(part, "classes")):
                    raise SpaceError(
                        f"{source}, stage {i} ({stage.kind}): the last block must be a classifier, such as head"
                    )
            shapes = {key: list(found) for key, found in reached.items()}


def _dotted(data: Any) -> list[str]:
    """The dotted names of blocks in plain data of a space."""
    rows = data.get("stages") if isinstance(data, dict) else None
    kinds = [row.get("block") for row in rows if isinstance(row, dict)] if isinstance(rows, list) else []
    words = chain.from_iterable(kind if isinstance(kind, list) else [kind] for kind in kinds)
    return [word for word in words if isinstance(word, str) and "." in word]


def _check_built(params: int, shape: Shape) -> None:
    """Check that a block and what it yields could be held in a file or in memory at all.

    Raises:
        SpaceError: they could not.
    """
    if params > NUMBERS or not 0 < prod(shape) <= NUMBERS:
        raise SpaceError(
            f"a block must have {NUMBERS:,} parameters at most and yield as many numbers at most, and one at least, "
            f"but has {params:.3g} and yields {tuple(shape)}"
        )


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


def _choice(value: Any, where: str) -> Any:
    """A YAML list as a tuple of options, anything else as it is."""
    if not isinstance(value, list):
        return value
    if not value:
        raise SpaceError(f"{where} must have at least one option, but the list is empty")
    if len(value) > OPTIONS:
        raise SpaceError(f"{where} must have {OPTIONS} options at most, but has {len(value):,}")
    if any(one == other for one, other in combinations(value, 2)):
        raise SpaceError(f"{where} must have different options, but got {told(value)}")
    return tuple(value)


def _row(row: Any, where: str) -> Row:
    """What one row of a YAML file describes.

    Where `block` is a list, the row's fields are those of every kind in it, and what is under the name of a kind is its own.
    """
    kinds = row.get("block") if isinstance(row, Mapping) else None
    if isinstance(kinds, str):
        return Row((_stage(row, where),))
    if not isinstance(kinds, list) or len(kinds) < 2 or not all(isinstance(kind, str) for kind in kinds):
        raise SpaceError(
            f"{where} must be a mapping with the key block, the name of one or a list of several, but got {told(row)}"
        )
    kinds = _choice(kinds, f"{where}, key block")
    try:
        for kind in kinds:
            block_class(kind)
    except SpaceError as error:
        raise SpaceError(f"{where}: {error}") from None
    shared = {key: value for key, value in row.items() if key not in (*kinds, "block")}
    stages = []
    for kind in kinds:
        own = row.get(kind, {})
        if not isinstance(own, Mapping) or "block" in own:
            raise SpaceError(f"{where}, key {kind} must hold fields of that block, but got {told(own)}")
        stage = _stage({"block": kind, **shared, **own}, where)
        stages.append(replace(stage, shared=tuple([key for key in shared if key not in own])))
    return Row(tuple(stages))


def _stage(row: Mapping[str, Any], where: str) -> Stage:
    """The stage that a mapping with the name of one block describes."""
    try:
        required = required_fields(row["block"])
    except SpaceError as error:
        raise SpaceError(f"{where}: {error}") from None
    where = f"{where} ({row['block']:.60})"
    settings = {key: _choice(value, f"{where}, key {key}") for key, value in row.items() if key != "block"}
    for key, value in settings.items():
        for option in options(value):
            if key == "repeat" and (type(option) is not int or option < 1):
                raise SpaceError(f"{where}: repeat must be a whole number, 1 or more, but got {told(option)}")
            try:
                check_size(key, option) if key == "repeat" else check_field(row["block"], key, option)
            except SpaceError as error:
                raise SpaceError(f"{where}: {error}") from None
    for key in required:
        if key not in settings:
            raise SpaceError(
                f"{where} must have the key {key!r}, but has only {', '.join(map(str, settings)) or 'none'}"
            )
    repeat = settings.pop("repeat", 1)
    return Stage(row["block"], tuple(settings.items()), repeat)
