"""Networks that others timed, from a CSV or from Xcode's performance reports, as passes of a latency table.

A report is a bundle `.mlperf` with a `report.json`. Apple does not document that file. What is read of it here is what
two public programs that parse real ones agree on: `deviceInfo.modelName`,
`deviceInfo.osNameAndVersionWithoutBuildNumber`, `computeUnit` and, in seconds, `deviceResults.predict.samples`; and
`modelMetadata.fileName`, which one of them reads.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator, Mapping
from hashlib import sha256
from math import nan
from pathlib import Path
from statistics import median
from typing import Any, NamedTuple

from mvnas import __version__
from mvnas.errors import SpaceError, StudyError, TableError, quoted
from mvnas.latency.table import (
    LONGEST_MS,
    NETWORKS_COLUMNS,
    Table,
    Timing,
    append,
    read_device,
    read_passes,
    timing_row,
    write_network,
)
from mvnas.measuring.clock import now
from mvnas.spaces.arch import Arch
from mvnas.system.disk import write_text
from mvnas.system.reading import LARGE, read_json, read_rows

REPORT = ".mlperf"
COMPUTE_UNITS = ("cpu", "cpu-gpu", "all", "cpu-ane")  # Core ML's MLComputeUnits, by number
UNKNOWN = {"backend": "imported", "threads": "unknown", "precision": "unknown", "versions": {}}

Conditions = Mapping[str, Any]
Resolve = Callable[[str], Arch]  # the architecture that a name is of; SpaceError or StudyError where there is none


class Imported(NamedTuple):
    """One network as somebody timed it, and under which conditions."""

    arch: Arch
    timing: Timing
    conditions: Conditions


def import_networks(file: Path, folder: Path, resolve: Resolve, *, like: str | None = None) -> Table:
    """Append the networks of `file` to the table at `folder`, each as one more pass.

    `file` is a report, or a CSV with the columns `network` (a name that `resolve` knows) and `ms` (milliseconds, or a
    report). A new table has no ops and must be `like` another, by name or folder, that prices them.

    Raises:
        TableError: a row cannot be read, the rows or the table are of different conditions, or a new table is like no
            other.
    """
    rows = [_report(file, resolve)] if file.suffix == REPORT else list(_rows(file, resolve))
    if not rows:
        raise TableError(f"{file} must hold networks, but has none")
    like = str(Path(like).resolve()) if like and Path(like).is_dir() else like  # the table must find it from any folder
    digest = sha256((file / "report.json" if file.is_dir() else file).read_bytes()).hexdigest()
    source = {"file": file.name, "sha256": digest, "networks": len(rows), "time": now()}
    device = _device(folder, [row.conditions for row in rows], like)
    conditions = device | {"imported": [*device.get("imported", []), source]}
    passes = {arch: len(timings) for arch, timings in read_passes(folder).items()}
    write_text(folder / "device.json", json.dumps(conditions, indent=2) + "\n")
    for arch, timing, _ in rows:
        passes[arch] = passes.get(arch, 0) + 1
        row = {"network": write_network(arch), "pass": passes[arch]} | timing_row(timing)
        append(folder / "networks.csv", NETWORKS_COLUMNS, row)
    return Table.load(folder)


def _device(folder: Path, conditions: list[Conditions], like: str | None) -> dict[str, Any]:
    """The conditions of a table that all rows share: those it has, or those of a new one."""
    if (folder / "device.json").exists():
        device = read_device(folder)
        if like and device.get("like") != like:
            raise TableError(f"{folder} must stay as it is, but like was {device.get('like')} and is {like}")
    elif like:
        Table.load(like)
        date = time.strftime("%Y-%m-%d", time.gmtime())
        device = {**UNKNOWN, **conditions[0], "like": like, "date": date, "mvnas": __version__}
    else:
        raise TableError(
            f"a new table of networks alone must be like another that prices ops; give {folder} --like TABLE"
        )
    for row in conditions:
        for key, value in row.items():
            if device.get(key) != value:
                raise TableError(
                    f"the networks of {folder} must have been timed under the same conditions, but {key} was "
                    f"{device.get(key)} and is {value}; import into another folder"
                )
    return device


def _rows(file: Path, resolve: Resolve) -> Iterator[Imported]:
    """The networks of a CSV."""
    try:
        (_, first), *rows = read_rows(file) or [(1, [])]
    except (OSError, ValueError) as error:
        raise TableError(f"{file} must be a readable CSV or an Xcode report ({REPORT}), but got {error}") from None
    if not {"network", "ms"} <= set(first):
        raise TableError(f"{file} must have the columns network, ms, but has {quoted(first)}")
    for number, row in rows:
        where = f"{file}, row {number}, column"
        cells = dict(zip(first, row, strict=False))
        arch, text = _arch(cells.get("network", ""), resolve, f"{where} network"), cells.get("ms", "")
        if text.endswith(REPORT):
            yield _report(file.parent / text, resolve, arch)
            continue
        try:
            ms = float(text)
        except ValueError:
            ms = nan
        if not 0 < ms < LONGEST_MS:
            raise TableError(f"{where} ms: must be a positive number or a report ({REPORT}), but got {quoted(text)}")
        yield Imported(arch, Timing(ms, ms, 1, nan, now()), {})


def _report(path: Path, resolve: Resolve, arch: Arch | None = None) -> Imported:
    """The network of an Xcode performance report: `arch`, or the one that its model's file is named after."""
    try:
        report = read_json(path / "report.json", LARGE)
        ms = [1e3 * float(seconds) for seconds in report["deviceResults"]["predict"]["samples"]]
        name, device = report["modelMetadata"]["fileName"], report["deviceInfo"]
        conditions = {
            "backend": "coreml",
            "cpu": device["modelName"],
            "system": device["osNameAndVersionWithoutBuildNumber"],
            "units": COMPUTE_UNITS[report["computeUnit"]],
            "precision": "float16",
        }
        if not ms or not all(0 < value < LONGEST_MS for value in ms):
            raise ValueError("deviceResults.predict.samples are no positive numbers")
        if not all(isinstance(word, str) for word in (name, conditions["cpu"], conditions["system"])):
            raise ValueError("a name is no text")
        if report["computeUnit"] < 0:
            raise IndexError(f"there is no unit {report['computeUnit']}")
    except (OSError, ValueError, KeyError, TypeError, IndexError) as error:
        raise TableError(
            f"{path} must be an Xcode performance report with a report.json, but got {type(error).__name__}: {error}"
        ) from None
    known = arch or _arch(Path(name).stem, resolve, f"{path}, fileName")
    return Imported(known, Timing(min(ms), median(ms), len(ms), nan, now()), conditions)


def _arch(text: str, resolve: Resolve, where: str) -> Arch:
    """The network that a file names, which may be in another file, but in no database: a file opens no connections."""
    if "://" in text:
        raise TableError(
            f"{where}: a network must be a published name, an Arch's .json or STUDY:ID of a file, but got a URL"
        )
    try:
        return resolve(text)
    except (SpaceError, StudyError) as error:
        raise TableError(f"{where}: {error}") from None
