"""Architectures sampled, built as graphs and costed with predicted latency, a second, and what remembering blocks
gains.

    python benchmarks/costing.py [--rounds 5] [--count 2000]

Both sides in one run: `summary`, which remembers blocks, against flattening every graph node by node.
"""

from __future__ import annotations

import argparse
import random
import time
from collections.abc import Callable

from mvnas import graph
from mvnas.latency.model import LatencyModel
from mvnas.latency.table import Table, shipped
from mvnas.spaces.arch import Arch
from mvnas.spaces.space import Space


def rate(work: Callable[[Arch], object], space: Space, count: int, seed: int) -> float:
    """Architectures a second, sampling included."""
    generator = random.Random(seed)
    begun = time.perf_counter()
    for _ in range(count):
        work(space.sample(lambda name, options: generator.choice(options)))
    return count / (time.perf_counter() - begun)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--space", default="mobilevit")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--count", type=int, default=2000)
    args = parser.parse_args()
    space = Space.load(args.space)
    table = Table.load(shipped()[0])

    def summed(model: LatencyModel) -> Callable[[Arch], object]:
        return lambda arch: (arch.params, arch.macs, model.predict(arch))

    def flattened(model: LatencyModel) -> Callable[[Arch], object]:
        def cost(arch: Arch) -> object:
            flat = arch.graph()
            return flat.params, flat.macs, sum(model.prices.kernel(node.key) for node in flat.deployed().work)

        return cost

    rows = []
    for turn in range(args.rounds):
        graph.summary.cache_clear()
        graph.costing._step.cache_clear()
        model = LatencyModel.fit(table)
        cold = rate(summed(model), space, args.count, turn)
        warm = rate(summed(model), space, args.count, turn + 1000)
        flat = rate(flattened(model), space, max(20, args.count // 20), turn)
        rows.append((cold, warm, flat))
    print(f"{'':34}{'median':>10}{'best':>10}   architectures a second, {args.rounds} rounds of {args.count}")
    for name, column in zip(("first use, nothing remembered", "blocks seen before remembered", "node by node"),
                            zip(*rows, strict=True), strict=True):  # fmt: skip
        print(f"{name:34}{sorted(column)[len(column) // 2]:>10.0f}{max(column):>10.0f}")


if __name__ == "__main__":
    main()
