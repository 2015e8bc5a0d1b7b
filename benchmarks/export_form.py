"""The TFLite file that mvnas writes against the one that a converter makes of timm's module: size, ops, time.

    pip install litert-torch timm
    python benchmarks/export_form.py [mobilevit_s] [--rounds 20]

Both files hold the same weights, random ones: a fresh module of timm has zeros where a converter then drops whole
blocks. They are timed in turn, several runs at a time, pinned to one core with one thread.
"""

from __future__ import annotations

import argparse
import os
import time
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory

import torch

from mvnas.backends._quiet import quiet
from mvnas.backends.tflite import Backend, op_names, tensor_ranks
from mvnas.measuring.clock import pinned
from mvnas.nn import deploy
from mvnas.pretrained import from_timm
from mvnas.spaces.space import Space
from mvnas.testing.weights import randomise


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("network", nargs="?", default="mobilevit_s")
    parser.add_argument("--rounds", type=int, default=20)
    args = parser.parse_args()
    library = torch.library.Library("torchvision", "DEF")  # timm names two ops of a package it does not need here
    for name in ("nms", "qnms"):
        library.define(f"{name}(Tensor boxes, Tensor scores, float iou_threshold) -> Tensor")
    os.environ["LITERT_TORCH_SHOW_PROGRESS"] = "n"
    with quiet():
        import litert_torch
        import timm
    arch, runtime = Space.load(args.network).arch(), Backend(threads=1)
    module = randomise(timm.create_model(args.network))
    image = torch.randn(1, 3, arch.resolution, arch.resolution)
    with TemporaryDirectory() as folder:
        files = {word: Path(folder) / f"{word}.tflite" for word in ("timm, converted", "mvnas, written")}
        theirs, ours = files.values()
        begun = time.perf_counter()
        with quiet():
            litert_torch.convert(module, (image,)).export(str(theirs))
        converted = time.perf_counter()
        shipped, folded = deploy(arch.graph(), from_timm(args.network, module.state_dict()))
        runtime.export(shipped, ours, folded)
        seconds = dict(zip(files, (converted - begun, time.perf_counter() - converted), strict=True))
        with torch.inference_mode():
            truth = module(image).numpy()
        with pinned((min(os.sched_getaffinity(0)),)):
            runs = {word: runtime.stopwatch(path) for word, path in files.items()}
            times: dict[str, list[float]] = {word: [] for word in files}
            for _ in range(args.rounds):
                for word, run in runs.items():
                    times[word] += [run() for _ in range(6)]
        base = min(times["timm, converted"])
        print(f"{args.network} at {arch.resolution} px, one thread, {6 * args.rounds} runs each, in turn\n")
        print(
            "| file | written in s | ops | most axes | min ms | median ms | of timm's (min)"
            " |\n|---|---|---|---|---|---|---|"
        )
        for word, path in files.items():
            print(
                f"| {word} | {seconds[word]:.2f} | {len(op_names(path))} | {max(tensor_ranks(path))} |"
                f" {min(times[word]):.2f} | {median(times[word]):.2f} | {min(times[word]) / base:.3f} |"
            )
        (y,) = runtime.run(ours, [image.numpy()])
        print(
            f"\nmax |difference| of the written file from timm's module in torch: {abs(y - truth).max():.1e} at |logit|"
            f" up to {abs(truth).max():.1f}"
        )


if __name__ == "__main__":
    main()
