"""Print a study's Pareto set."""

from __future__ import annotations

import argparse
import json
from functools import partial
from pathlib import Path

from mvnas.cli.named import load_study
from mvnas.cli.options import STUDY, device, moved
from mvnas.cli.output import print
from mvnas.cli.progress import Bar


def options(to: argparse.ArgumentParser) -> None:
    to.add_argument("study", nargs="?", default=STUDY, metavar="STUDY")
    to.add_argument("--csv", metavar="FILE", help="write it as CSV")
    device(to, None)
    moved(to)


def run(args: argparse.Namespace) -> None:
    from mvnas.reports.json import summary_json, write_csv
    from mvnas.reports.lines import explained_line, gap_of, rank_line, rest_line, slices_line
    from mvnas.reports.tables import frontier_table
    from mvnas.verification.retrain import images
    from mvnas.verification.tested import judge_frontier

    study = load_study(args)
    study.pick("knee")
    if args.csv:
        write_csv(study.frontier().scores, Path(args.csv))
    with Bar(args.json) as bar:
        load = partial(images, study, args.data, skip_broken=args.skip_broken, tell=bar.seldom)
        untested = judge_frontier(study, load, tell=bar.seldom)
    if args.json:
        print(json.dumps(summary_json(study, untested), indent=2))
        return
    print(frontier_table(study))
    missing = untested and f"test {study.setup.quality.name} is missing: {untested}"
    lines = (gap_of(study), missing, rest_line(study), slices_line(study), explained_line(study), rank_line(study))
    for told in filter(None, lines):
        print(f"\n{told}")
