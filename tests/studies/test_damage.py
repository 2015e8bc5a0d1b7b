"""Laws of studies that others have had in hands: one sentence that names the study, and nothing is changed, run or
shown that is not ours.
"""

from __future__ import annotations

import json
import os
import random
import re
import sqlite3
from collections.abc import Callable, Sequence
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from shutil import copytree

import optuna
import pytest
import torch
from safetensors.torch import load_file, save_file
from small import make_problem
from small import search as search_with

from mvnas.cli import main
from mvnas.cli.network import resolve
from mvnas.engines import Done, Event, Job
from mvnas.errors import MvnasError
from mvnas.reports.tables import frontier_table
from mvnas.search import Problem
from mvnas.studies import faults
from mvnas.studies.files import intact
from mvnas.studies.study import Study
from mvnas.training import Checkpoint, Trained
from mvnas.verification.retrain import retrained

INPUTS = 60


class Told:
    """An engine that knows what comes of a training."""

    slots = 1

    def __init__(self) -> None:
        self.jobs: list[Job] = []

    def start(self, key: int, job: Job) -> None:
        self.jobs.append(job)
        self.waiting = key, job

    def wait(self, seconds: float) -> Sequence[Event]:
        key, job = self.waiting
        state = {"w": torch.full((40,), float(job.arch.params))}
        rest = Checkpoint(1, state, [], {}, torch.zeros(1), torch.zeros(1)) if job.until < 1 else None
        return [Done(key, Trained(job.until * job.arch.params / 3e4, state, 10, 1.0, 10, rest))]

    def close(self) -> None:
        pass


def search(problem: Problem, place: Path | str, trials: int = 5) -> tuple[Study, Told]:
    engine = Told()
    return search_with(problem, study=str(place), trials=trials, trainer=engine), engine


@pytest.fixture(scope="module")
def climb(space: Path, table: Path) -> Problem:
    """The small search by two rungs."""
    return make_problem(space, table, rungs="1/2,1")


@pytest.fixture(scope="module")
def made(climb: Problem, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A study with its files."""
    place = tmp_path_factory.mktemp("made") / "s.db"
    search(climb, place)
    return place


def copied(made: Path, folder: Path) -> Path:
    return copytree(made.parent, folder) / "s.db"


def files(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def told(verb: Callable[[], object]) -> str:
    """What a verb says that refuses."""
    with pytest.raises(MvnasError) as raised:
        verb()
    text = str(raised.value)
    assert "\n" not in text and text.isprintable()
    return text


def test_flipped_bytes_and_cut_files_are_one_sentence_and_nothing_changes(
    climb: Problem, made: Path, tmp_path: Path
) -> None:
    generator, whole = random.Random(0), made.read_bytes()
    places = [place for place, byte in enumerate(whole) if byte]
    refused = 0
    for number in range(INPUTS):
        hurt = bytearray(whole)
        if number % 5 == 0:
            del hurt[generator.randrange(1, len(hurt)) :]
        else:
            for _ in range(generator.choice([1, 1, 3, 20])):
                place = generator.choice(places)
                hurt[place] = generator.choice(b'017"{}[],:.-eE\x1bxNa') if number % 2 else hurt[place] ^ 4
        place = tmp_path / f"{number}" / "s.db"
        place.parent.mkdir()
        place.write_bytes(hurt)
        verbs: list[Callable[[], object]] = [
            lambda place=place: frontier_table(Study.load(str(place))),
            lambda place=place: resolve(str(place), pick="best").arch.params,
        ]
        verbs += [lambda place=place: search(climb, place, 6)] if number % 4 == 0 else []
        for verb in verbs:
            before = files(place.parent)
            try:
                verb()
            except MvnasError as error:
                refused += 1
                text = str(error)
                assert "s.db" in text and "\n" not in text and text.isprintable()
                assert len(text.replace(str(place.parent), "")) < 300
                assert files(place.parent) == before
    assert refused > INPUTS


def change(place: Path, sql: str, *values: object) -> None:
    with closing(sqlite3.connect(place)) as database, database:
        assert database.execute(sql, values).rowcount > 0


ATTRIBUTE = "UPDATE trial_user_attributes SET value_json = ? WHERE key = ? AND trial_id = 3"
SETUP = "UPDATE study_user_attributes SET value_json = json_set(value_json, ?, json(?)) WHERE key = 'setup'"


@pytest.mark.parametrize(
    ("sql", "values", "named"),
    [
        (SETUP, ("$.teacher", '"big"'), "s.db.*does not know teacher"),
        (SETUP, ("$.budget", "[1]"), "s.db.*budget of its setup"),
        (SETUP, ("$.classes", '"abc"'), "s.db.*classes of its setup"),
        (SETUP, ("$.rungs", '"1/2,x"'), "s.db.*1/2,x"),
        (SETUP, ("$.schedule.epochs", "null"), "s.db.*epochs"),
        (
            "UPDATE study_user_attributes SET value_json = ? WHERE key = 'setup'",
            ("[]",),
            "s.db.*setup must be an object",
        ),
        ("UPDATE study_directions SET direction = ?", ("MINIMIZE",), "s.db.*must maximise"),
        (ATTRIBUTE, ('"far"', "rung"), "s.db.*trial 2: rung must be in 0..1"),
        (
            "UPDATE trial_user_attributes SET value_json = ? WHERE key = ?",
            ("9", "candidate"),
            r"s.db.*trial 1: candidate must be in 0\.\.1",
        ),
        (ATTRIBUTE, ("1e999", "latency_ms"), "s.db.*trial 2: latency_ms must be a number"),
        (ATTRIBUTE, ("{", "arch"), "s.db.*trial 2: Expecting"),
        (
            "UPDATE trial_intermediate_values SET intermediate_value = ? WHERE trial_id = 1",
            (7.0,),
            "s.db.*trial 0: its accuracy",
        ),
        ("UPDATE trial_values SET value = ? WHERE objective = 1", (-1.0,), "s.db.*trial 1: its values"),
        ("UPDATE trials SET number = ? WHERE trial_id = 3", (99,), "s.db.*trials 0 to 99"),
        ("DELETE FROM trial_user_attributes WHERE key = ?", ("arch",), "s.db.*trial 0: it must tell arch"),
    ],
)
def test_what_no_search_wrote_is_told_by_study_and_trial(
    sql: str, values: tuple[object, ...], named: str, climb: Problem, made: Path, tmp_path: Path
) -> None:
    place = copied(made, tmp_path / "copy")
    change(place, sql, *values)
    before = files(place.parent)
    for verb in (lambda: frontier_table(Study.load(str(place))), lambda: search(climb, place, 9)):
        assert re.search(named, told(verb))
        assert files(place.parent) == before


@pytest.mark.parametrize(
    ("path", "value"),
    [("$.blocks[0].block", '"none"'), ("$.blocks[0].channels", '"8"'), ("$.resolution", "-1"), ("$.blocks", "[]"),
     ("$.blocks[0].channels", "null"), ("$.precision", '"int2"'), ("$.blocks[1].odd", "3")],
)  # fmt: skip
def test_an_architecture_that_is_none_is_told(path: str, value: str, made: Path, tmp_path: Path) -> None:
    place = copied(made, tmp_path / "copy")
    change(
        place,
        "UPDATE trial_user_attributes SET value_json = json_set(value_json, ?, json(?)) WHERE key = 'arch'",
        path,
        value,
    )
    assert re.search(r"s\.db.*trial \d+: its architecture", told(lambda: frontier_table(Study.load(str(place)))))


@pytest.mark.parametrize("row", ["[]", '{"number": 1}', '{"number": 1, "times": 4, "accuracy": "high"}', '{"odd": 1}'])
def test_a_longer_training_that_none_was_is_told(row: str, made: Path, tmp_path: Path) -> None:
    place = copied(made, tmp_path / "copy")
    insert = "INSERT INTO study_user_attributes (study_id, key, value_json) VALUES (1, 'retrained 1 x4', ?)"
    change(place, insert, '{"number": 1, "times": 4, "accuracy": null, "reason": "\\u001b[2J"}')
    assert retrained(Study.load(str(place)))[1, 4].reason == r"\x1b[2J"
    change(place, "UPDATE study_user_attributes SET value_json = ? WHERE key = 'retrained 1 x4'", row)
    assert re.search(r"s\.db.*retrained 1 x4", told(lambda: retrained(Study.load(str(place)))))


def test_points_of_another_space_are_told(climb: Problem, made: Path, tmp_path: Path) -> None:
    place = copied(made, tmp_path / "copy")
    change(place, "UPDATE trial_params SET param_name = 'depth' WHERE trial_id = 2 AND param_name = 'resolution'")
    assert "trial 1 has none of the options of resolution" in told(lambda: search(climb, place, 9))


def test_attributes_of_other_tools_are_theirs(climb: Problem, made: Path, tmp_path: Path) -> None:
    place = copied(made, tmp_path / "copy")
    record = optuna.load_study(study_name="mvnas", storage=f"sqlite:///{place}")
    record.set_user_attr("dashboard:note", "mine")
    change(place, "INSERT INTO trial_system_attributes (trial_id, key, value_json) VALUES (1, 'dashboard:note', '[]')")
    assert Study.load(str(place)).scores() == Study.load(str(made)).scores()
    search(climb, place, 6)


def test_texts_of_a_study_neither_name_files_nor_move_a_cursor(
    climb: Problem, made: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    place = copied(made, tmp_path / "copy")
    study = Study.load(str(place))
    best = study.pick("best").number
    insert = "INSERT INTO trial_user_attributes (trial_id, key, value_json) VALUES (?, ?, ?)"
    change(place, insert, best + 1, "name", json.dumps("../../\x1b[2J\u202eoutside"))
    change(place, SETUP, "$.note", json.dumps("\x1b]0;title\x07"))
    change(place, SETUP, "$.data", json.dumps("\x1b[2Jdigits"))
    network = resolve(str(place), pick="best")
    assert network.name == f"trial{best}" and network.score and network.score.label == f"trial {best}"
    change(place, insert, 1, "reason", json.dumps("\x1b[31mred"))
    change(place, "UPDATE trials SET state = 'FAIL' WHERE trial_id = 1")
    study = Study.load(str(place))
    assert study.setup.data == r"\x1b[2Jdigits" and "\x1b" not in study.setup.note
    assert study.failures() == {0: r"\x1b[31mred"}
    assert main(["front", str(place)]) == 0
    assert "\x1b" not in "".join(capsys.readouterr())


@pytest.mark.parametrize("trials", [0, 1])
def test_another_programs_study_of_our_name_is_left_alone(climb: Problem, tmp_path: Path, trials: int) -> None:
    place = tmp_path / "s.db"
    directions = ["maximize", "minimize"] if trials else ["minimize"]
    theirs = optuna.create_study(study_name="mvnas", storage=f"sqlite:///{place}", directions=directions)
    theirs.optimize(lambda trial: (trial.suggest_float("x", 0, 1), 0.5), n_trials=trials)
    before = files(tmp_path)
    for verb in (lambda: Study.load(str(place)), lambda: search(climb, place)):
        assert "holds one of another program" in told(verb)
    assert files(tmp_path) == before


def test_other_files_are_told_apart_and_left_as_they_are(climb: Problem, tmp_path: Path) -> None:
    (tmp_path / "empty.txt").touch()
    (tmp_path / "text.db").write_text("no database")
    (tmp_path / "folder").mkdir()
    with closing(sqlite3.connect(tmp_path / "places.sqlite")) as database, database:
        database.execute("CREATE TABLE bookmarks (url TEXT)")
    optuna.create_study(study_name="other", storage=f"sqlite:///{tmp_path / 'other.db'}")
    before = files(tmp_path)
    says = {
        "none.db": "there is no",
        "empty.txt": "holds none",
        "text.db": "another kind of file",
        "folder": "is a folder",
        "places.sqlite": "tables of something else",
        "other.db": "holds others of Optuna",
    }
    for name, text in says.items():
        assert text in told(lambda name=name: Study.load(str(tmp_path / name)))
    for name in ("text.db", "folder", "places.sqlite"):
        assert says[name] in told(lambda name=name: search(climb, tmp_path / name))
    assert "no regular file" in told(lambda: search(climb, "/dev/null"))
    assert Path("/dev/null").exists() and files(tmp_path) == before


def test_a_file_that_another_program_holds_is_told_as_such(
    made: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    place = copied(made, tmp_path / "copy")
    monkeypatch.setattr(faults, "TIMEOUT", 0.0)
    with closing(sqlite3.connect(place)) as database:
        database.execute("BEGIN EXCLUSIVE")
        assert "another program has held" in told(lambda: Study.load(str(place)))


@pytest.mark.parametrize("hurt", ["cut", "empty", "flip", "another's", "gone"])
def test_a_checkpoint_that_is_not_whole_begins_anew(climb: Problem, hurt: str, tmp_path: Path) -> None:
    place = tmp_path / "s.db"
    study, _ = search(climb, place, 1)
    number = study.ask(
        climb.space.ends[0], climb.space.choices, {}, {"arch": climb.space.at(climb.space.ends[0]).to_json()}, 0.0
    )
    picks = study.trials()[number].params
    rest = Checkpoint(1, {"w": torch.ones(40)}, [], {}, torch.zeros(1), torch.zeros(1))
    study.files.save_checkpoint(picks, 0, rest)
    assert study.files.checkpoint(picks, 0).step == 1
    path = study.files._checkpoint(picks, 0)
    whole = path.read_bytes()
    if hurt == "gone":
        path.unlink()
    elif hurt == "another's":
        study.files.save_checkpoint(picks, 1, replace(rest, step=2))
        path.write_bytes(study.files._checkpoint(picks, 1).read_bytes())
    else:
        flipped = bytearray(whole)
        flipped[len(whole) // 2] ^= 1
        path.write_bytes({"cut": whole[:-9], "empty": b"", "flip": flipped}[hurt])
    assert study.files.checkpoint(picks, 0) is None


def test_files_are_on_the_disk_before_they_are_recorded(
    climb: Problem, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    order: list[str] = []
    sync, told = os.fsync, Study._told
    monkeypatch.setattr(os, "fsync", lambda file: (order.append(os.readlink(f"/proc/self/fd/{file}")), sync(file))[1])
    monkeypatch.setattr(Study, "_told", lambda self, *rest: (order.append("record"), told(self, *rest))[1])
    search(climb, tmp_path / "s.db", 1)
    for kind in ("resting", "weights"):
        (place,) = [i for i, name in enumerate(order) if f"s.{kind}/." in name][:1]
        assert order[place + 1].endswith(f"s.{kind}") and "record" in order[place + 2 : place + 3]


def test_weights_that_are_not_as_they_were_written_are_told(made: Path, tmp_path: Path) -> None:
    place = copied(made, tmp_path / "copy")
    path = resolve(str(place), pick="best").weights
    assert path and intact(path) and load_file(path)["w"].shape == (40,)
    whole = bytearray(path.read_bytes())
    for hurt in (whole[:-1], whole[:20], b"", bytes([*whole[:-1], whole[-1] ^ 1]), whole.replace(b"F32", b"I32")):
        path.write_bytes(hurt)
        assert not intact(path)
        assert "is damaged" in told(lambda: resolve(str(place), pick="best").weights)
    save_file({"w": torch.zeros(3)}, path)  # without a checksum
    assert intact(path)


def test_files_of_others_in_folders_of_a_study_stay(climb: Problem, tmp_path: Path) -> None:
    mine = [
        tmp_path / "s.weights" / "mine.safetensors",
        tmp_path / "s.resting" / "notes.txt",
        tmp_path / "s.resting" / "x.pt",
    ]
    for path in mine:
        path.parent.mkdir(exist_ok=True)
        path.touch()
    search(climb, tmp_path / "s.db", 2)
    other, _ = search(climb, tmp_path / "s.sqlite", 1)
    search(climb, tmp_path / "s", 1)
    study, _ = search(climb, tmp_path / "s.db", 3)
    assert all(path.exists() for path in mine)
    for one in (study, other):
        kept = {int(path.stem) for path in one.files.subfolder("weights").glob("[0-9]*")}
        assert kept == {score.number for score in one.frontier().scores}
