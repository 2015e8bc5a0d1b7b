"""Time ops and networks on this machine or a phone into a latency table; continues one that is there."""

from __future__ import annotations

import argparse
import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mvnas.cli.options import count, pair, positive
from mvnas.cli.output import print, shell_word
from mvnas.cli.progress import Bar
from mvnas.errors import TableError

if TYPE_CHECKING:
    from mvnas.backends import Runtime
    from mvnas.latency.table import Table
    from mvnas.spaces.space import Space


def options(to: argparse.ArgumentParser) -> None:
    to.add_argument(
        "--backend", help="runtime to time (tflite); a table that is there goes on with its own, and with its settings"
    )
    to.add_argument("--table", required=True, metavar="DIR", help="folder of the table")
    to.add_argument(
        "--space",
        default="mobilevit",
        help="space to cover, several with commas between, or all that are shipped (%(default)s)",
    )
    to.add_argument("--threads", type=count, help="threads of the runtime (1)")
    to.add_argument("--precision", help="float32 or, for tflite, float16, dynamic-int8 or int8 (float32)")
    to.add_argument(
        "--setting",
        action="append",
        default=[],
        type=pair,
        metavar="KEY=VALUE",
        help="another setting of the backend, such as serial=PHONE for android; may be repeated",
    )
    to.add_argument("--like", metavar="TABLE", help="time only what corrects another device's table")
    to.add_argument("--minutes", type=positive, help="with --like: how long to time ops")
    to.add_argument(
        "--ops", type=count, metavar="N", help="ops to time (1000; 100 with --like, or as many as --minutes allow)"
    )
    to.add_argument("--networks", type=count, default=60, metavar="N", help="whole networks (%(default)s)")
    to.add_argument(
        "--energy",
        metavar="rapl|FILE",
        help="measure energy too: by the counters of the processor's packages, or by the CSV that a power meter writes",
    )
    to.add_argument("--seed", type=int, default=0)
    to.add_argument(
        "--import",
        dest="file",
        metavar="FILE",
        help=(
            "time nothing: take networks that were timed elsewhere from a CSV (network,ms) or an Xcode report (.mlperf)"
        ),
    )


def run(args: argparse.Namespace) -> None:
    from mvnas.latency.table import read_device

    folder = Path(args.table)
    known = read_device(folder) if (folder / "device.json").exists() else {}
    like = args.like or known.get("like")
    if args.minutes and not like:
        raise TableError("--minutes must come with --like TABLE; a whole table ends when its ops are timed")
    if args.file:
        _import(args)
    else:
        _measure(args, known, like)


def _measure(args: argparse.Namespace, known: Mapping[str, Any], like: str | None) -> None:
    """Time what the table lacks, and report its errors."""
    from mvnas.latency.calibration import FEWEST_NETWORKS
    from mvnas.measuring.energy import counter
    from mvnas.measuring.holdout import held_out, left_out
    from mvnas.measuring.measure import measure
    from mvnas.spaces.reading import names
    from mvnas.spaces.space import Space

    runtime = _runtime(args, known)
    spaces = [Space.load(name) for name in (names() if args.space == "all" else args.space.split(","))]
    with Bar(args.json) as bar:
        table = measure(
            spaces,
            runtime,
            folder=Path(args.table),
            ops=args.ops,
            like=like,
            minutes=args.minutes,
            networks=args.networks,
            seed=args.seed,
            progress=bar.step,
            counter=counter(args.energy) if args.energy else None,
        )
    facts = _facts(args, table, spaces)
    enough = bool(like) or len(table.passes) >= FEWEST_NETWORKS
    errors = (left_out(table)[-1:] if like else held_out(table)) if enough else []
    if args.json:
        print(json.dumps(facts | {"held_out": [asdict(row) for row in errors]}, indent=2))
        return
    _report(args, facts)
    for row in errors:
        print(f"{row.name}: off by {row.mape:.1%} on average, {row.worst:.1%} at worst")
    if enough:
        print(f"more of this: mvnas fit {shell_word(args.table)}")
    else:
        print(
            f"an interval needs {FEWEST_NETWORKS} whole networks or more: the same with --networks {FEWEST_NETWORKS}"
            " adds them"
        )


def _runtime(args: argparse.Namespace, known: Mapping[str, Any]) -> Runtime:
    """The runtime to time: that of the options, or of the table that is continued, whose settings stay."""
    from mvnas.backends import backend, names, of_table

    flags = {"threads": args.threads, "precision": args.precision}
    asked = [*args.setting, *((key, value) for key, value in flags.items() if value is not None)]
    if len(dict(asked)) < len(asked):
        raise TableError(f"each setting must be given once, but got {', '.join(key for key, _ in asked)}")
    if known.get("backend") in ({args.backend} if args.backend else names()):
        return of_table(known, **dict(asked))
    return backend(args.backend or "tflite", **dict(asked))


def _facts(args: argparse.Namespace, table: Table, spaces: Sequence[Space]) -> dict[str, Any]:
    """What is known of the table now, as plain data."""
    from mvnas.latency.model import LatencyModel, column
    from mvnas.measuring.plan import coverage

    drift = [timing.reference_ms for timing in table.ops.values()]
    facts = {
        "table": args.table,
        "ops": len(table.ops),
        "networks": len(table.networks),
        "reference_ms": {"min": min(drift), "max": max(drift)},
        "coverage": coverage(spaces, LatencyModel.of_kernels(table)),
    }
    if args.energy:
        facts |= {"ops_with_energy": len(column(table.ops, "energy")), "rest_watts": table.device["rest_watts"][-1]}
    return facts


def _report(args: argparse.Namespace, facts: Mapping[str, Any]) -> None:
    """Print the facts in sentences."""
    low, high = facts["reference_ms"].values()
    print(
        f"{args.table}: {facts['ops']} ops and {facts['networks']} networks; {facts['coverage']:.0%} of random networks"
        f" of {args.space} can be priced"
    )
    print(f"the reference ops took {low:.3f} .. {high:.3f} ms: the machine drifted by {high / low - 1:.0%} at most")
    if args.energy:
        print(
            f"energy of {facts['ops_with_energy']} ops was told from the {facts['rest_watts']:.2f} W that the machine "
            "drew at rest"
        )


def _import(args: argparse.Namespace) -> None:
    """Add networks that others timed."""
    from mvnas.cli.network import named_arch
    from mvnas.measuring.imported import import_networks

    table = import_networks(Path(args.file), Path(args.table), named_arch, like=args.like)
    source, passes = table.device["imported"][-1], sum(map(len, table.passes.values()))
    if args.json:
        print(json.dumps({"table": args.table, "networks": len(table.networks), "passes": passes, "imported": source}))
        return
    print(
        f"{args.table}: took {source['networks']} networks from {source['file']}; {len(table.networks)} in {passes} "
        "passes in all"
    )
