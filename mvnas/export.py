"""Export: the chosen network in every format asked for, each file checked against torch."""

from __future__ import annotations

import json
from collections.abc import Container, Mapping, Sequence
from dataclasses import dataclass, replace
from hashlib import sha256
from importlib.metadata import version
from pathlib import Path
from statistics import median
from typing import TYPE_CHECKING, Any, NamedTuple, cast

import numpy as np
import torch

from mvnas import __version__
from mvnas.backends import Format, backend, settings, ships
from mvnas.data import Data
from mvnas.errors import ExportError
from mvnas.graph import Graph
from mvnas.measuring.clock import core_groups, cpu, pinned
from mvnas.nn import build, deploy, example, most_axes
from mvnas.ops import State
from mvnas.spaces.arch import FLOAT, PRECISIONS, Arch
from mvnas.system.disk import put, remove, work_folder, write_text, writing
from mvnas.tasks import ACCURACY, Metric, Task
from mvnas.tasks import task as task_of
from mvnas.training.judging import RANGES, picked

if TYPE_CHECKING:
    from mvnas.studies.score import Score
    from mvnas.studies.study import Study

MOST_AXES = 4
IMAGES = 4  # random ones to compare on
JUDGES = 64  # images that int8 is compared on
RUNS = 20  # to time


@dataclass(frozen=True)
class Exported:
    """One exported file: what was checked of it, in one line, and the figures of the check."""

    format: str
    path: Path
    told: str
    figures: Mapping[str, Any]


@dataclass(frozen=True)
class Judged:
    """Quality of the very weights that are exported, at `precision`, on validation images of `pixels` a side, and on
    test images where that is known; `label` is what it is, and `how` says the rest.
    """

    quality: float
    precision: str
    pixels: int
    how: str
    label: str = ACCURACY.label
    tested: float | None = None

    @classmethod
    def of(
        cls,
        arch: Arch,
        quality: float,
        pixels: int,
        how: str,
        *,
        metric: Metric = ACCURACY,
        tested: float | None = None,
    ) -> Judged:
        """One that a search found: in 8 bits it is that of a file, else that of torch."""
        precision = arch.precision if PRECISIONS[arch.precision] == 1 else FLOAT
        return cls(quality, precision, pixels, how, metric.label, tested)

    def to_json(self) -> dict[str, Any]:
        """What a card tells of it, but the precision."""
        test = {} if self.tested is None else {f"test {self.label}": self.tested}
        return {self.label: self.quality, **test, "judged": self.how, "judged_px": self.pixels}


def export(
    arch: Arch,
    state: State,
    folder: Path,
    *,
    name: str,
    formats: Sequence[str],
    precision: str | None = None,
    images: Pictures | None = None,
    task: Task | None = None,
    card: Mapping[str, Any] | None = None,
    judged: Judged | None = None,
    replace_others: bool = False,
) -> list[Exported]:
    """Write `arch` with weights `state`, folded, as `folder/name.*` in each format, check each file, and write a card.

    `precision` is that of files of formats that have several, such as TFLite; int8 takes its ranges from `images`, and
    is compared as the `task` says. Files get their names once all have passed. Where one fails its check it is left
    with the suffix `.failed`, and nothing else is.

    The card, `card_of(folder, name)`, holds the architecture and its costs, `card`, and of every file its precision,
    how far its numbers are from torch's, how long it takes on this machine, and what was `judged` where that is of its
    precision. Files that are there of the same network and weights stay in it.

    Raises:
        ExportError: a format is unknown, the weights are not the network's, a file's numbers differ from torch's, or,
            unless `replace_others`, the folder has files of another network of that name, or of its other weights.
        FileError: the folder cannot be written.
    """
    runtimes = _runtimes(formats, precision, images)
    graph = arch.graph()
    module = load(graph, state)
    network = {
        "name": name,
        "arch": arch.to_json(),
        "params": arch.params,
        "macs": arch.macs,
        "memory_bytes": arch.memory_bytes,
        "weights": _digest(state),
    }
    places = {word: folder / f"{name}{runtime.suffix}" for word, runtime in runtimes.items()}
    place = card_of(folder, name)
    kept = _kept(place, network, {path.name for path in places.values()}, replace_others)
    shipped, folded = deploy(graph, state)
    program = torch.export.export(load(shipped, folded), example(shipped))
    if most_axes(program) > MOST_AXES:
        raise ExportError(f"no tensor may have more than {MOST_AXES} axes, but one has {most_axes(program)}")
    noise = torch.rand(IMAGES, 1, *shipped.inputs[0].shape, generator=torch.Generator().manual_seed(0))
    shown = images.judges if images else [image.numpy() for image in noise]
    with torch.inference_mode():
        truth = [_arrays(module(torch.from_numpy(image))) for image in shown]
    done = []
    with work_folder(folder) as work:
        for word, runtime in runtimes.items():
            path = places[word]
            with writing(path):
                runtime.export(shipped, work / path.name, folded)
            row = _check(word, runtime, work / path.name, path, shown, truth, task or task_of())
            done.append(replace(row, figures=_facts(runtime, row.figures, judged)))
        files = {row.path.name: {"format": row.format, **row.figures} for row in done}
        told = {
            **network,
            **(card or {}),
            "files": kept | files,
            "versions": {"mvnas": __version__, "torch": version("torch")},
        }
        with writing(place):
            (work / place.name).write_text(json.dumps(told, indent=2) + "\n", encoding="utf-8")
        if place.exists():  # until all is in its place, the card tells of what stays
            write_text(place, json.dumps(told | {"files": kept}, indent=2) + "\n")
        for path in (*places.values(), place):
            put(work / path.name, path)
    return done


def _runtimes(formats: Sequence[str], precision: str | None, images: Pictures | None) -> dict[str, Format]:
    """The backends of formats, those that have several precisions at the one asked for.

    Raises:
        ExportError: a format is unknown or not shipped, or a precision has no format or no images for its ranges.
    """
    for word in formats:
        if not ships(word):
            raise ExportError(f"files of a format must be made to be shipped, but those of {word} are for timing alone")
    precise = [word for word in formats if "precision" in settings(word)]
    if precision and not precise:
        raise ExportError(f"a precision must go with a format that has several, but formats are {', '.join(formats)}")
    if precision == "int8" and not images:
        raise ExportError("int8 must have images for its ranges, but got none; give --data, or export from a study")
    asked = {"precision": precision, "images": images and images.ranges} if precision else {}
    return {word: cast(Format, backend(word, **(asked if word in precise else {}))) for word in formats}


def card_of(folder: Path, name: str) -> Path:
    """The file that tells of an exported network and its files."""
    return folder / f"{name}.card.json"


def origin(study: Study, score: Score) -> dict[str, Any]:
    """What a card tells of the study that a network comes from."""
    setup = study.setup
    return {
        "study": study.place,
        "trial": score.number,
        "data": setup.data,
        "classes": list(setup.classes),
        "budget": setup.budget,
    }


def _facts(runtime: Format, figures: Mapping[str, Any], judged: Judged | None) -> dict[str, Any]:
    """What a card tells of one file."""
    precision = runtime.conditions()["precision"]
    facts = {"precision": precision, **figures}
    if judged and judged.precision == precision:
        facts |= judged.to_json()
    return facts


def _digest(state: State) -> str:
    """A mark of weights: equal weights, equal mark."""
    made = sha256()
    for key in sorted(state):
        made.update(f"{key} {tuple(state[key].shape)} {state[key].dtype}".encode())
        made.update(state[key].contiguous().cpu().numpy().tobytes())
    return made.hexdigest()


def _kept(path: Path, network: Mapping[str, Any], new: Container[str], replace_others: bool) -> dict[str, Any]:
    """What the card at `path` tells of files that are there, are not `new`, and are of the same network and weights.

    Those of others are removed where they may be replaced.

    Raises:
        ExportError: there are files of another network, or of other weights that would stay beside the new.
    """
    name = network["name"]
    if not path.exists():
        return {}
    try:
        told = json.loads(path.read_text(encoding="utf-8"))
        files = {
            file: dict(row)
            for file, row in told["files"].items()
            if file.rpartition(".")[0] == name and "/" not in file
        }
        arch, weights = told["arch"], told["weights"]
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        if replace_others:
            return {}
        raise ExportError(
            f"{path} must be a card that export wrote, but cannot be read as one; remove it or name another folder "
            "with --out"
        ) from None
    there = {file: row for file, row in files.items() if (path.parent / file).exists()}
    left = {file: row for file, row in there.items() if file not in new}
    if (arch, weights) == (network["arch"], network["weights"]):
        return left
    if replace_others:
        for file in left:
            remove(path.parent / file)
    elif left or (there and arch != network["arch"]):
        of = "another network of that name" if arch != network["arch"] else "other weights"
        raise ExportError(
            f"a folder must have files of one {name}, but {path.parent} has {', '.join(left or there)} of {of}; "
            "name another folder with --out"
        )
    return {}


class Pictures(NamedTuple):
    """Images as a network takes them, (1, 3, side, side): up to RANGES for ranges, and up to JUDGES to judge by."""

    ranges: list[np.ndarray]
    judges: list[np.ndarray]

    @classmethod
    def of(cls, data: Data, side: int, task: Task | None = None) -> Pictures:
        """Training images of a data set for the ranges, validation images to judge by."""
        task = task or task_of()
        return cls(picked(task, data.train, RANGES, side), picked(task, data.val, JUDGES, side))


def load(graph: Graph, state: State) -> torch.nn.Module:
    """Module of `graph` with weights `state`, in evaluation mode.

    Raises:
        ExportError: the weights are another network's.
    """
    module = build(graph)
    try:
        module.load_state_dict(state)
    except RuntimeError as error:
        lines = str(error).splitlines()
        raise ExportError(
            f"the weights must be those of this network, but {lines[1].strip() if lines[1:] else lines[0]}"
        ) from None
    return module.eval()


def _check(
    word: str,
    runtime: Format,
    file: Path,
    path: Path,
    images: Sequence[np.ndarray],
    truth: Sequence[Sequence[np.ndarray]],
    task: Task,
) -> Exported:
    """Compare the outputs of a file that is to be `path` with torch's, and time it."""
    inspect = getattr(runtime, "inspect", None)
    figures: dict[str, Any] = dict(inspect(file)) if inspect else {}
    if not getattr(runtime, "runs_here", True):
        needs = getattr(runtime, "needs", "another machine")
        told = f"{path.name}: converted and its ops checked; running it needs {needs}"
        return Exported(word, path, told, figures | {"run": False})
    outputs = [runtime.run(file, [image]) for image in images]
    conditions = dict(runtime.conditions())
    figures["max_difference"], scale = _farthest(outputs, truth)
    if runtime.tolerance is None:
        last = [np.concatenate([row[-1] for row in rows]) for rows in (outputs, truth)]
        share = figures["agreement"] = task.agree(*last)
        holds, told = share >= task.agreement, f"{task.agreed} on {share:.0%} of {len(truth)} images"
        least = f"{task.agreement:.0%}"
    else:
        bound = figures["bound"] = runtime.tolerance * scale
        holds, told = figures["max_difference"] <= bound, f"max |difference| from torch {figures['max_difference']:.1e}"
        least = f"{bound:.1e}"
    if not holds:
        put(file, path.with_name(path.name + ".failed"))
        raise ExportError(f"{path.name} must compute what torch does, but has {told} where the bound is {least}")
    figures["measured"] = measured = _timed(runtime, file, conditions)
    told = f"{path.name}: {told} (bound {least}), {measured['min_ms']:.2f} ms here"
    return Exported(word, path, told, figures)


def _timed(runtime: Format, file: Path, conditions: Mapping[str, Any]) -> dict[str, Any]:
    """What a card tells of how long a file takes on this machine."""
    with pinned(core_groups(int(conditions["threads"]))[0]):
        run = runtime.stopwatch(file)
        taken = [run() for _ in range(RUNS)]
    return {"min_ms": min(taken), "median_ms": median(taken), "runs": RUNS, "cpu": cpu(), **conditions}


def _arrays(made: torch.Tensor | tuple[torch.Tensor, ...]) -> list[np.ndarray]:
    """Outputs of a module, of which there may be several."""
    return [y.numpy() for y in (made if isinstance(made, tuple) else (made,))]


def _farthest(outputs: Sequence[Sequence[np.ndarray]], truth: Sequence[Sequence[np.ndarray]]) -> tuple[float, float]:
    """Largest |difference| from torch and largest |number| or 1, of the output that is farthest for its size."""
    rows = []
    for made, true in zip(zip(*outputs, strict=True), zip(*truth, strict=True), strict=True):
        difference = max(float(np.abs(a - b).max()) for a, b in zip(made, true, strict=True))
        rows.append((difference, max(1.0, *(float(np.abs(y).max()) for y in true))))
    return max(rows, key=lambda row: row[0] / row[1])
