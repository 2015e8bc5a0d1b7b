"""How long a training must be before it tells networks apart: differences between networks against luck, by length.

    OMP_NUM_THREADS=1 python benchmarks/lengths.py --data digits --epochs 1,2,4,8 [--images 1000] [--factor 0.125]
    OMP_NUM_THREADS=1 python benchmarks/lengths.py --data mosaics-100 --epochs 0.25,0.5,1,2

Random networks of benchmarks/tabular.yaml are trained from scratch for each length by the default schedule, from two
seeds. `mosaics-10`, `-100` and `-1000` are the same images, four digits each, of so many classes: the first one, two or
three digits. Every training is a row of benchmarks/proxy/lengths.csv; a run makes those that are missing, for --minutes
at most, and tells of all that there are. With --told nothing is trained.
"""

from __future__ import annotations

import argparse
import csv
import random
import sys
import time
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import replace
from itertools import product
from pathlib import Path
from statistics import fmean

import numpy as np

from mvnas.data import Data, Split, load
from mvnas.engines import Job, seed_of, train
from mvnas.latency.table import append, write_network
from mvnas.measuring.order import tau
from mvnas.spaces.arch import Arch
from mvnas.spaces.space import Space
from mvnas.training import Schedule, factor_for

HERE = Path(__file__).parent
FILE = HERE / "proxy" / "lengths.csv"
CONDITION = ("data", "classes", "images", "judged", "factor", "technique")
COLUMNS = ("network", *CONDITION, "epochs", "seed", "steps", "accuracy", "seconds")
SHOWN, JUDGED = 12_000, 2000  # mosaics to train and to judge on

Row = dict[str, str]


def networks(count: int, classes: int) -> list[Arch]:
    """Random networks of the small space; those of a smaller count are among those of a larger one."""
    space = Space.load(HERE / "tabular.yaml").with_classes(classes)
    points = list(product(*space.choices.values()))
    random.Random("lengths").shuffle(points)
    return [space.at(dict(zip(space.choices, point, strict=True))) for point in points[:count]]


def mosaics(classes: int) -> Data:
    """Images of four digits each, which are of the class of the first ones: of 10, 100 or 1,000."""
    digits, labelled = load("digits"), len(str(classes)) - 1
    generator = np.random.default_rng(0)

    def split(source: Split, count: int) -> Split:
        places = generator.integers(len(source), size=(count, 4))
        quarters = source.images[:, :, ::2, ::2][places]  # (count, 4, 3, 16, 16)
        rows = np.concatenate([quarters[:, :2], quarters[:, 2:]], axis=3)
        targets = source.targets[places[:, :labelled]] @ 10 ** np.arange(labelled)
        return Split(np.ascontiguousarray(np.concatenate([rows[:, 0], rows[:, 1]], axis=3)), targets.astype(np.int64))

    names = tuple(f"{number:0{labelled}}" for number in range(classes))
    return Data(
        f"mosaics-{classes}", names, split(digits.train, SHOWN), split(digits.val, JUDGED), digits.test, flip=False
    )


def part(split: Split, count: int) -> Split:
    """`count` images of a split, or all if there are fewer."""
    places = np.sort(np.random.default_rng(0).permutation(len(split))[:count])
    return Split(np.array(split.images[places]), split.targets[places])


def rows() -> list[Row]:
    if not FILE.exists():
        return []
    with FILE.open(newline="") as stream:
        return list(csv.DictReader(stream))


def table() -> Iterator[str]:
    """What is known of each condition and length, of networks that were trained from both seeds."""
    groups: defaultdict[tuple[str, ...], defaultdict[float, dict[tuple[str, str], Row]]]
    groups = defaultdict(lambda: defaultdict(dict))
    for row in rows():
        groups[tuple(row[name] for name in CONDITION)][float(row["epochs"])][row["network"], row["seed"]] = row
    for condition, lengths in groups.items():
        data, classes, images, judged, factor, technique = condition
        yield f"\n{data}: {classes} classes, {images} + {judged} images, {factor} of the deployed size, {technique}\n"
        yield "| epochs | steps | images of a class | networks | accuracy | luck | networks differ by | share | tau |"
        yield "|---|---|---|---|---|---|---|---|---|"
        for epochs, trained in sorted(lengths.items()):
            both = [net for net, seed in trained if seed == "0" and (net, "1") in trained]
            if len(both) < 2:
                continue
            scores = np.array([[float(trained[net, seed]["accuracy"]) for seed in "01"] for net in both])
            steps = fmean(int(trained[net, "0"]["steps"]) for net in both)
            yield f"| {epochs:g} | {steps:.0f} | {epochs * int(images) / int(classes):.0f} | {cells(scores)} |"


def cells(scores: np.ndarray) -> str:
    """Of scores (networks, 2): mean and range, deviations of luck and of networks, and how far one score is to be
    trusted.
    """
    noise = float((np.diff(scores) ** 2).mean() / 2)
    differ = max(0.0, float(scores.mean(1).var(ddof=1)) - noise / 2)
    cells = [
        str(len(scores)),
        f"{scores.mean():.1%} ({scores.min():.1%} .. {scores.max():.1%})",
        f"{noise**0.5:.1%}",
        f"{differ**0.5:.1%}",
        f"{differ / max(1e-12, differ + noise):.2f}",
        f"{float(tau(*scores.T)):.2f}",
    ]
    return " | ".join(cells)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", default="digits")
    parser.add_argument("--factor", type=float, help="size in training, of the deployed one (that of a search)")
    parser.add_argument("--images", type=int, default=10**9, help="training images to use")
    parser.add_argument("--judge", type=int, default=10**9, help="images to judge by")
    parser.add_argument("--technique", default="multi_scale")
    parser.add_argument("--epochs", default="1,2,4")
    parser.add_argument("--archs", type=int, default=8)
    parser.add_argument("--minutes", type=float, default=10**6, help="start no training after this long")
    parser.add_argument("--told", action="store_true", help="train nothing")
    args = parser.parse_args()
    if not args.told:
        make(args)
    print("\n".join(table()))


def make(args: argparse.Namespace) -> None:
    """Make the trainings that are missing."""
    kind, _, classes = args.data.partition("-")
    if kind != "mosaics" and args.data != "digits" and not Path(args.data).exists():
        sys.exit(f"{args.data} is not here; give the folder of the images, or use digits or mosaics-100")
    data = mosaics(int(classes)) if kind == "mosaics" else load(args.data)
    data = replace(data, train=part(data.train, args.images), val=part(data.val, args.judge))
    factor = args.factor or factor_for(data.side)
    values = (Path(args.data).name, len(data.classes), len(data.train), len(data.val), factor, args.technique)
    condition = dict(zip(CONDITION, map(str, values), strict=True))
    known = {tuple(row[name] for name in COLUMNS[:9]) for row in rows()}
    end = time.monotonic() + 60 * args.minutes
    for arch in networks(args.archs, len(data.classes)):
        for epochs, seed in product(map(float, args.epochs.split(",")), (0, 1)):
            key = (write_network(arch), *condition.values(), f"{epochs:g}", str(seed))
            if key in known or time.monotonic() > end:
                continue
            begun = time.process_time()
            job = Job(arch, Schedule(epochs=epochs), factor, seed_of(arch, seed), techniques=args.technique)
            trained = train(job, data, device="cpu")
            seconds = time.process_time() - begun
            figures = (str(trained.steps), f"{trained.quality:.6g}", f"{seconds:.4g}")
            append(FILE, COLUMNS, dict(zip(COLUMNS, (*key, *figures), strict=True)))
            told = f"{epochs:g} epochs, seed {seed}: {trained.quality:.1%} after {trained.steps} steps"
            print(f"{told}, {seconds:.1f} s", file=sys.stderr, flush=True)


if __name__ == "__main__":
    main()
