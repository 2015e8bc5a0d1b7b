"""The profile of ONNX Runtime against the clock: the sum of a network's nodes, each its fastest run, and the network
end to end.

    python benchmarks/node_profile.py [--rounds 10]

Both sides in turn, pinned to one core with one thread, for the published MobileViTs.
"""

from __future__ import annotations

import argparse
import os
from pathlib import Path
from tempfile import TemporaryDirectory

from mvnas.backends import Profiler, backend
from mvnas.measuring.clock import pinned
from mvnas.nn import arbitrary
from mvnas.spaces.space import Space

MOBILEVITS = ("mobilevit_s", "mobilevit_xs", "mobilevit_xxs")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=10)
    rounds = parser.parse_args().rounds
    runtime = backend("onnx")
    assert isinstance(runtime, Profiler)
    print("| network | nodes of the graph | done within others | sum of nodes, ms | end to end, ms | ratio |")
    print("|---|---|---|---|---|---|")
    with TemporaryDirectory() as folder, pinned((min(os.sched_getaffinity(0)),)):
        for name in MOBILEVITS:
            graph, path = Space.load(name).arch().graph().deployed(), Path(folder) / f"{name}.onnx"
            runtime.export(graph, path, arbitrary(graph))
            run, clock, nodes = runtime.stopwatch(path), [], dict[str, float]()
            for _ in range(rounds):
                clock.append(min(run() for _ in range(5)))
                for node, ms in runtime.profile(path, seconds=0.3).items():
                    nodes[node] = min(nodes.get(node, ms[0]), *ms)
            total, whole = sum(nodes.values()), min(clock)
            fused = len(graph.work) - len(nodes)
            print(f"| {name} | {len(graph.work)} | {fused} | {total:.2f} | {whole:.2f} | {total / whole:.3f} |")


if __name__ == "__main__":
    main()
