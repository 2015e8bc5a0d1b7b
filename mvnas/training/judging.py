"""How well a network does on held-out images: computed by torch, or from a file of it as it is deployed."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn import Module

from mvnas.backends import Runner, backend
from mvnas.data import Data, Split
from mvnas.errors import TrainingError
from mvnas.nn import deploy
from mvnas.ops import Map, State
from mvnas.spaces.arch import IMAGE_CHANNELS, Arch
from mvnas.system.disk import work_folder, writing
from mvnas.system.progress import Progress
from mvnas.tasks import Task
from mvnas.tasks import task as task_of
from mvnas.training.numerics import float32

CALMER = "search with a lower --lr, or with --clip 1"
RANGES = 64  # training images that the ranges of int8 come from
JUDGED = 64  # images that are resized together to be judged in 8 bits


def inputs(task: Task, images: np.ndarray, side: int, device: str | torch.device = "cpu") -> Tensor:
    """Stored images (B, 3, S, S) as a network is judged on, on `device`, channels last."""
    stored = torch.from_numpy(images).to(device)
    return task.inputs(stored, side).contiguous(memory_format=torch.channels_last)


def evaluate(
    module: Module,
    split: Split,
    *,
    side: int,
    batch: int = 128,
    task: Task | None = None,
    tell: Progress | None = None,
) -> float:
    """Quality, 0 to 1, of a module on the images of `split` at `side` pixels, all computed in float32; by default its
    accuracy.

    The module computes on the device it is on, and is left in evaluation mode.

    Raises:
        TrainingError: an output is not finite.
    """
    task = task or task_of()
    return task.quality(tallied(module, split, task, side=side, batch=batch, tell=tell))


def tallied(
    module: Module, split: Split, task: Task, *, side: int, batch: int, tell: Progress | None = None
) -> np.ndarray:
    """The task's tally of all images of a split, as `evaluate` computes them."""
    tally: Any = 0
    for part, output in computed(module, split, task, side=side, batch=batch):
        tally = tally + task.tally(output, split.targets[part])
        if tell:
            tell("judging images", min(part.stop, len(split)), len(split))
    return np.asarray(tally)


@torch.inference_mode()
def computed(module: Module, split: Split, task: Task, *, side: int, batch: int) -> Iterator[tuple[slice, Any]]:
    """What a module puts out, as arrays, for one part of a split after the other, computed in float32; it is in
    evaluation mode then.

    Raises:
        TrainingError: an output is not finite.
    """
    device = next(module.parameters()).device
    module.eval()
    for start in range(0, len(split), batch):
        part = slice(start, start + batch)
        with float32(device):
            output = module(inputs(task, np.array(split.images[part]), side, device))
        if not all(bool(one.isfinite().all()) for one in ((output,) if isinstance(output, Tensor) else output)):
            raise TrainingError(f"outputs must be finite, but are not on held-out images; {CALMER}")
        yield part, _arrays(output)


def _arrays(output: Any) -> Any:
    """What a module put out, as arrays on the CPU."""
    return output.cpu().numpy() if isinstance(output, Tensor) else tuple(one.cpu().numpy() for one in output)


def picked(task: Task, split: Split, count: int, side: int) -> list[np.ndarray]:
    """Some images of a split as a network takes them, (1, 3, side, side) each; always the same ones."""
    places = np.random.default_rng(0).permutation(len(split))[:count]
    stored = (torch.from_numpy(np.array(image[None])) for image in split.images[np.sort(places)])
    return [task.inputs(image, side).numpy() for image in stored]


def evaluate_file(
    arch: Arch,
    state: State,
    data: Data,
    side: int,
    *,
    split: Split | None = None,
    task: Task | None = None,
    tell: Progress | None = None,
) -> float:
    """Quality of a network on the images of `split`, None for validation images, at `side` pixels, as a TFLite file of
    its precision computes it.

    Ranges of 8 bits come from training images. Images are judged on as many threads as torch has, each with the file
    open. `tell` is called with what is done, how many images of it, and of how many.

    Raises:
        ExportError: the file cannot be made.
    """
    task = task or task_of()
    return task.quality(tallied_file(arch, state, data, side, data.val if split is None else split, task, tell))


def tallied_file(
    arch: Arch, state: State, data: Data, side: int, split: Split, task: Task, tell: Progress | None = None
) -> np.ndarray:
    """The task's tally of all images of a split, as `evaluate_file` computes them."""
    if tell:
        tell(f"making an {arch.precision} file", 0, 0)
    shipped, folded = deploy(arch.graph().on(Map(IMAGE_CHANNELS, side, side)), state)
    runtime = backend("tflite", precision=arch.precision, images=picked(task, data.train, RANGES, side))
    assert isinstance(runtime, Runner)
    with work_folder() as folder:
        path = folder / f"network{runtime.suffix}"
        with writing(folder.parent):
            runtime.export(shipped, path, folded)
        runs = [runtime.runner(path) for _ in range(torch.get_num_threads())]
        tally: Any = 0
        with ThreadPoolExecutor(len(runs)) as pool:
            for start in range(0, len(split), JUDGED):
                part = slice(start, start + JUDGED)
                images = task.inputs(torch.from_numpy(np.array(split.images[part])), side).numpy()
                shares = [pool.submit(_outputs, run, images[i :: len(runs)]) for i, run in enumerate(runs)]
                rows: list[Any] = [None] * len(images)
                for i, share in enumerate(shares):
                    rows[i :: len(runs)] = share.result()
                columns = [np.concatenate(column) for column in zip(*rows, strict=True)]
                output = columns[0] if len(columns) == 1 else tuple(columns)
                tally = tally + task.tally(output, split.targets[part])
                if tell:
                    tell(f"judging images at {arch.precision}", min(start + JUDGED, len(split)), len(split))
    return np.asarray(tally)


def _outputs(run: Callable[[Sequence[np.ndarray]], list[np.ndarray]], images: np.ndarray) -> list[list[np.ndarray]]:
    """Outputs of a file for each image of (N, 3, H, W)."""
    return [[np.array(output) for output in run([image[None]])] for image in images]
