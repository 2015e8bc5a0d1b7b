"""Predicted file size and memory of networks, against the files that are written and what the runtimes hold.

    python benchmarks/memory.py [--networks 40]

Random networks of the space, and the published ones, are written as TFLite, ONNX and torch files. Each of the first two
is opened and run three times in a process of its own, on Linux, after a network of one op, so that what the runtime
takes once is not counted. Two things are read from the kernel: private memory, which is what the process wrote and
nobody can take back, after the last run; and the highest resident memory, with the pages of files that were mapped.
"""

from __future__ import annotations

import argparse
import json
import random
import subprocess
import sys
from math import prod
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np

from mvnas.backends import backend
from mvnas.costs import Price
from mvnas.graph import FLOAT_BYTES, Graph
from mvnas.latency.calibration import Calibration
from mvnas.latency.model import LatencyModel
from mvnas.latency.table_prices import TablePrices
from mvnas.measuring.order import tau
from mvnas.nn import arbitrary
from mvnas.ops import Conv, Map
from mvnas.spaces.space import Space
from mvnas.spaces.zoo import published

SETTLED = """
import json, sys
import numpy as np

def bytes_of(*keys):
    rows = dict(line.split(":") for line in open("/proc/self/status"))
    return np.array([1024 * int(rows[key].split()[0]) for key in keys])

kept = [run(sys.argv[1])]
open("/proc/self/clear_refs", "w").write("5")  # the highest resident memory starts again from here
private, resident = bytes_of("RssAnon", "VmRSS")
kept.append(run(sys.argv[2]))
print(json.dumps((bytes_of("RssAnon", "VmHWM") - (private, resident)).tolist()))
"""

RUN = {
    "tflite": """
from ai_edge_litert.interpreter import Interpreter

def run(path):
    interpreter = Interpreter(path, num_threads=1)
    interpreter.allocate_tensors()
    image = interpreter.get_input_details()[0]
    interpreter.set_tensor(image["index"], np.ones(image["shape"], np.float32))
    for _ in range(3):
        interpreter.invoke()
    return interpreter
""",
    "onnx": """
import onnxruntime

def run(path):
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    session = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
    slot = session.get_inputs()[0]
    image = np.ones(slot.shape, np.float32)
    for _ in range(3):
        session.run(None, {slot.name: image})
    return session, image
""",
}


def held(word: str, first: Path, path: Path) -> tuple[int, int]:
    """Bytes that a fresh process takes to run the file at `path` when it runs `first` already: private, and resident
    at most.
    """
    told = subprocess.run(
        [sys.executable, "-c", RUN[word] + SETTLED, str(first), str(path)], capture_output=True, text=True, check=True
    )
    private, resident = json.loads(told.stdout)
    return private, resident


def between_ops(graph: Graph) -> int:
    """Most bytes of tensors between ops alive at once: what an op makes and drops within itself is not seen."""
    last = {i: place for place, node in enumerate(graph.nodes) for i in node.inputs}
    sizes = [FLOAT_BYTES * prod(node.shape) for node in graph.nodes]
    alive = [sum(sizes[i] for i in range(place + 1) if last.get(i, place) >= place) for place in range(len(sizes))]
    return max(alive)


def row(name: str, p: np.ndarray, t: np.ndarray) -> str:
    errors = abs(p / t - 1)
    return f"| {name} | {errors.mean():.1%} | {errors.max():.1%} | {(p - t).mean() / 1e6:+.2f} MB | {tau(p, t):.3f} |"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--space", default="mobilevit")
    parser.add_argument("--networks", type=int, default=40)
    args = parser.parse_args()
    space, generator = Space.load(args.space), random.Random("memory")
    archs = [arch for arch in (Space.load(name).arch() for name in published()) if space.locate(arch) is not None]
    archs += [space.sample(lambda name, options: generator.choice(options)) for _ in range(args.networks)]
    model = LatencyModel("none", TablePrices({}, {}), Calibration(spread=0.0))
    costs = [Price(arch, model) for arch in archs]
    graphs = [arch.graph().deployed() for arch in archs]
    sizes: dict[str, list[float]] = {}
    truth: dict[str, list[tuple[int, int]]] = {}
    with TemporaryDirectory() as folder:
        for word in ("tflite", "onnx", "torch"):
            runtime = backend(word, threads=1)
            first, path = (Path(folder) / f"{name}{runtime.suffix}" for name in ("first", "network"))
            lone = Graph.single(Conv(8, kernel=3, norm=False, bias=True), (Map(3, 8, 8),))
            runtime.export(lone, first, arbitrary(lone))
            for graph in graphs:
                runtime.export(graph, path, arbitrary(graph))
                sizes.setdefault(word, []).append(path.stat().st_size)
                if word in RUN:
                    truth.setdefault(word, []).append(held(word, first, path))
    print(f"{len(archs)} networks, {min(a.resolution for a in archs)} to {max(a.resolution for a in archs)} px\n")
    head = "MAPE | worst | mean difference | Kendall tau |\n|---|---|---|---|---|"
    print(f"| size predicted, of the file | {head}")
    weights = np.array([cost["size"] for cost in costs])
    for word, real in sizes.items():
        print(row(word, weights, np.array(real)))
    tensors = np.array([between_ops(graph) for graph in graphs])
    activations = np.array([arch.peak_bytes for arch in archs])
    memory = np.array([cost["memory"] for cost in costs])
    for word, pairs in truth.items():
        private, resident = np.array(pairs).T
        for what, real in (("private memory", private), ("highest resident memory", resident)):
            print(f"\n| {word}: {what}, predicted as | {head}")
            print(row("tensors between ops", tensors, real))
            print(row("tensors between ops, weights", tensors + weights, real))
            print(row("activations, weights", activations + weights, real))
            print(row("**memory**: activations, weights, pointers", memory, real))
            print(row("memory, and the file", memory + weights, real))
            more, times = (real - memory) / 1e6, real / memory
            print(
                f"\nheld: {min(real) / 1e6:.1f} to {max(real) / 1e6:.1f} MB, beyond memory {min(more):.1f} to"
                f" {max(more):.1f} MB, {min(times):.2f} to {max(times):.2f} times memory"
            )


if __name__ == "__main__":
    main()
