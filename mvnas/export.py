"""Export: the chosen network in every format asked for, each file checked against torch."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from statistics import fmean, median
from tempfile import TemporaryDirectory
from typing import Any, NamedTuple

import numpy as np
import torch

from mvnas import __version__
from mvnas.arch import IMAGE_CHANNELS, Arch
from mvnas.backends import Runner, Runtime, backend
from mvnas.clock import core_groups, cpu, pinned
from mvnas.datasets import Data, Split
from mvnas.errors import ExportError, unknown
from mvnas.graph import Graph
from mvnas.nn import build, deploy, example, rank
from mvnas.ops import Map, State
from mvnas.training.augment import whole

FORMATS = ("tflite", "coreml", "onnx", "torch")
TOLERANCE = {
    "float32": 1e-4,
    "float16": 2e-2,
    "dynamic-int8": 0.1,
}  # largest |difference| from torch, to the largest |logit| or 1
MOST_AXES = 4
AGREEMENT = 0.8  # share of images on which an int8 file must name the class that torch names
IMAGES = 4  # random ones to compare on
RANGES, JUDGES = 64, 64  # images that the ranges of int8 come from, and that it is compared on
RUNS = 20  # to time
JUDGED = 64  # images that are resized together to be judged in 8 bits


@dataclass(frozen=True)
class Exported:
    """One exported file: what was checked of it, in one line, and the figures of the check."""

    format: str
    path: Path
    told: str
    figures: Mapping[str, Any]


def export(
    arch: Arch,
    state: State,
    folder: Path,
    *,
    name: str,
    formats: Sequence[str],
    precision: str | None = None,
    images: Pictures | None = None,
    card: Mapping[str, Any] | None = None,
) -> list[Exported]:
    """Write `arch` with weights `state`, folded, as `folder/name.*` in each format, check each file, and write card.json.

    `precision` is that of the TFLite file; int8 takes its ranges from `images`, and is compared by the classes that it names. The card holds the architecture and its costs, `card`, and of every file how far its numbers are from torch's and how
    long it takes on this machine. Where a file fails its check it is left with the suffix `.failed`.

    Raises:
        ExportError: a format is unknown, the weights are not the network's, or a file's numbers differ from torch's.
    """
    for word in formats:
        if word not in FORMATS:
            raise ExportError(unknown("format", word, FORMATS))
    if precision and "tflite" not in formats:
        raise ExportError(f"a precision must go with the format tflite, but the formats are {', '.join(formats)}")
    if precision == "int8" and not images:
        raise ExportError("int8 must have images for its ranges, but got none; give --data, or export from a study")
    asked = {"precision": precision, "images": images and images.ranges} if precision else {}
    runtimes = {word: backend(word, **(asked if word == "tflite" else {})) for word in formats}
    graph = arch.graph()
    module = load(graph, state)
    shipped, folded = deploy(graph, state)
    folder.mkdir(parents=True, exist_ok=True)
    program = torch.export.export(load(shipped, folded), example(shipped))
    if rank(program) > MOST_AXES:
        raise ExportError(f"no tensor may have more than {MOST_AXES} axes, but one has {rank(program)}")
    noise = torch.rand(IMAGES, 1, *shipped.inputs[0].shape, generator=torch.Generator().manual_seed(0))
    shown = images.judges if images else [image.numpy() for image in noise]
    with torch.inference_mode():
        truth = [module(torch.from_numpy(image)).numpy() for image in shown]
    done = []
    for word, runtime in runtimes.items():
        path = folder / f"{name}{runtime.suffix}"
        runtime.export(shipped, path, folded)
        done.append(_check(word, runtime, path, shown, truth))
    told = {
        "name": name,
        "arch": arch.to_json(),
        "params": arch.params,
        "macs": arch.macs,
        "memory_bytes": arch.memory_bytes,
        **(card or {}),
        "files": {row.path.name: {"format": row.format, **row.figures} for row in done},
        "versions": {"mvnas": __version__, "torch": version("torch")},
    }
    (folder / "card.json").write_text(json.dumps(told, indent=2) + "\n")
    return done


class Pictures(NamedTuple):
    """Images as a network takes them, (1, 3, side, side) each: up to RANGES that ranges come from, and up to JUDGES to judge by."""

    ranges: list[np.ndarray]
    judges: list[np.ndarray]

    @classmethod
    def of(cls, data: Data, side: int) -> Pictures:
        """Training images of a data set for the ranges, validation images to judge by."""
        return cls(_picked(data.train, RANGES, side), _picked(data.val, JUDGES, side))


def _picked(split: Split, count: int, side: int) -> list[np.ndarray]:
    places = np.random.default_rng(0).permutation(len(split.labels))[:count]
    return [_taken(image, side) for image in split.images[np.sort(places)]]


def _taken(image: np.ndarray, side: int) -> np.ndarray:
    """An image (3, S, S) as a network takes it: (1, 3, side, side)."""
    return whole(torch.from_numpy(np.array(image[None])), side).numpy()


def accuracy_at(
    arch: Arch, state: State, data: Data, side: int, *, tell: Callable[[str, int, int], None] | None = None
) -> float:
    """Share of validation images, resized to `side`, whose class a network names as a TFLite file of its precision.

    Images are judged on as many threads as torch has, each with the file open. `tell` is called with what is done, how many
    images of it, and of how many.

    Raises:
        ExportError: the file cannot be made.
    """
    labels = data.val.labels
    if tell:
        tell(f"making an {arch.precision} file", 0, 0)
    shipped, folded = deploy(arch.graph().on(Map(IMAGE_CHANNELS, side, side)), state)
    runtime = backend("tflite", precision=arch.precision, images=_picked(data.train, RANGES, side))
    assert isinstance(runtime, Runner)
    with TemporaryDirectory() as folder:
        path = Path(folder) / f"network{runtime.suffix}"
        runtime.export(shipped, path, folded)
        runs = [runtime.runner(path) for _ in range(torch.get_num_threads())]
        named: list[int] = []
        with ThreadPoolExecutor(len(runs)) as pool:
            for start in range(0, len(labels), JUDGED):
                images = whole(torch.from_numpy(np.array(data.val.images[start : start + JUDGED])), side).numpy()
                shares = [pool.submit(_name, run, images[i :: len(runs)]) for i, run in enumerate(runs)]
                part = np.empty(len(images), np.int64)
                for i, share in enumerate(shares):
                    part[i :: len(runs)] = share.result()
                named += part.tolist()
                if tell:
                    tell(f"judging images at {arch.precision}", len(named), len(labels))
    return float((np.array(named) == labels).mean())


def _name(run: Callable[[Sequence[np.ndarray]], list[np.ndarray]], images: np.ndarray) -> list[int]:
    """The class that a network names of each image, (N, 3, H, W)."""
    return [int(run([image[None]])[0].argmax()) for image in images]


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
    word: str, runtime: Runtime, path: Path, images: Sequence[np.ndarray], truth: Sequence[np.ndarray]
) -> Exported:
    """Compare a file's outputs with torch's, and time it."""
    inspect = getattr(runtime, "inspect", None)
    figures: dict[str, Any] = dict(inspect(path)) if inspect else {}
    if not getattr(runtime, "runs_here", True):
        return Exported(
            word,
            path,
            f"{path.name}: converted and its ops checked; running it needs macOS",
            figures | {"run": False},
        )
    outputs = [runtime.run(path, [image])[0] for image in images]
    conditions = dict(runtime.conditions())
    figures["max_difference"] = max(float(np.abs(a - b).max()) for a, b in zip(outputs, truth, strict=True))
    if conditions["precision"] == "int8":
        figures["agreement"] = fmean(a.argmax() == b.argmax() for a, b in zip(outputs, truth, strict=True))
        holds, told = (
            figures["agreement"] >= AGREEMENT,
            f"the class of torch on {figures['agreement']:.0%} of {len(truth)} images",
        )
        least = f"{AGREEMENT:.0%}"
    else:
        bound = TOLERANCE[conditions["precision"]] * max(1.0, *(float(np.abs(y).max()) for y in truth))
        figures["bound"] = bound
        holds, told = figures["max_difference"] <= bound, f"max |difference| from torch {figures['max_difference']:.1e}"
        least = f"{bound:.1e}"
    if not holds:
        path.rename(path.with_name(path.name + ".failed"))
        raise ExportError(f"{path.name} must compute what torch does, but has {told} where the bound is {least}")
    with pinned(core_groups(int(conditions["threads"]))[0]):
        run = runtime.stopwatch(path)
        taken = [run() for _ in range(RUNS)]
    figures["measured"] = {
        "min_ms": min(taken),
        "median_ms": median(taken),
        "runs": len(taken),
        "cpu": cpu(),
        **conditions,
    }
    return Exported(word, path, f"{path.name}: {told} (bound {least}), {min(taken):.2f} ms here", figures)
