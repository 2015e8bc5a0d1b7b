"""What is run: what the user names as code. What a file from elsewhere names is refused in a sentence, and nothing
of it is imported.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from types import SimpleNamespace

import pytest

from mvnas.backends import of_table
from mvnas.blocks import _block_class, _fields, _make, built, taps_of
from mvnas.cli import main
from mvnas.cli.network import named_arch
from mvnas.engines import Images, engine
from mvnas.errors import DataError, ExportError, MvnasError, StudyError, TrustError
from mvnas.latency.table import NETWORKS_COLUMNS, Table, _network, append, read_device
from mvnas.measuring.imported import import_networks
from mvnas.spaces.arch import Arch
from mvnas.spaces.space import Space
from mvnas.studies.setup import Setup
from mvnas.studies.trials import _arch
from mvnas.system import trust
from mvnas.verification.retrain import images

BLOCK = """
from dataclasses import dataclass
from pathlib import Path
Path(__file__).with_suffix(".ran").touch()
@dataclass(frozen=True)
class Block:
    times: int = 1
    def __call__(self, x):
        return x + x
"""
DATA = "from pathlib import Path\nPath(__file__).with_suffix('.ran').touch()\nclass Dataset: pass\n"
SETUP = Setup("6M-params", "mobilevit", "theirs.data", "genoa-1t", {"epochs": 1}, 0, 1.0, ("a",))


@pytest.fixture
def theirs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder of downloads, in which the user works, with modules that tell if they are run."""
    package = tmp_path / "theirs"
    package.mkdir()
    (package / "code.py").write_text(BLOCK)
    (package / "data.py").write_text(DATA)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [part for part in sys.path if part != str(tmp_path)])
    monkeypatch.setattr(trust, "_allowed", set())
    monkeypatch.setattr(trust, "_everything", False)
    monkeypatch.setattr(trust, "_run", {})
    monkeypatch.setattr(trust, "_folders", [str(tmp_path)])
    for remembered in (_block_class, _fields, _make, built, taps_of, _network):
        remembered.cache_clear()
    for name in [name for name in sys.modules if name.partition(".")[0] in ("theirs", "own")]:
        monkeypatch.delitem(sys.modules, name)
    return tmp_path


def network() -> dict[str, object]:
    data = Space.load("mobilevit_xxs").arch().identity()
    return data | {"blocks": [*data["blocks"][:-1], {"block": "theirs.code"}, data["blocks"][-1]]}


def in_an_architecture(folder: Path) -> None:
    (folder / "arch.json").write_text(json.dumps(network()))
    Arch.load(folder / "arch.json")


def in_a_table(folder: Path) -> None:
    row = {
        "network": json.dumps(network()),
        "pass": 1,
        "min_ms": 1,
        "median_ms": 1,
        "runs": 1,
        "reference_ms": 1,
        "time": "",
    }
    append(folder / "networks.csv", NETWORKS_COLUMNS, row)
    device = {"backend": "tflite", "threads": 1, "precision": "float32", "versions": {}, "like": "genoa-1t"}
    (folder / "device.json").write_text(json.dumps(device))
    Table.load(folder)


def in_an_imported_report(folder: Path) -> None:
    (folder / "arch.json").write_text(json.dumps(network()))
    (folder / "timed.csv").write_text("network,ms\narch.json,3\n")
    import_networks(folder / "timed.csv", folder / "table", named_arch, like="genoa-1t")


def in_a_trial(folder: Path) -> None:
    _arch(network())


def as_the_data_of_a_study(folder: Path) -> None:
    images(SimpleNamespace(setup=SETUP, place="s.db"))  # type: ignore[arg-type]


def as_the_backend_of_a_table(folder: Path) -> None:
    of_table({"backend": "theirs.code"})


PLACES = [
    in_an_architecture,
    in_a_table,
    in_an_imported_report,
    in_a_trial,
    as_the_data_of_a_study,
    as_the_backend_of_a_table,
]


@pytest.mark.parametrize("read", PLACES, ids=lambda read: read.__name__)
def test_what_a_file_names_is_not_run(read: Callable[[Path], None], theirs: Path) -> None:
    with pytest.raises(
        TrustError, match=r"names the module 'theirs\.(code|data)'.*--trust.*mvnas\.system\.trust\.allow"
    ):
        read(theirs)
    assert not list(theirs.rglob("*.ran"))
    for file in theirs.glob("networks.csv"):
        file.unlink()
    trust.allow("theirs.code", "theirs.data")
    with suppress(DataError, ExportError, StudyError):  # it is run, and is no data and no backend
        read(theirs)
    assert list(theirs.rglob("*.ran"))


def test_a_command_is_told_how_to_trust(theirs: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (theirs / "arch.json").write_text(json.dumps(network()))
    assert main(["predict", "arch.json"]) == 2
    told = capsys.readouterr()
    assert told.out == "" and "--trust" in told.err and told.err.count("\n") == 1
    assert str(theirs) not in sys.path, "a folder of downloads may hold a module that some library tries to import"
    assert main(["predict", "arch.json", "--trust"]) == 0
    assert "theirs.code" in capsys.readouterr().out


def test_a_space_that_the_user_names_may_name_modules(theirs: Path) -> None:
    (theirs / "space.yaml").write_text("resolution: 64\nstages: [{block: theirs.code}, {block: head, channels: 8}]\n")
    assert Arch.from_json(Space.load("space.yaml").arch().to_json()).params > 0


def test_only_packages_of_ours_are_advised() -> None:
    for name in ("no.such.engine", "os.path"):
        with pytest.raises(StudyError) as caught:
            engine(name, Images("digits"))
        assert "pip" not in str(caught.value) and name in str(caught.value)


START = "from dataclasses import dataclass\n@dataclass(frozen=True)\nclass Block:\n    def __call__(self, x):\n        "
ENGINE = (
    "class Engine:\n    slots = 1\n    def __init__(self, images): pass\n    def start(self, key, job): self.key ="
    " key\n"
)
WAIT = "    def wait(self, seconds): {}\n    def close(self): pass\n"
BACKEND = (
    "class Backend:\n    suffix = '.x'\n    export = export_each = run = stopwatch = print\n    def conditions(self):"
    " {}\n"
)
SEARCH = ["search", "--budget", "20K-params", "--epochs", "0.1", "--trials", "1"]
MEASURE = ["measure", "--table", "t", "--backend", "own.part"]
SPACE = ["space", "own.yaml"]


@pytest.mark.parametrize(
    ("code", "command", "told"),
    [
        (START + "return None", SPACE, "must yield a value, but own.part yields None"),
        (
            START + "raise ValueError('tired')",
            SPACE,
            "own.part must do its part, but in line 5 raises ValueError: tired",
        ),
        ("class Block: pass", SPACE, "a block must be a dataclass"),
        ("Block = 3", SPACE, "must define the class Block"),
        (
            "import no_such_thing",
            SPACE,
            "own.part must import, but raises ModuleNotFoundError: No module named 'no_such_",
        ),
        ("1 +", SPACE, "own.part must import, but raises SyntaxError"),
        ("import sys; sys.exit(3)", SPACE, "own.part must import, but raises SystemExit: 3"),
        (ENGINE, [*SEARCH, "--engine", "own.part"], "own.part has no wait"),
        (
            ENGINE + WAIT.format("raise ValueError('tired')"),
            [*SEARCH, "--engine", "own.part"],
            "in line 5 raises ValueError: tired",
        ),
        (ENGINE + WAIT.format("return ['done']"), [*SEARCH, "--engine", "own.part"], "but answers 'done'"),
        (ENGINE + WAIT.format("return None"), [*SEARCH, "--engine", "own.part"], "but answers None"),
        ("Engine = None", [*SEARCH, "--engine", "own.part"], "must define the class Engine"),
        ("class Backend: suffix = '.x'", MEASURE, "own.part has no export"),
        (BACKEND.format("return None"), MEASURE, "conditions of the backend own.part must answer"),
        (BACKEND.format("return 1 / 0"), MEASURE, "in line 4 raises ZeroDivisionError: division by zero"),
        (
            "class Dataset:\n    def __init__(self): raise OSError('tired')",
            [*SEARCH, "--data", "own.part"],
            "raises OSError: tired",
        ),
    ],
)
def test_a_plug_in_that_does_not_do_its_part_is_named(
    code: str, command: list[str], told: str, space: Path, table: Path, theirs: Path, monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    monkeypatch.setattr(sys, "dont_write_bytecode", True)
    (theirs / "own").mkdir()
    (theirs / "own" / "part.py").write_text(code + "\n")
    (theirs / "own.yaml").write_text("resolution: 64\nstages: [{block: own.part}, {block: head, channels: 8}]\n")
    place = ["--space", str(space), "--device", str(table)] if command[0] == "search" else []
    assert main([*command, *place]) == 2
    said = capsys.readouterr().err
    assert told in said
    assert said.splitlines()[-1].startswith("mvnas: ")


@pytest.mark.parametrize(
    ("key", "value"), [("backend", ["tflite"]), ("like", 3), ("versions", "all"), ("imported", {})]
)
def test_conditions_of_another_kind_are_told(key: str, value: object, tmp_path: Path) -> None:
    device = {"backend": "tflite", "threads": 1, "precision": "float32", "versions": {}}
    (tmp_path / "device.json").write_text(json.dumps(device | {key: value}))
    with pytest.raises(MvnasError, match=f"device.json: {key} must be"):
        read_device(tmp_path)


def test_tables_that_are_like_one_another_are_told(tmp_path: Path) -> None:
    device = {"backend": "tflite", "threads": 1, "precision": "float32", "versions": {}}
    for name, like in (("a", "b"), ("b", "a")):
        (tmp_path / name).mkdir()
        (tmp_path / name / "device.json").write_text(json.dumps(device | {"like": str(tmp_path / like)}))
    with pytest.raises(MvnasError, match="must be like a table that has ops"):
        Table.load(tmp_path / "a")


def test_what_the_users_own_word_has_run_may_be_named_by_files_in_that_process(theirs: Path) -> None:
    with pytest.raises(TrustError):
        trust.check("theirs.code")
    trust.module("theirs.code", ExportError)
    trust.check("theirs.code")
    with pytest.raises(TrustError):
        trust.check("theirs.data")
