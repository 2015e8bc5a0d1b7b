"""The regression on layers that others measured on phones: Pixel 4 and Pixel 6, TFLite on the CPU.

    python benchmarks/phone_layers.py ../shared/data/phone_layers

The data are `pixel4.csv.gz` and `pixel6.csv.gz` of microsoft/nn-Meter (branch dev/hybrid-transformer, MIT), not part of
this project. Each layer kind is a sum of matrix products, stated as a `mvnas.latency.regression.Workload`; nothing says
which phone it is. Two splits: random (5 folds of configurations), and one resolution held out at a time. Share within
10 % is what the authors of that data report.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable
from math import ceil
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from sklearn.ensemble import RandomForestRegressor

from mvnas.latency.regression import Workload, fit

HEAD = 16  # width of a head in this data
Describe = Callable[[Any], Workload]


def attention(row: Any) -> Workload:
    """Layer norm, projections to q, k and v, attention of as many whole heads of width 16 as fit into c, projection
    back.

    Of 168 channels 10 heads use 160 (`channels // head_dim` in nn-Meter's build_lut_attnffn.py); v is v_scale times as
    wide.
    """
    n, c, v = row.hw**2, row.c_in, row.v_scale
    heads = c // HEAD
    width = heads * HEAD
    products = (
        (1, n, c, width * (2 + v)),
        (1, n, v * width, c),
        (heads, n, HEAD, n),
        (heads, n, n, v * HEAD),
    )
    moved = n * (2 * c + width * (4 + 2 * v))
    return Workload(products, (heads * n * n,), moved, c * width * (2 + 2 * v), (n, c, v))


def feed_forward(row: Any) -> Workload:
    """Layer norm, expansion, activation, projection back."""
    n, c = row.hw**2, row.c_in
    hidden = int(c * row.expand)
    return Workload(((1, n, c, hidden), (1, n, hidden, c)), (n * hidden,), n * c, 2 * c * hidden, (n, c, row.expand))


def convolution(row: Any) -> Workload:
    """MBConv: expansion, depthwise of stride s, squeeze and excitation where there is one, projection."""
    inside, out = row.hw**2, ceil(row.hw / row.stride) ** 2
    hidden = row.c_in * row.expand
    squeezed = 1.0 + (str(row.se) == "True")
    return Workload(
        ((1, inside, row.c_in, hidden), (1, out, hidden, row.c_out)),
        (out * hidden * row.kernel**2, (squeezed - 1) * hidden * out, (inside + out) * hidden),
        inside * row.c_in + out * row.c_out,
        hidden * (row.c_in + row.c_out) + (squeezed - 1) * hidden**2 / 2,
        (row.hw, row.c_in, row.c_out, row.expand, row.kernel, row.stride, squeezed, 1 + (row.act == "relu")),
    )


KINDS: dict[str, tuple[str, Describe]] = {
    "attention": ("transattn", attention),
    "feed-forward": ("transffn", feed_forward),
    "MBConv": ("conv", convolution),
}


def macs(load: Workload) -> float:
    """Of its products; of a kernel without any, what it computes otherwise."""
    return sum(count * rows * inner * columns for count, rows, inner, columns in load.products) or load.others[0]


def ours(train: list[Workload], ms: np.ndarray, test: list[Workload]) -> np.ndarray:
    return fit(train, ms.tolist()).predict(test)


def forest(train: list[Workload], ms: np.ndarray, test: list[Workload]) -> np.ndarray:
    """A random forest on raw time: sizes, MACs and parameters of the layer."""
    rows = [[[*load.sizes, macs(load), load.weights] for load in loads] for loads in (train, test)]
    return RandomForestRegressor(100, random_state=0).fit(rows[0], ms).predict(rows[1])


def line(train: list[Workload], ms: np.ndarray, test: list[Workload]) -> np.ndarray:
    """MACs only."""
    slope, offset = np.polyfit([macs(load) for load in train], ms, 1, w=1 / ms)
    return slope * np.array([macs(load) for load in test]) + offset


def share(predict: Any, loads: list[Workload], ms: np.ndarray, groups: np.ndarray) -> tuple[float, float]:
    """Share within 10 % and mean absolute percentage error, each group predicted from the others."""
    found = np.empty(len(ms))
    for group in np.unique(groups):
        test = groups == group
        train = [load for load, out in zip(loads, test, strict=True) if not out]
        found[test] = predict(train, ms[~test], [load for load, out in zip(loads, test, strict=True) if out])
    error = np.abs(found / ms - 1)
    return float((error <= 0.1).mean()), float(error.mean())


def distinct(folder: Path, phone: str, name: str) -> tuple[list[Workload], np.ndarray]:
    """The layers of a kind and their milliseconds on a phone, in the same order for every phone."""
    if not folder.is_dir():
        sys.exit(f"there is no {folder}; this benchmark needs nn-Meter's layer timings, which are not ours to give")
    kind, describe = KINDS[name]
    data = pd.read_csv(folder / f"{phone}.csv.gz")
    rows = data[data.kind == kind].drop_duplicates("key").sort_values("key")
    return [describe(row) for row in rows.itertuples()], rows.latency_ms.to_numpy()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path)
    folder = parser.parse_args().folder
    print(
        "| phone | layer | timings | split | mvnas within 10 % (MAPE) | random forest | MACs only"
        " |\n|---|---|---|---|---|---|---|"
    )
    for phone in ("pixel4", "pixel6"):
        for name in KINDS:
            loads, ms = distinct(folder, phone, name)
            random = np.random.default_rng(0).permutation(len(ms)) % 5
            for told, groups in (
                ("random", random),
                ("resolution held out", np.array([load.sizes[0] for load in loads])),
            ):
                cells = [share(predict, loads, ms, groups) for predict in (ours, forest, line)]
                told_cells = " | ".join(f"{within:.1%} ({mape:.1%})" for within, mape in cells)
                print(f"| {phone} | {name} | {len(ms)} | {told} | {told_cells} |", flush=True)


if __name__ == "__main__":
    main()
