"""Tell how good a table's latency model is on networks that it has not seen."""

from __future__ import annotations

import argparse
import json
from pathlib import Path

from mvnas.cli.named import load_tables
from mvnas.cli.output import print
from mvnas.latency import DEFAULT_TABLE


def options(to: argparse.ArgumentParser) -> None:
    to.add_argument("table", nargs="?", default=DEFAULT_TABLE, metavar="TABLE")
    to.add_argument("--out", metavar="FILE", help="draw it as .png, .pdf or .svg")


def run(args: argparse.Namespace) -> None:
    from dataclasses import asdict

    from mvnas.latency.model import LatencyModel
    from mvnas.measuring.holdout import by_system, held_out, left_out
    from mvnas.reports.tables import errors_table

    (table,) = load_tables(args.table)
    like = table.device.get("like")
    rows = left_out(table) if like else held_out(table)
    systems = [] if like else by_system(table)
    if args.out:
        from mvnas.reports.plot_table import plot_table

        plot_table(table, Path(args.out))
    model = LatencyModel.fit(table)
    energy = held_out(table, "energy") if model.knows_energy and not like else []
    if args.json:
        told = {"device": dict(table.device), "ops": len(table.ops), "networks": len(table.networks)}
        told |= {
            "factor": model.calibration.factor,
            "spread": model.calibration.spread,
            "held_out": [asdict(row) for row in rows],
        }
        told |= {"systems": [asdict(row) for row in systems]} if systems else {}
        told |= {"held_out_energy": [asdict(row) for row in energy]} if energy else {}
        print(json.dumps(told, indent=2))
        return
    device = table.device
    print(
        f"{table.name}: {device.get('cpu')}, {device['backend']} {device['precision']}, {device['threads']} thread(s)"
    )
    how = f"each left out of the correction of {like}" if like else "held-out errors, 5 folds of networks"
    print(f"{len(table.ops)} ops, {len(table.networks)} networks; {how}:\n")
    print(errors_table(rows))
    if systems:
        print(f"\n{errors_table(systems, 'system of the network')}")
    if energy:
        print(f"\nof energy, {device['energy']}:\n\n{errors_table(energy)}")
