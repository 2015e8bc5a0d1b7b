"""Predict a network's costs and latency, block by block."""

from __future__ import annotations

import argparse
import json
import sys

from mvnas.cli.named import load_tables
from mvnas.cli.options import device
from mvnas.cli.output import print


def options(to: argparse.ArgumentParser) -> None:
    to.add_argument("network", metavar="NETWORK", help="a published name, an Arch's .json file, or STUDY:ID")
    device(to)


def run(args: argparse.Namespace) -> None:
    from mvnas.cli.network import resolve
    from mvnas.costs import cost
    from mvnas.latency.model import latency
    from mvnas.reports.json import network_json
    from mvnas.reports.tables import network_table

    network = resolve(args.network)
    tables = load_tables(args.device)
    told = network_json(network.arch, latency(tables))
    if network.arch.resolution not in {arch.resolution for table in tables for arch in table.passes}:
        print(
            f"mvnas: caution: no network of {network.arch.resolution} px was timed, so the interval may be too narrow",
            file=sys.stderr,
        )
    if args.json:
        print(json.dumps(told, indent=2))
        return
    print(f"{network.name} at {network.arch.resolution} px on {told['device']} (predicted, with a 90 % interval)\n")
    print(network_table(told))
    memory = cost("memory").told
    print(
        f"\n{told['params']:,} parameters ({told['trained_params']:,} in training), {told['macs']:,} MACs,"
        f" {memory(told['memory_bytes'])} of memory ({memory(told['peak_bytes'])} of activations),"
        f" {told['latency_ms']:.2f} ms ({told['latency_low_ms']:.2f} .. {told['latency_high_ms']:.2f});"
        f" {told['measured_share']:.0%} of the time is in ops that were timed themselves, the rest is modelled"
    )
    if "energy_mj" in told:
        value, low, high = (cost("energy").told(told[key]) for key in cost("energy").keys)
        print(f"{value} ({low} .. {high}) a run beyond what the machine draws at rest")
