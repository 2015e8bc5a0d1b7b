"""Latency tables: what was measured on one device, as plain text with its provenance.

A table is a folder of `device.json` (the conditions), `ops.csv` (one row an op) and `networks.csv` (one row a network
and pass). Rows are only ever appended. Where energy was measured too, both have one more column, in which a cell may
be empty.
"""

from __future__ import annotations

import ast
import csv
import io
import json
import os
import shlex
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import MISSING, dataclass, fields, is_dataclass
from functools import lru_cache
from math import nan
from pathlib import Path
from typing import Any, get_args

from mvnas import ops
from mvnas.errors import SpaceError, TableError, quoted, unknown
from mvnas.graph import Kernel
from mvnas.ops import Op, Shape
from mvnas.spaces.arch import FLOAT, PRECISIONS, Arch
from mvnas.spaces.reading import data_folder
from mvnas.system import trust
from mvnas.system.disk import writing
from mvnas.system.reading import parse_json, read_json, read_rows

OPS_COLUMNS = ("op", "shapes", "min_ms", "median_ms", "runs", "reference_ms", "time")
PROVENANCE = (
    "date",
    "mvnas",
    "protocol",
    "versions",
    "imported",
    "rest_watts",
)  # in device.json: how it was made, not what it says
INSIDE = "timed inside networks"  # what device.json says of ops where they were not timed alone
NETWORKS_COLUMNS = ("network", "pass", "min_ms", "median_ms", "runs", "reference_ms", "time")
ENERGY = "energy_mj"  # the column that either may have beside these

CONDITIONS = {"backend": str, "precision": str, "versions": dict, "like": str, "ops": str, "imported": list, "cpu": str}

BYTES, ROWS = 4 << 20, 20_000  # of a table's files [0.8 MB, 5,199], so that they are read and fitted in seconds
LETTERS = 1000  # of an op [87 in the shipped tables], so that what reads it takes no time
LARGEST = 2**31 - 1  # number in an op or a shape
LONGEST_MS = 1e9  # a timing of eleven days, or an energy of as many mJ


def write_op(op: Op) -> str:
    """The op as text, without fields that have their default; one that is not of mvnas is called by its dotted name.

    >>> write_op(ops.Conv(64, kernel=3))
    'Conv(out=64, kernel=3)'
    """
    return _written(op)


def _written(value: Any) -> str:
    """An op, or what a field of it holds, as text."""
    if isinstance(value, tuple):
        return f"({', '.join(map(_written, value))}{',' * (len(value) == 1)})"
    if not is_dataclass(value):
        return repr(value)
    given = [(field.name, getattr(value, field.name), field.default) for field in fields(value)]
    told = [f"{name}={_written(part)}" for name, part, default in given if default is MISSING or part != default]
    kind = type(value)
    return f"{kind.__name__ if vars(ops).get(kind.__name__) is kind else _dotted(kind)}({', '.join(told)})"


def _dotted(kind: type) -> str:
    return f"{kind.__module__}.{kind.__qualname__}"


def write_shapes(shapes: Sequence[Shape]) -> str:
    """Shapes as text.

    >>> write_shapes((ops.Map(64, 32, 32), ops.Vector(10)))
    'Map(64, 32, 32) Vector(10)'
    """
    return " ".join(f"{type(shape).__name__}({', '.join(map(str, shape))})" for shape in shapes)


def read_kernel(op: str, shapes: str) -> Kernel:
    """The op and shapes that `write_op` and `write_shapes` wrote.

    Raises:
        ValueError: the text is none of these.
        TrustError: the op is of a module that is not trusted.
    """
    made = _call(op)
    if not type(made).__module__.startswith("mvnas."):
        trust.check(type(made).__module__)  # also of what was read before
    places = tuple(_call(f"{part})") for part in shapes.split(")") if part.strip())
    if not isinstance(made, Op) or not all(isinstance(shape, Shape) for shape in places):
        raise ValueError(f"{quoted(op)} on {quoted(shapes)} is no op on shapes")
    return made, places


@lru_cache(maxsize=1 << 14)
def _call(text: str) -> Any:
    """Value of a call such as `Conv(out=64)` of an op or shape."""
    try:
        if len(text) > LETTERS:
            raise ValueError(f"it has more than {LETTERS} letters")
        return _value(ast.parse(text.strip(), mode="eval").body)
    except (SyntaxError, ValueError, TypeError, RecursionError, MemoryError, SpaceError) as error:
        raise ValueError(f"{quoted(text)} is no op or shape: {error}") from None


def _value(node: ast.expr) -> Any:
    """Value of an argument: a positive number, a truth value, a word, several in a tuple, or what a call makes."""
    if isinstance(node, ast.Call):
        return _made(node)
    if isinstance(node, ast.Tuple):
        return tuple(map(_value, node.elts))
    value = ast.literal_eval(node)
    if type(value) not in (int, float, bool, str):
        raise ValueError(f"{quoted(value)} is no number or word")
    if type(value) in (int, float) and not 0 < value <= LARGEST:
        raise ValueError(f"{quoted(value)} is not positive, or too large")
    return value


def _made(call: ast.Call) -> Any:
    """The op, shape or value of an op's field that a call makes."""
    name, given = ast.unparse(call.func), [_value(node) for node in call.args]
    named = {str(word.arg): _value(word.value) for word in call.keywords}
    if len(named) < len(call.keywords):
        raise ValueError("an argument is there twice")
    kind = _foreign(name) if "." in name else vars(ops).get(name)
    if kind in (Op, None) or not (is_dataclass(kind) or kind in get_args(Shape)):
        raise ValueError(f"there is no {quoted(name)}")
    if kind in get_args(Shape):
        for value in (*given, *named.values()):
            if type(value) is not int:
                raise ValueError(f"{quoted(value)} is no whole number")
    if kind is ops.Attention:
        return _attention(*given, **named)
    return kind(*given, **named)


def _foreign(name: str) -> Any:
    """The class of a dotted name, of a module that is trusted; None if there is none.

    Raises:
        TrustError: the module is not trusted.
        SpaceError: it cannot be imported.
    """
    module, _, kind = name.rpartition(".")
    if not all(part.isidentifier() for part in name.split(".")):
        return None
    trust.check(module)
    try:
        return getattr(trust.module(module, SpaceError), kind, None)
    except ModuleNotFoundError:
        return None


def _attention(heads: int, form: str = "softmax", *, biased: bool = False, **rest: Any) -> Op:
    """Attention as it is written now, or as it was when one op had all of its forms and a bias was a field `biased`."""
    if form == "separable" and heads == 1 and not rest and not biased:
        return ops.SeparableAttention()
    if form in ops.LINEAR_FORMS and not rest and not biased:
        return ops.LinearAttention(heads, form)
    return ops.Attention(heads, form, **rest | ({"bias": ops.PairBias()} if biased else {}))


@dataclass(frozen=True)
class Timing:
    """One measurement: milliseconds of the fastest and of the median run, and of the reference ops beside it.

    `energy_mj` is what a run adds to the energy of the machine at rest, None if it was not measured or could not be
    told from it.
    """

    min_ms: float
    median_ms: float
    runs: int
    reference_ms: float
    time: str
    energy_mj: float | None = None


@dataclass(frozen=True)
class Table:
    """A loaded latency table.

    `ops` and `networks` hold the fastest timing of each; `passes` all timings of a network in the order they were
    made. Of ops that were timed inside networks it is the median, since those differ by what is around them; there 0
    ms means that the runtime does the op within another.
    """

    path: Path
    device: Mapping[str, Any]
    ops: Mapping[Kernel, Timing]
    passes: Mapping[Arch, tuple[Timing, ...]]

    @property
    def name(self) -> str:
        return self.path.name

    @property
    def place(self) -> str:
        """What `Table.load` finds it by: the name of a shipped one, or its folder."""
        return self.name if self.path.parent == data_folder("latency_tables") else str(self.path)

    @property
    def precision(self) -> str:
        """The precision of what was timed; float32 where it was not told."""
        told = str(self.device["precision"])
        return told if told in PRECISIONS else FLOAT

    @property
    def contents(self) -> str:
        """All of its folder that predictions follow from, as text: not what it is `like`, which is another table."""
        conditions = {key: told for key, told in self.device.items() if key not in ("like", *PROVENANCE)}
        return "\0".join([json.dumps(conditions, sort_keys=True), self.rows])

    @property
    def rows(self) -> str:
        """The text of its CSV files."""
        return "\0".join(file.read_text() for file in sorted(self.path.glob("*.csv")))

    @property
    def networks(self) -> dict[Arch, Timing]:
        return {arch: min(timings, key=lambda timing: timing.min_ms) for arch, timings in self.passes.items()}

    @classmethod
    def load(cls, name: str | Path) -> Table:
        """The shipped table `name`, or the one in a folder.

        Raises:
            TableError: there is no such table, or a row of it cannot be read; the message names file, row and column.
        """
        path = _folder(name)
        if not os.path.isdir(path):
            raise TableError(f"{unknown('device', name, shipped())}; or give a folder that `mvnas measure` wrote")
        device = read_device(path)
        _check_ends(path, device)
        inside = device.get("ops") == INSIDE
        rows: dict[Kernel, list[Timing]] = {}
        for where, row in _rows(path / "ops.csv", OPS_COLUMNS):
            try:
                kernel = read_kernel(row["op"], row["shapes"])
                kernel[0](*(ops.Input(shape)() for shape in kernel[1]))
            except (ValueError, SpaceError, TypeError, AttributeError) as error:
                raise TableError(f"{where}, column op: {error}") from None
            rows.setdefault(kernel, []).append(_timing(where, row, fused=inside))
        if not rows and "like" not in device:
            raise TableError(f"{path / 'ops.csv'} must hold timings of ops, but has none; run `mvnas measure`")
        timed = {
            kernel: sorted(timings, key=lambda timing: timing.min_ms)[len(timings) // 2 if inside else 0]
            for kernel, timings in rows.items()
        }
        return cls(path, device, timed, read_passes(path))


def _folder(name: str | Path) -> Path:
    """The folder of a table, which may not be there."""
    return Path(name) if os.path.isdir(name) else data_folder("latency_tables") / str(name)


def _check_ends(path: Path, device: Mapping[str, Any]) -> None:
    """Check that a table which is like another is not like itself in the end.

    Raises:
        TableError: it is.
    """
    seen: list[Path] = []
    place = path
    while "like" in device and os.path.isfile(place / "device.json"):
        seen.append(place.resolve())
        place = _folder(device["like"])
        if place.resolve() in seen:
            raise TableError(f"{path} must be like a table that has ops, but is like {place}, which is like it")
        if not os.path.isfile(place / "device.json"):
            return
        device = read_device(place)


def load_each(names: str) -> list[Table]:
    """The tables of some names or folders with commas between them.

    Raises:
        TableError: there is no such table, or a row cannot be read.
    """
    return [Table.load(name) for name in names.split(",")]


def advice(table: Table | None) -> str:
    """The command that adds to a table, of its own backend and settings, or that makes another beside a shipped one."""
    yours = table and table.path.parent != data_folder("latency_tables")
    place = shlex.quote(str(table.path)) if table and yours else "DIR"
    return f"`mvnas measure --table {place} --space SPACE`"


def shipped() -> list[str]:
    """Names of the shipped tables."""
    return sorted(path.parent.name for path in data_folder("latency_tables").glob("*/device.json"))


def read_device(path: Path) -> dict[str, Any]:
    """The conditions a table was measured under.

    Raises:
        TableError: there are none, or they cannot be read.
    """
    file = path / "device.json"
    try:
        device = read_json(file)
    except (OSError, ValueError) as error:
        raise TableError(f"{file} must be readable JSON, but got {error}") from None
    if not isinstance(device, dict):
        raise TableError(f"{file} must hold an object of conditions, but holds {quoted(device)}")
    missing = [key for key in ("backend", "threads", "precision", "versions") if key not in device]
    if missing:
        raise TableError(f"{file} must have the key {missing[0]!r}, but has {', '.join(device) or 'none'}")
    for key, kind in CONDITIONS.items():
        if key in device and not isinstance(device[key], kind):
            raise TableError(f"{file}: {key} must be {kind.__name__}, but is {quoted(device[key])}")
    return dict(device)


def read_passes(path: Path) -> dict[Arch, tuple[Timing, ...]]:
    """All timings of each network of a table's folder, in the order they were made.

    Raises:
        TableError: a row cannot be read.
    """
    passes: dict[Arch, tuple[Timing, ...]] = {}
    for where, row in _rows(path / "networks.csv", NETWORKS_COLUMNS):
        arch = read_network(row["network"], f"{where}, column network")
        passes[arch] = (*passes.get(arch, ()), _timing(where, row))
    return passes


def write_network(arch: Arch) -> str:
    """An architecture as one line of text."""
    return json.dumps(arch.identity(), separators=(",", ":"))


def read_network(text: str, where: str) -> Arch:
    """The architecture that `write_network` wrote.

    Raises:
        TableError: the text is none.
    """
    try:
        return _network(text)
    except (ValueError, SpaceError) as error:
        raise TableError(f"{where}: {error}") from None


@lru_cache(maxsize=1 << 12)
def _network(text: str) -> Arch:
    return Arch.from_json(parse_json(text))


def append(file: Path, columns: Sequence[str], row: Mapping[str, Any]) -> None:
    """Append one row to a CSV file so that it survives whatever happens next; a half-written last row is dropped first.

    A file that is there keeps its own columns. Where the row cannot be written whole, none of it is.

    Raises:
        FileError: the file cannot be written.
    """
    with writing(file), file.open("ab+", buffering=0) as stream:
        stream.seek(0)
        text = stream.read()
        end = text.rfind(b"\n") + 1
        known = next(csv.reader([text[:end].decode().partition("\n")[0]])) if end else columns
        added = io.StringIO()
        writer = csv.DictWriter(added, known, lineterminator="\n")
        if not end:
            writer.writeheader()
        writer.writerow(row)
        left = memoryview(added.getvalue().encode())
        try:
            stream.truncate(end)
            while left:
                left = left[stream.write(left) :]
            os.fsync(stream.fileno())
        except OSError:
            with suppress(OSError):
                stream.truncate(end)
            raise


def timing_row(timing: Timing) -> dict[str, Any]:
    """The columns of a CSV row that hold `timing`."""
    row = {
        "min_ms": f"{timing.min_ms:.6g}",
        "median_ms": f"{timing.median_ms:.6g}",
        "runs": timing.runs,
        "reference_ms": f"{timing.reference_ms:.6g}",
        "time": timing.time,
    }
    return row if timing.energy_mj is None else row | {ENERGY: f"{timing.energy_mj:.6g}"}


def _timing(where: str, row: Mapping[str, str], *, fused: bool = False) -> Timing:
    values = []
    for column in ("min_ms", "median_ms", "runs", "reference_ms"):
        try:
            values.append(float(row[column]))
        except ValueError:
            values.append(nan)
        unknown_reference = column == "reference_ms" and row[column] == "nan"  # of what was imported
        within_another = fused and values[-1] == 0 and column.endswith("_ms")
        if not (0 < values[-1] < LONGEST_MS or unknown_reference or within_another):
            raise TableError(f"{where}, column {column}: must be a positive number, but got {quoted(row[column])}")
    return Timing(values[0], values[1], int(values[2]), values[3], row["time"], _energy(where, row.get(ENERGY, "")))


def _energy(where: str, text: str) -> float | None:
    try:
        energy = float(text) if text else None
    except ValueError:
        energy = nan
    if energy is not None and not 0 < energy < LONGEST_MS:
        raise TableError(f"{where}, column {ENERGY}: must be a positive number or empty, but got {quoted(text)}")
    return energy


def _rows(file: Path, columns: Sequence[str]) -> Iterator[tuple[str, dict[str, str]]]:
    """Rows of a CSV file, each with where it is; none if there is no file. A last row cut off by a kill is left out."""
    if not file.exists():
        return
    try:
        (_, first), *rows = read_rows(file, appended=True, most=BYTES) or [(1, [])]
    except (OSError, ValueError) as error:
        raise TableError(f"{file} must be a readable CSV, but got {error}") from None
    if tuple(first) not in (tuple(columns), (*columns, ENERGY)):
        raise TableError(f"{file} must have the columns {', '.join(columns)}, but has {quoted(first)}")
    if len(rows) > ROWS:
        raise TableError(f"{file} must have {ROWS:,} rows at most, but has {len(rows):,}")
    for number, row in rows:
        where = f"{file}, row {number}"
        if len(row) != len(first):
            raise TableError(f"{where}: must have {len(first)} columns, but has {len(row)}")
        yield where, dict(zip(first, row, strict=True))
