"""Whether the ceiling that `mvnas rank` tells is right, on networks of which every training was made three times.

    python benchmarks/ceiling.py --seeds ../shared/data/recorded/accel_nasbench_seeds.csv.gz [--candidates 12]

The file is of Accel-NASBench (arXiv:2404.08005): 117 networks trained on ImageNet in full and by that project's short
schedule, three seeds each, judged on 50,000 images. The ceiling and both noises are found from two short trainings and
one full one, as `rank` does; the noise of the full one and the tau of two full ones are what other seeds say.
"""

from __future__ import annotations

import argparse
import csv
import gzip
import sys
from itertools import permutations
from pathlib import Path

import numpy as np

from mvnas.measuring.order import tau
from mvnas.verification.ceiling import ceiling

IMAGES, SEEDS, DRAWS = 50_000, 3, 100


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=Path, required=True)
    parser.add_argument("--candidates", type=int, default=12, help="of a ranking; %(default)s")
    args = parser.parse_args()
    if not args.seeds.exists():
        sys.exit(f"{args.seeds} is not here; give the file of Accel-NASBench's networks of three seeds")
    with gzip.open(args.seeds, "rt", newline="") as stream:
        rows = list(csv.DictReader(stream))
    short, full = (
        np.array([[float(row[f"{kind}_top1_seed{seed}"]) / 100 for row in rows] for seed in range(1, SEEDS + 1)])
        for kind in ("short", "full")
    )
    generator = np.random.default_rng(0)
    samples = [generator.permutation(len(rows))[: args.candidates] for _ in range(DRAWS)]
    print("| networks | ceiling | tau short to full | two full ones | noise short | noise full, estimated | of seeds |")
    print("|---|---|---|---|---|---|---|")
    for name, places in ((f"all {len(rows)}", [np.arange(len(rows))]), (f"{args.candidates}, {DRAWS} times", samples)):
        figures = [figures_of(short[:, some], full[:, some]) for some in places]
        ceil, found, two, *noises = np.mean(figures, axis=0)
        print(f"| {name} | {ceil:.3f} | {found:.3f} | {two:.3f} | " + " | ".join(f"{x:.2%}" for x in noises) + " |")


def figures_of(short: np.ndarray, full: np.ndarray) -> list[float]:
    """Ceiling, tau of short and full, tau of two full ones, noise of a short score, of a full one as `rank` estimates
    it and by its seeds; of scores (seeds, networks), over all orders of the seeds.
    """
    every = []
    for a, b, _ in permutations(range(SEEDS)):
        top = ceiling(list(short[a]), list(short[b]), list(full[a]), IMAGES)
        pair = float(tau(short[a], full[b])), float(tau(full[a], full[b]))
        every.append([top.tau, *pair, top.short_noise, top.long_noise])
    return [*np.mean(every, axis=0), float(full.var(axis=0, ddof=1).mean() ** 0.5)]


if __name__ == "__main__":
    main()
