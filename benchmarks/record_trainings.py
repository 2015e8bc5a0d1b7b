"""Trains every network of a small space once, so that strategies of search can be replayed in seconds.

    python benchmarks/record_trainings.py [--epochs 4] [--workers 2] [--data digits] [--out benchmarks/data/trained]

Each network is trained once; its accuracy is taken after a third of the steps, where a training of rungs may rest, and
at the end. One row a network goes to `trained.csv`, the conditions to `trained.json`. Networks come in random order, so
that what there is at any time is a sample. A run that is stopped continues where it was.
"""

from __future__ import annotations

import argparse
import csv
import json
import random
import sys
import time
from concurrent.futures import ProcessPoolExecutor
from functools import cache, partial
from importlib.metadata import version
from itertools import product
from multiprocessing import get_context
from pathlib import Path

import torch

from mvnas.data import Data, load
from mvnas.engines import Job, seed_of, train
from mvnas.latency import DEFAULT_TABLE
from mvnas.latency.model import LatencyModel
from mvnas.latency.table import Table, append, write_network
from mvnas.measuring.clock import cpu
from mvnas.spaces.arch import Arch
from mvnas.spaces.space import Space
from mvnas.training import Schedule, factor_for

HERE = Path(__file__).parent
RUNGS = (1 / 3, 1.0)  # shares of the steps after which accuracy is taken
COLUMNS = ("network", "params", "macs", "latency_ms", "accuracy_1", "accuracy_2", "seconds")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--epochs", type=float, default=4.0)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--data", default="digits")
    parser.add_argument("--out", type=Path, default=HERE / "data" / "trained")
    parser.add_argument("--limit", type=int, help="stop after so many networks")
    args = parser.parse_args()
    conditions(args)
    path = args.out.with_suffix(".csv")
    done = {row["network"] for row in csv.DictReader(path.open())} if path.exists() else set()
    left = [arch for arch in networks(args.data) if write_network(arch) not in done][: args.limit]
    with ProcessPoolExecutor(args.workers, get_context("spawn"), partial(torch.set_num_threads, 1)) as pool:
        for count, row in enumerate(pool.map(partial(row_of, data=args.data, epochs=args.epochs), left), len(done) + 1):
            append(path, COLUMNS, row)
            print(f"{count}/{len(done) + len(left)}: {row['seconds']} s, accuracy {row['accuracy_2']:.1%}", flush=True)


def networks(data: str) -> list[Arch]:
    """Every network of the space, in random order."""
    space = Space.load(HERE / "tabular.yaml").with_classes(len(load(data).classes))
    points = product(*space.choices.values())
    archs = [space.at(dict(zip(space.choices, values, strict=True))) for values in points]
    random.Random(0).shuffle(archs)
    return archs


def conditions(args: argparse.Namespace) -> None:
    """Write the conditions of a new record; an older one must have the same schedule and data."""
    data = load(args.data)
    here = {
        "space": "benchmarks/tabular.yaml",
        "data": args.data,
        "fingerprint": data.fingerprint,
        "validation_images": len(data.val),
        "schedule": Schedule(epochs=args.epochs).to_json(),
        "rungs": RUNGS,
        "latency": f"predicted for {DEFAULT_TABLE}",
        "threads": 1,
        "cpu": cpu(),
        "torch": version("torch"),
    }
    path = args.out.with_suffix(".json")
    path.parent.mkdir(exist_ok=True)
    if path.exists():
        old = json.loads(path.read_text())
        if any(old[key] != json.loads(json.dumps(here[key])) for key in ("schedule", "fingerprint", "rungs")):
            sys.exit(f"{path} was recorded under other conditions; name another --out")
        return
    path.write_text(json.dumps(here, indent=2) + "\n")


@cache
def loaded(data: str) -> tuple[Data, LatencyModel]:
    """The images and the latency model, once a process."""
    return load(data), LatencyModel.fit(Table.load(DEFAULT_TABLE))


def row_of(arch: Arch, data: str, epochs: float) -> dict[str, object]:
    """What is recorded of one network."""
    images, model = loaded(data)
    begun, accuracies, checkpoint = time.monotonic(), [], None
    for share in RUNGS:
        job = Job(arch, Schedule(epochs=epochs), factor_for(images.side), seed_of(arch, 0), share, checkpoint)
        trained = train(job, images)
        checkpoint = trained.checkpoint
        accuracies.append(round(trained.quality, 5))
    return {
        "network": write_network(arch),
        "params": arch.params,
        "macs": arch.macs,
        "latency_ms": round(model.predict(arch).value, 5),
        **{f"accuracy_{i}": accuracy for i, accuracy in enumerate(accuracies, 1)},
        "seconds": round(time.monotonic() - begun, 2),
    }


if __name__ == "__main__":
    main()
