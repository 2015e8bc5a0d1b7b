"""Trains small networks on photographs briefly and at length, so that ways of scoring candidates can be compared.

    python benchmarks/record_photos.py --data PHOTOS [--networks 60] [--workers 2] [--out benchmarks/data/photos]

PHOTOS has a training and a validation split, such as the imagenette of 128 pixels as parquet. Each network of a random
sample of `photos.yaml` is trained six times: by the default schedule of a search (`short`), by as many images at one
size in place of several (`one`), and eight times as long (`long`), each from two seeds. Held-out images are judged in
two halves: one is the validation set of a search, the other, `test`, tells how good the network really is.

One row a training goes to `photos.csv`, the conditions to `photos.json`. Networks come in random order, so that what
there is at any time is a sample. A run that is stopped continues where it was.
"""

from __future__ import annotations

import argparse
import csv
import json
import random
import sys
import time
from collections.abc import Iterable
from concurrent.futures import ProcessPoolExecutor
from functools import cache
from importlib.metadata import version
from multiprocessing import get_context
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch

from mvnas.data import Data
from mvnas.data._decode import decode
from mvnas.data.parquet import Dataset
from mvnas.engines import seed_of
from mvnas.latency.table import append, write_network
from mvnas.measuring.clock import cpu
from mvnas.nn import build
from mvnas.spaces.arch import Arch
from mvnas.spaces.space import Space
from mvnas.tasks.classification import Task
from mvnas.techniques import techniques
from mvnas.training import Schedule, factor_for, fit, initialise, trained_size
from mvnas.training.judging import computed

HERE = Path(__file__).parent
SHORT, LONGER = 0.845, 8  # epochs of the default schedule on 9,469 photographs of ten classes; times as long
FEW = (250, 500, 1000)  # validation images of smaller sets, the first of the whole one
LAST = 1 / 3  # of the steps, whose training losses are averaged


class Run(NamedTuple):
    """One way of training: its name, what it does beyond plain, and its length."""

    name: str
    technique: str
    epochs: float


RUNS = (Run("short", "multi_scale", SHORT), Run("one", "none", SHORT), Run("long", "multi_scale", SHORT * LONGER))
SEEDS = (0, 1)
COLUMNS = ("network", "run", "seed", "accuracy", *(f"accuracy_{count}" for count in FEW), "loss", "test_accuracy",
           "test_loss", "training_loss", "seconds")  # fmt: skip


class Halves:
    """Photographs whose validation images are both what a search validates on and what it is tested on in the end."""

    def __init__(self, path: Path) -> None:
        self._whole = Dataset(path)
        self.classes, self.note, self.files = self._whole.classes, "", ()

    def items(self, split: str) -> Iterable[Any] | None:
        """All validation items are in both splits; `halves` tells which are of which."""
        return self._whole.items("train" if split == "train" else "val")


def halves(count: int) -> tuple[np.ndarray, np.ndarray]:
    """Places of the held-out images that validate, in random order, and of those that test."""
    order = np.random.default_rng(0).permutation(count)
    return order[: count // 2], order[count // 2 :]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--networks", type=int, default=60)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--out", type=Path, default=HERE / "data" / "photos")
    args = parser.parse_args()
    conditions(args)
    path = args.out.with_suffix(".csv")
    done = (
        {(row["network"], row["run"], int(row["seed"])) for row in csv.DictReader(path.open())}
        if path.exists()
        else set()
    )
    left = [
        (arch, run, seed)
        for arch in networks(args.networks)
        for seed in SEEDS
        for run in RUNS
        if (write_network(arch), run.name, seed) not in done
    ]
    left.sort(key=lambda job: job[1].name == "long" and job[2] > 0)  # what is longest and tells least comes last
    with ProcessPoolExecutor(args.workers, get_context("spawn")) as pool:
        jobs = [pool.submit(row_of, *job, args.data) for job in left]
        for count, job in enumerate(jobs, 1):
            row = job.result()
            append(path, COLUMNS, row)
            print(f"{count}/{len(left)}: {row['run']} {row['seconds']} s, {row['accuracy']:.1%}", flush=True)


def networks(count: int) -> list[Arch]:
    """A random sample of the space, always in the same order."""
    space, generator = Space.load(HERE / "photos.yaml").with_classes(10), random.Random(0)
    points = {}
    while len(points) < count:
        picks = {name: generator.choice(options) for name, options in space.choices.items()}
        points[space.at(picks)] = True
    return list(points)


def conditions(args: argparse.Namespace) -> None:
    """Write the conditions of a new record; an older one must have the same data."""
    data = loaded(args.data)
    here = {
        "space": "benchmarks/photos.yaml",
        "images": [len(data.train), *map(len, halves(len(data.val)))],
        "fingerprint": data.fingerprint,
        "runs": {run.name: {"technique": run.technique, **Schedule(epochs=run.epochs).to_json()} for run in RUNS},
        "seconds": "of the processor, training alone",
        "threads": 1,
        "cpu": cpu(),
        "torch": version("torch"),
    }
    path = args.out.with_suffix(".json")
    if path.exists():
        old = json.loads(path.read_text())
        if any(old[key] != here[key] for key in ("images", "fingerprint", "runs")):
            sys.exit(f"{path} was recorded under other conditions; name another --out")
        return
    path.write_text(json.dumps(here, indent=2) + "\n")


@cache
def loaded(path: Path) -> Data:
    """The photographs, once a process."""
    return decode(Halves(path), given=("val", "test"), seed=0, skip_broken=False)


def row_of(arch: Arch, run: Run, seed: int, path: Path) -> dict[str, object]:
    """What is recorded of one training."""
    torch.set_num_threads(1)
    data, module, losses = loaded(path), build(arch.graph()), []
    begun, ends = time.process_time(), []
    initialise(module, seed_of(arch, seed))

    def step(number: int, steps: int, loss: float) -> None:
        losses.append(loss)
        ends.append(time.process_time())

    factor = factor_for(data.side)
    fit(
        module,
        data,
        resolution=arch.resolution,
        factor=factor,
        schedule=Schedule(epochs=run.epochs),
        seed=seed_of(arch, seed),
        techniques=techniques(run.technique),
        progress=step,
    )
    right, loss = judged(module, data, trained_size(arch.resolution, factor))
    validation, test = halves(len(right))
    return {
        "network": write_network(arch),
        "run": run.name,
        "seed": seed,
        "accuracy": round(right[validation].mean(), 5),
        **{f"accuracy_{count}": round(right[validation[:count]].mean(), 5) for count in FEW},
        "loss": round(loss[validation].mean(), 5),
        "test_accuracy": round(right[test].mean(), 5),
        "test_loss": round(loss[test].mean(), 5),
        "training_loss": round(float(np.mean(losses[-round(len(losses) * LAST) :])), 5),
        "seconds": round(ends[-1] - begun, 2),
    }


def judged(module: torch.nn.Module, data: Data, side: int) -> tuple[np.ndarray, np.ndarray]:
    """Whether each held-out image is classified rightly, and its cross-entropy: (N,), (N,)."""
    logits = np.concatenate([output for _, output in computed(module, data.val, Task(), side=side, batch=128)])
    logits = logits - logits.max(1, keepdims=True)
    truth = logits[np.arange(len(logits)), data.val.targets]
    return logits.argmax(1) == data.val.targets, np.log(np.exp(logits).sum(1)) - truth


if __name__ == "__main__":
    main()
