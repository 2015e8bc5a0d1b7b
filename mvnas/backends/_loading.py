"""Backends by their names, and what a backend of the user's answers, looked at before it is believed."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from inspect import Parameter, signature
from math import inf
from pathlib import Path
from typing import Any, TypeVar, cast

import numpy as np

from mvnas.backends._protocol import REQUIRED, Runtime
from mvnas.backends._timing import Stopwatch
from mvnas.errors import ExportError, quoted, unknown
from mvnas.graph import Graph
from mvnas.system import plugins

ROOM = __name__.rpartition(".")[0]

Answer = TypeVar("Answer")


def names() -> list[str]:
    """Names of the backends that come with mvnas."""
    return plugins.names(ROOM)


def formats() -> list[str]:
    """Names of those whose files are shipped; all are loaded for it, so their packages must be installed."""
    return [name for name in names() if ships(name)]


def ships(name: str) -> bool:
    """Whether files of the backend `name` are shipped, and not for timing alone.

    Raises:
        ExportError: there is no such backend, or a package that it needs is not installed.
    """
    return bool(getattr(load(name), "ships", False))


def settings(name: str) -> Mapping[str, Parameter]:
    """What can be set of the backend `name`: the arguments of its constructor.

    Raises:
        ExportError: there is no such backend, or a package that it needs is not installed.
    """
    return signature(load(name)).parameters


def backend(name: str, **chosen: Any) -> Runtime:
    """The backend `name` with these settings; one that is text is read as the type of its default.

    Raises:
        ExportError: there is no such backend or setting, or a package that it needs is not installed.
    """
    known = settings(name)
    for setting in chosen:
        if setting not in known:
            raise ExportError(unknown(f"setting of {name}", setting, known))
    return load(name)(
        **{setting: _read(setting, value, type(known[setting].default)) for setting, value in chosen.items()}
    )


def load(name: str) -> Callable[..., Runtime]:
    """The class of the backend `name`: a module of mvnas.backends, or any importable module if the name is dotted.

    Raises:
        ExportError: there is none, or a package that it needs is not installed.
    """
    made = plugins.load_class("backend", name, ROOM, "Backend", ExportError)
    return cast(Callable[..., Runtime], _checked(name, made) if "." in name else made)


def one_by_one(backend: Runtime, graphs: Sequence[Graph], folder: Path) -> list[Path]:
    """One file a graph, with arbitrary weights, one after the other: `export_each` of most backends."""
    from mvnas.nn import arbitrary

    paths = [folder / f"{i}{backend.suffix}" for i in range(len(graphs))]
    for graph, path in zip(graphs, paths, strict=True):
        backend.export(graph, path, arbitrary(graph))
    return paths


def _read(setting: str, value: Any, kind: type) -> Any:
    """A setting that is text as an int, float or bool where its default is one."""
    if not isinstance(value, str) or kind not in (int, float, bool):
        return value
    if kind is bool:
        if value not in ("yes", "no"):
            raise ExportError(f"{setting} must be yes or no, but got {value!r}")
        return value == "yes"
    try:
        return kind(value)
    except ValueError:
        raise ExportError(f"{setting} must be a number, but got {value!r}") from None


def _checked(name: str, made: Any) -> type:
    """A class of the user's whose answers are looked at before a table or a card takes them.

    Raises:
        ExportError: it lacks something.
    """
    for need in (*REQUIRED, *(["tolerance"] if getattr(made, "ships", False) else [])):
        if not hasattr(made, need):
            raise ExportError(f"a backend must have what mvnas.backends says, but {name} has no {need}")

    class Backend(made):  # type: ignore[misc]
        def conditions(self) -> Mapping[str, Any]:
            found: Mapping[str, Any] = super().conditions()
            return _answer(name, "conditions", found, lambda it: isinstance(it, Mapping))

        def run(self, path: Path, inputs: Sequence[np.ndarray]) -> list[np.ndarray]:
            outputs: list[np.ndarray] = super().run(path, inputs)
            return _answer(name, "run", outputs, lambda it: all(isinstance(part, np.ndarray) for part in it))

        def stopwatch(self, path: Path) -> Stopwatch:
            watch = _answer(name, "stopwatch", super().stopwatch(path), callable)
            return lambda: _answer(name, "stopwatch", watch(), lambda ms: 0 < ms < inf)

    return Backend


def _answer(name: str, method: str, answer: Answer, fits: Callable[[Any], bool]) -> Answer:
    """The answer of a backend of the user's.

    Raises:
        ExportError: it is none.
    """
    with suppress(TypeError):
        if fits(answer):
            return answer
    raise ExportError(
        f"{method} of the backend {name} must answer as mvnas.backends says, but answers {quoted(answer)}"
    )
