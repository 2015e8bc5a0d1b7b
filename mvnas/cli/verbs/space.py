"""Tell what a space holds: points, costs, the share that fits a budget."""

from __future__ import annotations

import argparse
import json

from mvnas.cli.named import load_model
from mvnas.cli.options import device
from mvnas.cli.output import many, print


def options(to: argparse.ArgumentParser) -> None:
    to.add_argument("space", help="a shipped space's name or a .yaml file")
    to.add_argument("--budget")
    device(to)


def run(args: argparse.Namespace) -> None:
    from mvnas.budgets import Budget
    from mvnas.budgets.feasible import check_feasible
    from mvnas.costs import Price
    from mvnas.reports.json import space_json
    from mvnas.reports.tables import space_table
    from mvnas.spaces.space import Space

    model, space = load_model(args.device), Space.load(args.space)
    budget = Budget.parse(args.budget, lambda name: Price(Space.load(name).arch(), model)) if args.budget else None
    if budget:
        check_feasible(budget, space, model)
    told = space_json(space, model, budget)
    if args.json:
        print(json.dumps(told, indent=2))
        return
    print(f"{args.space}: {told['points']:,} networks ({many(told['points'])}) from {len(told['choices'])} choices")
    print(
        f"costs of {told['samples']:,} random ones, 1,000 classes, latency on {told['device']}:\n\n{space_table(told)}"
    )
    if budget:
        print(f"\nwithin the budget ({budget}): {told['share_that_fits']:.1%}")
    if told["rules"]:
        print("\nchecked when the space was loaded; these would be errors:")
    for kind, text in told["rules"].items():
        print(f"  {kind}: {text}")
