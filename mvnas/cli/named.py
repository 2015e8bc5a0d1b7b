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
    """The study that is named, with latency for the device that is."""
    from mvnas.studies.study import Study

    study = Study.load(args.study)
    return study.on(load_model(args.device)) if args.device else study


def load_model(device: str) -> Latency:
    """What predicts latency by the tables of some names."""
    from mvnas.latency.model import latency

    return latency(load_tables(device))


def load_tables(device: str) -> list[Table]:
    """The tables of some names with commas between; what speaks against one is printed."""
    from mvnas.latency.table import load_each
    from mvnas.reports.report import cautions

    tables = load_each(device)
    for told in (told for table in tables for told in cautions(table)):
        print(f"mvnas: caution: {told}", file=sys.stderr)
    return tables
