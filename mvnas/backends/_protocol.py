"""What a backend offers: what every one must have, and what some have beside it."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar, Protocol, runtime_checkable

import numpy as np

from mvnas.backends._timing import Sample, Stopwatch
from mvnas.graph import Graph
from mvnas.ops import State


class Runtime(Protocol):
    """A file format of networks and what executes it: what every `Backend` offers.

    Its settings are the arguments of its constructor, all with defaults: `threads` wherever it can have several,
    `precision` where it has several, and with `precision` `images`, a list of (1, 3, H, W) or None, where some of them
    take ranges of numbers from images. `--setting KEY=VALUE` sets the others.
    """

    suffix: str  # how its files end, such as .onnx

    def export(self, graph: Graph, path: Path, weights: State) -> None:
        """Write a deployed graph, `graph.deployed()`, with these weights, those of `nn.deploy`.

        Raises:
            ExportError: the format does not have an op, or refuses a number.
            OSError: the file cannot be written.
        """

    def export_each(self, graphs: Sequence[Graph], folder: Path) -> list[Path]:
        """Files of many graphs of one op with arbitrary weights, for timing alone; mostly `one_by_one`."""

    def run(self, path: Path, inputs: Sequence[np.ndarray]) -> list[np.ndarray]:
        """Outputs of a file, in the graph's order, for inputs as `nn.example` has them: maps (1, C, H, W).

        Raises:
            ExportError: it computes nothing, or not here.
        """

    def stopwatch(self, path: Path) -> Stopwatch:
        """Function that runs the file once, inputs in place, and returns the milliseconds that it took."""

    def conditions(self) -> Mapping[str, Any]:
        """What figures depend on, as JSON: `backend` (its name), `runtime`, `versions`, `threads`, `precision`.

        Beside these, `form` is a number that goes up where files are made otherwise, so that old timings are told
        apart, and `ops: inside networks` says that ops are timed by `profile`.
        """


@runtime_checkable
class Format(Runtime, Protocol):
    """A runtime whose files are shipped: `export --format` writes them, checks them against torch, and times them.

    It may say `runs_here = False` where files can be made and not run, with `needs`, such as macOS, for what it takes;
    and have `inspect(path)`, a mapping of what else is to be told of a file.
    """

    ships: ClassVar[bool]  # True; a runtime without it is for timing alone

    @property
    def tolerance(self) -> float | None:
        """Largest |difference| of an output from torch's, as a share of the largest |output| or 1.

        None where numbers are so coarse, as in 8 bits, that only answers are compared, as the task says.
        """


@runtime_checkable
class Device(Runtime, Protocol):
    """A runtime on another device, which times itself; its conditions name the device's `cpu`, `cores` and `system`."""

    def samples(self, paths: Sequence[Path], *, runs: int, seconds: float) -> list[Sample]:
        """Timings of each file, in turn: at least so many runs and seconds each."""


@runtime_checkable
class Profiler(Runtime, Protocol):
    """A runtime that fuses ops and lays out whole networks anew, so that ops are timed inside networks."""

    def profile(self, path: Path, *, seconds: float) -> Mapping[str, Sequence[float]]:
        """Milliseconds of each run of each node, by the node's name in the graph."""


@runtime_checkable
class Runner(Runtime, Protocol):
    """A runtime that computes one image after the other without opening the file each time."""

    def runner(self, path: Path) -> Callable[[Sequence[np.ndarray]], list[np.ndarray]]:
        """Function that does what `run` does."""


REQUIRED = ("suffix", "export", "export_each", "run", "stopwatch", "conditions")
