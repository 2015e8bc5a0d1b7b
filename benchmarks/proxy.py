"""Which short training orders architectures most like a long one, for the seconds that it takes.

    OMP_NUM_THREADS=1 python benchmarks/proxy.py [--data ../shared/data/imagenette128] [--factor 0.125] [--images 2400]
    python benchmarks/proxy.py --recorded benchmarks/proxy/rungs.csv

A fixed sample of MobileViTs of at most 6 million parameters is trained by each schedule and by a long one, from other
seeds. Every training is a row of benchmarks/proxy/NAME.csv; a run makes those that are missing, one architecture after
the other, for --minutes at most, and tells of what there is. Seconds are of the processor, so that neighbours count
less.

With --recorded, nothing is trained: the rungs of what benchmarks/record_trainings.py recorded are compared with the
last.
"""

from __future__ import annotations

import argparse
import csv
import random
import sys
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from statistics import fmean
from typing import NamedTuple

import numpy as np
from scipy.stats import rankdata

from mvnas.data import Data, Split, load
from mvnas.engines import Job, seed_of, train
from mvnas.latency.table import append, write_network
from mvnas.spaces.arch import Arch
from mvnas.spaces.space import Space
from mvnas.training import Schedule, factor_for
from mvnas.verification.rank import Agreement

FOLDER = Path(__file__).parent / "proxy"
COLUMNS = ("network", "schedule", "epochs", "images", "factor", "accuracy", "seconds")
MOST = 6e6


class Variant(NamedTuple):
    """A schedule, the share of the training images that it sees, and whether at several scales."""

    schedule: Schedule
    share: float = 1.0
    scales: bool = True


def variants(epochs: float, long: float) -> dict[str, Variant]:
    """The long training, the default one of `epochs`, and those that differ from it in one thing."""
    base = Schedule(epochs=epochs)
    return {
        "long": Variant(replace(base, epochs=long)),
        "default": Variant(base),
        "half as long": Variant(replace(base, epochs=epochs / 2)),
        "half of the images, twice as often": Variant(replace(base, epochs=2 * epochs), share=0.5),
        "one scale": Variant(base, scales=False),
        "no average": Variant(replace(base, ema=0.0)),
        "lr 1e-3": Variant(replace(base, lr=1e-3)),
        "lr 4e-3": Variant(replace(base, lr=4e-3)),
        "batch 16": Variant(replace(base, batch=16)),
    }


def sample(count: int, classes: int) -> list[Arch]:
    """Random MobileViTs of at most MOST parameters."""
    space, generator, found = Space.load("mobilevit").with_classes(classes), random.Random("proxy"), dict[Arch, None]()
    while len(found) < count:
        arch = space.sample(lambda name, options: generator.choice(options))
        if arch.params <= MOST:
            found[arch] = None
    return list(found)


def part(split: Split, count: int) -> Split:
    """`count` images of a split, or all if there are fewer; those of a smaller count are among those of a larger
    one.
    """
    places = np.sort(np.random.default_rng(0).permutation(len(split))[:count])
    return Split(split.images[places], split.targets[places])


def trained(arch: Arch, variant: Variant, data: Data, factor: float, turn: int) -> tuple[float, float]:
    """Accuracy after a training, and the seconds of the processor that it took, judging included."""
    data = replace(data, train=part(data.train, round(variant.share * len(data.train))))
    techniques = "multi_scale" if variant.scales else "none"
    job = Job(arch, variant.schedule, factor, seed_of(arch, turn), techniques=techniques)
    begun = time.process_time()
    return train(job, data, device="cpu").quality, time.process_time() - begun


Key = tuple[str, str, float, int, float]  # network, schedule, epochs, images, factor


def read(file: Path) -> dict[Key, tuple[float, float]]:
    """Accuracy and seconds of each training that was made."""
    if not file.exists():
        return {}
    with file.open(newline="") as stream:
        return {
            (row["network"], row["schedule"], float(row["epochs"]), int(row["images"]), float(row["factor"])): (
                float(row["accuracy"]),
                float(row["seconds"]),
            )
            for row in csv.DictReader(stream)
        }


def told(agreement: Agreement | None) -> str:
    return "" if agreement is None else f"{agreement.tau:.2f} ({agreement.tau_low:.2f} .. {agreement.tau_high:.2f})"


def tell_recorded(file: Path) -> None:
    """Print how the rungs of recorded trainings order their networks."""
    with file.open(newline="") as stream:
        rows = list(csv.DictReader(stream))
    rungs = {name: [float(row[name]) for row in rows] for name in rows[0] if name.startswith("accuracy")}
    *shorter, last = rungs
    print(f"{len(rows)} networks of {file}\n")
    print("| rung | accuracy | tau to the last (95 %) |\n|---|---|---|")
    for name, accuracies in rungs.items():
        agreement = Agreement.of(accuracies, rungs[last]) if name in shorter else None
        print(f"| {name} | {spread(accuracies)} | {told(agreement)} |")


def spread(accuracies: Sequence[float]) -> str:
    return f"{fmean(accuracies):.1%} ({min(accuracies):.1%} .. {max(accuracies):.1%})"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", default="digits")
    parser.add_argument("--factor", type=float, help="size in training, of the deployed one (that of a search)")
    parser.add_argument("--images", type=int, default=10**9, help="training images to use, and as many to judge by")
    parser.add_argument("--archs", type=int, default=16)
    parser.add_argument("--epochs", type=float, default=2.0, help="of a short training")
    parser.add_argument("--long", type=float, default=10.0, help="epochs of the long one")
    parser.add_argument("--minutes", type=float, default=10**6, help="start no training after this long")
    parser.add_argument("--recorded", type=Path, metavar="CSV")
    args = parser.parse_args()
    if args.recorded:
        tell_recorded(args.recorded)
        return
    if args.data != "digits" and not Path(args.data).exists():
        sys.exit(f"{args.data} is not here; give the folder of the images, or use digits")
    data = load(args.data)
    data = replace(data, train=part(data.train, args.images), val=part(data.val, args.images))
    images, factor = len(data.train), args.factor or factor_for(data.side)
    file = FOLDER / f"{Path(args.data).name}.csv"
    file.parent.mkdir(exist_ok=True)
    known, schedules = read(file), variants(args.epochs, args.long)
    archs = sample(args.archs, len(data.classes))
    end = time.monotonic() + 60 * args.minutes

    def key(arch: Arch, name: str) -> Key:
        return write_network(arch), name, schedules[name].schedule.epochs, images, factor

    for place, arch in enumerate(archs, 1):
        for turn, (name, variant) in enumerate(schedules.items()):
            if key(arch, name) in known or time.monotonic() > end:
                continue
            accuracy, seconds = known[key(arch, name)] = trained(arch, variant, data, factor, turn)
            figures = (f"{accuracy:.6g}", f"{seconds:.4g}")
            append(file, COLUMNS, dict(zip(COLUMNS, (*key(arch, name), *figures), strict=True)))
            print(f"{place}/{len(archs)} {name}: {accuracy:.1%} in {seconds:.1f} s", file=sys.stderr, flush=True)
    print(f"{args.data}: {images} + {len(data.val)} images, {factor:g} of the deployed size\n")
    print(
        "| schedule | networks | accuracy | seconds | tau to the long one (95 %) | tau a second"
        " |\n|---|---|---|---|---|---|"
    )
    for name, variant in schedules.items():
        done = [arch for arch in archs if key(arch, name) in known and key(arch, "long") in known]
        if not done:
            continue
        accuracies, seconds = zip(*(known[key(arch, name)] for arch in done), strict=True)
        found = None if name == "long" else Agreement.of(accuracies, [known[key(arch, "long")][0] for arch in done])
        worth = f"{found.tau / fmean(seconds):.3f}" if found else ""
        print(
            f"| {name}, {variant.schedule.epochs:g} epochs | {len(done)} | {spread(accuracies)} | {fmean(seconds):.1f} "
            f"| {told(found)} | {worth} |"
        )
    every = [arch for arch in archs if all(key(arch, name) in known for name in schedules)]
    ranks = {name: rankdata([known[key(arch, name)][0] for arch in every]) for name in schedules}
    long = ranks.pop("long")
    print(f"mean rank of the short ones, {len(every)} networks: tau {told(Agreement.of(sum(ranks.values()), long))}")


if __name__ == "__main__":
    main()
