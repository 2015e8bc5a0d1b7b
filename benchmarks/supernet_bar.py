"""How a supernet orders networks, beside short trainings and beside parameters and MACs, and what each takes.

    python benchmarks/supernet_bar.py [--technique supernet:sampling=uniform] [--networks 200]
    python benchmarks/supernet_bar.py --photos PHOTOS [--record benchmarks/data/photos]

Networks and their trainings are those of the record of digits (`data/trained.csv`: the truth is the accuracy after the
whole training, a short training is its first third, which shares its seed), or with --photos that of photographs
(benchmarks/record_photos.py: the truth is the accuracy on test images after the long trainings, the mean of what seeds
there are). The supernet is trained once on the same space, goes on where it was interrupted, and is kept in --out.
Seconds are of the processor, with one thread. Intervals are 95 % percentiles of a bootstrap over networks.
"""

from __future__ import annotations

import argparse
import csv
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from statistics import fmean

import numpy as np
import torch
from safetensors.torch import load_file

from mvnas.data import Data, load
from mvnas.latency.table import read_network
from mvnas.measuring.order import tau
from mvnas.nn import build
from mvnas.spaces.arch import Arch
from mvnas.spaces.space import Space
from mvnas.studies.files import intact, save_whole
from mvnas.studies.prepared import Plain
from mvnas.system.marks import mark
from mvnas.tasks import task
from mvnas.techniques import techniques
from mvnas.training import Artifact, Schedule, computed, factor_for, fit, trained_size

HERE = Path(__file__).parent
RESAMPLES = 999
SHORT = 4 / 3  # epochs of a candidate of the digits


@dataclass
class Record:
    """Networks of a space with their true accuracy, and what they scored by short trainings of so many seconds."""

    data: Data
    space: Space
    epochs: float
    truth: dict[Arch, float] = field(default_factory=dict)
    scores: dict[str, Mapping[Arch, float]] = field(default_factory=dict)
    seconds: dict[str, float] = field(default_factory=dict)
    places: np.ndarray | None = None  # of the validation images that scores are of; None: all


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--photos", type=Path)
    parser.add_argument("--record", type=Path, default=HERE / "data" / "photos")
    parser.add_argument("--networks", type=int, default=200)
    parser.add_argument("--technique", default="supernet")
    parser.add_argument("--out", type=Path, default=Path("supernets"))
    args = parser.parse_args()
    torch.set_num_threads(1)
    record = photos(args.photos, args.record) if args.photos else digits()
    archs = list(record.truth)[: args.networks]
    file = args.out / f"{mark(record.space.name, args.technique)}.safetensors"
    artifact, trained = supernet(args.technique, record, file)
    begun = time.process_time()
    judged = {arch: judge(arch, args.technique, artifact, record) for arch in archs}
    each = (time.process_time() - begun) / len(archs)
    for name, values in (("after the trainings of the record", record.truth), ("with slices", judged)):
        told = [values[arch] for arch in archs]
        print(f"{len(archs)} networks {name}: {min(told):.1%} to {max(told):.1%}")
    print("\n| score | tau to the truth (95 %) | seconds before the first | seconds each | of 20 | of 200 |")
    print("|---|---|---|---|---|---|")
    for name, scores in record.scores.items():
        line(name, scores, record, archs, 0.0, record.seconds[name])
    line(args.technique, judged, record, archs, trained, each)
    sizes = {"parameters": [arch.params for arch in archs], "MACs": [arch.macs for arch in archs]}
    sizes["parameters + MACs (ranks)"] = list(sum(np.argsort(np.argsort(values)) for values in sizes.values()))
    for name, values in sizes.items():
        line(name, dict(zip(archs, values, strict=True)), record, archs, 0.0, 0.0)


def line(
    name: str, scores: Mapping[Arch, float], record: Record, archs: Sequence[Arch], before: float, each: float
) -> None:
    """Print how a score orders the networks, and what it takes."""
    pairs = np.array([(scores[arch], record.truth[arch]) for arch in archs if arch in scores])
    generator = np.random.default_rng(0)
    drawn = pairs[generator.integers(0, len(pairs), (RESAMPLES, len(pairs)))]
    low, high = np.percentile(tau(drawn[..., 0], drawn[..., 1]), (2.5, 97.5))
    found = float(tau(pairs[:, 0], pairs[:, 1]))
    total = " | ".join(f"{before + count * each:.0f}" for count in (20, 200))
    print(f"| {name} | {found:.2f} ({low:.2f} .. {high:.2f}) | {before:.0f} | {each:.1f} | {total} |", flush=True)


def digits() -> Record:
    """The record of digits, whose first third of a training is its short one."""
    data = load("digits")
    record = Record(data, Space.load(HERE / "tabular.yaml").with_classes(len(data.classes)), SHORT)
    rows = {point(record.space, row["network"]): row for row in rows_of(HERE / "data" / "trained.csv")}
    record.truth = {arch: float(row["accuracy_2"]) for arch, row in rows.items()}
    record.scores["a third of the training"] = {arch: float(row["accuracy_1"]) for arch, row in rows.items()}
    record.seconds["a third of the training"] = fmean(float(row["seconds"]) for row in rows.values()) / 3
    return record


def photos(path: Path, recorded: Path) -> Record:
    """The record of photographs, as far as there is a long training."""
    from record_photos import RUNS, halves, loaded

    data = loaded(path)
    epochs = next(run.epochs for run in RUNS if run.name == "short")
    record = Record(data, Space.load(HERE / "photos.yaml").with_classes(len(data.classes)), epochs)
    record.places = halves(len(data.val))[0]
    rows = [(point(record.space, row["network"]), row) for row in rows_of(recorded.with_suffix(".csv"))]
    for arch in dict.fromkeys(arch for arch, _ in rows):
        long = [float(row["test_accuracy"]) for one, row in rows if one == arch and row["run"] == "long"]
        if long:
            record.truth[arch] = fmean(long)
    for run in ("short", "one"):
        own = {arch: row for arch, row in rows if row["run"] == run and row["seed"] == "0"}
        record.scores[run] = {arch: float(row["accuracy"]) for arch, row in own.items()}
        record.seconds[run] = fmean(float(row["seconds"]) for row in own.values())
    return record


def rows_of(path: Path) -> list[dict[str, str]]:
    with path.open() as file:
        return list(csv.DictReader(file))


def point(space: Space, network: str) -> Arch:
    """The network of a row as a point of the space, whose rows name its weights."""
    picks = space.locate(read_network(network, "record"))
    assert picks is not None, network
    return space.at(picks)


def supernet(technique: str, record: Record, path: Path) -> tuple[Artifact, float]:
    """What the technique prepares for the space, and the seconds that it took."""
    noted = path.with_suffix(".seconds")
    before = float(noted.read_text()) if noted.exists() else 0.0
    path.parent.mkdir(exist_ok=True)
    if not intact(path):
        begun = time.process_time()

        def tell(what: str, done: int, total: int) -> None:
            noted.write_text(str(before + time.process_time() - begun))
            if done % 50 == 0:
                print(f"{what} {done}/{total}: {noted.read_text():.5} s", flush=True)

        factor, schedule = factor_for(record.data.side), Schedule(epochs=record.epochs)
        plain = Plain(
            record.data, task(), schedule, factor, 0, "cpu", tell, record.space, partial=path.with_suffix(".part")
        )
        made = techniques(technique)[0].prepare(plain)
        before += time.process_time() - begun
        save_whole({name: torch.tensor(value) for name, value in made.items()}, path)
        noted.write_text(str(before))
    return {name: value.numpy() for name, value in load_file(path).items()}, before


def judge(arch: Arch, technique: str, artifact: Artifact, record: Record) -> float:
    """Accuracy of a network with its slices on the validation images."""
    module, data, factor = build(arch.graph()), record.data, factor_for(record.data.side)
    trained = fit(
        module,
        data,
        resolution=arch.resolution,
        factor=factor,
        schedule=Schedule(epochs=record.epochs),
        seed=0,
        techniques=techniques(technique, [artifact]),
        until=0.0,
        arch=arch,
    )
    if record.places is None:
        return trained.quality
    side = trained_size(arch.resolution, factor)
    rows = [output.argmax(1) for _, output in computed(module, data.val, task(), side=side, batch=128)]
    return float((np.concatenate(rows) == data.val.targets)[record.places].mean())


if __name__ == "__main__":
    main()
