"""Print a study's Pareto set."""

from __future__ import annotations

import argparse
import json
from pathlib import Path

from mvnas.cli.named import load_study
from mvnas.cli.options import STUDY, device
from mvnas.cli.output import print


def options(to: argparse.ArgumentParser) -> None:
    to.add_argument("study", nargs="?", default=STUDY, metavar="STUDY")
    to.add_argument("--csv", metavar="FILE", help="write it as CSV")
    device(to, None)


def run(args: argparse.Namespace) -> None:
    from mvnas.reports.json import summary_json, write_csv
    from mvnas.reports.lines import rank_line, rest_line
    from mvnas.reports.tables import frontier_table

    study = load_study(args)
    study.pick("knee")
    if args.csv:
        write_csv(study.frontier().scores, Path(args.csv))
    if args.json:
        print(json.dumps(summary_json(study), indent=2))
        return
    print(frontier_table(study))
    for told in filter(None, (rest_line(study), rank_line(study))):
        print(f"\n{told}")
