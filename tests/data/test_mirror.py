"""Laws of mirroring: it can be turned off, a study remembers it, and classes that it may confuse are pointed out."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from pictures import write_folder
from safetensors.numpy import load_file
from small import make_problem, search

from mvnas.cli import main
from mvnas.data import load
from mvnas.data._data import Data, Split
from mvnas.errors import StudyError
from mvnas.studies.study import Study
from mvnas.verification.retrain import images


@pytest.fixture
def data(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return str(write_folder(tmp_path / "data", {"left hand": 20, "right hand": 20}))


@pytest.mark.parametrize(
    ("classes", "sided"),
    [
        (("cat", "dog"), ""),
        (("3", "7"), "3"),
        (("10", "x-ray"), "10"),
        (("A", "B"), "A"),
        (("中", "文"), "中"),
        (("cat", "turn_left"), "turn_left"),
        (("Right", "up"), "Right"),
        (("leftover", "brightness"), ""),
    ],
)
def test_classes_that_mirroring_may_confuse(classes: tuple[str, ...], sided: str) -> None:
    none = Split(np.zeros((0, 3, 32, 32), np.uint8), np.zeros(0, np.int64))
    assert Data("", classes, none, none, none).sided == sided


def test_a_source_says_whether_to_mirror_unless_told(data: str) -> None:
    assert [load(data, flip=flip).flip for flip in (None, True, False)] == [True, True, False]
    assert [load("digits", flip=flip).flip for flip in (None, True)] == [False, True]


def test_a_study_trains_and_trains_longer_as_it_was_told_to(
    data: str, space: Path, table: Path, tmp_path: Path
) -> None:
    kept = {}
    for flip in (True, False):
        problem = make_problem(space, table, data=data, flip=flip)
        study = search(problem, study=str(tmp_path / f"{flip}.db"), trials=1)
        kept[flip] = load_file(study.files.weights(0))
        assert images(Study.load(study.place)).flip is flip
        with pytest.raises(StudyError, match="flip was (yes and is no|no and is yes)"):
            search(make_problem(space, table, data=data, flip=not flip), study=study.place, trials=2)
    assert any(not np.array_equal(value, kept[False][name]) for name, value in kept[True].items())


def test_the_command_line_says_what_mirroring_may_confuse(
    data: str, space: Path, table: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    command = ["search", "--budget", "20K-params", "--space", str(space), "--device", str(table), "--data", data]
    command += ["--trials", "1", "--epochs", "0.1", "--engine", "inline", "--study", str(tmp_path / "s.db")]
    assert main(command) == 0
    told = capsys.readouterr().out
    assert "classes  left hand, right hand\n" in told
    assert "images are mirrored in training, which may make another class of 'left hand': --flip no" in told
    assert main([*command, "--flip", "no"]) == 2
    assert main([*command[:-1], str(tmp_path / "t.db"), "--flip", "no"]) == 0
    assert "mirrored" not in capsys.readouterr().out
