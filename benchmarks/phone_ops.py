"""The regression on ops that others measured inside networks on phones' GPUs, and what their sum says of the networks.

    python benchmarks/phone_ops.py ../shared/data/phone_ops

The data are those of qed-usc/mobile-ml-benchmark (MIT), not part of this project: ops of 102 CNNs as TFLite's GPU
delegate ran them on three phones, and the same networks end to end. Kinds are what the delegate runs: its kernel, which
the data name (so that a choice such as Winograd's is taken as known), and the stride; what it fuses behind an op counts
as elements moved. Ops are split by configuration (5 folds), since many occur in several networks. Networks are split in
halves: one's ops and whole networks fit and calibrate, the other's judge, both ways, five times. An op that was timed
in the first half costs its timing there, any other is predicted, and a network is a power of its sum: as in
`mvnas.latency.model`.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Iterable
from pathlib import Path
from statistics import median
from typing import NamedTuple

import numpy as np
import pandas as pd
from phone_layers import forest, line, macs, ours
from scipy.stats import kendalltau

from mvnas.latency.regression import Workload

KERNELS = ("winograd", "grouped", "depthwise", "fully_connected", "pooling", "mean", "concat", "convolution")
GROUPS = {
    "1x1 convolutions": ("convolution.point",),
    "other convolutions": ("convolution.stride", "winograd", "grouped"),
    "depthwise": ("depthwise",),
    "others": ("fully_connected", "pooling", "mean", "concat"),
}
SHAPE = ["operation", "input_shape", "input_channel", "output_shape", "stride", "kernel", "filter", "group"]
SPLITS = 5
PREDICTORS = {"mvnas": ours, "random forest": forest, "MACs only": line}
Predict = Callable[[list[Workload], np.ndarray, list[Workload]], np.ndarray]


class Op(NamedTuple):
    """An op of a network: its configuration, what it is regressed with, and what it does."""

    shape: tuple[object, ...]
    kind: str
    load: Workload


def describe(row: pd.Series, told: str) -> Op:
    """`told` is the name of the delegate's kernel, such as `convolution_2d_16_linked_:_add_17_linked_:_relu_18`."""
    kernel, stride, group = (max(row[name], 1.0) for name in ("kernel", "stride", "group"))
    c, inside = row.input_channel, max(row.input_shape, 1.0) ** 2
    outside = 1.0 if row.operation in ("MEAN", "FULLY_CONNECTED") else row.output_shape**2
    linked = 1.0 + sum(told.count(f"linked_:_{name}") for name in ("add", "mul"))
    kind = next(name for name in KERNELS if name in told.split("_linked")[0])
    if kind in ("convolution", "depthwise"):
        kind += f"{'.point' * (kernel == 1)}.stride{stride:.0f}"
    products: tuple[tuple[float, float, float, float], ...] = ()
    out, weights = max(row["filter"], c) if row.operation == "CONCATENATION" else c, 0.0
    if row.operation in ("CONV_2D", "CONV_2D_GROUP", "FULLY_CONNECTED"):
        out, inner = row["filter"], kernel**2 * c / group
        products, work, weights = ((group, outside, inner, out / group),), outside * out, inner * out
    elif row.operation == "DEPTHWISE_CONV_2D":
        work, weights = outside * c * kernel**2, kernel**2 * c
    else:
        work = max(outside * kernel**2, inside) * out
    sizes = (inside, outside, c, out, kernel, group, linked)
    return Op(tuple(row[SHAPE]), kind, Workload(products, (work,), inside * c + outside * out * linked, weights, sizes))


def typical(ops: Iterable[Op], us: Iterable[float]) -> dict[Op, float]:
    """Distinct ops and the median of their timings."""
    timings: dict[Op, list[float]] = {}
    for op, value in zip(ops, us, strict=True):
        timings.setdefault(op, []).append(value)
    return {op: median(values) for op, values in timings.items()}


def price(timed: dict[Op, float], ops: list[Op], predict: Predict) -> dict[Op, float]:
    """Microseconds of ops, each kind predicted from what was timed of it."""
    found: dict[Op, float] = {}
    for kind in {op.kind for op in ops}:
        known, wanted = ([op for op in some if op.kind == kind] for some in (timed, ops))
        us = predict([op.load for op in known], np.array([timed[op] for op in known]), [op.load for op in wanted])
        found |= dict(zip(wanted, us, strict=True))
    return found


def judged_ops(phone: str, timed: dict[Op, float]) -> None:
    """Each configuration predicted without it."""
    ops = list(timed)
    shapes = {op.shape: None for op in ops}
    folds = dict(zip(shapes, np.random.default_rng(0).permutation(len(shapes)) % 5, strict=True))
    errors: dict[str, np.ndarray] = {}
    for name, predict in PREDICTORS.items():
        found: dict[Op, float] = {}
        for fold in range(5):
            train = {op: us for op, us in timed.items() if folds[op.shape] != fold}
            found |= price(train, [op for op in ops if folds[op.shape] == fold], predict)
        errors[name] = np.array([abs(found[op] / timed[op] - 1) for op in ops])
    for group, starts in {**GROUPS, "all": ("",)}.items():
        of = np.array([op.kind.startswith(starts) for op in ops])
        cells = [f"{(error[of] <= 0.1).mean():.1%} ({error[of].mean():.1%})" for error in errors.values()]
        print(f"| {phone} | {group} | {of.sum()} | {' | '.join(cells)} |", flush=True)


def judged_networks(phone: str, networks: dict[str, list[tuple[Op, float]]], truth: dict[str, float]) -> None:
    """Networks of one half predicted from the other."""
    rows: dict[str, list[list[float]]] = {}
    shares = []
    names = list(networks)
    for seed in range(2 * SPLITS):
        order = np.random.default_rng(seed // 2).permutation(len(names))
        halves = [[names[i] for i in order[side::2]] for side in (seed % 2, 1 - seed % 2)]
        (mine, unseen), (known_ms, ms) = halves, ([truth[name] for name in half] for half in halves)
        timed = typical(*zip(*(pair for name in mine for pair in networks[name]), strict=True))
        new = list({op: None for name in unseen for op, _ in networks[name] if op not in timed})
        shares.append(np.mean([op in timed for name in unseen for op, _ in networks[name]]))
        measured = {name: sum(us for _, us in networks[name]) for name in names}
        sums = {"its own ops, measured": measured}
        for told, predict in PREDICTORS.items():
            costs = timed | price(timed, new, predict)
            sums[f"ops by {told}"] = {name: sum(costs[op] for op, _ in networks[name]) for name in names}
        found = {"its own ops, measured, plain sum": [measured[name] for name in unseen]}
        for told, total in sums.items():
            power, offset = np.polyfit(np.log([total[name] for name in mine]), np.log(known_ms), 1)
            found[told] = [np.exp(offset) * total[name] ** power for name in unseen]
        work = {name: sum(macs(op.load) for op, _ in networks[name]) for name in names}
        slope, offset = np.polyfit([work[name] for name in mine], known_ms, 1, w=1 / np.array(known_ms))
        found["MACs of the network only"] = [slope * work[name] + offset for name in unseen]
        for told, values in found.items():
            error = np.abs(np.array(values) / ms - 1)
            tau = kendalltau(values, ms).statistic
            rows.setdefault(told, []).append([float(error.mean()), float((error <= 0.1).mean()), tau])
    for told, scores in rows.items():
        mape, within, tau = np.mean(scores, 0)
        print(f"| {phone} | {told} | {mape:.1%} | {within:.0%} | {tau:.3f} |")
    print(f"| {phone} | (share of ops that the other half timed: {np.mean(shares):.0%}) | | | |", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    folder = parser.parse_args().folder
    if not folder.is_dir():
        sys.exit(
            f"there is no {folder}; this benchmark needs mobile-ml-benchmark's timings, which are not ours to give"
        )
    data = pd.read_csv(folder / "tflite_gpu_ops.csv.gz").fillna(dict.fromkeys(SHAPE, 0.0))
    whole = pd.read_csv(folder / "tflite_gpu_networks.csv").set_index("model")
    phones: dict[str, list[tuple[Op, float]]] = {}
    for phone in ("pixel4", "s10", "iphone7"):
        told = data[f"{phone}_gpu_kernel"]
        ops = [describe(row, kernel) for (_, row), kernel in zip(data.iterrows(), told, strict=True)]
        phones[phone] = list(zip(ops, data[f"{phone}_gpu_us"], strict=True))
    print(f"| phone | op | distinct | {' | '.join(PREDICTORS)} |\n|---|---|---|---|---|---|")
    for phone, pairs in phones.items():
        judged_ops(phone, typical(*zip(*pairs, strict=True)))
    print("\n| phone | network | MAPE | within 10 % | Kendall tau |\n|---|---|---|---|---|")
    for phone, pairs in phones.items():
        networks: dict[str, list[tuple[Op, float]]] = {}
        for name, pair in zip(data.model, pairs, strict=True):
            networks.setdefault(name, []).append(pair)
        judged_networks(phone, networks, whole[f"{phone}_gpu_float_mean_us"].to_dict())


if __name__ == "__main__":
    main()
