"""Laws of what the product writes: where that cannot be there is one sentence with the place, exit code 2, and
nothing in part.
"""

from __future__ import annotations

import csv
import errno
import os
import re
import resource
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from shutil import copytree

import pytest
from safetensors.torch import load_file
from small import search

from mvnas.backends import backend, formats
from mvnas.cli import main
from mvnas.data import load
from mvnas.engines import failure
from mvnas.errors import FileError
from mvnas.graph import Graph
from mvnas.latency import table as tables
from mvnas.ops import Conv, Map
from mvnas.search import Problem
from mvnas.studies.study import Study
from mvnas.training import evaluate_file

COLUMNS = tables.OPS_COLUMNS
INSIDE = "file/in it"  # a place inside of what is no folder
ROW = {"op": "x" * 30, "shapes": "y", "min_ms": 1, "median_ms": 1, "runs": 1, "reference_ms": 1, "time": "now"}


@pytest.fixture(scope="module")
def home(problem: Problem, table: Path, space: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a study, its space and its table, weights of a network, a file and networks to import."""
    folder = tmp_path_factory.mktemp("home")
    search(problem, study=str(folder / "s.db"), trials=2)
    copytree(table, folder / "roof")
    (folder / "small.yaml").write_text(space.read_text())
    (folder / "file").touch()
    (folder / "timed.csv").write_text("network,ms\nmobilevit_xxs,9\n")
    return folder


@contextmanager
def largest_file(size: int) -> Iterator[None]:
    """Let no file grow beyond `size` bytes, as on a disk that is full."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


def tree(folder: Path) -> dict[str, bytes]:
    """All that is in a folder, hidden names too."""
    return {str(path.relative_to(folder)): path.read_bytes() if path.is_file() else b"" for path in folder.rglob("*")}


def refused(capsys: pytest.CaptureFixture[str], *parts: str) -> None:
    """That the last line of what was said is a sentence with these parts."""
    said = capsys.readouterr().err
    last = said.splitlines()[-1]
    assert last.startswith("mvnas: ") and len(last) <= 300 and "Traceback" not in said
    assert all(part in last for part in parts), last


@pytest.mark.parametrize("form", formats())
def test_an_export_that_finds_no_space_leaves_what_was_there(
    form: str, home: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The largest file of an .mlpackage is its weights, which native code writes."""
    suffix = backend(form).suffix  # whose import may write
    name = Study.load(str(home / "s.db")).pick("knee").number
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / f"trial{name}{suffix}").write_text("old")
    with largest_file(15_000):
        assert main(["export", str(home / "s.db"), "--format", form, "--out", str(tmp_path / "out")]) == 2
    refused(capsys, f"{suffix} must be writable")
    assert tree(tmp_path / "out") == {f"trial{name}{suffix}": b"old"}


def test_a_card_that_finds_no_space_leaves_nothing(
    home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    write = Path.write_text

    def full(path: Path, text: str, **settings: str) -> int:
        write(path, text[:9], **settings)
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(Path, "write_text", full)
    assert main(["export", str(home / "s.db"), "--format", "onnx", "--out", str(tmp_path / "out")]) == 2
    refused(capsys, ".card.json must be writable", "free some space")
    assert tree(tmp_path / "out") == {}


@pytest.mark.parametrize(
    ("words", "place"),
    [
        (["front", "s.db", "--csv"], "t.csv"),
        (["plot", "s.db", "--out"], "p.png"),
        (["plot", "s.db", "--out"], "p.pdf"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else value,
)
def test_a_table_or_picture_that_finds_no_space_leaves_what_was_there(
    words: list[str],
    place: str,
    home: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(home)
    (tmp_path / place).write_text("old")
    with largest_file(100):
        assert main([*words, str(tmp_path / place)]) == 2
    refused(capsys, str(tmp_path / place), "must be writable")
    assert tree(tmp_path) == {place: b"old"}


def test_a_row_that_finds_no_space_is_not_there_in_part(tmp_path: Path) -> None:
    file = tmp_path / "ops.csv"
    with largest_file(20), pytest.raises(FileError, match="ops.csv must be writable"):
        tables.append(file, COLUMNS, ROW)
    assert file.read_bytes() == b""
    for _ in range(2):
        tables.append(file, COLUMNS, ROW)
    before = file.read_bytes()
    with largest_file(len(before) + 20), pytest.raises(FileError, match="ops.csv must be writable"):
        tables.append(file, COLUMNS, ROW)
    assert file.read_bytes() == before
    file.write_bytes(before + b"a row that a kill cut off")
    tables.append(file, COLUMNS, ROW)
    with file.open(newline="") as stream:
        assert [row["op"] for row in csv.DictReader(stream)] == [ROW["op"]] * 3


def test_a_measurement_that_finds_no_space_goes_on_where_it_was(
    home: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["measure", "--backend", "roofline", "--space", str(home / "small.yaml"), "--networks", "8", "--table"]
    for size in (500, 3_000):
        with largest_file(size):
            assert main([*words, str(tmp_path / "t")]) == 2
        refused(capsys, str(tmp_path / "t"), "must be writable")
    device, rows = ((tmp_path / "t" / name).read_bytes() for name in ("device.json", "ops.csv"))
    assert rows.endswith(b"\n")
    assert main([*words, str(tmp_path / "t")]) == 0
    assert (tmp_path / "t" / "ops.csv").read_bytes().startswith(rows)
    assert (tmp_path / "t" / "device.json").read_bytes() == device
    assert sorted(os.listdir(tmp_path / "t")) == ["device.json", "networks.csv", "ops.csv"]


@pytest.mark.parametrize(
    ("place", "words"),
    [
        (
            INSIDE,
            ["search", "--budget", "20K-params", "--space", "small.yaml", "--device", "roof", "--study", "PLACE/s.db"],
        ),
        (INSIDE, ["front", "s.db", "--csv", "PLACE"]),
        (INSIDE, ["plot", "s.db", "--out", "PLACE.png"]),
        (INSIDE, ["export", "s.db", "--format", "onnx", "--out", "PLACE"]),
        (INSIDE, ["measure", "--backend", "roofline", "--space", "small.yaml", "--table", "PLACE"]),
        (INSIDE, ["measure", "--import", "timed.csv", "--like", "genoa-1t", "--table", "PLACE"]),
        (INSIDE, ["fit", "roof", "--out", "PLACE.png"]),
        ("/proc/nothing", ["front", "s.db", "--csv", "PLACE"]),
        ("/proc/nothing", ["export", "s.db", "--format", "onnx", "--out", "PLACE"]),
    ],
    ids=lambda value: " ".join(value[:3]) if isinstance(value, list) else value,
)
def test_a_place_that_cannot_be_written_is_one_sentence(
    place: str, words: list[str], home: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(home)
    before = tree(home)
    assert main([word.replace("PLACE", place) for word in words]) == 2
    refused(capsys, Path(place).parts[0])
    assert tree(home) == before


def test_verifying_beside_a_study_where_nothing_can_be_written_is_one_sentence(
    home: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    copytree(home, tmp_path / "home")
    (tmp_path / "home" / "s.longer").touch()
    assert main(["verify", str(tmp_path / "home" / "s.db"), "--longer", "2"]) == 2
    refused(capsys, "s.longer must be ")


def test_without_a_temporary_folder_there_is_one_sentence_or_no_need(
    home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def none(*_: object) -> str:
        raise FileNotFoundError(errno.ENOENT, "No usable temporary directory found in ['/tmp']")

    monkeypatch.setattr(tempfile, "tempdir", None)
    monkeypatch.setattr(tempfile, "_get_default_tempdir", none)
    for form in ("onnx", "coreml"):  # those whose libraries make some
        assert main(["export", str(home / "s.db"), "--format", form, "--out", str(tmp_path / "out")]) == 0
    with pytest.raises(FileError, match="set TMPDIR to a folder of yours") as raised:
        judge(home)
    assert failure(raised.value).broken  # which is the machine's fault, and no candidate's


def leave(place: Path) -> None:
    """A folder as a kill leaves it."""
    (place / ".mvnas.0123abcd.part").mkdir(parents=True)


def judge(home: Path) -> float:
    """Accuracy of a network in 8 bits, for which a file is made."""
    study = Study.load(str(home / "s.db"))
    score = study.pick("knee")
    state = load_file(study.files.weights(score.number))
    return evaluate_file(replace(score.arch, precision="dynamic-int8"), state, load("digits"), 32)


def test_temporary_files_go_and_so_do_those_that_a_kill_left(
    home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    uses: list[Callable[[], object]] = [
        lambda: judge(home),
        lambda: backend("onnx").profile(onnx, seconds=0),
        lambda: main(["verify", str(home / "s.db"), "--longer", "2"]),
    ]
    assert main(["export", str(home / "s.db"), "--format", "onnx", "--out", str(home / "onnx")]) == 0
    (onnx,) = (home / "onnx").glob("*.onnx")
    for use in uses:
        leave(tmp_path)
        use()
        assert not [name for name in os.listdir(tmp_path) if name.endswith(".part")]
    leave(tmp_path / "out")
    assert main(["export", str(home / "s.db"), "--format", "onnx", "--out", str(tmp_path / "out")]) == 0
    assert all("part" not in name for name in tree(tmp_path))


def test_a_profile_that_finds_no_space_is_one_sentence(tmp_path: Path) -> None:
    runtime = backend("onnx")
    (path,) = runtime.export_each([Graph.single(Conv(8), (Map(3, 16, 16),))], tmp_path)
    with largest_file(100), pytest.raises(FileError, match="must have space for a profile"):
        runtime.profile(path, seconds=0)


def test_output_that_cannot_be_printed_is_one_sentence() -> None:
    if not Path("/dev/full").exists():
        pytest.skip("needs Linux's /dev/full")
    with open("/dev/full", "w") as full:
        words = [sys.executable, "-m", "mvnas.cli", "predict", "mobilevit_xxs"]
        told = subprocess.run(words, stdout=full, stderr=subprocess.PIPE, text=True)
    assert (told.returncode, told.stderr.count("\n")) == (2, 1)
    assert re.match("mvnas: standard output.* must be .*, but the system says: No space left on device", told.stderr)


def test_what_nothing_else_tells_of_is_told_with_its_file(
    home: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def fail(*_: object) -> None:
        raise PermissionError(errno.EACCES, "Permission denied", "/some/file")

    monkeypatch.setattr("mvnas.reports.tables.frontier_table", fail)
    assert main(["front", str(home / "s.db")]) == 2
    refused(capsys, "/some/file must be there to use, but the system says: Permission denied")


def test_onnx_runtime_reports_nothing_to_its_maker() -> None:
    code = """
import onnxruntime
told = []
onnxruntime.disable_telemetry_events = lambda: told.append("off")
onnxruntime.InferenceSession = lambda *_, **__: told.append("session")
import mvnas.backends.onnx
assert told == ["off"], told
"""
    subprocess.run([sys.executable, "-c", code], check=True)


def test_what_is_exported_follows_the_umask(home: Path, tmp_path: Path) -> None:
    mask = 0o027
    before = os.umask(mask)
    try:
        words = [word for form in formats() for word in ("--format", form)]
        assert main(["export", str(home / "s.db"), *words, "--out", str(tmp_path / "out")]) == 0
    finally:
        os.umask(before)
    for path in (tmp_path / "out").rglob("*"):
        assert path.stat().st_mode & 0o777 == (0o777 if path.is_dir() else 0o666) & ~mask, path
