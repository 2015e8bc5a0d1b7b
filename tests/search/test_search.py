"""Laws of the search: it stays in its budget, loses nothing, repeats itself, and says what it refuses."""

from __future__ import annotations

import json
import os
import signal
import sqlite3
import subprocess
import sys
import time
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from shutil import copytree

import pytest
from optuna.trial import TrialState
from safetensors.torch import load_file
from small import SHORT, make_problem, make_table, search, write_images

from mvnas.budgets import Budget
from mvnas.data import load
from mvnas.errors import BudgetError, DataError, SpaceError, StudyError, TableError
from mvnas.latency.model import latency
from mvnas.latency.table import Table
from mvnas.nn import build
from mvnas.search import Problem
from mvnas.search.problem import from_names
from mvnas.spaces.space import Space
from mvnas.spaces.zoo import published
from mvnas.strategies import strategy
from mvnas.strategies.rungs import Rungs
from mvnas.studies.study import RIVALS, Study
from mvnas.training import Schedule, evaluate
from mvnas.training.sampler import trained_size


@pytest.fixture(scope="module")
def study(problem: Problem, tmp_path_factory: pytest.TempPathFactory) -> Study:
    return search(problem, study=str(tmp_path_factory.mktemp("study") / "s.db"), trials=6)


def test_finished_candidates_are_within_budget_and_new(problem: Problem, study: Study) -> None:
    scores = study.scores()
    assert len(scores) == 6
    assert len({score.arch for score in scores}) == 6
    assert all(problem.excess(score.arch) == 0 and score.costs["params"].value <= 20_000 for score in scores)
    assert study.infeasible() > 0


def test_score_is_what_the_architecture_costs(problem: Problem, study: Study) -> None:
    for score in study.scores():
        estimate = problem.model.predict(score.arch)
        assert (score.costs["latency"].value, score.costs["latency"].low) == pytest.approx(
            (estimate.value, estimate.low)
        )
        arch = score.arch
        assert (score.costs["params"].value, score.costs["macs"].value, score.costs["memory"].value) == (
            arch.params,
            arch.macs,
            arch.memory_bytes,
        )
        assert 0 <= score.quality.value <= 1


def test_weights_are_kept_for_the_frontier_and_its_rivals_alone_and_fit(study: Study) -> None:
    front = study.frontier()
    kept = {int(path.stem) for path in study.files.subfolder("weights").iterdir()}
    wanted, rivals = ({s.number for s in some} for some in (front.scores, front.rivals(study.scores(), RIVALS)))
    assert wanted <= kept <= wanted | rivals
    score = study.pick("knee")
    build(score.arch.graph()).load_state_dict(load_file(study.files.weights(score.number)))


def test_same_seed_same_search(problem: Problem, study: Study, tmp_path: Path) -> None:
    again = search(problem, study=str(tmp_path / "again.db"), trials=6)
    assert [(s.arch, s.quality.value) for s in again.scores()] == [(s.arch, s.quality.value) for s in study.scores()]


def test_continues_to_the_total_and_keeps_what_there_is(problem: Problem, tmp_path: Path) -> None:
    place = str(tmp_path / "s.db")
    first = search(problem, study=place, trials=2).scores()
    after = search(problem, study=place, trials=4).scores()
    assert [(s.number, s.arch, s.quality.observed) for s in after[:2]] == [
        (s.number, s.arch, s.quality.observed) for s in first
    ]
    assert len(after) == 4
    assert search(problem, study=place, trials=3).scores() == after


def test_a_study_that_is_older_than_objectives_goes_on(problem: Problem, study: Study, tmp_path: Path) -> None:
    place = copytree(Path(study.place).parent, tmp_path / "old") / "s.db"
    with closing(sqlite3.connect(place)) as database, database:
        database.execute("DELETE FROM trial_user_attributes WHERE key = 'latency_ms'")
    record = Study.load(str(place)).record
    record.set_user_attr("setup", {key: told for key, told in record.user_attrs["setup"].items() if key != "objective"})
    assert Study.load(str(place)).setup.objective == "latency"
    assert search(problem, study=str(place), trials=6).scores() == study.scores()


@pytest.mark.parametrize(
    ("change", "named"),
    [
        ({"budget": "30K-params"}, "budget was 20K-params and is 30K-params"),
        ({"seed": 1}, "seed was 0 and is 1"),
        ({"schedule": replace(SHORT, epochs=0.2)}, "epochs was 0.1 and is 0.2"),
        ({"data": "DIGITS"}, "data"),
        ({"space": "OTHER"}, "space"),
        ({"device": "OTHER"}, "device"),
    ],
)
def test_contradicting_command_is_refused_by_name(
    change: dict,
    named: str,
    space: Path,
    table: Path,
    study: Study,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    settings: dict = {"budget": "20K-params", "space": space, "device": table, "schedule": SHORT, **change}
    if change.get("space"):
        settings["space"] = tmp_path / "other.yaml"
        settings["space"].write_text(space.read_text().replace("[32, 64]", "[32, 48, 64]"))
        settings["device"] = make_table(tmp_path / "roof", settings["space"])
    if change.get("device"):
        settings["device"] = make_table(tmp_path / "roof", space)
        with (settings["device"] / "ops.csv").open("a") as file:
            file.write((settings["device"] / "ops.csv").read_text().splitlines()[1] + "\n")
    if change.get("data"):
        settings["data"] = str(write_images(tmp_path / "images"))
        monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    other = from_names(**{key: value if key == "schedule" else _text(value) for key, value in settings.items()})
    with pytest.raises(StudyError, match=named):
        search(other, study=study.place, trials=7)


def _text(value: object) -> object:
    return str(value) if isinstance(value, Path) else value


def test_another_form_of_the_latency_model_is_another_device(
    space: Path, table: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = make_problem(space, table).setup.marks
    monkeypatch.setattr("mvnas.search.problem.MODEL", 0)
    after = make_problem(space, table).setup.marks
    assert {name for name in before if before[name] != after[name]} == {"device.model"}


def test_failing_candidates_are_recorded_and_the_search_goes_on(space: Path, table: Path, tmp_path: Path) -> None:
    wild = make_problem(space, table, schedule=replace(SHORT, epochs=0.5, lr=1e30))
    study = search(wild, study=str(tmp_path / "s.db"), trials=3)
    assert len(study.failures()) == 3
    assert all("finite" in reason for reason in study.failures().values())
    with pytest.raises(StudyError, match="failed: .*finite"):
        study.pick("0")


def test_killed_search_loses_no_finished_trial(space: Path, table: Path, tmp_path: Path) -> None:
    place = tmp_path / "s.db"
    command = [sys.executable, "-m", "mvnas.cli", "search", "--budget", "20K-params", "--space", str(space)]
    command += ["--device", str(table), "--epochs", "0.5", "--study", str(place), "--trials"]
    with subprocess.Popen([*command, "50"], stderr=subprocess.PIPE, stdout=subprocess.DEVNULL, text=True) as process:
        for line in process.stderr:
            if line.startswith("trials 2/"):
                break
        time.sleep(0.3)
        os.kill(process.pid, signal.SIGKILL)
    before = Study.load(str(place))
    finished = [(score.number, score.arch, score.quality.observed) for score in before.scores()]
    running = [trial.params for trial in before.trials(TrialState.RUNNING) if "arch" in trial.user_attrs]
    assert len(finished) >= 2
    subprocess.run([*command, str(len(finished) + 2)], check=True, capture_output=True)
    after = Study.load(str(place))
    assert [(score.number, score.arch, score.quality.observed) for score in after.scores()][: len(finished)] == finished
    assert len(after.scores()) == len(finished) + 2
    assert all(params in [trial.params for trial in after.trials(TrialState.COMPLETE)] for params in running)


def test_interrupt_puts_the_candidate_back(problem: Problem, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    place = str(tmp_path / "s.db")

    def stop(status: object) -> None:
        if status.doing:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        search(problem, study=place, trials=1, show=stop)
    (waiting,) = Study.load(place).trials(TrialState.WAITING)
    study = search(problem, study=place, trials=1)
    (score,) = study.scores()
    assert problem.space.at(waiting.system_attrs["fixed_params"]) == score.arch
    assert study.failures() == {}


@pytest.mark.parametrize("sampler", ["TPESampler", "RandomSampler", "NSGAIIISampler"])
def test_any_sampler_of_optuna_searches(sampler: str, problem: Problem, tmp_path: Path) -> None:
    assert len(search(problem, study=str(tmp_path / "s.db"), trials=3, strategy=strategy(sampler)).scores()) == 3


def test_unknown_sampler_has_a_near_miss() -> None:
    with pytest.raises(StudyError, match="did you mean 'NSGAIISampler'"):
        strategy("NSGAISampler")


def test_small_space_is_exhausted_and_the_search_ends(space: Path, table: Path, tmp_path: Path) -> None:
    few = tmp_path / "few.yaml"
    few.write_text(space.read_text().replace("[64, 96]", "64").replace("[8, 16]", "8").replace("[16, 32]", "16")
                   .replace("[1, 2]", "1").replace("[2, 4]", "2"))  # fmt: skip
    study = search(make_problem(few, table), study=str(tmp_path / "s.db"), trials=9)
    assert len(study.scores()) == 2
    assert study.trials(TrialState.RUNNING) == []


def test_time_ends_a_search(problem: Problem, tmp_path: Path) -> None:
    assert len(search(problem, study=str(tmp_path / "s.db"), seconds=0.01).scores()) <= 1


def test_a_problem_of_objects_is_that_of_their_names(space: Path, table: Path) -> None:
    parts = Space.load(space), Budget.parse("20K-params"), load("digits"), latency([Table.load(table)])
    made = Problem.of(*parts, schedule=SHORT, rungs=Rungs(("1/3", "1")), seed=3)
    named = make_problem(space, table, rungs="1/3,1", seed=3)
    assert made.setup == named.setup and made.space == named.space and made.budget == named.budget
    assert Problem.of(*parts).setup.schedule["epochs"] == 4.0
    with pytest.raises(BudgetError):
        Problem.of(parts[0], Budget.parse("1K-params"), *parts[2:])


def test_published_networks_that_fit_are_tried_first() -> None:
    names = list(from_names("4M-params", schedule=SHORT).baselines)
    assert names == ["mobilevit_xxs", "mobilevit_xs"]
    assert set(names) < set(published())


@pytest.mark.parametrize(
    ("settings", "error"),
    [
        ({"budget": "1K-params"}, BudgetError),
        ({"budget": "many"}, BudgetError),
        ({"space": "mobilvit"}, SpaceError),
        ({"data": "digit"}, DataError),
        ({"device": "pixel"}, TableError),
    ],
)
def test_mistakes_are_errors_before_any_training(settings: dict, error: type[Exception]) -> None:
    with pytest.raises(error):
        from_names(**{"budget": "6M-params", **settings})


def test_study_file_of_something_else_is_an_error(problem: Problem, tmp_path: Path) -> None:
    path = tmp_path / "notes.db"
    path.write_text("not a database at all, but some text that is long enough to be read as a header of one")
    with pytest.raises(StudyError, match="SQLite"):
        Study.load(str(path))
    with pytest.raises(StudyError, match="folder"):
        search(problem, study=str(tmp_path / "none" / "s.db"))


def test_precision_is_searched_where_there_is_a_table_of_each(space: Path, table: Path, tmp_path: Path) -> None:
    coarse = tmp_path / "coarse"
    copytree(table, coarse)
    device = json.loads((coarse / "device.json").read_text()) | {"precision": "int8"}
    (coarse / "device.json").write_text(json.dumps(device))
    problem = from_names("20K-params", space=str(space), device=f"{table},{coarse}", schedule=SHORT)
    assert problem.space.choices["precision"] == ("float32", "int8")
    study = search(problem, study=str(tmp_path / "s.db"), trials=8)
    scores = {
        precision: [s for s in study.scores() if s.arch.precision == precision] for precision in ("float32", "int8")
    }
    assert all(scores.values()) and not study.failures()
    for score in scores["int8"]:
        assert score.label.endswith(" int8")
        assert all(told.endswith("at int8") for told in score.sources.values())
    again = Study.load(study.place)
    assert [s.arch for s in again.scores()] == [s.arch for s in study.scores()]


def test_accuracy_is_that_of_the_precision_that_is_searched(space: Path, table: Path, tmp_path: Path) -> None:
    coarse = tmp_path / "coarse"
    copytree(table, coarse)
    device = json.loads((coarse / "device.json").read_text()) | {"precision": "int8"}
    (coarse / "device.json").write_text(json.dumps(device))
    fixed = from_names("20K-params", space=str(space), device=str(coarse), schedule=Schedule(epochs=2))
    study = search(fixed, study=str(tmp_path / "s.db"), trials=1)
    (score,) = study.scores()
    assert score.arch.precision == "int8"
    module = build(score.arch.graph())
    module.load_state_dict(load_file(study.files.weights(score.number)))
    side = trained_size(score.arch.resolution, fixed.setup.factor)
    assert 0.2 < score.quality.value == pytest.approx(evaluate(module, fixed.data.val, side=side), abs=0.1)


def test_a_table_that_does_not_tell_its_precision_is_searched_at_float32(
    space: Path, table: Path, tmp_path: Path
) -> None:
    untold = tmp_path / "untold"
    copytree(table, untold)
    device = json.loads((untold / "device.json").read_text()) | {"precision": "unknown"}
    (untold / "device.json").write_text(json.dumps(device))
    problem = from_names("20K-params", space=str(space), device=str(untold), schedule=SHORT)
    assert problem.space.precision == "float32"
