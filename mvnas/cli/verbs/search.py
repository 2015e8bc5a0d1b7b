"""Search a space for the networks that trade accuracy and latency, or energy, best within a budget."""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from mvnas.cli.named import load_tables
from mvnas.cli.options import STUDY, count, device, duration, positive
from mvnas.cli.output import many, print, shell_word
from mvnas.cli.progress import Bar
from mvnas.cli.verbs.verify import verified
from mvnas.errors import StudyError
from mvnas.studies.setup import SCORES, SHORT
from mvnas.system.stop import Stop

if TYPE_CHECKING:
    from mvnas.search.problem import Problem
    from mvnas.strategies import Maker
    from mvnas.studies.study import Study

EXHAUSTED = "no other network within the budget was found; a wider --budget or --space, in another --study, has more"


def options(to: argparse.ArgumentParser) -> None:
    to.add_argument(
        "--budget",
        required=True,
        help="for example 6M-params, or 4M..6M-params,8ms,64MB-memory, or mobilevit_xs",
    )
    to.add_argument("--space", default="mobilevit", help="a shipped space's name or a .yaml file (%(default)s)")
    to.add_argument(
        "--data",
        default="digits",
        metavar="digits|PATH|MODULE",
        help="image folder, parquet files, CIFAR folder or a module with a Dataset (%(default)s: demo data)",
    )
    to.add_argument("--skip-broken", action="store_true", help="count images that do not decode instead of stopping")
    to.add_argument(
        "--flip",
        choices=("yes", "no"),
        help=(
            "whether training mirrors images; no where left and right make a class, as in letters (yes, but for digits)"
        ),
    )
    device(to)
    to.add_argument(
        "--objective",
        default="latency",
        metavar="COST",
        help="what to minimise beside accuracy: latency, energy, which needs a table that has it, params, macs, size, "
        "memory, or a module of yours (%(default)s)",
    )
    to.add_argument("--trials", type=count, help="full trainings in all, earlier runs of the study included (20)")
    to.add_argument(
        "--time",
        type=duration,
        metavar="30m",
        help="stop after this long: 90s, 30m, 2h; without --epochs trainings are as long as lets --trials fit into it",
    )
    to.add_argument(
        "--epochs",
        type=positive,
        help=(
            "passes over the training images for each candidate (what shows 8,000 images of ten classes, more of more "
            "classes, and 4 passes at most; a study that is continued keeps its length)"
        ),
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
        "--metric",
        metavar="NAME",
        help="what networks are judged by: accuracy, top5, balanced (the mean over classes), logloss, or one of your"
        " task (accuracy; balanced where the largest class has 3 times the images of the smallest)",
    )
    to.add_argument(
        "--technique",
        default="multi_scale",
        metavar="NAME[:KEY=VALUE][,NAME]",
        help="what trainings do beyond plain: of ours, modules of yours, or none (%(default)s)",
    )
    to.add_argument(
        "--scores",
        default="short",
        metavar="short|supernet",
        help="by what candidates are scored: a short training of each, or slices of a supernet that is trained once, of"
        " which the frontier is trained in the end (%(default)s)",
    )
    to.add_argument(
        "--start",
        metavar="[NAME=]FILE|STUDY",
        help=(
            "begin each candidate with the slices of trained weights that fit it: those in a file (.safetensors, .pth),"
            " or of a study's knee, or STUDY:ID"
        ),
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
        help=(
            "train all to the first share of the epochs, and only the most promising on to the next (%(default)s: all"
            " in full)"
        ),
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
    from mvnas.cli.starting import with_start
    from mvnas.strategies import strategy

    args.technique = with_start(args.technique, args.start, args.study)

    chosen = strategy(args.strategy)  # a typing mistake should not wait for the images
    problem = _problem(args)
    load_tables(args.device)
    if not args.json:
        _introduce(args, problem)
    problem = _lasting(args, problem)
    study, stop = _search(args, problem, chosen)
    _check(study, stop)
    if problem.setup.scores != SHORT and not stop.asked:
        _train_frontier(args, problem, study)
    files = _write(study)
    untested = _judge(args, problem, study, stop)
    if args.json:
        _print_json(args, study, untested)
        return
    _report(args, problem, study, files, untested)
    if stop.asked:
        raise stop.interrupt
    if args.verify:
        from mvnas.verification.rank import LONGER

        print()
        verified(study, args, LONGER)


def _problem(args: argparse.Namespace) -> Problem:
    """What is searched, for what and by which trainings, from the names on the command line."""
    from mvnas.search.problem import from_names

    with Bar(args.json) as bar:
        return from_names(
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
            metric=args.metric,
            technique=args.technique,
            scores=args.scores,
            tell=bar.seldom,
        )


def _introduce(args: argparse.Namespace, problem: Problem) -> None:
    """Print what is going to be searched."""
    from mvnas.studies.place import masked

    data, classes = problem.data, problem.data.classes
    print(f"space    {args.space}: {many(problem.space.size)} networks")
    print(f"budget   {problem.budget}")
    of = f" of {len(classes)} classes" if classes else ""
    print(
        f"data     {args.data}: {len(data.train)} images{of} to train, {len(data.val)} to validate, {len(data.test)} to"
        f" test; {data.side} px, sizes in training are {problem.setup.factor:g} of the deployed ones"
    )
    if data.note:
        print(f"         {data.note}")
    if told := (args.metric and problem.task.metric.name) or problem.task.suited(data)[1]:
        print(f"metric   {told}")
    if args.start:
        rate = f"learning rate {problem.setup.schedule['lr']:g}" + "; --lr sets another" * (args.lr is None)
        print(f"start    candidates begin with slices of {args.start}; {rate}")
    if classes:
        print(f"classes  {', '.join(classes[:5])}{', ...' if len(classes) > 5 else ''}")
    if args.flip is None and data.flip and (sided := data.sided):
        print(f"         images are mirrored in training, which may make another class of {sided!r}: --flip no")
    print(f"device   {args.objective} is predicted for {args.device}; `mvnas measure` makes a table of yours")
    print(f"study    {masked(args.study)}: the same command continues it")


def _lasting(args: argparse.Namespace, problem: Problem) -> Problem:
    """The problem with trainings as long as the study, the time or the data says; told with how long they will take."""
    from mvnas.search import length
    from mvnas.search.loop import TRIALS

    known, why, speed = length.kept(args.study), "--epochs sets another length", None
    if problem.setup.scores != SHORT:
        problem = length.lasting(problem, known.setup.schedule["epochs"]) if known and args.epochs is None else problem
        if not args.json:
            print(f"scores   of {SCORES[problem.setup.scores]}, trained first; the frontier is trained in the end:"
                  f" {problem.length}")  # fmt: skip
        return problem
    workers = args.workers or 1
    chosen = args.time is not None and args.epochs is None and known is None
    if args.engine in length.LOCAL and (chosen or (not args.json and length.worth_telling(problem))):
        speed = length.pace(problem, workers=workers)
    if known and args.epochs is None:
        problem, why = length.lasting(problem, known.setup.schedule["epochs"]), "as the study began"
    elif chosen and speed:
        default = problem.setup.schedule["epochs"]
        found = length.fitted(speed, args.time, trials=args.trials or TRIALS[SHORT], default=default, workers=workers)
        problem, why = length.lasting(problem, found.epochs), found.told
    elif chosen:
        why = "how fast it goes is not known here, so that --time only stops it"
    if args.json:
        return problem
    if args.epochs is None:
        print(f"training {problem.length}; {why}")
    total = args.trials if args.trials is not None or args.time is not None else TRIALS[SHORT]
    left = None if total is None else total - (known.finished if known else 0)
    if speed and (left is None or left > 0):
        epochs = problem.setup.schedule["epochs"]
        print(f"time     {length.told(speed, epochs, trials=left, seconds=args.time, workers=workers)}")
    return problem


def _search(args: argparse.Namespace, problem: Problem, chosen: Maker) -> tuple[Study, Stop]:
    """The study after the search, which the user may have asked to stop."""
    from contextlib import closing

    from mvnas.engines import engine
    from mvnas.search.loop import PATIENCE, search

    given = {"workers": args.workers, "address": args.address, "limit": args.limit}
    trainer = engine(args.engine, problem.images, **{name: value for name, value in given.items() if value is not None})
    with Bar(args.json) as bar, closing(trainer), Stop(PATIENCE).listening() as stop:
        study = search(
            problem,
            study=args.study,
            trials=args.trials,
            seconds=args.time,
            strategy=chosen,
            trainer=trainer,
            show=bar.status,
            stop=stop,
        )
    return study, stop


def _train_frontier(args: argparse.Namespace, problem: Problem, study: Study) -> None:
    """Train the frontier of a study whose candidates nobody has trained."""
    from mvnas.studies.storage import owned
    from mvnas.verification.retrain import train_frontier, trainer

    with owned(study.place), Bar(args.json) as bar:
        own = args.engine if "." in args.engine else None
        with trainer(study, problem.data, own, tell=bar.seldom) as train:
            train_frontier(study, train, bar.step)


def _check(study: Study, stop: Stop) -> None:
    """Print why trainings failed.

    Raises:
        Interrupt: the user stopped the search before any candidate was finished.
        StudyError: no candidate was finished.
    """
    if stop.asked and not study.scores():
        raise stop.interrupt
    failures = study.failures()
    for number, reason in list(failures.items())[:3]:
        print(f"mvnas: trial {number} failed: {reason}", file=sys.stderr)
    if not study.scores():
        why = "" if failures or not study.exhausted else f"; {EXHAUSTED}"
        raise StudyError(f"a search must finish a candidate, but none of {len(failures)} did{why}")


def _write(study: Study) -> tuple[Path, Path]:
    """Write the frontier beside the study, as a table and as a picture."""
    from mvnas.reports.json import write_csv
    from mvnas.reports.plot import plot

    table, picture = study.files.subfolder("frontier.csv"), study.files.subfolder("frontier.png")
    write_csv(study.frontier().scores, table)
    plot(study, picture)
    return table, picture


def _judge(args: argparse.Namespace, problem: Problem, study: Study, stop: Stop) -> str:
    """Judge the frontier on test images, unless the user has stopped the search; why some are not, or nothing."""
    from mvnas.verification.tested import judge_frontier

    if stop.asked:
        return "the search was stopped"
    with Bar(args.json) as bar:
        return judge_frontier(study, lambda: problem.data, tell=bar.seldom)


def _print_json(args: argparse.Namespace, study: Study, untested: str) -> None:
    from mvnas.reports.json import summary_json, verified_json
    from mvnas.verification.rank import LONGER

    found = {"verified": verified_json(verified(study, args, LONGER))} if args.verify else {}
    print(json.dumps(summary_json(study, untested) | {"exhausted": study.exhausted} | found, indent=2))


def _report(args: argparse.Namespace, problem: Problem, study: Study, files: tuple[Path, Path], untested: str) -> None:
    """Print what was found, and what to do next."""
    from mvnas.costs import cost
    from mvnas.reports.json import worst_cost
    from mvnas.reports.lines import explained_line, gap_of, rank_line, rest_line, slices_line, trained_line
    from mvnas.reports.tables import frontier_table

    frontier, worst = study.frontier(), worst_cost(study)
    knee, trusting = frontier.pick("knee"), _trusting(args, problem)
    print(f"\n{frontier_table(study)}\n")
    print(f"{trained_line(study)}; failed {len(study.failures())}, over budget and never trained {study.infeasible()}")
    if study.exhausted:
        print(f"ended after {study.finished:g} trainings: {EXHAUSTED}")
    for told in filter(None, (rest_line(study), slices_line(study))):
        print(told)
    if judged := gap_of(study):
        print(judged)
    if untested:
        print(f"test {study.setup.quality.name} is missing: {untested}")
    print(
        f"hypervolume {frontier.hypervolume(worst=worst):.4f} "
        f"(of {study.setup.quality.label} 0..1 by {args.objective} 0..{cost(args.objective).told(worst)})"
    )
    print(explained_line(study))
    print(
        rank_line(study)
        or f"how far short scores may be trusted was not tried: mvnas rank {shell_word(study.place)}{trusting}"
    )
    print(f"wrote {files[0]} and {files[1]}")
    print(
        f"export the knee, {knee.label}: mvnas export {shell_word(study.place)} --pick knee --format tflite{trusting}"
    )


def _trusting(args: argparse.Namespace, problem: Problem) -> str:
    """` --trust` if the study names code of the user's, which the next commands must then trust."""
    from mvnas import techniques

    own = [*problem.space.kinds, args.objective, *(bound.cost for bound in problem.budget.bounds)]
    own += [args.task, *(one.name for one in techniques.named(args.technique))]
    return " --trust" if any("." in name for name in own) else ""
