"""The command line: the verbs, and the only file that prints."""

from __future__ import annotations

import argparse
import builtins
import json
import os
import re
import shlex
import sys
import time
import warnings
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, TextIO

from mvnas import __version__
from mvnas.errors import MvnasError, StudyError, TableError, plain
from mvnas.latency.table import DEVICE
from mvnas.system import trust
from mvnas.system.disk import private_folder, refused
from mvnas.system.stop import Interrupt, Stop

STUDY = "mvnas.db"
CACHES = {"MPLCONFIGDIR": "matplotlib", "TORCHINDUCTOR_CACHE_DIR": "torchinductor"}  # of libraries that look for a home
SECRET = re.compile(r"(://[^/\s:@]*:)\S*(?=@)|(?<=[?&]password=)[^&\s]*")  # of a database's URL
SELDOM = 10.0  # seconds between two looks at what is mostly over by then, such as the reading of images
EXHAUSTED = "no other network within the budget was found; a wider --budget or --space, in another --study, has more"


def main(argv: Sequence[str] | None = None) -> int:
    """Run one verb: 0 on success, 2 on a user's mistake, 130 when interrupted, 143 when terminated."""
    args = _parser().parse_args(argv)
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")  # spinning threads crawl where anything else runs beside them
    warnings.filterwarnings("ignore")
    stop = Stop()
    status = 0
    try:
        with stop.listening(last=argv is None):
            _run(args)
            _flush()
    except KeyboardInterrupt as error:
        status = getattr(error, "status", Interrupt().status)
    except BrokenPipeError:
        _drop_output()
    except Exception as error:
        if not stop.asked:  # else third parties have made another error of the interrupt
            if not isinstance(error, MvnasError | OSError):
                raise
            print(f"mvnas: {' '.join(str(_told(error)).splitlines())}", file=sys.stderr)
            with suppress(OSError, MvnasError):
                _flush()
            return 2
    if status or stop.asked:
        print("mvnas: interrupted; the same command continues where it was", file=sys.stderr)
        return status or stop.interrupt.status
    return 0


def _told(error: MvnasError | OSError) -> MvnasError:
    """What is said of an error; of a place, if nothing nearer has told of it."""
    if isinstance(error, MvnasError):
        return error
    return refused(error, error.filename or "standard output, or a file that is written,", "there to use")


def _flush() -> None:
    """Print what waits to be printed.

    Raises:
        FileError: standard output takes no more.
    """
    try:
        sys.stdout.flush()
    except BrokenPipeError:
        raise
    except OSError as error:
        _drop_output()
        raise refused(error, "standard output") from None


def _drop_output() -> None:
    """Have what is still to be printed go nowhere."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def _run(args: argparse.Namespace) -> None:
    """Run the verb, with what the user trusts; what a module of the user's raises is told in a sentence."""
    trust.allow_all(args.trust)
    _give_caches()
    with suppress(OSError):  # the folder may be gone
        trust.look_in(os.getcwd())  # where blocks and data of the user's own are
    try:
        args.run(args)
    except Exception as error:
        said = None if isinstance(error, MvnasError) else trust.culprit(error)
        if said is None:
            raise
        raise MvnasError(said) from error


def _give_caches() -> None:
    """Give libraries a place for their caches where there is no home for them; they would look for the user's name, or complain."""
    with suppress(RuntimeError):  # neither HOME nor an entry for the user
        if os.access(Path.home(), os.W_OK):
            return
    with suppress(MvnasError):
        for variable, name in CACHES.items():
            os.environ.setdefault(variable, str(private_folder() / name))


def print(*parts: object, file: TextIO | None = None, end: str = "\n", flush: bool = False) -> None:
    """Print what may be anybody's text; all that is printed here, since it takes the name of Python's own.

    Control characters are escaped, and so is what the terminal's encoding does not have; passwords of databases are masked.
    """
    stream = file or sys.stdout
    builtins.print(shown(" ".join(map(str, parts)), stream), file=stream, end=end, flush=flush)


def shown(text: str, stream: TextIO) -> str:
    """A text as `print` prints it."""
    encoding = getattr(stream, "encoding", None) or "utf-8"
    text = SECRET.sub(r"\1***", "\n".join(map(plain, text.split("\n"))))
    return text.encode(encoding, "backslashreplace").decode(encoding)


def quoted(path: object) -> str:
    """A path as an argument in a shell's command, also where the terminal cannot show it."""
    text = str(path)
    if shown(text, sys.stdout) == text or SECRET.search(text):
        return shlex.quote(text)
    letters = (
        chr(byte) if byte < 128 and (chr(byte).isalnum() or chr(byte) in "/._-") else f"\\{byte:03o}"
        for byte in os.fsencode(text)
    )
    return f"$'{''.join(letters)}'"


class _Parser(argparse.ArgumentParser):
    """A parser that prints as all else here does."""

    def _print_message(self, message: str, file: Any = None) -> None:
        print(message, file=file or sys.stderr, end="")


def _parser() -> argparse.ArgumentParser:
    parser = _Parser(
        prog="mvnas",
        description="Find the most accurate MobileViT-class network that fits your budget on your device.",
    )
    parser.add_argument("--version", action="version", version=f"mvnas {__version__}")
    verbs = parser.add_subparsers(title="verbs", metavar="VERB", required=True)

    def verb(name: str, run: Callable[[argparse.Namespace], None], about: str, *, figures: bool = True) -> Any:
        made = verbs.add_parser(name, help=about, description=about[0].upper() + about[1:] + ".")
        made.set_defaults(run=run)
        made.add_argument(
            "--trust", action="store_true", help="let files, such as a study, name modules of yours, which are then run"
        )
        if figures:
            made.add_argument("--json", action="store_true", help="print plain data")
        return made

    def device(to: argparse.ArgumentParser, default: str | None = DEVICE) -> None:
        told = default or "the one it searched for"
        to.add_argument(
            "--device",
            default=default,
            metavar="TABLE",
            help=f"latency table: a shipped name or a folder, or some of different precisions with commas ({told})",
        )

    def longer(to: argparse.ArgumentParser) -> None:
        to.add_argument("--longer", type=_count, default=4, metavar="K", help="times the study's epochs (%(default)s)")
        to.add_argument("--data", metavar="PATH", help="where the study's images are now")
        to.add_argument(
            "--skip-broken", action="store_true", help="leave out images that do not decode, as the search did"
        )
        to.add_argument("--engine", metavar="MODULE", help="the search's, if it was a module of yours")

    search = verb(
        "search",
        _search,
        "search a space for the networks that trade accuracy and latency, or energy, best within a budget",
    )
    search.add_argument(
        "--budget",
        required=True,
        help="for example 6M-params, or 4M..6M-params,8ms,64MB-memory, or mobilevit_xs",
    )
    search.add_argument("--space", default="mobilevit", help="a shipped space's name or a .yaml file (%(default)s)")
    search.add_argument("--data", default="digits", metavar="digits|PATH|MODULE",
                        help="image folder, parquet files, CIFAR folder or a module with a Dataset (%(default)s: demo data)")  # fmt: skip
    search.add_argument(
        "--skip-broken", action="store_true", help="count images that do not decode instead of stopping"
    )
    search.add_argument(
        "--flip",
        choices=("yes", "no"),
        help="whether training mirrors images; no where left and right make a class, as in letters (yes, but for digits)",
    )
    device(search)
    search.add_argument(
        "--objective",
        default="latency",
        metavar="latency|energy",
        help="what to minimise beside accuracy; energy needs a table that has it (%(default)s)",
    )
    length = search.add_mutually_exclusive_group()
    length.add_argument("--trials", type=_count, help="full trainings in all, earlier runs of the study included (20)")
    length.add_argument("--time", type=_duration, metavar="30m", help="stop after this long instead: 90s, 30m, 2h")
    search.add_argument(
        "--epochs",
        type=_positive,
        help="passes over the training images for each candidate (800 images of each class or of ten, 2 passes at most)",
    )
    search.add_argument("--batch", type=_count, metavar="N", help="images a step of a training (32)")
    search.add_argument("--lr", type=_positive, metavar="RATE", help="highest learning rate of a training (0.002)")
    search.add_argument(
        "--clip", type=float, metavar="NORM", help="shorten longer gradients to this norm (0: shorten none)"
    )
    search.add_argument(
        "--strategy",
        default="surrogate",
        metavar="NAME",
        help="how candidates are chosen: surrogate, or a sampler of Optuna such as NSGAIISampler (%(default)s)",
    )
    search.add_argument(
        "--rungs",
        default="1",
        metavar="1/9,1/3,1",
        help="train all to the first share of the epochs, and only the most promising on to the next (%(default)s: all in full)",
    )
    search.add_argument("--seed", type=int, default=0)
    search.add_argument(
        "--verify",
        action="store_true",
        help="then train the frontier longer, export it and time it, as `mvnas verify` does",
    )
    search.add_argument(
        "--workers",
        type=_count,
        metavar="N",
        help="candidates to train at a time on this machine; they share the cores (1)",
    )
    search.add_argument(
        "--engine",
        default="processes",
        metavar="processes|ray|MODULE",
        help="where candidates are trained: on this machine, on a Ray cluster, or by a module of yours (%(default)s)",
    )
    search.add_argument("--address", metavar="HOST:PORT", help="of the Ray cluster (the one that this machine is in)")
    search.add_argument(
        "--limit", type=_duration, metavar="30m", help="longest that a candidate may train: 90s, 30m, 2h"
    )
    search.add_argument(
        "--study", default=STUDY, metavar="FILE|URL", help="where everything is remembered (%(default)s)"
    )

    space = verb("space", _space, "tell what a space holds: points, costs, the share that fits a budget")
    space.add_argument("space", help="a shipped space's name or a .yaml file")
    space.add_argument("--budget")
    device(space)

    predict = verb("predict", _predict, "predict a network's costs and latency, block by block")
    predict.add_argument("network", metavar="NETWORK", help="a published name, an Arch's .json file, or STUDY:ID")
    device(predict)

    front = verb("front", _front, "print a study's Pareto set")
    front.add_argument("study", nargs="?", default=STUDY, metavar="STUDY")
    front.add_argument("--csv", metavar="FILE", help="write it as CSV")
    device(front, None)

    plot = verb("plot", _plot, "draw a study's frontier, accuracy against latency or energy", figures=False)
    plot.add_argument("study", nargs="?", default=STUDY, metavar="STUDY")
    plot.add_argument("--out", metavar="FILE", help=".png, .pdf or .svg (STUDY.frontier.png, beside it)")
    device(plot, None)

    rank = verb(
        "rank", _rank, "train a sample of a study's candidates longer, and tell how far its scores may be trusted"
    )
    rank.add_argument("study", nargs="?", default=STUDY, metavar="STUDY")
    rank.add_argument("--candidates", type=_count, metavar="N", help="how many, the frontier among them (12)")
    longer(rank)

    verify = verb("verify", _verify, "train a study's frontier longer, export it, and time it where its runtime runs")
    verify.add_argument("study", nargs="?", default=STUDY, metavar="STUDY")
    longer(verify)
    device(verify, None)

    export = verb("export", _export, "write a network for its runtime, and check that it computes the same")
    export.add_argument("network", nargs="?", default=STUDY, metavar="STUDY|NETWORK")
    export.add_argument("--pick", metavar="knee|best|fastest|ID", help="which candidate of a study (knee)")
    export.add_argument(
        "--format",
        action="append",
        metavar="FORMAT",
        help="tflite, coreml, onnx or torch; may be repeated (tflite)",
    )
    export.add_argument("--precision", help="of the tflite file: float32, float16, dynamic-int8 or int8 (float32)")
    export.add_argument("--data", help="where int8 takes its ranges from (the study's data)")
    export.add_argument("--skip-broken", action="store_true", help="leave out images that do not decode")
    export.add_argument("--out", default="exported", metavar="DIR", help="folder to write to (%(default)s)")
    export.add_argument(
        "--weights",
        metavar="FILE",
        help="weights of a network that is not a study's, ours or timm's: .safetensors, .pth, .pt or .bin",
    )
    device(export, None)

    measure = verb(
        "measure",
        _measure,
        "time ops and networks on this machine or a phone into a latency table; continues one that is there",
    )
    measure.add_argument(
        "--backend", help="runtime to time (tflite); a table that is there goes on with its own, and with its settings"
    )
    measure.add_argument("--table", required=True, metavar="DIR", help="folder of the table")
    measure.add_argument(
        "--space",
        default="mobilevit",
        help="space to cover, several with commas between, or all that are shipped (%(default)s)",
    )
    measure.add_argument("--threads", type=_count, help="threads of the runtime (1)")
    measure.add_argument("--precision", help="float32 or, for tflite, float16, dynamic-int8 or int8 (float32)")
    measure.add_argument(
        "--setting",
        action="append",
        default=[],
        type=_pair,
        metavar="KEY=VALUE",
        help="another setting of the backend, such as serial=PHONE for android; may be repeated",
    )
    measure.add_argument("--like", metavar="TABLE", help="time only what corrects another device's table")
    measure.add_argument("--minutes", type=_positive, help="with --like: how long to time ops")
    measure.add_argument(
        "--ops", type=_count, metavar="N", help="ops to time (1000; 100 with --like, or as many as --minutes allow)"
    )
    measure.add_argument("--networks", type=_count, default=60, metavar="N", help="whole networks (%(default)s)")
    measure.add_argument(
        "--energy",
        metavar="rapl|FILE",
        help="measure energy too: by the counters of the processor's packages, or by the CSV that a power meter writes",
    )
    measure.add_argument("--seed", type=int, default=0)
    measure.add_argument(
        "--import",
        dest="file",
        metavar="FILE",
        help="time nothing: take networks that were timed elsewhere from a CSV (network,ms) or an Xcode report (.mlperf)",
    )

    fit = verb("fit", _fit, "tell how good a table's latency model is on networks that it has not seen")
    fit.add_argument("table", nargs="?", default=DEVICE, metavar="TABLE")
    fit.add_argument("--out", metavar="FILE", help="draw it as .png, .pdf or .svg")
    return parser


def _search(args: argparse.Namespace) -> None:
    from contextlib import closing

    from mvnas.costs.budget import show
    from mvnas.engines import engine
    from mvnas.reports.plot import plot
    from mvnas.reports.report import (
        frontier_table,
        rank_line,
        rest_line,
        summary_json,
        verified_json,
        worst_cost,
        write_csv,
    )
    from mvnas.search.loop import PATIENCE, search
    from mvnas.search.problem import from_names
    from mvnas.studies.place import masked
    from mvnas.verification.rank import LONGER

    with _Bar(args.json) as bar:
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
            tell=bar.seldom,
        )
    _tables(args.device)
    say = _quiet if args.json else print
    say(f"space    {args.space}: {_many(task.space.size)} networks")
    say(f"budget   {task.budget}")
    images = f"{len(task.data.train.labels)} + {len(task.data.val.labels)} images of {len(task.data.classes)} classes"
    say(
        f"data     {args.data}: {images}, {task.data.side} px; sizes in training are {task.setup.factor:g} of the deployed ones"
    )
    if task.data.note:
        say(f"         {task.data.note}")
    if args.epochs is None:
        say(f"training {task.length}")
    say(f"classes  {', '.join(task.data.classes[:5])}{', ...' if len(task.data.classes) > 5 else ''}")
    if args.flip is None and task.data.flip and (sided := task.data.sided):
        say(f"         images are mirrored in training, which may make another class of {sided!r}: --flip no")
    say(f"device   {args.objective} is predicted for {args.device}; `mvnas measure` makes a table of yours")
    say(f"study    {masked(args.study)}: the same command continues it")
    given = {"workers": args.workers, "address": args.address, "limit": args.limit}
    trainer = engine(args.engine, task.images, **{name: value for name, value in given.items() if value is not None})
    with _Bar(args.json) as bar, closing(trainer), Stop(PATIENCE).listening() as stop:
        study = search(
            task,
            study=args.study,
            trials=args.trials,
            seconds=args.time,
            strategy=args.strategy,
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
        verified = {"verified": verified_json(_verified(study, args, LONGER))} if args.verify else {}
        print(json.dumps(summary_json(study) | {"exhausted": study.exhausted} | verified, indent=2))
        return
    worst, knee = worst_cost(study), study.frontier().pick("knee")
    trusting = " --trust" if any("." in kind for kind in task.space.kinds) else ""
    print(f"\n{frontier_table(study)}\n")
    print(f"trained {len(study.scores())}, failed {len(failures)}, over budget and never trained {study.infeasible()}")
    if study.exhausted:
        print(f"ended after {study.finished:g} trainings: {EXHAUSTED}")
    if told := rest_line(study):
        print(told)
    print(
        f"hypervolume {study.frontier().hypervolume(worst=worst):.4f} (of accuracy 0..1 by {args.objective} 0..{show(args.objective, worst)})"
    )
    print(
        rank_line(study)
        or f"how far short scores may be trusted was not tried: mvnas rank {quoted(study.place)}{trusting}"
    )
    print(f"wrote {table} and {picture}")
    print(f"export the knee, {knee.label}: mvnas export {quoted(study.place)} --pick knee --format tflite{trusting}")
    if stop.asked:
        raise stop.interrupt
    if args.verify:
        print()
        _verified(study, args, LONGER)


def _space(args: argparse.Namespace) -> None:
    from mvnas.costs.budget import Budget, check_feasible, price
    from mvnas.reports.report import space_json, space_table
    from mvnas.spaces.space import Space

    model, space = _model(args.device), Space.load(args.space)
    budget = Budget.parse(args.budget, lambda name: price(Space.load(name).arch(), model)) if args.budget else None
    if budget:
        check_feasible(budget, space, model)
    told = space_json(space, model, budget)
    if args.json:
        print(json.dumps(told, indent=2))
        return
    print(f"{args.space}: {told['points']:,} networks ({_many(told['points'])}) from {len(told['choices'])} choices")
    print(
        f"costs of {told['samples']:,} random ones, 1,000 classes, latency on {told['device']}:\n\n{space_table(told)}"
    )
    if budget:
        print(f"\nwithin the budget ({budget}): {told['share_that_fits']:.1%}")
    if told["rules"]:
        print("\nchecked when the space was loaded; these would be errors:")
    for kind, text in told["rules"].items():
        print(f"  {kind}: {text}")


def _predict(args: argparse.Namespace) -> None:
    from mvnas.costs.budget import show
    from mvnas.latency.model import latency
    from mvnas.reports.report import network_json, network_table
    from mvnas.studies.network import resolve

    network = resolve(args.network)
    tables = _tables(args.device)
    told = network_json(network.arch, latency(tables))
    if network.arch.resolution not in {arch.resolution for table in tables for arch in table.passes}:
        print(
            f"mvnas: caution: no network of {network.arch.resolution} px was timed, so the interval may be too narrow",
            file=sys.stderr,
        )
    if args.json:
        print(json.dumps(told, indent=2))
        return
    print(f"{network.name} at {network.arch.resolution} px on {told['device']} (predicted, with a 90 % interval)\n")
    print(network_table(told))
    print(
        f"\n{told['params']:,} parameters ({told['trained_params']:,} in training), {told['macs']:,} MACs, {show('memory', told['memory_bytes'])} of memory "
        f"({show('memory', told['peak_bytes'])} of activations), "
        f"{told['latency_ms']:.2f} ms ({told['latency_low_ms']:.2f} .. {told['latency_high_ms']:.2f}); "
        f"{told['measured_share']:.0%} of the time is in ops that were timed themselves, the rest is modelled"
    )
    if "energy_mj" in told:
        low, high = (show("energy", told[f"energy_{end}_mj"]) for end in ("low", "high"))
        print(f"{show('energy', told['energy_mj'])} ({low} .. {high}) a run beyond what the machine draws at rest")


def _front(args: argparse.Namespace) -> None:
    from mvnas.reports.report import frontier_table, rank_line, rest_line, summary_json, write_csv

    study = _study(args)
    study.pick("knee")
    if args.csv:
        write_csv(study.frontier().scores, Path(args.csv))
    if args.json:
        print(json.dumps(summary_json(study), indent=2))
        return
    print(frontier_table(study))
    for told in filter(None, (rest_line(study), rank_line(study))):
        print(f"\n{told}")


def _rank(args: argparse.Namespace) -> None:
    from dataclasses import asdict

    from mvnas.reports.report import rank_told
    from mvnas.studies.storage import owned
    from mvnas.studies.study import Study
    from mvnas.verification.rank import rank
    from mvnas.verification.retrain import images

    study = Study.load(args.study)
    with owned(study.place), _Bar(args.json) as bar:
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


def _verify(args: argparse.Namespace) -> None:
    from mvnas.reports.report import verified_json
    from mvnas.studies.study import Study

    found = _verified(Study.load(args.study), args, args.longer)
    if args.json:
        print(json.dumps(verified_json(found), indent=2))


def _verified(study: Any, args: argparse.Namespace, longer: int) -> Any:
    """The verified frontier of a study, told unless plain data is asked for."""
    from mvnas.reports.report import verified_told
    from mvnas.studies.storage import owned
    from mvnas.verification.retrain import images
    from mvnas.verification.verify import folder, verify

    tables = _tables(args.device or study.setup.device)
    with owned(study.place), _Bar(args.json) as bar:
        data = images(study, args.data, skip_broken=args.skip_broken, tell=bar.seldom)
        found = verify(study, tables, data, longer=longer, engine=args.engine, progress=bar.step, tell=bar.seldom)
    for told in found.cautions:
        print(f"mvnas: caution: {told}", file=sys.stderr)
    if not args.json:
        print(verified_told(found))
        if any(row.file for row in found.rows):
            print(f"wrote {folder(study)}")
    return found


def _plot(args: argparse.Namespace) -> None:
    from mvnas.reports.plot import plot

    study = _study(args)
    out = Path(args.out) if args.out else study.files.subfolder("frontier.png")
    plot(study, out)
    print(f"wrote {out}")


def _export(args: argparse.Namespace) -> None:
    from dataclasses import replace
    from filecmp import cmp

    from mvnas.data import load
    from mvnas.errors import ExportError
    from mvnas.export import Judged, Pictures, card_of, export, origin
    from mvnas.latency.model import LatencyModel
    from mvnas.pretrained import read_weights
    from mvnas.spaces.arch import FLOAT
    from mvnas.studies.network import resolve
    from mvnas.training.sampler import pixels

    network = resolve(args.network, pick=args.pick or "knee")
    path = Path(args.weights) if args.weights else network.weights
    if path is None:
        raise ExportError(f"the network must have trained weights, but {network.name} has none; give --weights FILE")
    if not path.is_file() and network.study and not args.weights:
        kept = ", ".join(str(score.number) for score in network.study.frontier().scores)
        raise ExportError(f"weights are kept for the frontier (trials {kept}), but {network.name} is not on it")
    arch, state = read_weights(network.arch, path)
    formats = args.format or ["tflite"]
    precision = args.precision or (arch.precision if "tflite" in formats else FLOAT)
    place = args.device or (network.study.device if network.study else DEVICE)
    tables = _tables(place)
    table = next((table for table in tables if table.precision == precision), tables[0])
    device = table.device
    if device["precision"] != precision:
        print(f"mvnas: caution: latency is predicted for {device['precision']}, not {precision}: that of {table.name}; "
              f"`mvnas measure --precision {precision} --table DIR` makes a table", file=sys.stderr)  # fmt: skip
    estimate = LatencyModel.fit(table).predict(replace(arch, precision=FLOAT))
    card: dict[str, Any] = {
        "predicted": {
            "device": table.name,
            **{key: device[key] for key in ("backend", "precision", "threads")},
            "ms": estimate.value,
            "low_ms": estimate.low,
            "high_ms": estimate.high,
        },
    }
    source = args.data or (network.study.setup.data if network.study else None)
    data = None
    if source and precision == "int8":
        data = load(source, skip_broken=args.skip_broken, foreign=not args.data)
    judged = None
    if network.score and network.study:
        setup, score, searched = network.study.setup, network.score, network.study.files.weights(network.score.number)
        card |= origin(network.study, score)
        if arch != network.arch:
            del card["classes"]  # the weights are of another number of classes
        if path == searched or (searched.is_file() and cmp(path, searched, shallow=False)):
            side = pixels(arch.resolution, setup.factor)
            card |= {"epochs": setup.schedule["epochs"], "trained_px": side}
            if data is None or arch.precision != "int8" or data.fingerprint == setup.marks["data"]:
                judged = Judged.of(arch, score.accuracy, side, score.sources["accuracy"])
            if side < arch.resolution:
                print(f"mvnas: caution: its weights were trained at {side} px, since the images are small, and it is deployed at {arch.resolution}; "
                      "its accuracy is that at the former: train it in full before you ship it", file=sys.stderr)  # fmt: skip
    out = Path(args.out)
    done = export(
        arch,
        state,
        out,
        name=network.name,
        formats=formats,
        precision=None if precision == FLOAT else precision,
        images=Pictures.of(data, arch.resolution) if data else None,
        card=card,
        judged=judged,
    )
    if args.json:
        print(card_of(out, network.name).read_text(encoding="utf-8"), end="")
        return
    for row in done:
        print(f"{row.format:8} {row.told}")
    print(f"wrote {args.out}: {', '.join(row.path.name for row in done)}, {card_of(out, network.name).name}")


def _measure(args: argparse.Namespace) -> None:
    from dataclasses import asdict

    from mvnas.backends import backend, of_table
    from mvnas.backends import names as backends
    from mvnas.latency.model import FEWEST, LatencyModel, column
    from mvnas.latency.table import read_device
    from mvnas.measuring.energy import counter
    from mvnas.measuring.holdout import held_out, left_out
    from mvnas.measuring.measure import coverage, measure
    from mvnas.spaces.space import Space, names

    folder = Path(args.table)
    known = read_device(folder) if (folder / "device.json").exists() else {}
    like = args.like or known.get("like")
    if args.minutes and not like:
        raise TableError("--minutes must come with --like TABLE; a whole table ends when its ops are timed")
    if args.file:
        _import(args)
        return
    flags = {"threads": args.threads, "precision": args.precision}
    asked = [*args.setting, *((key, value) for key, value in flags.items() if value is not None)]
    if len(dict(asked)) < len(asked):
        raise TableError(f"each setting must be given once, but got {', '.join(key for key, _ in asked)}")
    if known.get("backend") in ({args.backend} if args.backend else backends()):
        runtime = of_table(known, **dict(asked))
    else:
        runtime = backend(args.backend or "tflite", **dict(asked))
    spaces = [Space.load(name) for name in (names() if args.space == "all" else args.space.split(","))]
    with _Bar(args.json) as bar:
        table = measure(spaces, runtime, folder=folder, ops=args.ops, like=like, minutes=args.minutes,
                        networks=args.networks, seed=args.seed, progress=bar.step,
                        counter=counter(args.energy) if args.energy else None)  # fmt: skip
    drift = [timing.reference_ms for timing in table.ops.values()]
    covered = coverage(spaces, LatencyModel.of_kernels(table))
    told = {
        "table": args.table,
        "ops": len(table.ops),
        "networks": len(table.networks),
        "reference_ms": {"min": min(drift), "max": max(drift)},
        "coverage": covered,
    }
    if args.energy:
        told |= {"ops_with_energy": len(column(table.ops, "energy")), "rest_watts": table.device["rest_watts"][-1]}
    judged = left_out(table)[-1:] if like else held_out(table) if len(table.passes) >= FEWEST else []
    rows = {row.name: asdict(row) for row in judged}
    if args.json:
        print(json.dumps(told | {"held_out": list(rows.values())}, indent=2))
        return
    print(
        f"{args.table}: {told['ops']} ops and {told['networks']} networks; {covered:.0%} of random networks of {args.space} can be priced"
    )
    print(
        f"the reference ops took {min(drift):.3f} .. {max(drift):.3f} ms: the machine drifted by {max(drift) / min(drift) - 1:.0%} at most"
    )
    if args.energy:
        print(
            f"energy of {told['ops_with_energy']} ops was told from the {told['rest_watts']:.2f} W that the machine drew at rest"
        )
    for name, row in rows.items():
        print(f"{name}: off by {row['mape']:.1%} on average, {row['worst']:.1%} at worst")
    if not like and len(table.passes) < FEWEST:
        print(f"an interval needs {FEWEST} whole networks or more: the same with --networks {FEWEST} adds them")
        return
    print(f"more of this: mvnas fit {quoted(args.table)}")


def _import(args: argparse.Namespace) -> None:
    from mvnas.measuring.imported import import_networks

    table = import_networks(Path(args.file), Path(args.table), like=args.like)
    source, passes = table.device["imported"][-1], sum(map(len, table.passes.values()))
    if args.json:
        print(json.dumps({"table": args.table, "networks": len(table.networks), "passes": passes, "imported": source}))
        return
    print(
        f"{args.table}: took {source['networks']} networks from {source['file']}; {len(table.networks)} in {passes} passes in all"
    )


def _fit(args: argparse.Namespace) -> None:
    from dataclasses import asdict

    from mvnas.latency.model import LatencyModel
    from mvnas.measuring.holdout import by_system, held_out, left_out
    from mvnas.reports.report import quality_table

    (table,) = _tables(args.table)
    like = table.device.get("like")
    rows = left_out(table) if like else held_out(table)
    systems = [] if like else by_system(table)
    if args.out:
        from mvnas.reports.plot import plot_table

        plot_table(table, Path(args.out))
    model = LatencyModel.fit(table)
    energy = held_out(table, "energy") if model.knows_energy and not like else []
    if args.json:
        told = {"device": dict(table.device), "ops": len(table.ops), "networks": len(table.networks)}
        told |= {"factor": model.factor, "spread": model.spread, "held_out": [asdict(row) for row in rows]}
        told |= {"systems": [asdict(row) for row in systems]} if systems else {}
        told |= {"held_out_energy": [asdict(row) for row in energy]} if energy else {}
        print(json.dumps(told, indent=2))
        return
    device = table.device
    print(
        f"{table.name}: {device.get('cpu')}, {device['backend']} {device['precision']}, {device['threads']} thread(s)"
    )
    how = f"each left out of the correction of {like}" if like else "held-out errors, 5 folds of networks"
    print(f"{len(table.ops)} ops, {len(table.networks)} networks; {how}:\n")
    print(quality_table(rows))
    if systems:
        print(f"\n{quality_table(systems, 'system of the network')}")
    if energy:
        print(f"\nof energy, {device['energy']}:\n\n{quality_table(energy)}")


def _study(args: argparse.Namespace) -> Any:
    """The study that is named, with latency for the device that is."""
    from mvnas.studies.study import Study

    study = Study.load(args.study)
    return study.on(_model(args.device)) if args.device else study


def _model(device: str) -> Any:
    from mvnas.latency.model import latency

    return latency(_tables(device))


def _tables(device: str) -> Any:
    """The tables of some names, and what speaks against them."""
    from mvnas.latency.table import load_each
    from mvnas.reports.report import cautions

    tables = load_each(device)
    for told in (told for table in tables for told in cautions(table)):
        print(f"mvnas: caution: {told}", file=sys.stderr)
    return tables


def _quiet(*_: object) -> None:
    """Say nothing."""


class _Bar:
    """Progress: a live bar on a terminal, plain lines when piped, nothing beside plain data."""

    def __init__(self, silent: bool) -> None:
        self.silent, self.live = silent, sys.stderr.isatty()
        self.bar: Any = None
        self.last: object = None
        self.drawn = time.monotonic()

    def __enter__(self) -> _Bar:
        return self

    def __exit__(self, *_: object) -> None:
        if self.bar is not None:
            self.bar.close()

    def status(self, status: Any) -> None:
        """Show where a search stands."""
        from mvnas.reports.report import rests

        left = "" if status.left_seconds is None else f", {_clock(status.left_seconds)} left"
        resting = f"{rests(status.resting)}, " if status.resting else ""
        told = (
            f"{status.failed} failed, {status.infeasible} over budget, {resting}best {status.best:.1%}, "
            f"{status.frontier} on the frontier{left}"
        )
        self._draw("trials", round(status.finished, 2), status.total, told, status.doing)

    def step(self, what: str, done: int, total: int) -> None:
        """Show where a measurement stands."""
        if self.last is not None and self.live and self.bar is not None and self.bar.desc != what:
            self.bar.close()
            self.bar = None
        self._draw(what, done, total, "", "", every=max(1, total // 10))

    def seldom(self, what: str, done: int, total: int) -> None:
        """Show how far the reading of images or a training is, where that takes long; `total` is 0 if it is not known."""
        if time.monotonic() - self.drawn > SELDOM:
            self.drawn = time.monotonic()
            self._draw(what, done, total or None, "", "")

    def _draw(self, what: str, done: float, total: int | None, told: str, doing: str, *, every: int = 0) -> None:
        if self.silent:
            return
        if not self.live:
            if not doing and (what, done) != self.last and (not every or done % every == 0 or done == total):
                print(f"{what} {done:g}/{total or '?'}{'; ' if told else ''}{told}", file=sys.stderr, flush=True)
                self.last = (what, done)
            return
        from tqdm import tqdm

        if self.bar is None:
            self.bar = tqdm(total=total, desc=shown(what, sys.stderr), dynamic_ncols=True, leave=True,
                            bar_format="{desc} {n:g}/{total_fmt} |{bar:12}| {postfix}")  # fmt: skip
        self.last = (what, done)
        self.bar.desc, self.bar.n, self.bar.total = shown(what, sys.stderr), done, total
        told = shown("; ".join(part for part in (told, doing) if part), sys.stderr)
        self.bar.set_postfix_str(told, refresh=False)
        self.bar.update(0) if doing else self.bar.refresh()


def _many(count: int) -> str:
    """A number of networks in a few figures, however large it is."""
    return f"{count:.3g}" if count < 10**300 else f"10^{len(str(count)) - 1}"


def _clock(seconds: float) -> str:
    minutes, rest = divmod(round(max(0.0, seconds)), 60)
    return f"{minutes}:{rest:02}"


def _count(text: str) -> int:
    value = int(text)
    if value < 1:
        raise argparse.ArgumentTypeError(f"must be 1 or more, but got {text}")
    return value


def _positive(text: str) -> float:
    value = float(text)
    if not 0 < value < float("inf"):
        raise argparse.ArgumentTypeError(f"must be positive, but got {text}")
    return value


def _pair(text: str) -> tuple[str, str]:
    key, equals, value = text.partition("=")
    if not (key and equals):
        raise argparse.ArgumentTypeError(f"must be KEY=VALUE, but got {text!r}")
    return key, value


def _duration(text: str) -> float:
    units = {"s": 1, "m": 60, "h": 3600}
    try:
        return _positive(text[:-1]) * units[text[-1:]]
    except (KeyError, ValueError):
        raise argparse.ArgumentTypeError(f"must be a time such as 90s, 30m or 2h, but got {text!r}") from None
