"""Core ML: coremltools converts everywhere; a model runs on macOS only."""

from __future__ import annotations

import os
import platform
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from errno import ENOSPC
from importlib.metadata import version
from math import ceil
from pathlib import Path
from statistics import median
from typing import Any, NamedTuple

import numpy as np

from mvnas.backends import one_by_one
from mvnas.backends._quiet import quiet
from mvnas.backends._timing import Sample, Stopwatch
from mvnas.backends.coreml._device import NAMES, Session, attached
from mvnas.backends.coreml._milfile import FORM, node_of, write
from mvnas.errors import ExportError, unknown
from mvnas.graph import Graph
from mvnas.latency.table import INSIDE
from mvnas.ops import State
from mvnas.system.disk import work_folder

with quiet():  # its import logs each native part that this system lacks
    import coremltools as ct
    from coremltools.models.ml_program.experimental.perf_utils import MLModelBenchmarker

MAX_RANK = 4  # Core ML takes 5, but see mvnas.ops
COMPUTE_UNITS = {
    "all": ct.ComputeUnit.ALL,
    "cpu": ct.ComputeUnit.CPU_ONLY,
    "cpu-gpu": ct.ComputeUnit.CPU_AND_GPU,
    "cpu-ane": ct.ComputeUnit.CPU_AND_NE,
}
COMPUTE_PLANS = (14, 4)  # the first macOS that tells where ops run
FEWEST_RUNS = 4  # of a profile
MOST_REMOTE_RUNS = 20  # of a file in a row on an attached device, where each run takes a transfer there and back
OPEN = 3  # models that stay loaded: those of the two reference ops, and the one that is timed


class Placed(NamedTuple):
    """Where Core ML plans to run an op: CPU, GPU or Neural Engine, "" where it does not tell.

    `supported` are all that could run it, and `share` is its part of the cost of the network, 0 to 1.
    """

    node: str
    op: str
    device: str
    supported: tuple[str, ...]
    share: float


@dataclass(frozen=True)
class Backend:
    """ML Program at float16, inputs and output included, maps channel-first, on the compute `units` that it may use.

    The converter's default is float16, and the Neural Engine computes in nothing else. Float16 inputs and
    outputs (iOS 16, macOS 13) spare a lone op the casts that a network has at its ends.

    Timing is that of this Mac, or of an attached `device`, by its name or UDID; a development `team` signs the app that
    coremltools runs there.

    Raises:
        ExportError: there are no such units.
    """

    units: str = "all"
    device: str = ""
    team: str = ""
    suffix = ".mlpackage"
    ships = True
    tolerance = 2e-2
    runs_here = sys.platform == "darwin"
    needs = "macOS"

    def __post_init__(self) -> None:
        if self.units not in COMPUTE_UNITS:
            raise ExportError(unknown("compute units", self.units, COMPUTE_UNITS))

    def export(self, graph: Graph, path: Path, weights: State) -> None:
        """Write the deployed `graph` with `weights`.

        Raises:
            ExportError: Core ML has no form of an op, or a tensor has more than four axes.
        """
        made = write(graph, {name: weight.numpy() for name, weight in weights.items()})
        with quiet(), _written_beside(path):
            model = ct.convert(
                made,
                convert_to="mlprogram",
                minimum_deployment_target=ct.target.iOS16,
                compute_precision=ct.precision.FLOAT32,  # which leaves the float16 of the program as it is
                pass_pipeline=ct.PassPipeline.EMPTY,
                skip_model_load=True,
            )
            model.save(str(path))
        if max(axes(path)) > MAX_RANK:
            raise ExportError(
                f"no tensor of {path.name} may have more than {MAX_RANK} axes, but one has {max(axes(path))}"
            )

    def inspect(self, path: Path) -> Mapping[str, Any]:
        """Number of ops and most axes of a tensor, read back from the file; from macOS 14.4 on also what runs where."""
        told: dict[str, Any] = {"ops": len(op_names(path)), "max_rank": max(axes(path))}
        if self.runs_here and tuple(map(int, platform.mac_ver()[0].split("."))) >= COMPUTE_PLANS:
            devices = by_device(self.placement(path)).items()
            told["placement"] = {device: {"ops": ops, "share": share} for device, (ops, share) in devices}
        return told

    def export_each(self, graphs: Sequence[Graph], folder: Path) -> list[Path]:
        return one_by_one(self, graphs, folder)

    def run(self, path: Path, inputs: Sequence[np.ndarray]) -> list[np.ndarray]:
        """Outputs for inputs (1, C, H, W), or as the graph's inputs have them, on this Mac.

        Raises:
            ExportError: this is not macOS.
        """
        self._check(path)
        with quiet():
            model = ct.models.MLModel(str(path), compute_units=COMPUTE_UNITS[self.units])
        slots = model.get_spec().description
        y = model.predict({slot.name: x for slot, x in zip(slots.input, inputs, strict=True)})
        return [np.asarray(y[slot.name], dtype=np.float32) for slot in slots.output]

    def stopwatch(self, path: Path) -> Stopwatch:
        """Function that runs the model once and returns the milliseconds that Core ML took.

        Raises:
            ExportError: this is not macOS, or the device is not there.
        """
        self._open(path)
        return lambda: self._open(path).ms(1)[0]

    def samples(self, paths: Sequence[Path], *, runs: int, seconds: float) -> list[Sample]:
        """Runs of each file in a row, by Core ML's own clock: at least so many, and here so many seconds too.

        Raises:
            ExportError: this is not macOS, or the device is not there.
        """
        made = []
        for path in paths:
            session = self._open(path)
            ms = session.ms(runs)
            while sum(ms) < 1e3 * seconds and not (self.device and len(ms) >= MOST_REMOTE_RUNS):
                ms += session.ms(runs)
            made.append(Sample(min(ms), median(ms), len(ms)))
        return made

    def profile(self, path: Path, *, seconds: float) -> Mapping[str, Sequence[float]]:
        """Milliseconds of each run of each node of the graph.

        Core ML does not time ops: each run of the whole network is shared out by the costs that its compute plan gives
        to ops.
        """
        session = self._open(path)
        wanted = max(FEWEST_RUNS, ceil(1e3 * seconds / session.ms(1)[0]))
        runs = min(wanted, MOST_REMOTE_RUNS) if self.device else wanted
        nothing = MLModelBenchmarker.Measurement.from_samples([])
        nodes: dict[str, MLModelBenchmarker.Measurement] = {}
        for op in session.ops(runs):
            if op.measurement.samples:
                node = node_of(_name(op.spec))
                nodes[node] = nodes.get(node, nothing).add_samples(op.measurement.samples)
        return {node: measurement.samples for node, measurement in nodes.items()}

    def placement(self, path: Path) -> list[Placed]:
        """Where each op of a file runs, in execution order and without constants."""
        plan = {_name(op.spec): op for op in self._open(path).ops(1)}
        ops = [op for op in _operations(path) if op.type != "const"]
        cost = {_name(op): sum(plan[_name(op)].measurement.samples) if _name(op) in plan else 0.0 for op in ops}
        total = sum(cost.values()) or 1.0
        placed = []
        for op in ops:
            usage = plan[_name(op)].compute_device_usage if _name(op) in plan else None
            device = NAMES[type(usage.preferred_compute_device)] if usage else ""
            others = tuple(NAMES[type(other)] for other in usage.supported_compute_devices) if usage else ()
            placed.append(Placed(node_of(_name(op)), op.type, device, others, cost[_name(op)] / total))
        return placed

    def conditions(self) -> Mapping[str, Any]:
        phone = attached(self.device, self.team) if self.device else None
        system = f"{phone.type.value} {phone.os_version}" if phone else f"macOS {platform.mac_ver()[0] or 'none'}"
        return {
            "backend": "coreml",
            "runtime": f"Core ML, {system}, timed by itself",
            "units": self.units,
            **({"cpu": phone.name, "cores": None, "system": system} if phone else _chip()),
            "versions": {"coremltools": version("coremltools")},
            "form": FORM,
            "ops": INSIDE,
            "threads": 1 if phone else os.cpu_count() or 1,
            "precision": "float16",
        }

    def _check(self, path: Path) -> None:
        if not self.runs_here:
            raise ExportError(
                f"running a Core ML model needs macOS, but this is {platform.system()}; "
                f"run {path.name} on a Mac, or export to another format"
            )

    def _session(self, path: Path) -> Session:
        self._check(path)
        return Session(path, COMPUTE_UNITS[self.units], attached(self.device, self.team) if self.device else None)

    def _open(self, path: Path) -> Session:
        """A session of a file that stays open until others are needed."""
        key = (self, path, path.stat().st_mtime_ns if path.exists() else 0)
        session = _sessions.pop(key, None) or self._session(path)
        _sessions[key] = session
        if len(_sessions) > OPEN:
            _sessions.pop(next(iter(_sessions))).close()
        return session


@contextmanager
def _written_beside(path: Path) -> Iterator[None]:
    """Have coremltools put its temporary files, as large as a model, into a folder beside it; a kill leaves none there.

    Raises:
        OSError: its native writer cannot write, of which it says no more.
    """
    before = tempfile.tempdir
    with work_folder(path.parent) as folder:
        tempfile.tempdir = str(folder)
        try:
            yield
        except RuntimeError as error:
            if "writing data to the file" not in str(error):
                raise
            raise OSError(ENOSPC, "Core ML cannot write the model's weights") from None
        finally:
            tempfile.tempdir = before


_sessions: dict[tuple[Backend, Path, int], Session] = {}


def by_device(placed: Sequence[Placed]) -> dict[str, tuple[int, float]]:
    """Number of ops that each device runs, and its share of the cost."""
    devices = sorted({row.device for row in placed})
    rows = {device: [row.share for row in placed if row.device == device] for device in devices}
    return {device: (len(shares), sum(shares)) for device, shares in rows.items()}


def op_names(path: Path) -> list[str]:
    """Names of the ops of an .mlpackage, in execution order and without constants, such as conv."""
    return [op.type for op in _operations(path) if op.type != "const"]


def nodes(path: Path) -> list[str]:
    """Name of the node of the graph that each op of an .mlpackage serves, in the order of `op_names`."""
    return [node_of(_name(op)) for op in _operations(path) if op.type != "const"]


def axes(path: Path) -> list[int]:
    """Number of axes of each tensor of an .mlpackage, constants included."""
    return [output.type.tensorType.rank for op in _operations(path) for output in op.outputs]


def _name(op: Any) -> str:
    return str(op.attributes["name"].immediateValue.tensor.strings.values[0])


def _operations(path: Path) -> Iterator[Any]:
    (function,) = ct.utils.load_spec(str(path)).mlProgram.functions.values()
    return iter(function.block_specializations[function.opset].operations)


def _chip() -> dict[str, str]:
    """Name of this Mac's chip, which Python does not tell."""
    if not Backend.runs_here:
        return {}
    told = subprocess.run(["sysctl", "-n", "machdep.cpu.brand_string"], capture_output=True, text=True, check=True)
    return {"cpu": told.stdout.strip()}
