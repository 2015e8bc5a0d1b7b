"""How well scores of short trainings order networks as long ones do, by the record of photographs.

    python benchmarks/photo_scores.py [--record benchmarks/data/photos]

Prints Kendall's tau of each score to the truth, with 95 % intervals by a bootstrap over networks, and the seconds of a
training: schedules, validation sets of other sizes, log-losses in place of accuracies, two seeds in place of one,
parameters and multiply-accumulates. The truth is the test accuracy of the long training, or the mean of two where there
are two; test images are others than the validation images of all scores. `record_photos.py` makes the record.
"""

from __future__ import annotations

import argparse
import csv
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from scipy.stats import kendalltau

from mvnas.latency.table import read_network

HERE = Path(__file__).parent
RESAMPLES = 2000
Trainings = Mapping[tuple[str, str], Mapping[str, str]]  # rows of a network by run and seed


def networks(path: Path) -> dict[str, Trainings]:
    """The trainings of each network that was trained at length and twice in each short way."""
    told: dict[str, dict[tuple[str, str], dict[str, str]]] = {}
    for row in csv.DictReader(path.open()):
        told.setdefault(row["network"], {})[row["run"], row["seed"]] = row
    needed = {("long", "0"), *((run, seed) for run in ("short", "one") for seed in "01")}
    return {network: rows for network, rows in told.items() if needed <= rows.keys()}


def column(rows: Sequence[Trainings], run: str, seed: str, name: str) -> np.ndarray:
    return np.array([float(row[run, seed][name]) for row in rows])


def scores(rows: Sequence[Trainings]) -> dict[str, list[np.ndarray]]:
    """Scores by what they are, one of each seed; more is better."""
    found = {}
    for run, words in (("short", "several sizes"), ("one", "one size")):
        for name, sign, kind in (
            ("accuracy", 1, "accuracy"),
            ("loss", -1, "log-loss"),
            ("training_loss", -1, "training loss, last third"),
        ):
            found[f"{words}: {kind}"] = [sign * column(rows, run, seed, name) for seed in "01"]
        for count in (250, 500, 1000):
            found[f"{words}: accuracy on {count} images"] = [column(rows, run, s, f"accuracy_{count}") for s in "01"]
        found[f"{words}: mean accuracy of two seeds"] = [
            np.mean([column(rows, run, seed, "accuracy") for seed in "01"], axis=0)
        ]
    return found


def told(values: Sequence[np.ndarray], truth: np.ndarray) -> str:
    """Mean tau over seeds, with an interval."""
    generator = np.random.default_rng(0)

    def mean(places: np.ndarray) -> float:
        taus = [kendalltau(value[places], truth[places]).statistic for value in values]
        return float(np.nan_to_num(np.mean(taus)))

    drawn = [mean(generator.integers(len(truth), size=len(truth))) for _ in range(RESAMPLES)]
    low, high = np.percentile(drawn, (2.5, 97.5))
    return f"{mean(np.arange(len(truth))):.2f} ({low:.2f} .. {high:.2f})"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--record", type=Path, default=HERE / "data" / "photos")
    args = parser.parse_args()
    known = networks(args.record.with_suffix(".csv"))
    rows = [*known.values()]
    truth = np.array(
        [np.mean([float(row["long", seed]["test_accuracy"]) for seed in "01" if ("long", seed) in row]) for row in rows]
    )
    twice = sum(("long", "1") in row for row in rows)
    print(
        f"{len(rows)} networks, {twice} of them trained at length twice; truth {truth.min():.1%} .. {truth.max():.1%}\n"
    )
    for run, words in (("short", "several sizes"), ("one", "one size"), ("long", "at length, several sizes")):
        its = column(rows, run, "0", "accuracy")
        seconds = column(rows, run, "0", "seconds").mean()
        print(f"{words}: accuracy {its.mean():.1%} ({its.min():.1%} .. {its.max():.1%}), {seconds:.1f} s")
    print("\n| score | tau to the truth |\n|---|---|")
    for name, values in scores(rows).items():
        print(f"| {name} | {told(values, truth)} |")
    archs = [read_network(network, str(args.record)) for network in known]
    for name, counts in (("parameters", [arch.params for arch in archs]), ("MACs", [arch.macs for arch in archs])):
        print(f"| {name} | {told([np.array(counts, float)], truth)} |")


if __name__ == "__main__":
    main()
