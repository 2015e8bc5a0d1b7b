"""The example of a cost outside the package: it keeps the laws, bounds and is minimised, and its study is read
anywhere.
"""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from shutil import copytree

import optuna
import pytest

import mvnas
from mvnas.cli import main
from mvnas.costs import cost
from mvnas.spaces.arch import Arch
from mvnas.studies.score import Frontier
from mvnas.studies.study import Study
from mvnas.testing.cost import CostContract, networks

ROOT = Path(mvnas.__file__).parents[1]
sys.path += [path for path in [str(ROOT)] if path not in sys.path]

NAME, BYTES = "examples.traffic", 1_000_000
BUDGET = f"{BYTES}B-{NAME}"


class TestTraffic(CostContract):
    name = NAME


def traffic(arch: Arch) -> float:
    return cost(NAME).of(arch, None).value  # of what is counted no model is asked


def test_traffic_is_that_of_the_graph() -> None:
    for arch in networks():
        assert traffic(arch) == arch.graph().deployed().traffic_bytes


def words(space: Path, table: Path, place: Path, budget: str = BUDGET) -> list[str]:
    """A search that bounds and minimises traffic."""
    told = ["search", "--budget", budget, "--objective", NAME, "--space", str(space), "--device", str(table)]
    return [*told, "--epochs", "0.1", "--trials", "3", "--engine", "inline", "--study", str(place), "--json"]


@pytest.fixture(scope="module")
def place(space: Path, table: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    found = tmp_path_factory.mktemp("traffic") / "s.db"
    assert main(words(space, table, found)) == 0
    return found


def test_traffic_is_a_budget_and_an_objective(place: Path) -> None:
    study = Study.load(str(place))
    scores = study.scores()
    assert len(scores) == 3 and study.infeasible()
    for score in scores:
        its = score.costs[NAME]
        assert its.value == its.low == its.high == traffic(score.arch) <= BYTES
    assert study.frontier() == Frontier.of(scores, [NAME])
    record = optuna.load_study(study_name="mvnas", storage=f"sqlite:///{place}")
    assert record.metric_names == ["accuracy", "traffic_bytes"]
    assert [trial.values[1] for trial in record.trials] == [score.costs[NAME].value for score in scores]


def test_tables_and_pictures_tell_traffic(place: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["front", str(place), "--csv", str(tmp_path / "f.csv")]) == 0
    assert "traffic" in capsys.readouterr().out.splitlines()[0]
    assert "traffic_bytes" in (tmp_path / "f.csv").read_text().splitlines()[0]
    assert main(["plot", str(place), "--out", str(tmp_path / "f.svg")]) == 0
    assert "traffic" in (tmp_path / "f.svg").read_text()


def test_its_study_names_code_that_another_process_must_trust(place: Path) -> None:
    front = [sys.executable, "-m", "mvnas.cli", "front", str(place), "--json"]
    refused = subprocess.run(front, cwd=ROOT, capture_output=True, text=True)
    assert refused.returncode == 2 and f"one names the module '{NAME}'" in refused.stderr
    trusted = subprocess.run([*front, "--trust"], cwd=ROOT, capture_output=True, text=True, check=True)
    shown = {row["trial"]: row["traffic_bytes"] for row in json.loads(trusted.stdout)["frontier"]}
    assert shown == {one.number: traffic(one.arch) for one in Study.load(str(place)).frontier().scores}


@pytest.mark.parametrize("mark", ["budget.code", "objective.code"])
def test_a_study_goes_on_with_the_same_code_only(
    mark: str, space: Path, table: Path, place: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    again = copytree(place.parent, tmp_path / "again") / place.name
    record = optuna.load_study(study_name="mvnas", storage=f"sqlite:///{again}")
    setup = record.user_attrs["setup"]
    assert mark in setup["marks"]
    record.set_user_attr("setup", {**setup, "marks": {**setup["marks"], mark: "of other code"}})
    assert main(words(space, table, again)) == 2
    assert f"the content of {mark.partition('.')[0]}" in capsys.readouterr().err


def test_a_study_goes_on_with_the_same_bound_only(
    space: Path, table: Path, place: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    wider = f"{2 * BYTES}B-{NAME}"
    assert main(words(space, table, place, wider)) == 2
    assert f"budget was {BUDGET} and is {wider}" in capsys.readouterr().err
