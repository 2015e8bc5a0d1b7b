"""Search a space for the networks that trade accuracy and latency, or energy, best within a budget."""

from __future__ import annotations

import argparse
import json
import sys

from mvnas.cli.named import load_tables
from mvnas.cli.options import STUDY, count, device, duration, positive
from mvnas.cli.output import many, print, quiet, shell_word
from mvnas.cli.progress import Bar
from mvnas.cli.verbs.verify import verified
from mvnas.errors import StudyError
from mvnas.system.stop import Stop

EXHAUSTED = "no other network within the budget was found; a wider --budget or --space, in another --study, has more"


def options(to: argparse.ArgumentParser) -> None:
    to.add_argument(
        "--budget",
        required=True,
        help="for example 6M-params, or 4M..6M-params,8ms,64MB-memory, or mobilevit_xs",
    )
    to.add_argument("--space", default="mobilevit", help="a shipped space's name or a .yaml file (%(default)s)")
    to.add_argument("--data", default="digits", metavar="digits|PATH|MODULE",
                        help="image folder, parquet files, CIFAR folder or a module with a Dataset (%(default)s: demo data)")  # fmt: skip
    to.add_argument("--skip-broken", action="store_true", help="count images that do not decode instead of stopping")
    to.add_argument(
        "--flip",
        choices=("yes", "no"),
        help="whether training mirrors images; no where left and right make a class, as in letters (yes, but for digits)",
    )
    device(to)
    to.add_argument(
        "--objective",
        default="latency",
        metavar="COST",
        help="what to minimise beside accuracy: latency, energy, which needs a table that has it, params, macs, size, "
        "memory, or a module of yours (%(default)s)",
    )
    length = to.add_mutually_exclusive_group()
    length.add_argument("--trials", type=count, help="full trainings in all, earlier runs of the study included (20)")
    length.add_argument("--time", type=duration, metavar="30m", help="stop after this long instead: 90s, 30m, 2h")
    to.add_argument(
        "--epochs",
        type=positive,
        help="passes over the training images for each candidate (800 images of each class or of ten, 2 passes at most)",
    )
    to.add_argument("--batch", type=count, metavar="N", help="images a step of a training (32)")
    to.add_argument("--lr", type=positive, metavar="RATE", help="highest learning rate of a training (0.002)")
    to.add_argument(
        "--clip", type=float, metavar="NORM", help="shorten longer gradients to this norm (0: shorten none)"
    )
    to.add_argument(
        "--task",
        default="classification",
        metavar="NAME",
        help="what networks are for: classification, or a module of yours (%(default)s)",
    )
    to.add_argument(
        "--technique",
        default="multi_scale",
        metavar="NAME[:KEY=VALUE][,NAME]",
        help="what trainings do beyond plain: of ours, modules of yours, or none (%(default)s)",
    )
    to.add_argument(
        "--strategy",
        default="surrogate",
        metavar="NAME",
        help="surrogate, a sampler of Optuna such as tpe or NSGAIISampler, or a module of yours (%(default)s)",
    )
    to.add_argument(
        "--rungs",
        default="1",
        metavar="1/9,1/3,1",
        help="train all to the first share of the epochs, and only the most promising on to the next (%(default)s: all in full)",
    )
    to.add_argument("--seed", type=int, default=0)
    to.add_argument(
        "--verify",
        action="store_true",
        help="then train the frontier longer, export it and time it, as `mvnas verify` does",
    )
    to.add_argument(
        "--workers",
        type=count,
        metavar="N",
        help="candidates to train at a time on this machine; they share the cores (1)",
    )
    to.add_argument(
        "--engine",
        default="processes",
        metavar="processes|ray|MODULE",
        help="where candidates are trained: on this machine, on a Ray cluster, or by a module of yours (%(default)s)",
    )
    to.add_argument("--address", metavar="HOST:PORT", help="of the Ray cluster (the one that this machine is in)")
    to.add_argument("--limit", type=duration, metavar="30m", help="longest that a candidate may train: 90s, 30m, 2h")
    to.add_argument("--study", default=STUDY, metavar="FILE|URL", help="where everything is remembered (%(default)s)")


def run(args: argparse.Namespace) -> None:
    from contextlib import closing

    from mvnas import techniques
    from mvnas.costs import cost
    from mvnas.engines import engine
    from mvnas.reports.json import summary_json, verified_json, worst_cost, write_csv
    from mvnas.reports.lines import rank_line, rest_line
    from mvnas.reports.plot import plot
    from mvnas.reports.tables import frontier_table
    from mvnas.search.loop import PATIENCE, search
    from mvnas.search.problem import from_names
    from mvnas.strategies import strategy
    from mvnas.studies.place import masked
    from mvnas.verification.rank import LONGER

    chooser = strategy(args.strategy)
    with Bar(args.json) as bar:
        task = from_names(
            args.budget,
            space=args.space,
            data=args.data,
            device=args.device,
            epochs=args.epochs,
            batch=args.batch,
            lr=args.lr,
            clip=args.clip,
            seed=args.seed,
            skip_broken=args.skip_broken,
            objective=args.objective,
            rungs=args.rungs,
            flip=args.flip and args.flip == "yes",
            engine=args.engine,
            task=args.task,
            technique=args.technique,
            tell=bar.seldom,
        )
    load_tables(args.device)
    say = quiet if args.json else print
    say(f"space    {args.space}: {many(task.space.size)} networks")
    say(f"budget   {task.budget}")
    classes = task.data.classes
    of = f" of {len(classes)} classes" if classes else ""
    images = f"{len(task.data.train)} + {len(task.data.val)} images{of}"
    say(
        f"data     {args.data}: {images}, {task.data.side} px; sizes in training are {task.setup.factor:g} of the deployed ones"
    )
    if task.data.note:
        say(f"         {task.data.note}")
    if args.epochs is None:
        say(f"training {task.length}")
    if classes:
        say(f"classes  {', '.join(classes[:5])}{', ...' if len(classes) > 5 else ''}")
    if args.flip is None and task.data.flip and (sided := task.data.sided):
        say(f"         images are mirrored in training, which may make another class of {sided!r}: --flip no")
    say(f"device   {args.objective} is predicted for {args.device}; `mvnas measure` makes a table of yours")
    say(f"study    {masked(args.study)}: the same command continues it")
    given = {"workers": args.workers, "address": args.address, "limit": args.limit}
    trainer = engine(args.engine, task.images, **{name: value for name, value in given.items() if value is not None})
    with Bar(args.json) as bar, closing(trainer), Stop(PATIENCE).listening() as stop:
        study = search(
            task,
            study=args.study,
            trials=args.trials,
            seconds=args.time,
            strategy=chooser,
            trainer=trainer,
            show=bar.status,
            stop=stop,
        )
    if stop.asked and not study.scores():
        raise stop.interrupt
    failures = study.failures()
    for number, reason in list(failures.items())[:3]:
        print(f"mvnas: trial {number} failed: {reason}", file=sys.stderr)
    if not study.scores():
        why = "" if failures or not study.exhausted else f"; {EXHAUSTED}"
        raise StudyError(f"a search must finish a candidate, but none of {len(failures)} did{why}")
    table, picture = study.files.subfolder("frontier.csv"), study.files.subfolder("frontier.png")
    write_csv(study.frontier().scores, table)
    plot(study, picture)
    if args.json:
        found = {"verified": verified_json(verified(study, args, LONGER))} if args.verify else {}
        print(json.dumps(summary_json(study) | {"exhausted": study.exhausted} | found, indent=2))
        return
    worst, knee = worst_cost(study), study.frontier().pick("knee")
    own = [*task.space.kinds, args.objective, *(bound.cost for bound in task.budget.bounds)]
    own += [args.task, *(one.name for one in techniques.named(args.technique))]
    trusting = " --trust" if any("." in name for name in own) else ""
    print(f"\n{frontier_table(study)}\n")
    print(f"trained {len(study.scores())}, failed {len(failures)}, over budget and never trained {study.infeasible()}")
    if study.exhausted:
        print(f"ended after {study.finished:g} trainings: {EXHAUSTED}")
    if told := rest_line(study):
        print(told)
    print(
        f"hypervolume {study.frontier().hypervolume(worst=worst):.4f} (of accuracy 0..1 by {args.objective} 0..{cost(args.objective).told(worst)})"
    )
    print(
        rank_line(study)
        or f"how far short scores may be trusted was not tried: mvnas rank {shell_word(study.place)}{trusting}"
    )
    print(f"wrote {table} and {picture}")
    print(
        f"export the knee, {knee.label}: mvnas export {shell_word(study.place)} --pick knee --format tflite{trusting}"
    )
    if stop.asked:
        raise stop.interrupt
    if args.verify:
        print()
        verified(study, args, LONGER)
