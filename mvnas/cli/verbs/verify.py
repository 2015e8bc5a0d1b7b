"""Train a study's frontier longer, export it, and time it where its runtime runs."""

from __future__ import annotations

import argparse
import json
import sys
from typing import TYPE_CHECKING

from mvnas.cli.named import load_tables
from mvnas.cli.options import STUDY, device, longer
from mvnas.cli.output import print
from mvnas.cli.progress import Bar

if TYPE_CHECKING:
    from mvnas.studies.study import Study
    from mvnas.verification.verify import Verification


def options(to: argparse.ArgumentParser) -> None:
    to.add_argument("study", nargs="?", default=STUDY, metavar="STUDY")
    longer(to)
    device(to, None)


def run(args: argparse.Namespace) -> None:
    from mvnas.reports.json import verified_json
    from mvnas.studies.study import Study

    found = verified(Study.load(args.study), args, args.longer)
    if args.json:
        print(json.dumps(verified_json(found), indent=2))


def verified(study: Study, args: argparse.Namespace, longer: int) -> Verification:
    """The verified frontier of a study, told unless plain data is asked for."""
    from mvnas.reports.tables import verified_told
    from mvnas.studies.storage import owned
    from mvnas.verification.retrain import images
    from mvnas.verification.verify import folder, verify

    tables = load_tables(args.device or study.setup.device)
    with owned(study.place), Bar(args.json) as bar:
        data = images(study, args.data, skip_broken=args.skip_broken, tell=bar.seldom)
        found = verify(study, tables, data, longer=longer, engine=args.engine, progress=bar.step, tell=bar.seldom)
    for told in found.cautions:
        print(f"mvnas: caution: {told}", file=sys.stderr)
    if not args.json:
        print(verified_told(found, study.setup.quality))
        if any(row.file for row in found.rows):
            print(f"wrote {folder(study)}")
    return found
