"""What --start may name, and what is said of anything else."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from small import SHORT, make_problem, make_space, make_table, search

from mvnas.cli import main
from mvnas.cli.starting import with_start
from mvnas.errors import MvnasError
from mvnas.spaces.arch import Arch
from mvnas.studies.study import Study
from mvnas.techniques import named


def test_files_and_names_become_settings_of_the_technique() -> None:
    assert with_start("multi_scale", None, "s.db") == "multi_scale"
    assert with_start("multi_scale", "a.pth", "s.db") == "multi_scale,start:weights=a.pth"
    text = with_start("none", "efficientnet_lite0=a=b.bin", "s.db")
    assert dict(named(text)[0].settings) == {"network": "efficientnet_lite0=a", "weights": "b.bin"}


def test_the_knee_of_a_study_or_a_trial_of_it_may_be_the_start(tmp_path: Path) -> None:
    space = make_space(tmp_path)
    problem = make_problem(space, make_table(tmp_path / "roof", space))
    old = search(problem, study=str(tmp_path / "old.db"), trials=2)
    knee = old.frontier().pick("knee")
    for text in (str(tmp_path / "old.db"), f"{tmp_path}/old.db:{knee.number}"):
        (made,) = named(with_start("none", text, str(tmp_path / "new.db")))
        assert Arch.from_json(json.loads(Path(made.settings["network"]).read_text())) == knee.arch
        assert Path(made.settings["weights"]) == old.files.weights(knee.number)
    technique = with_start("none", text, str(tmp_path / "new.db"))
    again = make_problem(space, tmp_path / "roof", technique=technique, schedule=SHORT)
    assert search(again, study=str(tmp_path / "new.db"), trials=1).scores()
    old.files.weights(knee.number).unlink()
    with pytest.raises(MvnasError, match="must have its weights kept"):
        with_start("none", text, str(tmp_path / "new.db"))


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("mobilevit_xs", "weights of mobilevit_xs must be in a file, mobilevit_xs=FILE, or in the package"),
        ("none.db", "there is no none.db"),
        ("a,b.pth", "no comma and no colon in its name"),
        ("none.pth", "weights to start from must be in a file, but it cannot be read"),
        ("mobilevit_sx=pyproject.toml", "network to start from 'mobilevit_sx'"),
    ],
)
def test_what_is_no_start_is_told(text: str, told: str, capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    study = str(tmp_path / "s.db")
    assert main(["search", "--budget", "1M-params", "--start", text, "--study", study]) == 2
    error = capsys.readouterr().err
    assert told in error and len(error) < 400 and "Traceback" not in error
    assert not (tmp_path / "s.db").exists() or not Study.load(study).scores()
