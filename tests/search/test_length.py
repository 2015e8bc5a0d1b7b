"""Laws of the length of trainings: what fits into a time is chosen, told and kept, and to ask changes nothing."""

from __future__ import annotations

import random
from pathlib import Path

import pytest
import torch
from small import make_problem, make_space, make_table, write_images

from mvnas.cli import main
from mvnas.search.length import MOST, SHARE, Pace, fitted, kept, lasting, pace, told, worth_telling
from mvnas.studies.study import Study
from mvnas.training import Schedule

SLOW = Pace(epoch=30, beside=10)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a small space, its table and a few images."""
    folder = tmp_path_factory.mktemp("length")
    make_table(folder / "roof", make_space(folder))
    write_images(folder / "images", each=10)
    return folder


def command(folder: Path, study: Path, *more: str) -> list[str]:
    names = {"space": "small.yaml", "device": "roof", "data": "images"}
    given = [part for name, place in names.items() for part in (f"--{name}", str(folder / place))]
    return ["search", "--budget", "20K-params", *given, "--engine", "inline", "--study", str(study), *more]


@pytest.mark.parametrize("seconds", [600, 7200, 43_200])
@pytest.mark.parametrize("trials", [5, 20])
@pytest.mark.parametrize("workers", [1, 2, 3])
def test_the_longest_trainings_are_chosen_of_which_all_fit(seconds: float, trials: int, workers: int) -> None:
    found = fitted(SLOW, seconds, trials=trials, default=0.5, workers=workers)
    assert found.fit == trials and 0.5 < found.epochs <= MOST
    assert SLOW.search(found.epochs, trials, workers) <= SHARE * seconds
    assert SLOW.search(1.1 * found.epochs, trials, workers) > SHARE * seconds or found.epochs == MOST
    assert found.epochs == float(f"{found.epochs:.2g}")


def test_too_short_a_time_trains_fewer_and_none_trains_without_end() -> None:
    short = fitted(SLOW, 200, trials=20, default=2)
    assert (short.epochs, short.fit) == (2, int(SHARE * 200 / SLOW.candidate(2)))
    assert short.fit < 20 and f"about {short.fit} of 20" in short.told
    assert fitted(SLOW, 1, trials=20, default=2).fit == 1
    assert fitted(SLOW, 1e7, trials=20, default=2).epochs == MOST
    assert fitted(SLOW, 60, trials=20, default=400).epochs == 400


def test_a_search_says_how_long_it_will_take() -> None:
    assert told(SLOW, 2, trials=20) == "20 candidates of about 70 s each: about 23 minutes on this machine"
    assert "about 12 minutes" in told(SLOW, 2, trials=20, workers=2)
    assert told(SLOW, 2, trials=20, seconds=7200) == told(SLOW, 2, trials=20)
    assert "about 8 of them in 10 minutes" in told(SLOW, 2, trials=20, seconds=600)
    assert "about 102 of them in 2 hours" in told(SLOW, 2, trials=None, seconds=7200)


def test_asking_how_fast_trainings_are_changes_nothing(folder: Path) -> None:
    problem = make_problem(folder / "small.yaml", folder / "roof", data=str(folder / "images"))
    before = torch.get_rng_state(), torch.get_num_threads(), random.getstate()
    found = pace(problem)
    assert found and found.epoch > 0 and found.beside > 0
    assert torch.equal(torch.get_rng_state(), before[0])
    assert (torch.get_num_threads(), random.getstate()) == before[1:]
    assert not worth_telling(problem) and worth_telling(lasting(problem, 1000))
    assert lasting(problem, 7).setup.schedule == Schedule(epochs=7).to_json()


def test_a_time_chooses_the_length_and_the_study_keeps_it(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    study = tmp_path / "s.db"
    assert kept(str(study)) is None
    begin = command(folder, study)
    assert main([*begin, "--time", "3s", "--trials", "2"]) == 0
    words = capsys.readouterr().out
    epochs = Study.load(str(study)).setup.schedule["epochs"]
    assert f"training {epochs:g} epochs of each candidate" in words and "fit into the time" in words
    assert "on this machine" in words
    count = len(Study.load(str(study)).scores())
    assert 1 <= count <= 2
    assert main([*begin, "--trials", str(count), "--time", "1h"]) == 0
    assert f"training {epochs:g} epochs" in (words := capsys.readouterr().out) and "as the study began" in words
    assert len(Study.load(str(study)).scores()) == count
    assert main([*begin, "--trials", "1", "--epochs", f"{2 * epochs:g}"]) == 2
    assert f"give --epochs {epochs:g}" in capsys.readouterr().err


def test_a_length_that_is_given_stays_whatever_the_time(folder: Path, tmp_path: Path) -> None:
    study = tmp_path / "s.db"
    assert main([*command(folder, study), "--time", "1s", "--epochs", "0.1", "--json"]) == 0
    assert Study.load(str(study)).setup.schedule["epochs"] == 0.1
