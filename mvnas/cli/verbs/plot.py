"""Draw a study's frontier, accuracy against latency or energy."""

from __future__ import annotations

import argparse
from pathlib import Path

from mvnas.cli.named import load_study
from mvnas.cli.options import STUDY, device
from mvnas.cli.output import print

FIGURES = False


def options(to: argparse.ArgumentParser) -> None:
    to.add_argument("study", nargs="?", default=STUDY, metavar="STUDY")
    to.add_argument("--out", metavar="FILE", help=".png, .pdf or .svg (STUDY.frontier.png, beside it)")
    device(to, None)


def run(args: argparse.Namespace) -> None:
    from mvnas.reports.plot import plot

    study = load_study(args)
    out = Path(args.out) if args.out else study.files.subfolder("frontier.png")
    plot(study, out)
    print(f"wrote {out}")
