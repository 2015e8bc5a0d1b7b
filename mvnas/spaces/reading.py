"""Content of YAML files, and which files are shipped."""

from __future__ import annotations

from collections.abc import Iterable
from functools import cache
from pathlib import Path
from typing import Any

from mvnas.errors import SpaceError, quoted
from mvnas.system.reading import read_text

VALUES = 10_000  # of a YAML file, where what is repeated by an alias counts each time [610]
DEPTH = 20  # of lists and mappings within one another [5]
LETTERS = 200  # of a value [25]


@cache
def data_folder(name: str) -> Path:
    """The folder of shipped data `name`: inside the installed package, or beside it in a checkout."""
    package = Path(__file__).parents[1]
    return package / name if (package / name).is_dir() else package.parent / name


def names() -> list[str]:
    """Names of the shipped spaces and published networks."""
    return sorted(path.stem for path in data_folder("search_spaces").glob("*.yaml"))


def read_yaml(path: Path) -> Any:
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
                raise ValueError(f"an alias within what it repeats: {quoted(event.anchor)}")
            values += inside
        elif isinstance(event, yaml.CollectionStartEvent):
            opened.append((event.anchor, values))
            named |= {event.anchor: None} if event.anchor else {}
        elif isinstance(event, yaml.CollectionEndEvent):
            anchor, begun = opened.pop()
            named |= {anchor: values - begun} if anchor else {}
        elif isinstance(event, yaml.ScalarEvent) and len(event.value) > LETTERS:
            raise ValueError(f"a value of more than {LETTERS} letters: {quoted(event.value)}")
        if values > VALUES:
            raise ValueError(f"more than {VALUES:,} values, those repeated by aliases among them")
        if len(opened) > DEPTH:
            raise ValueError(f"more than {DEPTH} lists and mappings within one another")
