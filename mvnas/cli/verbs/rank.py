"""Train a sample of a study's candidates longer, and tell how far its scores may be trusted."""

from __future__ import annotations

import argparse
import json

from mvnas.cli.options import STUDY, count, longer
from mvnas.cli.output import print
from mvnas.cli.progress import Bar


def options(to: argparse.ArgumentParser) -> None:
    to.add_argument("study", nargs="?", default=STUDY, metavar="STUDY")
    to.add_argument("--candidates", type=count, metavar="N", help="how many, the frontier among them (12)")
    longer(to)


def run(args: argparse.Namespace) -> None:
    from dataclasses import asdict

    from mvnas.reports.tables import rank_told
    from mvnas.studies.storage import owned
    from mvnas.studies.study import Study
    from mvnas.verification.rank import rank
    from mvnas.verification.retrain import images

    study = Study.load(args.study)
    with owned(study.place), Bar(args.json) as bar:
        data = images(study, args.data, skip_broken=args.skip_broken, tell=bar.seldom)
        found = rank(
            study,
            data,
            candidates=args.candidates,
            longer=args.longer,
            engine=args.engine,
            progress=bar.step,
            tell=bar.seldom,
        )
    print(json.dumps(asdict(found), indent=2) if args.json else rank_told(found, study.setup.schedule["epochs"]))
