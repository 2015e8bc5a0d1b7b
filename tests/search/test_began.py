"""Laws of what a study began with: whatever its scores follow from is part of it, and a change of that is told by
name.
"""

from __future__ import annotations

import json
import shutil
import sys
from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import asdict, replace
from pathlib import Path

import pytest
from small import SHORT, make_problem, search

from mvnas.cli import main
from mvnas.data import data_marks, load
from mvnas.engines import engine
from mvnas.errors import StudyError
from mvnas.search import Problem
from mvnas.studies.setup import BUILT_IN
from mvnas.studies.study import Study
from mvnas.system.marks import code_mark
from mvnas.tasks.classification import default_epochs
from mvnas.training import Schedule
from mvnas.verification.rank import rank
from mvnas.verification.retrain import images, retrained

ENGINE = """
from mvnas.engines import Done
from mvnas.training import Trained
from {package}.truth import accuracy

class Engine:
    slots = 1

    def __init__(self, images):
        self.waiting = []

    def start(self, key, job):
        self.waiting.append((key, job))

    def wait(self, seconds):
        events, self.waiting = [Done(key, Trained(accuracy(job), {{}}, 1, 1.0, 1)) for key, job in self.waiting], []
        return events

    def close(self):
        pass
"""
TRUTH = "def accuracy(job):\n    return 0.25 + job.schedule.epochs / 100\n"
DATASET = """
import numpy as np

class Dataset:
    classes, note, files = ("dark", "bright"), "", ()
    flip = True

    def items(self, split):
        if split == "train":
            return [(np.full((32, 32), 200 * (i % 2) + i, np.uint8), i % 2) for i in range(20)]
"""


@pytest.fixture
def package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A package of the user's, with an engine and images."""
    folder = tmp_path / "theirs"
    folder.mkdir()
    (folder / "engine.py").write_text(ENGINE.format(package="theirs"))
    (folder / "truth.py").write_text(TRUTH)
    (folder / "images.py").write_text(DATASET)
    (folder / "unused.py").write_text("")
    monkeypatch.syspath_prepend(tmp_path)
    yield folder
    for name in [name for name in sys.modules if name.partition(".")[0] == "theirs"]:
        del sys.modules[name]


def change(file: Path, text: str = "\nCHANGED = True\n") -> None:
    file.write_text(file.read_text() + text)


def like(table: Path, folder: Path) -> tuple[Path, Path]:
    """A table that is like another: both, in a folder."""
    base, new = (Path(shutil.copytree(table, folder / name)) for name in ("base", "new"))
    tell(new, like=str(base))
    return base, new


def tell(table: Path, **conditions: object) -> None:
    device = json.loads((table / "device.json").read_text())
    (table / "device.json").write_text(json.dumps(device | conditions))


def slower(table: Path) -> None:
    """Let each op of a table take longer by a tenth."""
    lines = (table / "ops.csv").read_text().splitlines()
    place = lines[0].split(",").index("min_ms") - len(lines[0].split(","))  # ops hold commas
    rows = [line.split(",") for line in lines[1:]]
    for row in rows:
        row[place] = f"{1.1 * float(row[place]):.6g}"
    (table / "ops.csv").write_text("\n".join([lines[0], *map(",".join, rows)]) + "\n")


def repeat(row: Path) -> None:
    lines = row.read_text().splitlines(keepends=True)
    row.write_text("".join([*lines, lines[1]]))


@pytest.mark.parametrize(
    ("happens", "told"),
    [
        (lambda base, new: slower(base), "the content of device .* has changed since"),
        (lambda base, new: repeat(base / "networks.csv"), "the content of device .* has changed since"),
        (lambda base, new: repeat(new / "networks.csv"), "the content of device .* has changed since"),
        (lambda base, new: tell(base, threads=2), "the content of device .* has changed since"),
        (lambda base, new: tell(new, backend="other"), "the content of device .* has changed since"),
        (lambda base, new: tell(new, date="1999-01-01", mvnas="9", versions={"none": "1"}), None),
    ],
)
def test_a_table_is_all_that_its_predictions_follow_from(
    happens: Callable[[Path, Path], None], told: str | None, space: Path, table: Path, tmp_path: Path
) -> None:
    base, new = like(table, tmp_path)
    before = make_problem(space, new).setup
    happens(base, new)
    after = make_problem(space, new).setup
    if told is None:
        assert before.check(after, "s.db") is None
        return
    with pytest.raises(StudyError, match=told):
        before.check(after, "s.db")


def test_predictions_that_shift_are_told_whatever_shifts_them(
    problem: Problem, space: Path, table: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    place = str(tmp_path / "s.db")
    study = search(problem, study=place, trials=2)
    old = study.record.user_attrs["setup"]
    older = {key: told for key, told in old.items() if key != "engine"}
    older["marks"] = {key: told for key, told in old["marks"].items() if "." not in key}
    study.record.set_user_attr("setup", older)  # as studies were before they knew of engines and models
    assert len(search(problem, study=place, trials=3).scores()) == 3
    monkeypatch.setattr(
        "mvnas.latency.calibration.SITTING", 0.05
    )  # another version of the model, whose intervals are wider
    with pytest.raises(StudyError, match="what is predicted for .* has changed since: latency_low_ms of trial 0 was"):
        search(make_problem(space, table), study=place, trials=4)
    assert len(Study.load(place).scores()) == 3


def test_a_study_whose_candidates_have_come_to_exceed_its_budget_goes_on(
    problem: Problem, package: Path, tmp_path: Path
) -> None:
    place, theirs = str(tmp_path / "s.db"), engine("theirs.engine", problem.images)
    scores = search(problem, study=place, trials=5, trainer=theirs).scores()
    largest = max(score.costs["params"].value for score in scores)
    bound = replace(problem.budget.bounds[0], high=largest - 1.0)
    tighter = replace(
        problem, budget=replace(problem.budget, bounds=(bound,))
    )  # as if predictions had shifted a little
    after = search(tighter, study=place, trials=7, trainer=theirs).scores()
    before, new = after[: len(scores)], after[len(scores) :]
    assert [(one.number, one.arch) for one in before] == [(one.number, one.arch) for one in scores]
    assert all(score.costs["params"].value < largest for score in new)
    over = {one.number: one.quality.observed for one in scores if one.costs["params"].value == largest}
    assert all(one.quality.observed == over[one.number] for one in before if one.number in over)


def test_a_study_goes_on_with_its_engine_alone(space: Path, table: Path, package: Path, tmp_path: Path) -> None:
    place = str(tmp_path / "s.db")
    problem = make_problem(space, table, engine="theirs.engine")
    theirs = engine("theirs.engine", problem.images)
    study = search(problem, study=place, trials=2, trainer=theirs)
    assert study.setup.engine == "theirs.engine"
    with pytest.raises(
        StudyError, match=r"engine was theirs\.engine and is processes; give --engine theirs\.engine or"
    ):
        search(make_problem(space, table), study=place, trials=3)
    change(package / "unused.py")
    assert len(search(problem, study=place, trials=3, trainer=theirs).scores()) == 3
    change(package / "truth.py")
    with pytest.raises(StudyError, match=r"the content of engine theirs\.engine has changed since"):
        search(problem, study=place, trials=4, trainer=theirs)


def test_engines_of_ours_may_take_each_others_place(problem: Problem, package: Path, tmp_path: Path) -> None:
    with closing(engine("processes", problem.images)) as processes:
        ours = [problem.scored_by(one) for one in (None, processes, engine("inline", problem.images))]
        assert all(setup == problem.setup and setup.engine == BUILT_IN for setup in ours)
    place = str(tmp_path / "s.db")
    search(problem, study=place, trials=1)
    theirs = engine("theirs.engine", problem.images)
    with pytest.raises(StudyError, match=r"engine was processes and is theirs\.engine; give --engine processes or"):
        search(problem, study=place, trials=2, trainer=theirs)
    (package / "alias.py").write_text("from mvnas.engines.inline import Engine\n")
    assert problem.scored_by(engine("theirs.alias", problem.images)) == problem.setup


def test_a_study_is_ranked_by_the_engine_that_scored_it(
    space: Path, table: Path, package: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    place = str(tmp_path / "s.db")
    problem = make_problem(space, table, engine="theirs.engine")
    study = search(problem, study=place, trials=2, trainer=engine("theirs.engine", problem.images))
    for arguments, told in (
        ([], "by the engine theirs.engine, but got processes; give --engine theirs.engine"),
        (["--engine", "inline"], "by the engine theirs.engine, but got processes; give --engine theirs.engine"),
    ):
        for verb in ("rank", "verify"):
            assert (
                main(
                    [verb, place, "--longer", "2", "--device", str(table)][: 4 if verb == "rank" else None] + arguments
                )
                == 2
            )
            assert told in capsys.readouterr().err
    assert not retrained(study)
    assert main(["rank", place, "--longer", "2", "--engine", "theirs.engine"]) == 0
    found = retrained(Study.load(place))
    front = {score.number for score in study.frontier().scores}
    assert {row.accuracy for row in found.values() if row.times == 2} == {0.25 + 2 * SHORT.epochs / 100}
    assert front <= {row.number for row in found.values()}
    change(package / "engine.py")
    with pytest.raises(StudyError, match=r"the content of engine theirs\.engine has changed since; bring it back"):
        rank(Study.load(place), images(study), longer=4, engine="theirs.engine")


def test_a_study_of_ours_is_not_ranked_by_another_engine(problem: Problem, package: Path, tmp_path: Path) -> None:
    study = search(problem, study=str(tmp_path / "s.db"), trials=1)
    with pytest.raises(StudyError, match=r"by the engine processes, but got theirs\.engine; give --engine processes"):
        rank(study, images(study), longer=2, engine="theirs.engine")
    assert not retrained(study)


def test_images_are_also_what_is_made_of_them(space: Path, table: Path, package: Path, tmp_path: Path) -> None:
    place = str(tmp_path / "s.db")
    study = search(make_problem(space, table, data="theirs.images"), study=place, trials=1)
    data = images(study)
    assert data_marks(data) != data_marks(load("digits"))
    change(package / "images.py")
    with pytest.raises(StudyError, match=r"the content of data theirs\.images has changed since"):
        search(make_problem(space, table, data="theirs.images"), study=place, trials=2)
    with pytest.raises(StudyError, match="holds others"):
        images(study)


def test_blocks_of_ones_own_are_part_of_a_space(space: Path, table: Path, package: Path, tmp_path: Path) -> None:
    (package / "stem.py").write_text("from mvnas.blocks.stem import Block as Stem\n\n\nclass Block(Stem):\n    pass\n")
    own, place = tmp_path / "own.yaml", str(tmp_path / "s.db")
    own.write_text(space.read_text().replace("block: stem", "block: theirs.stem"))
    search(make_problem(own, table), study=place, trials=1)
    change(package / "stem.py")
    with pytest.raises(StudyError, match="the content of space .* has changed since"):
        search(make_problem(own, table), study=place, trials=2)


def test_code_is_a_module_and_what_it_imports_of_its_package(package: Path) -> None:
    (package / "__init__.py").write_text("")
    (package / "later.py").write_text(
        "def f():\n    from . import truth\n    import json, missing, theirs.engine as e\n"
    )
    before = [code_mark(f"theirs.{name}") for name in ("engine", "later", "unused")]
    change(package / "truth.py")
    after = [code_mark(f"theirs.{name}") for name in ("engine", "later", "unused")]
    assert [a == b for a, b in zip(before, after, strict=True)] == [False, False, True]
    change(package / "__init__.py")
    assert code_mark("theirs.unused") != after[2]
    assert code_mark("theirs.nowhere") == code_mark("theirs.nowhere")


def command(space: Path, table: Path, place: Path, *more: str) -> list[str]:
    words = ["search", "--budget", "20K-params", "--space", str(space), "--device", str(table), "--study", str(place)]
    return [*words, "--engine", "inline", *more]


def test_a_schedule_is_set_remembered_and_contradicted_by_its_options(
    space: Path, table: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    given = ["--epochs", "0.1", "--lr", "0.001", "--batch", "16", "--clip", "1"]
    begin = command(space, table, tmp_path / "s.db", "--trials", "1")
    assert main([*begin, *given]) == 0
    schedule = Study.load(str(tmp_path / "s.db")).setup.schedule
    assert Schedule(**schedule) == Schedule(epochs=0.1, lr=0.001, batch=16, clip=1.0)
    capsys.readouterr()
    for place, name, told in (
        (2, "lr", "lr was 0.001 and is 0.002; give --lr 0.001 or"),
        (4, "batch", "batch was 16 and is 32; give --batch 16 or"),
        (6, "clip", "clip was 1.0 and is 0; give --clip 1.0 or"),
    ):
        assert given[place] == f"--{name}"
        assert main([*begin, *given[:place], *given[place + 2 :]]) == 2
        assert told in capsys.readouterr().err
    assert main([*begin, *given]) == 0
    assert main([*begin, *given[2:]]) == 0  # a length that is not named is the study's
    assert main([*begin, *given, "--epochs", "2"]) == 2
    assert "epochs was 0.1 and is 2.0; give --epochs 0.1 or name another --study" in capsys.readouterr().err
    for option, value in (("--clip", "-1"), ("--clip", "nan")):
        assert main([*begin, *given, option, value]) == 2
        assert "clip of a schedule must be at least 0" in capsys.readouterr().err


def test_a_schedule_that_clips_nothing_is_what_it_was() -> None:
    assert Schedule().to_json() == {key: told for key, told in asdict(Schedule()).items() if key != "clip"}
    assert Schedule(**Schedule(clip=2.0).to_json()) == Schedule(clip=2.0)


def test_a_default_length_grows_with_classes_and_with_few_images_and_is_told(
    space: Path, table: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert default_epochs(9469, 10) == 0.845 and default_epochs(1195, 10) == default_epochs(100, 2) == 4
    assert default_epochs(100_000, 2) * 100_000 == pytest.approx(8000)
    assert 0 < default_epochs(10**9, 2) < 1e-4
    shown = {classes: 100_000 * default_epochs(100_000, classes) for classes in (10, 100, 1000)}
    assert 2 < shown[100] / shown[10] < 10  # more in all, and fewer of a class
    assert shown[1000] / shown[100] == pytest.approx(shown[100] / shown[10], rel=0.02)
    assert default_epochs(1000, 1000) > default_epochs(1000, 100) > default_epochs(1000, 10)
    begin = command(space, table, tmp_path / "s.db", "--engine", "nowhere")  # it is told before anything is trained
    assert main(begin) == 2
    assert "4 epochs of each candidate, 432 images of a class; --epochs sets another length" in capsys.readouterr().out
    assert main([*begin, "--epochs", "4"]) == 2
    assert "--epochs sets" not in capsys.readouterr().out


def test_a_space_that_is_exhausted_is_told(
    space: Path, table: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    few = tmp_path / "few.yaml"
    few.write_text(space.read_text().replace("[64, 96]", "64").replace("[8, 16]", "8").replace("[16, 32]", "16")
                   .replace("[1, 2]", "1").replace("[2, 4]", "2"))  # fmt: skip
    given = command(few, table, tmp_path / "s.db", "--epochs", "0.1")
    for trials, exhausted in ((1, False), (10, True)):
        assert main([*given, "--trials", str(trials), "--json"]) == 0
        found = json.loads(capsys.readouterr().out)
        assert found["exhausted"] is exhausted and found["trained"] == min(trials, 2)
    assert main([*given, "--trials", "10", "--strategy", "RandomSampler"]) == 0
    assert "ended after 2 trainings: no other network within the budget was found; " in capsys.readouterr().out
