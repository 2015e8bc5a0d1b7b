"""Measuring a latency table, or continuing one; or timing whole networks alone."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from itertools import chain
from math import ceil, inf
from pathlib import Path
from shutil import copyfile
from typing import Any

from mvnas.backends import Device, Profiler, Runtime
from mvnas.errors import EnergyError, ExportError
from mvnas.latency.model import FEWEST_LIKE, LatencyModel
from mvnas.latency.table import (
    Table,
    Timing,
    read_passes,
)
from mvnas.latency.transfer import informative
from mvnas.measuring.energy import Counter
from mvnas.measuring.plan import (
    calibrating,
    classed,
    plan,
    plan_networks,
    pool,
    published_points,
    refine,
    sample,
    suspects,
)
from mvnas.measuring.protocol import SECOND_LOOKS, STANDARD, Protocol
from mvnas.measuring.session import sitting
from mvnas.spaces.arch import Arch
from mvnas.spaces.space import Space
from mvnas.system.disk import writing
from mvnas.system.progress import Progress, silent

OPS, NETWORKS = 1000, 60  # what a table holds by default
LIKE_OPS = 100  # ops of a table that corrects another
MOST_LIKE = 300  # and at most, however much time the user gives: choosing takes time itself
ROUNDS = (0.7, 0.85, 1.0)  # shares of the ops after which the model says of which kinds it is least sure
COMPARED = 300  # networks by which kernels to time are chosen, with `like`


def measure(
    spaces: Sequence[Space],
    runtime: Runtime,
    *,
    folder: Path,
    ops: int | None = None,
    networks: int = NETWORKS,
    like: str | None = None,
    minutes: float | None = None,
    seed: int = 0,
    counter: Counter[Any] | None = None,
    protocol: Protocol = STANDARD,
    progress: Progress = silent,
) -> Table:
    """Time `ops` kernels and `networks` networks of `spaces`, beside the published ones, into the table at `folder`.

    Without `ops` there are OPS, or more if the spaces have so many kinds of kernels that spanning them takes more.

    First come kernels that span every dimension of every kind, and all that random networks need to be priced, even if
    that is more than `ops`; then those in which networks spend most time and of which the model is least sure. An
    existing table is continued: only what is missing is timed, and what was timed at a slow moment.

    With `like`, the name or folder of another table, the new one corrects that table's model: only the most informative
    kernels are timed, up to `ops` (LIKE_OPS if None, or as `minutes` allow), and published networks. Such a table works
    only together with the other.

    With `counter` the energy of each file is measured too, after its timing, but not that of ops inside networks.

    Raises:
        EnergyError: the counter cannot be read, or the runtime is on another device.
        ExportError: the runtime does not run on this machine.
        TableError: the folder holds a table measured under other conditions, or another measurement is running.
    """
    if not getattr(runtime, "runs_here", True):
        name = runtime.conditions()["backend"]
        raise ExportError(f"a runtime must run here to be timed, but {name} does not; measure on a machine that has it")
    if counter and isinstance(runtime, Device):
        name = runtime.conditions()["backend"]
        raise EnergyError(f"energy must be measured where the runtime runs, but {name} starts it on another device")
    if like and Path(like).is_dir():
        like = str(Path(like).resolve())  # the table must find it from any folder
    known = LatencyModel.fit(Table.load(like)) if like else None
    planned = [] if known or isinstance(runtime, Profiler) else plan(spaces, ops, seed=seed)
    ops = ops or (LIKE_OPS if like and minutes is None else max(OPS, ceil(len(planned) / ROUNDS[0])))
    end = inf if minutes is None else time.monotonic() + 60 * minutes
    few = published_points(spaces) or sample(spaces, FEWEST_LIKE, seed=seed + 1)
    archs = few if known else calibrating(spaces, networks, seed=seed + 1)
    judged = [*archs, *classed(pool(spaces, seed)), *read_passes(folder)]
    with sitting(runtime, protocol, folder, progress, like, counter) as session:
        if isinstance(runtime, Profiler):
            session.profile(chain(few if known else (), plan_networks(spaces, seed=seed)), ops, end)
            if not known:
                session.complete(judged)
        elif known:
            telling = informative(known.prices, classed(pool(spaces, seed)[:COMPARED]), min(ops, MOST_LIKE), archs)
            session.time_ops(telling, ops, end)
        else:
            session.time_ops([*session.done(), *planned], ops)
            session.complete(judged)
            for share in ROUNDS:
                session.time_ops(refine(spaces, Table.load(folder), round(share * ops), seed=seed), ops)
            for _ in range(SECOND_LOOKS):
                session.time_again(suspects(Table.load(folder)))
        session.time_networks(archs)
    return Table.load(folder)


def measure_networks(
    archs: Sequence[Arch],
    runtime: Runtime,
    *,
    folder: Path,
    files: Mapping[Arch, Path] | None = None,
    protocol: Protocol = STANDARD,
    progress: Progress = silent,
) -> dict[Arch, tuple[Timing, ...]]:
    """Time whole networks only, to judge a model by; the passes are kept in `folder` as in a table.

    Networks in `files` are timed by the file given there, others by a file with arbitrary weights.
    """
    with sitting(runtime, protocol, folder, progress) as session:
        for arch, path in (files or {}).items():
            with writing(session.files.folder):
                copyfile(path, session.files.network(arch))
        session.time_networks(archs)
    return read_passes(folder)
