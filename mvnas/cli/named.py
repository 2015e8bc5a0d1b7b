"""Studies, tables and models by the names that a command line gives them."""

from __future__ import annotations

import argparse
import sys
from typing import TYPE_CHECKING

from mvnas.cli.output import print

if TYPE_CHECKING:
    from mvnas.latency.model import Latency
    from mvnas.latency.table import Table
    from mvnas.studies.study import Study


def load_study(args: argparse.Namespace) -> Study:
    """The study that `args` names, with latency predicted for its `--device`, if there is one."""
    from mvnas.studies.study import Study

    study = Study.load(args.study)
    return study.on(load_model(args.device)) if args.device else study


def load_model(device: str) -> Latency:
    """The latency model of one or more tables, by their names with commas between."""
    from mvnas.latency.model import latency

    return latency(load_tables(device))


def load_tables(device: str) -> list[Table]:
    """Load tables by their names with commas between, and print cautions about them."""
    from mvnas.latency.table import load_each
    from mvnas.reports.lines import cautions

    tables = load_each(device)
    for told in (told for table in tables for told in cautions(table)):
        print(f"mvnas: caution: {told}", file=sys.stderr)
    return tables
