"""Laws of where a study is: names are no patterns, a study has one lock, passwords are told nowhere."""

from __future__ import annotations

import fcntl
import os
import sqlite3
import struct
import sys
from contextlib import closing
from pathlib import Path

import pytest
from small import search
from sqlalchemy import NullPool, create_engine, text

from mvnas.cli import main
from mvnas.cli.network import NUMBERED, resolve
from mvnas.errors import MvnasError, StudyError
from mvnas.search import Problem
from mvnas.studies.files import StudyFiles
from mvnas.studies.place import file_of, masked, scrubbed, sqlalchemy_url
from mvnas.studies.storage import owned
from mvnas.studies.study import Study

NAMES = [
    "my%20data.db",
    "a?b.db",
    "s.db?mode=memory",
    "a#b.db",
    "{x}.db",
    "$HOME %s.db",
    ":memory:",
    "file:s.db",
    "ä\udcff.db",
]


@pytest.mark.skipif(not hasattr(fcntl, "F_OFD_SETLK"), reason="needs Linux's locks of open files")
def test_a_study_opens_where_locks_of_all_kinds_are_one(
    problem: Problem, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As on macOS and NFS, where flock on a file collides with SQLite's locks on it."""

    def flock(file: int, how: int) -> None:
        kind = fcntl.F_UNLCK if how & fcntl.LOCK_UN else fcntl.F_WRLCK
        fcntl.fcntl(file, fcntl.F_OFD_SETLK, struct.pack("hhqqi4x", kind, os.SEEK_SET, 0, 0, 0))

    monkeypatch.setattr(fcntl, "flock", flock)
    monkeypatch.setattr("mvnas.studies.faults.TIMEOUT", 0.5)
    place = str(tmp_path / "s.db")
    assert len(search(problem, study=place, trials=1).scores()) == 1
    with owned(place), pytest.raises(StudyError, match="another process searches"), owned(place):
        pass


def test_a_study_has_one_lock_by_whatever_name(tmp_path: Path) -> None:
    place = tmp_path / "s.db"
    (tmp_path / "link.db").symlink_to("s.db")
    for other in (tmp_path / "link.db", f"sqlite:///{place}", tmp_path / "x" / ".." / "s.db"):
        (tmp_path / "x").mkdir(exist_ok=True)
        with owned(str(place)), pytest.raises(StudyError, match="another process searches"), owned(str(other)):
            pass
    assert sorted(os.listdir(tmp_path)) == ["link.db", "x"]


def test_no_file_that_the_user_named_is_removed(tmp_path: Path) -> None:
    (tmp_path / "mine.txt").touch()
    with owned(str(tmp_path / "mine.txt")):
        pass
    with pytest.raises(StudyError, match="no regular file"), owned("/dev/null"):
        pass
    assert os.listdir(tmp_path) == ["mine.txt"] and Path("/dev/null").exists()


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.skipif(sys.platform != "linux", reason="other systems refuse some of these names")
def test_a_name_is_a_name_whatever_letters_it_has(name: str, problem: Problem, tmp_path: Path) -> None:
    folder = tmp_path / name.replace(".db", "")
    folder.mkdir()
    place = str(folder / name)
    study = Study.begin(place, problem.setup)
    assert os.listdir(folder) == [name] and os.listdir(tmp_path) == [folder.name]
    picks = problem.space.ends[0]
    attrs = {
        "arch": problem.space.at(picks).to_json(),
        "latency_ms": 1.0,
        "latency_low_ms": 1.0,
        "latency_high_ms": 1.0,
    }
    study.tell(study.ask(picks, problem.space.choices, {}, attrs, 0.0), [0.5, 1.0])
    assert resolve(f"{place}:0").arch == problem.space.at(picks) == Study.load(place).pick("0").arch
    assert not study.shared and not Study.load(f"sqlite:///{place.replace('%', '%25').replace('?', '%3F')}").shared


def test_what_has_a_scheme_within_is_a_file(problem: Problem, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("odd:").mkdir()
    assert not Study.begin("./odd://s.db", problem.setup).shared and Path("odd:/s.db").is_file()
    assert file_of("postgresql://host/base") is None


@pytest.mark.parametrize("place", ["sqlite://", "sqlite:///:memory:", "sqlite:///s.db?mode=ro", "sqlite://s.db"])
def test_sqlite_is_named_by_its_file(place: str) -> None:
    with pytest.raises(StudyError, match="must be named by its file"):
        Study.load(place)


@pytest.mark.parametrize(
    ("place", "told"),
    [
        ("s.db", "s.db"),
        ("postgresql://me@host/base", "postgresql://me@host/base"),
        ("postgresql://host:5432/base", "postgresql://host:5432/base"),
        ("postgres://me:SECRET@host:5432/base", "postgres://me:***@host:5432/base"),
        ("postgresql://me:a@SECRET:b/c@host/base", "postgresql://me:***@host/base"),
        ("postgresql://me:SECRET", "postgresql://me:***"),
        ("mysql://host/base?user=me&password=SECRET&x=1", "mysql://host/base?user=me&password=***&x=1"),
    ],
)
def test_a_password_is_masked(place: str, told: str) -> None:
    assert masked(place) == told


@pytest.mark.parametrize("place", ["postgresql://me:SEC%40RET@host/base", "mysql://host/base?x=1&password=SEC%40RET"])
def test_what_others_say_has_no_password(place: str) -> None:
    assert scrubbed(f"no {place} for 'SEC@RET' and SEC%40RET", place) == f"no {masked(place)} for '***' and ***"


@pytest.mark.parametrize(
    ("place", "says"),
    [
        ("postgresql://me:a@SECRET@127.0.0.1/base", "special characters encoded, such as @ as %40"),
        ("postgresql://me:SECRET", "the port of postgresql://me:*** is no number"),
        ("postgresql://me:SECRET@127.0.0.1:1/base", "a database must answer, but postgresql://me:***@127.0.0.1:1/base"),
        ("postgres://me:%53ECRET@127.0.0.1:1/base", "a database must answer"),
        ("postgresql+psycopg://me:SECRET@127.0.0.1:1/base", "a database must answer"),
        ("oracular://me:SECRET@host/base", "URL like postgresql://USER@HOST/BASE, but got oracular://me:***@host/base"),
    ],
)
def test_a_database_out_of_reach_is_one_sentence_without_its_password(
    place: str, says: str, problem: Problem, capsys: pytest.CaptureFixture[str]
) -> None:
    pytest.importorskip("psycopg", reason="PostgreSQL's driver is not installed: pip install 'mvnas[postgres]'")
    for verb in (lambda: Study.load(place), lambda: search(problem, study=place)):
        with pytest.raises(MvnasError) as raised:
            verb()
        assert says in str(raised.value) and "SECRET" not in str(raised.value) and len(str(raised.value)) < 300
    for words in (["front", place], ["export", f"{place}:7"], ["rank", place]):
        assert main(words) == 2
        assert "SECRET" not in "".join(capsys.readouterr())


def test_a_port_is_no_trial() -> None:
    assert not NUMBERED.fullmatch("postgresql://me@host:5432")
    match = NUMBERED.fullmatch("postgresql://me@host:5432/base:7")
    assert match and match.groups() == ("postgresql://me@host:5432/base", "7")
    assert sqlalchemy_url("postgres://me@[::1]:5432/base") == "postgresql+psycopg://me@[::1]:5432/base"


def test_a_study_in_a_database_tells_its_password_nowhere(
    server: str,
    space: Path,
    table: Path,
    problem: Problem,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    place = server.replace("postgresql://mvnas@", "postgres://mvnas:SEC%40RET@")
    with pytest.raises(StudyError, match="holds none"):
        Study.load(place)
    study = search(problem, study=place, trials=1)
    assert (study.place, repr(study)) == (masked(place), f"Study({masked(place)!r})")
    command = ["search", "--budget", "20K-params", "--space", str(space), "--device", str(table), "--epochs", "0.1"]
    for words in (
        [*command, "--study", place, "--trials", "1"],
        [*command, "--study", place, "--trials", "1", "--json"],
        ["front", place, "--json"],
        ["plot", place],
        ["export", f"{place}:0", "--out", "out"],
    ):
        assert main(words) == 0
    assert main([*command, "--study", place, "--trials", "1", "--seed", "1"]) == 2
    told = "".join(capsys.readouterr())
    assert masked(place) in told
    secrets = ("SEC@RET", "SEC%40RET")
    assert not any(secret in told for secret in secrets)
    written = [path for path in tmp_path.rglob("*") if path.is_file()]
    assert any(path.name.endswith(".card.json") for path in written)
    assert not any(secret.encode() in path.read_bytes() for path in written for secret in secrets)
    with create_engine(sqlalchemy_url(place), poolclass=NullPool).connect() as database:
        rows = database.execute(
            text("SELECT value_json FROM study_user_attributes UNION SELECT value_json FROM trial_user_attributes")
        )
        assert not any(secret in str(row) for row in rows for secret in secrets)


def test_two_databases_have_files_of_their_own_in_one_folder() -> None:
    places = ["postgresql://a:x@host/one", "postgresql://b@host/one?x=1", "postgresql://a@host/two", "mvnas.db"]
    stems = [StudyFiles(place, {}).subfolder("weights").name for place in places]
    assert stems[0] == stems[1] and len(set(stems)) == 3


def test_reading_a_database_makes_no_tables(tmp_path: Path) -> None:
    place = tmp_path / "s.db"
    with closing(sqlite3.connect(place)) as database:
        database.execute("VACUUM")
    before = place.read_bytes()
    with pytest.raises(StudyError, match="holds none"):
        Study.load(str(place))
    assert place.read_bytes() == before
