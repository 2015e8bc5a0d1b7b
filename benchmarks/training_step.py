"""Time of one training step: timm's MobileViT beside the same network built by mvnas, and what `fit` adds.

Both modules see the same images, batch, memory format and fused AdamW, and take turns step by step, so that
a busy machine disturbs them alike. Run from the repository root, pinned to a core:

    taskset -c 1 python benchmarks/training_step.py mobilevit_xxs --side 32 --batch 128
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable
from statistics import median

import torch
from torch import Generator, Tensor
from torch.nn import Module
from torch.nn.functional import cross_entropy

from mvnas.nn import build
from mvnas.spaces.space import Space
from mvnas.tasks._images import random_crops
from mvnas.training import initialise
from mvnas.training.weights import Average, groups

FORMATS = {"contiguous": torch.contiguous_format, "channels-last": torch.channels_last}


def theirs(name: str, classes: int) -> Module:
    """timm's module; the torchvision it imports needs two operator names that a CPU build of torch lacks."""
    library = torch.library.Library("torchvision", "DEF")
    library.define("nms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
    library.define("qnms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
    import timm

    return timm.create_model(name, num_classes=classes)  # type: ignore[no-any-return]


def ours(name: str, classes: int) -> Module:
    return build(Space.load(name).with_classes(classes).arch().graph())


def stepper(module: Module, images: Tensor, labels: Tensor, layout: torch.memory_format) -> Callable[[], object]:
    """Function that takes one optimisation step on the same batch."""
    initialise(module, 0)
    module.to(memory_format=layout).train()
    x = images.contiguous(memory_format=layout)
    optimizer = torch.optim.AdamW(groups(module, 0.01), lr=1e-4, fused=True)

    def step() -> None:
        loss = cross_entropy(module(x), labels, label_smoothing=0.1)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()

    return step


def additions(module: Module, stored: Tensor, side: int) -> dict[str, Callable[[], object]]:
    """What `fit` does in a step beside forward and backward."""
    generator = Generator().manual_seed(0)
    average = Average(module, 0.9995)
    optimizer = torch.optim.AdamW(groups(module, 0.01), fused=True)
    for value in module.parameters():
        value.grad = torch.zeros_like(value)

    def crop() -> Tensor:
        x = random_crops(stored, side, area=0.7, flip=True, generator=generator)
        return x.contiguous(memory_format=torch.channels_last)

    return {"random crops": crop, "averaging": lambda: average.update(1), "fused AdamW": optimizer.step}


def timed(functions: dict[str, Callable[[], object]], runs: int) -> dict[str, list[float]]:
    """Milliseconds of each function, taking turns; the first two rounds warm up."""
    times: dict[str, list[float]] = {name: [] for name in functions}
    for _ in range(runs + 2):
        for name, function in functions.items():
            start = time.perf_counter()
            function()
            times[name].append((time.perf_counter() - start) * 1e3)
    return {name: values[2:] for name, values in times.items()}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("network", nargs="?", default="mobilevit_xxs", help="mobilevit_xxs, mobilevit_xs, mobilevit_s")
    parser.add_argument("--side", type=int, default=32, help="height and width of the images, and of the stored ones")
    parser.add_argument("--batch", type=int, default=32)
    parser.add_argument("--steps", type=int, default=20)
    parser.add_argument("--threads", type=int, default=1)
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    stored = torch.randint(0, 256, (args.batch, 3, args.side, args.side), dtype=torch.uint8)
    labels = torch.randint(0, 10, (args.batch,))
    steps = {
        f"{who} {layout}": stepper(make(args.network, 10), stored / 255, labels, FORMATS[layout])
        for layout in FORMATS
        for who, make in (("timm ", theirs), ("mvnas", ours))
    }
    times = timed(steps, args.steps)
    times |= timed(additions(ours(args.network, 10), stored, args.side), args.steps)
    reference = min(times["timm  channels-last"]), median(times["timm  channels-last"])
    print(f"{args.network}, {args.batch} images of {args.side} px, {args.threads} thread(s), {args.steps} steps")
    print(f"{'':22}{'min ms':>10}{'median ms':>11}{'of timm channels-last: min':>28}{'median':>8}")
    for name, values in times.items():
        low, mid = min(values), median(values)
        print(f"{name:22}{low:10.1f}{mid:11.1f}{low / reference[0]:28.2f}{mid / reference[1]:8.2f}")


if __name__ == "__main__":
    main()
