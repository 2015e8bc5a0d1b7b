"""Files that went wrong on their way, or were made to do harm: each is read or refused in a sentence, and nothing else
happens.

The seed is fixed. Texts have bytes flipped, cut and put in; data has types swapped, keys dropped, doubled and made up,
numbers that are huge, negative or none, deep nesting, modules and paths. What is read goes on to where a command would
take it.
"""

from __future__ import annotations

import json
import os
import random
import resource
from collections.abc import Callable, Iterator
from copy import deepcopy
from pathlib import Path
from typing import Any

import pytest
import yaml
from small import SPACE, make_space, make_table
from xcode import write_report

from mvnas.cli.network import named_arch
from mvnas.errors import LONGEST, MvnasError
from mvnas.latency.model import LatencyModel
from mvnas.latency.table import Table
from mvnas.measuring.imported import import_networks
from mvnas.spaces.arch import Arch
from mvnas.spaces.space import Space
from mvnas.system.reading import parse_json

EACH = 90  # files of each kind
MEMORY = 2 << 30  # bytes that reading them may take, beside what this process has

WORDS: list[Any] = [
    0,
    -1,
    2**31,
    10**18,
    10**400,
    1e308,
    1e-308,
    float("inf"),
    float("nan"),
    True,
    None,
    "",
    "x" * 9999,
    "evil.code",
    "os.system",
    "../../evil",
    "/etc/passwd",
    "file:///etc/passwd",
    "sqlite:///evil.db:3",
    "\x1b[2J\x00",
    "\udcff",
    "$(touch evil)",
    [],
    {},
    [[]],
    [1, 2],
    {"block": "evil.code"},
    {"a": {"b": [1]}},
]


def deep(levels: int) -> Any:
    value: Any = 1
    for _ in range(levels):
        value = [value]
    return value


def places(data: Any) -> Iterator[tuple[Any, Any]]:
    """Every container of plain data, with each key or index of it."""
    for key in list(data) if isinstance(data, dict) else range(len(data)) if isinstance(data, list) else ():
        yield data, key
        yield from places(data[key])


def change(data: Any, generator: random.Random) -> Any:
    """Plain data with one or two things wrong in it."""
    data = deepcopy(data)
    for _ in range(generator.choice((1, 1, 2))):
        found = list(places(data))
        if not found:
            return data
        into, key = generator.choice(found)
        what = generator.randrange(7)
        if what == 0:
            del into[key]
        elif what == 1 and isinstance(into, dict):
            into[generator.choice(["evil", "evil.code", "", "layers", "repeat", "block", "classes"])] = into[key]
        elif what == 2 and isinstance(into, list):
            into.extend([into[key]] * generator.choice((1, 50, 2000)))
        elif what == 3 and isinstance(into[key], int | float):
            into[key] = into[key] * generator.choice((-1, 0, 0.5, 1000, 10**6, 1e300))
        elif what == 4:
            into[key] = deep(generator.choice((3, 30, 90)))
        else:
            into[key] = generator.choice(WORDS)
    return data


def spoil(text: bytes, generator: random.Random) -> bytes:
    """A file with some bytes flipped, cut out, put in or there twice."""
    content = bytearray(text)
    for _ in range(generator.choice((1, 1, 3, 20))):
        at = generator.randrange(len(content) + 1)
        what = generator.randrange(5)
        if what == 0 and at < len(content):
            content[at] ^= 1 << generator.randrange(8)
        elif what == 1:
            del content[at : at + generator.choice((1, 5, 200))]
        elif what == 2:
            content[at:at] = generator.choice(
                [b"\0", b"\xff\xfe", b"9" * 5000, b"(" * 300, b"[" * 3000, b",,", b'"', b"\n", b"*a", b"-"]
            )
        elif what == 3:
            content[at:at] = content[at : at + 300]
        else:
            del content[at:]
    return bytes(content)


def as_json(data: Any) -> bytes:
    return json.dumps(data).encode()


def as_yaml(data: Any) -> bytes:
    return yaml.safe_dump(data, allow_unicode=True).encode("utf-8", "surrogateescape")


def spoilt(good: bytes, generator: random.Random, parse: Callable[[str], Any], write: Callable[[Any], bytes]) -> bytes:
    """A good file with its bytes or what it says spoilt."""
    if generator.random() < 0.35:
        return spoil(good, generator)
    return write(change(parse(good.decode()), generator))


def spoilt_csv(good: bytes, generator: random.Random) -> bytes:
    """A good CSV with its bytes or a cell of it spoilt; a cell of JSON also within."""
    if generator.random() < 0.35:
        return spoil(good, generator)
    first, *rows = [line.split(",") for line in good.decode().splitlines()]
    row = generator.choice([first, *rows])
    at = generator.randrange(len(row))
    row[at] = str(generator.choice(WORDS)).encode("utf-8", "replace").decode()
    return "".join(",".join(row) + "\n" for row in [first, *rows]).encode()


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder that the process is in, with a module that tells if it is run."""
    here = tmp_path / "here"
    here.mkdir()
    (here / "evil").mkdir()
    (here / "evil" / "code.py").write_text("from pathlib import Path\nPath(__file__).with_name('ran').touch()\n")
    monkeypatch.chdir(here)
    monkeypatch.syspath_prepend(str(here))
    return here


@pytest.fixture
def bounded() -> Iterator[None]:
    """No more memory than what is allowed beside that of this process."""
    before = resource.getrlimit(resource.RLIMIT_AS)
    used = int(Path("/proc/self/statm").read_text().split()[0]) * os.sysconf("SC_PAGESIZE")
    resource.setrlimit(resource.RLIMIT_AS, (used + MEMORY, before[1]))
    yield
    resource.setrlimit(resource.RLIMIT_AS, before)


def listing(folder: Path) -> dict[str, bytes | None]:
    """All that is in a folder, with what is in the files."""
    return {str(path.relative_to(folder)): path.read_bytes() if path.is_file() else None for path in folder.rglob("*")}


def refused_or_read(do: Callable[[], object]) -> bool:
    """Whether a file was read; if it was not, a sentence says so."""
    said = None
    try:
        do()
    except MvnasError as error:
        said = str(error)
    assert said is None or 0 < len(said) <= LONGEST
    return said is None


def go(do: Callable[[Path], object], files: Iterator[tuple[Path, bytes]], home: Path) -> None:
    """Have each file read, and see that nothing else is touched."""
    read = 0
    for number, (file, content) in enumerate(files):
        file.write_bytes(content)
        before = listing(home.parent)
        read += refused_or_read(lambda file=file: do(file))  # type: ignore[misc]
        assert listing(home.parent) == before, f"file {number} had something written"
    assert 0 < read < EACH, "some must be harmless, and some must not"


@pytest.mark.usefixtures("bounded")
def test_spaces(home: Path) -> None:
    def read(file: Path) -> None:
        space = Space.load(file)
        generator = random.Random(0)
        arch = space.sample(lambda name, options: generator.choice(options))
        assert arch.params > 0 and arch.macs > 0 and arch.memory_bytes > 0

    def files() -> Iterator[tuple[Path, bytes]]:
        generator = random.Random(1)
        good = SPACE.encode()
        for _ in range(EACH):
            content = spoilt(good, generator, yaml.safe_load, as_yaml)
            yield home / "space.yaml", content.replace(b"evil.code", b"evil.cod")  # its blocks are the user's own

    go(read, files(), home)


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a small table."""
    folder = tmp_path_factory.mktemp("good")
    make_table(folder / "roof", make_space(folder))
    return folder / "roof"


@pytest.mark.usefixtures("bounded")
def test_architectures(home: Path, made: Path) -> None:
    model = LatencyModel.fit(Table.load(made))

    def read(file: Path) -> None:
        assert model.predict(Arch.load(file)).value > 0

    def files() -> Iterator[tuple[Path, bytes]]:
        generator = random.Random(2)
        space = Space.load(made.parent / "small.yaml")
        for _ in range(EACH):
            arch = space.sample(lambda name, options: generator.choice(options))
            yield home / "arch.json", spoilt(as_json(arch.to_json()), generator, parse_json, as_json)

    go(read, files(), home)


@pytest.mark.usefixtures("bounded")
@pytest.mark.parametrize("name", ["device.json", "ops.csv", "networks.csv"])
def test_tables(name: str, home: Path, made: Path) -> None:
    table = home / "table"
    table.mkdir()
    for part in made.iterdir():
        (table / part.name).write_bytes(part.read_bytes())
    good = (made / name).read_bytes()
    if name == "device.json":
        good = as_json(json.loads(good) | {"like": str(made), "imported": []})

    def read(file: Path) -> None:
        assert LatencyModel.fit(Table.load(file.parent)).calibration.factor > 0

    def files() -> Iterator[tuple[Path, bytes]]:
        generator = random.Random(name)
        for _ in range(EACH // 2):
            as_rows = lambda: spoilt_csv(good, generator)  # noqa: E731
            yield table / name, as_rows() if name.endswith("csv") else spoilt(good, generator, parse_json, as_json)

    go(read, files(), home)


@pytest.mark.usefixtures("bounded")
def test_imported_timings(home: Path, made: Path, tmp_path: Path) -> None:
    good = b"network,ms,who\nmobilevit_xs,5.5,me\nmobilevit_s,9,me\nmobilevit_xs,5.25,you\n"
    report = json.loads((write_report(tmp_path / "a.mlperf") / "report.json").read_text())
    (home / "b.mlperf").mkdir()
    targets = (home / f"table{i}" for i in range(10**6))

    def read(file: Path) -> None:
        target = next(targets)
        try:
            table = import_networks(file.parent if file.suffix == ".json" else file, target, named_arch, like=str(made))
            assert table.passes
        finally:
            for part in (*target.glob("*"), target):  # the one folder that is named
                part.rmdir() if part.is_dir() else part.unlink(missing_ok=True)

    def files() -> Iterator[tuple[Path, bytes]]:
        generator = random.Random(3)
        for _ in range(EACH // 2):
            yield home / "timed.csv", spoilt_csv(good, generator)
            yield home / "b.mlperf" / "report.json", spoilt(as_json(report), generator, parse_json, as_json)

    go(read, files(), home)
