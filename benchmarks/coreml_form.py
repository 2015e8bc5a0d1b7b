"""The Core ML file that mvnas writes against those that coremltools converts of the same graph and of timm's module.

    pip install timm
    python benchmarks/coreml_form.py [mobilevit_s]

Nothing is run: ops and axes are read back from the files, and the seconds are those of writing. Weights are random.
"""

from __future__ import annotations

import argparse
import time
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import torch

from mvnas.backends._quiet import quiet
from mvnas.backends.coreml import Backend, axes, op_names
from mvnas.nn import arbitrary, program
from mvnas.spaces.space import Space
from mvnas.testing.weights import randomise

with quiet():
    import coremltools as ct


def convert(exported: torch.export.ExportedProgram, path: Path) -> None:
    (image,) = exported.example_inputs[0]
    model: Any = ct.convert(
        exported.run_decompositions({}),
        convert_to="mlprogram",
        minimum_deployment_target=ct.target.iOS16,
        compute_precision=ct.precision.FLOAT16,
        inputs=[ct.TensorType(exported.graph_signature.user_inputs[0], image.shape, np.float16)],
        outputs=[ct.TensorType("y", dtype=np.float16)],
        skip_model_load=True,
    )
    model.save(str(path))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("network", nargs="?", default="mobilevit_s")
    args = parser.parse_args()
    library = torch.library.Library("torchvision", "DEF")  # timm names two ops of a package it does not need here
    for name in ("nms", "qnms"):
        library.define(f"{name}(Tensor boxes, Tensor scores, float iou_threshold) -> Tensor")
    with quiet():
        import timm
    arch = Space.load(args.network).arch()
    shipped = arch.graph().deployed()
    weights = arbitrary(shipped)
    image = torch.randn(1, 3, arch.resolution, arch.resolution)
    with quiet():
        theirs = torch.export.export(randomise(timm.create_model(args.network)), (image,))
    makers = {
        "timm, converted": lambda path: convert(theirs, path),
        "the deployed graph, converted": lambda path: convert(program(shipped, weights), path),
        "mvnas, written": lambda path: Backend().export(shipped, path, weights),
    }
    print(f"{args.network} at {arch.resolution} px, float16\n")
    print("| file | written in s | ops | reshape and transpose | most axes |\n|---|---|---|---|---|")
    with TemporaryDirectory() as folder:
        for word, make in makers.items():
            path = Path(folder) / f"{word}.mlpackage"
            begun = time.perf_counter()
            with quiet():
                make(path)
            seconds, ops = time.perf_counter() - begun, op_names(path)
            moves = sum(op in ("reshape", "transpose") for op in ops)
            print(f"| {word} | {seconds:.1f} | {len(ops)} | {moves} | {max(axes(path))} |")


if __name__ == "__main__":
    main()
