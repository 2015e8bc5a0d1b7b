"""Backends: one file a runtime. The file name is the name; the class it defines is `Backend`.

A backend writes a graph to a file and executes it:

    suffix                                   how its files end
    export(graph, path, weights)             write a deployed graph with these weights; an OSError where that cannot be
    export_each(graphs, folder)              files of many graphs with arbitrary weights, for microbenchmarks
    run(path, inputs)                        outputs for inputs laid out as `nn.example` lays them out
    stopwatch(path)                          function that runs the file once at batch 1 and returns milliseconds
    conditions()                             what figures depend on: runtime, versions, threads, precision

A table keeps beside the conditions the `settings` of its backend that are not their defaults (`chosen_settings`).

A runtime on another device, which times itself, has beside the stopwatch

    samples(paths, runs, seconds)            a `Sample` of each file, in turn: at least so many runs and seconds each

and its conditions name the device's `cpu`, `cores` and `system`. A runtime whose ops are not themselves when they are
alone, because it fuses and lays out whole networks, has

    profile(path, seconds)                   milliseconds of each run of each node, by the node's name in the graph

and its table's ops are timed inside networks.

The files of this folder are backends, all but those that begin with an underscore.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import fields, is_dataclass
from importlib import import_module
from inspect import signature
from math import inf
from pathlib import Path
from pkgutil import iter_modules
from typing import Any, Protocol, TypeVar, cast, runtime_checkable

import numpy as np

from mvnas.backends._timing import Sample as Sample
from mvnas.backends._timing import Stopwatch
from mvnas.errors import ExportError, lacking, told, unknown
from mvnas.graph import Graph
from mvnas.ops import State
from mvnas.system import trust

AT_HAND = ("serial", "binary", "team")  # settings that say what is at hand here, of which figures know nothing

Answer = TypeVar("Answer")


class Runtime(Protocol):
    """What every `Backend` offers; those of other devices are `Device`s."""

    suffix: str

    def export(self, graph: Graph, path: Path, weights: State) -> None: ...
    def export_each(self, graphs: Sequence[Graph], folder: Path) -> list[Path]: ...
    def run(self, path: Path, inputs: Sequence[np.ndarray]) -> list[np.ndarray]: ...
    def stopwatch(self, path: Path) -> Stopwatch: ...
    def conditions(self) -> Mapping[str, Any]: ...


@runtime_checkable
class Device(Runtime, Protocol):
    """A runtime that times itself, on a device of its own."""

    def samples(self, paths: Sequence[Path], *, runs: int, seconds: float) -> list[Sample]: ...


@runtime_checkable
class Profiler(Runtime, Protocol):
    """A runtime that tells what each node takes inside a network."""

    def profile(self, path: Path, *, seconds: float) -> Mapping[str, Sequence[float]]: ...


@runtime_checkable
class Runner(Runtime, Protocol):
    """A runtime that computes one image after the other without opening the file each time."""

    def runner(self, path: Path) -> Callable[[Sequence[np.ndarray]], list[np.ndarray]]: ...


def backend(name: str, **settings: Any) -> Runtime:
    """The backend `name`: a module of mvnas.backends, or any importable module if the name is dotted.

    A setting that is text is read as the type of its default.

    Raises:
        ExportError: there is no such backend or setting, or a package that it needs is not installed.
    """
    module = name if "." in name else f"mvnas.backends.{name}"
    try:
        loaded = trust.module(module, ExportError) if "." in name else import_module(module)
    except ModuleNotFoundError as error:
        if trust.missing(error, module):
            raise ExportError(unknown("backend", name, names())) from None
        raise ExportError(lacking(f"the backend {name}", error.name)) from None
    if not isinstance(getattr(loaded, "Backend", None), type):
        raise ExportError(f"a backend's module must define the class Backend, but {module} does not")
    known = signature(loaded.Backend).parameters
    for setting in settings:
        if setting not in known:
            raise ExportError(unknown(f"setting of {name}", setting, known))
    read = {setting: _read(setting, value, type(known[setting].default)) for setting, value in settings.items()}
    return cast(Runtime, (_own(name, loaded.Backend) if "." in name else loaded.Backend)(**read))


def _own(name: str, made: Any) -> Any:
    """A backend's class of the user's, whose answers are looked at before a table takes them.

    Raises:
        ExportError: it lacks something.
    """
    for need in ("suffix", "export", "export_each", "run", "stopwatch", "conditions"):
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
    raise ExportError(f"{method} of the backend {name} must answer as mvnas.backends says, but answers {told(answer)}")


def of_table(conditions: Mapping[str, Any], **settings: Any) -> Runtime:
    """The backend that a table with these conditions was measured with, at the settings that the table has, but for `settings`.

    Raises:
        ExportError: a package that it needs is not installed, or it cannot be had here at these settings.
        TrustError: it is a module that is not trusted.
    """
    name = conditions["backend"]
    if "." in name:
        trust.check(name)
    known = signature(type(backend(name))).parameters
    kinds = {
        setting: (int, float) if type(row.default) is float else type(row.default) for setting, row in known.items()
    }
    beside = {key: value for key, value in conditions.items() if key in kinds and isinstance(value, kinds[key])}
    chosen = conditions.get("settings") or {}
    if not isinstance(chosen, Mapping) or not all(isinstance(chosen[key], kinds.get(key, object)) for key in chosen):
        raise ExportError(
            f"settings of a table must be those of its backend, but {name} has others than {told(chosen)}"
        )
    return backend(name, **{**beside, **chosen, **settings})


def chosen_settings(runtime: Runtime) -> dict[str, Any]:
    """The settings of a runtime that are not their defaults and that figures depend on: what a table needs to be timed again."""
    if not is_dataclass(runtime):
        return {}
    rows = [row for row in fields(runtime) if row.init and row.compare and row.name not in AT_HAND]
    return {row.name: getattr(runtime, row.name) for row in rows if getattr(runtime, row.name) != row.default}


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


def names() -> list[str]:
    """Names of the backends that come with mvnas."""
    return sorted(module.name for module in iter_modules(__path__) if not module.name.startswith("_"))


def one_by_one(backend: Runtime, graphs: Sequence[Graph], folder: Path) -> list[Path]:
    """One file a graph, with arbitrary weights, one after the other: `export_each` of most backends."""
    from mvnas.nn import arbitrary

    paths = [folder / f"{i}{backend.suffix}" for i in range(len(graphs))]
    for graph, path in zip(graphs, paths, strict=True):
        backend.export(graph, path, arbitrary(graph))
    return paths
