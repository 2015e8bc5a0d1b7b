"""Latency predictions a second, beside reading an exported file of every network as nn-Meter does.

    taskset -c 1 python benchmarks/prediction_speed.py [--table genoa-1t] [--rounds 7]

nn-Meter (doi:10.1145/3458864.3467882) reads a model's file into a graph, finds the kernels in it, and asks one
regressor for each type of kernel, network by network. The other side here does the same with our own TFLite files and
random forests fitted to the same table; it is not nn-Meter itself, and its search for fused ops is spared: names in the
file tell which ops make a kernel. All sides run in one process on one core, in interleaved rounds, with intervals on
our side.
"""

from __future__ import annotations

import argparse
import gc
import random
import re
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from functools import partial
from itertools import groupby
from math import prod
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory

from ai_edge_litert import schema_py_generated as schema
from sklearn.ensemble import RandomForestRegressor

from mvnas import graph
from mvnas.backends import backend
from mvnas.blocks import Block
from mvnas.graph import Graph
from mvnas.latency.model import LatencyModel
from mvnas.latency.table import Table
from mvnas.nn import arbitrary
from mvnas.spaces.arch import Arch
from mvnas.spaces.space import Space

COLD, FEW, SEEN, FILES = 2000, 100, 5000, 20  # networks
TURNS = 4  # of what takes a second or less, in a round

FRESH = """
from time import process_time
begun = process_time()
from mvnas.latency.model import LatencyModel
from mvnas.latency.table import Table
imported = process_time()
table = Table.load({table!r})
loaded = process_time()
LatencyModel.fit(table)
print(imported - begun, loaded - imported, process_time() - loaded)
"""


def fresh(table: str) -> list[float]:
    """Seconds of processor time that a new process takes to import mvnas, load the table, and fit the model."""
    told = subprocess.run([sys.executable, "-c", FRESH.format(table=table)], capture_output=True, text=True, check=True)
    return [float(word) for word in told.stdout.split()]


def draw(space: Space, count: int, generator: random.Random) -> list[Arch]:
    return [space.sample(lambda name, options: generator.choice(options)) for _ in range(count)]


def children(parents: Sequence[Arch], count: int, generator: random.Random) -> list[Arch]:
    """New networks of blocks that some parent has on the same map: the head of one parent, the tail of another."""
    tails: dict[object, list[tuple[Block, ...]]] = {}
    for arch in parents:
        for i, row in enumerate(arch.summaries[:-1]):
            tails.setdefault((arch.resolution, row.shape), []).append(arch.blocks[i + 1 :])
    known, found = set(parents), dict[Arch, None]()
    while len(found) < count:
        arch = generator.choice(parents)
        i = generator.randrange(len(arch.blocks) - 1)
        tail = generator.choice(tails[arch.resolution, arch.summaries[i].shape])
        child = Arch(arch.blocks[: i + 1] + tail, arch.resolution)
        if child not in known:
            found[child] = None
    return list(found)


def kernels(path: Path) -> Iterator[tuple[str, list[float]]]:
    """The type and the features of each kernel of a TFLite file: its ops, sizes, weights, and products of both."""
    model = schema.ModelT.InitFromPackedBuf(path.read_bytes(), 0)
    (net,) = model.subgraphs
    tensors = net.tensors

    def name(operator: schema.OperatorT) -> str:
        return str(tensors[operator.outputs[0]].name.decode().split("/")[0])

    for part, group in groupby(net.operators, name):
        if part == "y":  # the slice that ends a microbenchmark
            continue
        operators = list(group)
        x, y = tensors[operators[0].inputs[0]].shape, tensors[operators[-1].outputs[0]].shape
        shapes = [[1] * (4 - len(shape)) + list(map(int, shape)) for shape in (x, y)]
        held = [
            tensors[i].shape
            for operator in operators
            for i in operator.inputs
            if model.buffers[tensors[i].buffer].data is not None
        ]
        weights = float(sum(map(prod, held)))
        yield (
            re.sub(r"\d+$", "", part.split(".")[1]),
            [
                len(operators),
                *shapes[0],
                *shapes[1],
                weights,
                weights * prod(shapes[1][1:3]),
                prod(shapes[0]) * prod(shapes[1]),
            ],
        )


class Forests:
    """A random forest for each type of kernel, fitted to files of a table's ops, as nn-Meter's predictors are."""

    def __init__(self, table: Table, folder: Path) -> None:
        paths = backend("tflite").export_each([Graph.single(*kernel) for kernel in table.ops], folder)
        rows: dict[str, list[tuple[list[float], float]]] = {}
        for path, timing in zip(paths, table.ops.values(), strict=True):
            ((kind, features),) = kernels(path)
            rows.setdefault(kind, []).append((features, timing.min_ms))
        self.forests = {
            kind: RandomForestRegressor(100, random_state=0).fit(*zip(*group, strict=True))
            for kind, group in rows.items()
        }

    def predict(self, found: Sequence[tuple[str, list[float]]]) -> float:
        """Milliseconds of a network: one call a type."""
        groups: dict[str, list[list[float]]] = {}
        for kind, features in found:
            groups.setdefault(kind, []).append(features)
        return sum(float(self.forests[kind].predict(rows).sum()) for kind, rows in groups.items())


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--table", default="genoa-1t")
    parser.add_argument("--space", default="mobilevit")
    parser.add_argument("--rounds", type=int, default=7)
    args = parser.parse_args()
    space, table, generator = Space.load(args.space), Table.load(args.table), random.Random(0)
    fitted, taken = LatencyModel.fit(table), dict[str, list[float]]()

    def note(what: str, work: Callable[[], object], count: int) -> None:
        """Note the seconds of `work` on each of `count` networks."""
        begun = time.perf_counter()
        work()
        taken.setdefault(what, []).append((time.perf_counter() - begun) / count)

    with TemporaryDirectory() as place:
        folder = Path(place)
        forests = Forests(table, folder)
        runtime = backend("tflite")
        nets = draw(space, FILES, generator)
        paths = [folder / f"net{i}.tflite" for i in range(FILES)]
        for arch, path in zip(nets, paths, strict=True):
            flat = arch.graph().deployed()
            note("write", partial(runtime.export, flat, path, arbitrary(flat)), 1)
        gc.collect()
        gc.freeze()  # the forests are many objects, which the collector would walk while the other side is timed
        for _ in range(args.rounds):
            for what, took in zip(("import", "load", "fit"), fresh(args.table), strict=True):
                taken.setdefault(what, []).append(took)
            for count in (FEW, COLD) * TURNS:
                archs, model = draw(space, count, generator), replace(fitted, prices=replace(fitted.prices))
                graph.summary.cache_clear()
                graph.costing._step.cache_clear()
                note(f"cold {count}", partial(model.predict_each, archs), count)
            for _ in range(TURNS):
                new = children(archs, SEEN, generator)
                note("seen", partial(model.predict_each, new), SEEN)
                again = [Arch(arch.blocks, arch.resolution) for arch in new]
                note("one by one", partial(list, map(model.predict, again)), SEEN)
            read = [list(kernels(path)) for path in paths]
            note("read", lambda: [list(kernels(path)) for path in paths], FILES)
            note("forests", partial(list, map(forests.predict, read)), FILES)
    theirs = [forests.predict(found) for found in read]
    ours = fitted.predict_each(nets).value
    apart = sum(abs(t / o - 1) for t, o in zip(theirs, ours, strict=True)) / FILES
    middle = {what: median(rows) for what, rows in taken.items()}
    print(f"medians over {args.rounds} interleaved rounds; {args.table}, {args.space}, one process")
    print(f"{'':58}{'a second':>10}{'us each':>10}")
    for title, took in (
        (f"mvnas, {SEEN:,} new networks of seen blocks, one batch", middle["seen"]),
        ("mvnas, the same one by one", middle["one by one"]),
        (f"mvnas, nothing remembered, batch of {COLD:,}", middle[f"cold {COLD}"]),
        (f"mvnas, nothing remembered, batch of {FEW}", middle[f"cold {FEW}"]),
        ("a file a network: read and kernels found", middle["read"]),
        ("a file a network: read, kernels found, forests asked", middle["read"] + middle["forests"]),
        ("writing that file first", middle["write"]),
    ):
        print(f"{title:58}{1 / took:>10,.0f}{1e6 * took:>10,.0f}")
    told = ", ".join(f"{what} {middle[what]:.2f} s" for what in ("import", "load", "fit"))
    print(f"new process, processor time: {told}; load and fit {middle['load'] + middle['fit']:.2f} s")
    print(f"forests on files against mvnas: {apart:.1%} apart on {FILES} networks")


if __name__ == "__main__":
    main()
