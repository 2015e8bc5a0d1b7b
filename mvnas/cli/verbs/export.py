"""Write a network for its runtime, and check that it computes the same."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import Any

from mvnas.cli.named import load_tables
from mvnas.cli.options import STUDY, device
from mvnas.cli.output import print
from mvnas.latency import DEFAULT_TABLE


def options(to: argparse.ArgumentParser) -> None:
    to.add_argument("network", nargs="?", default=STUDY, metavar="STUDY|NETWORK")
    to.add_argument("--pick", metavar="knee|best|fastest|ID", help="which candidate of a study (knee)")
    to.add_argument(
        "--format",
        action="append",
        metavar="FORMAT",
        help="tflite, coreml, onnx, torch, or a module of yours with dots; may be repeated (tflite)",
    )
    to.add_argument(
        "--precision",
        help="of files that may have several: for tflite float32, float16, dynamic-int8 or int8 (float32)",
    )
    to.add_argument("--data", help="where int8 takes its ranges from (the study's data)")
    to.add_argument("--skip-broken", action="store_true", help="leave out images that do not decode")
    to.add_argument("--out", default="exported", metavar="DIR", help="folder to write to (%(default)s)")
    to.add_argument(
        "--weights",
        metavar="FILE",
        help="weights of a network that is not a study's, ours or timm's: .safetensors, .pth, .pt or .bin",
    )
    device(to, None)


def run(args: argparse.Namespace) -> None:
    from dataclasses import replace
    from filecmp import cmp

    from mvnas.backends import settings
    from mvnas.cli.network import resolve
    from mvnas.data import load
    from mvnas.errors import ExportError
    from mvnas.export import Judged, Pictures, card_of, export, origin
    from mvnas.latency.model import LatencyModel
    from mvnas.pretrained import read_weights
    from mvnas.spaces.arch import FLOAT
    from mvnas.tasks import DEFAULT as DEFAULT_TASK
    from mvnas.tasks import task
    from mvnas.training.sampler import trained_size
    from mvnas.verification.retrain import shipped
    from mvnas.verification.tested import known_quality, validated

    network = resolve(args.network, pick=args.pick or "knee")
    path = Path(args.weights) if args.weights else network.weights
    if path is None:
        raise ExportError(f"the network must have trained weights, but {network.name} has none; give --weights FILE")
    if not path.is_file() and network.study and not args.weights:
        kept = ", ".join(str(score.number) for score in network.study.frontier().scores)
        raise ExportError(f"weights are kept for the frontier (trials {kept}), but {network.name} is not on it")
    arch, state = read_weights(network.arch, path)
    formats = args.format or ["tflite"]
    precision = args.precision or (arch.precision if any("precision" in settings(form) for form in formats) else FLOAT)
    place = args.device or (network.study.device if network.study else DEFAULT_TABLE)
    tables = load_tables(place)
    table = next((table for table in tables if table.precision == precision), tables[0])
    device = table.device
    if device["precision"] != precision:
        print(f"mvnas: caution: latency is predicted for {device['precision']}, not {precision}: that of {table.name}; "
              f"`mvnas measure --precision {precision} --table DIR` makes a table", file=sys.stderr)  # fmt: skip
    estimate = LatencyModel.fit(table).predict(replace(arch, precision=FLOAT))
    card: dict[str, Any] = {
        "predicted": {
            "device": table.name,
            **{key: device[key] for key in ("backend", "precision", "threads")},
            "ms": estimate.value,
            "low_ms": estimate.low,
            "high_ms": estimate.high,
        },
    }
    source = args.data or (network.study.setup.data if network.study else None)
    data = None
    if source and precision == "int8":
        data = load(source, skip_broken=args.skip_broken, foreign=not args.data)
    judged, aim = None, task(network.study.setup.task if network.study else DEFAULT_TASK, foreign=True)
    if network.score and network.study:
        study, setup, score = network.study, network.study.setup, network.score
        searched = shipped(study, score.number)
        card |= origin(network.study, score)
        if arch != network.arch:
            del card["classes"]  # the weights are of another number of classes
        if path == searched or (searched.is_file() and cmp(path, searched, shallow=False)):
            side = trained_size(arch.resolution, setup.factor)
            card |= {"epochs": setup.schedule["epochs"], "trained_px": side}
            if data is None or arch.precision != "int8" or data.fingerprint == setup.marks["data"]:
                how, found = score.sources["observed"], validated(study, score)
                if searched != study.files.weights(score.number):
                    how += f", then {setup.schedule['epochs']:g} epochs of training"
                test = known_quality(study, score.number)
                judged = Judged.of(arch, found, side, how, metric=setup.quality, tested=test)
            if side < arch.resolution:
                print(
                    f"mvnas: caution: its weights were trained at {side} px, since the images are small, and it is"
                    f" deployed at {arch.resolution}; its accuracy is that at the former: train it in full before you"
                    " ship it",
                    file=sys.stderr,
                )
    out = Path(args.out)
    done = export(
        arch,
        state,
        out,
        name=network.name,
        formats=formats,
        precision=None if precision == FLOAT else precision,
        images=Pictures.of(data, arch.resolution, aim) if data else None,
        task=aim,
        card=card,
        judged=judged,
    )
    if args.json:
        print(card_of(out, network.name).read_text(encoding="utf-8"), end="")
        return
    for row in done:
        print(f"{row.format:8} {row.told}")
    print(f"wrote {args.out}: {', '.join(row.path.name for row in done)}, {card_of(out, network.name).name}")
