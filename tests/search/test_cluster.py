"""Laws of drivers that share a study, and of a cluster that loses nodes: together they train exactly what was asked
for.
"""

from __future__ import annotations

import os
import sqlite3
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import Any, cast

import pytest
import torch
from optuna.trial import TrialState
from small import PATIENCE, SHORT, make_problem, search, wait_until

import mvnas
from mvnas.engines import Done, Failed, Job, engine
from mvnas.errors import StudyError
from mvnas.search import Problem
from mvnas.strategies import strategy
from mvnas.studies import drivers
from mvnas.studies.study import RIVALS, Study
from mvnas.training import Schedule


def drawn(study: Study, problem: Problem) -> tuple[Any, Any]:
    proposal = strategy("random")(problem.context(4)).next(study.told, study.asked, 0)
    assert proposal
    return proposal.picks, proposal.notes


def asked(study: Study, problem: Problem, draw: tuple[Any, Any]) -> int:
    picks, notes = draw
    return study.ask(picks, problem.space.choices, notes, {"arch": problem.space.at(picks).to_json()}, 0.0)


@pytest.mark.usefixtures("shared")
def test_of_two_drivers_that_draw_the_same_one_trains_it(problem: Problem, tmp_path: Path) -> None:
    one, two = (Study.begin(str(tmp_path / "s.db"), problem.setup) for _ in range(2))
    draws = [drawn(study, problem) for study in (one, two)]
    assert draws[0] == draws[1]
    numbers = [asked(study, problem, draw) for study, draw in zip((one, two), draws, strict=True)]
    assert [study.surplus(number, None) for study, number in zip((one, two), numbers, strict=True)] == [False, True]
    two.drop(numbers[1])
    assert drawn(two, problem)[0] != draws[0][0]
    third = asked(one, problem, drawn(one, problem))
    assert [one.surplus(third, total) for total in (1, 2)] == [True, False]
    assert one.begun == (2, 2.0)


@pytest.mark.usefixtures("shared")
def test_two_drivers_put_a_dead_ones_candidate_back_once(problem: Problem, tmp_path: Path) -> None:
    one, two = (Study.begin(str(tmp_path / "s.db"), problem.setup) for _ in range(2))
    picks, _ = draw = drawn(one, problem)
    number = asked(one, problem, draw)
    (seen,) = two.trials(TrialState.RUNNING)
    one.recover()
    two.retry(seen)
    (waiting,) = two.trials(TrialState.WAITING)
    assert waiting.system_attrs["fixed_params"] == picks
    one.tell(number, [0.5, 1.0])  # it was not dead
    assert not one.scores() and one.trials()[number].state == TrialState.FAIL
    study = search(problem, study=one.place, trials=1)
    (score,) = study.scores()
    assert score.arch == problem.space.at(picks)
    assert not study.trials(TrialState.WAITING, TrialState.RUNNING)


HERE = drivers.driver()
ELSEWHERE = {**HERE, "driver": "another", "namespace": "another container"}
DEAD = 2**22 + 1  # beyond any process's number


@pytest.mark.usefixtures("shared")
@pytest.mark.parametrize(
    ("told", "taken"),
    [
        (ELSEWHERE, False),  # with our host's name and our number, as in two containers
        (ELSEWHERE | {"pid": DEAD}, False),
        (HERE | {"driver": "another", "pid": DEAD}, True),
        (HERE | {"driver": "another", "pid": os.getppid()}, False),
        (HERE | {"driver": "another"}, True),  # whose number we have by now
        (HERE, True),  # an earlier search of ours
        (HERE | {"driver": "another", "pid": "1"}, False),
        ({}, True),
    ],
)
def test_a_driver_is_known_by_its_id_and_its_process_only_where_it_ran(
    told: dict[str, Any], taken: bool, problem: Problem, tmp_path: Path
) -> None:
    study = Study.begin(str(tmp_path / "s.db"), problem.setup)
    picks, notes = drawn(study, problem)
    attrs = {"arch": problem.space.at(picks).to_json(), **told}
    number = study.ask(picks, problem.space.choices, notes, attrs, 0.0)
    other = Study.load(study.place)
    other.recover()
    assert (other.trials()[number].state == TrialState.FAIL) == taken
    assert len(other.trials(TrialState.WAITING)) == taken


@pytest.mark.usefixtures("shared")
def test_a_driver_in_another_container_is_given_up_by_its_heartbeat(problem: Problem, tmp_path: Path) -> None:
    study = Study.begin(str(tmp_path / "s.db"), problem.setup)
    picks, notes = drawn(study, problem)
    number = study.ask(
        picks, problem.space.choices, notes, {"arch": problem.space.at(picks).to_json(), **ELSEWHERE}, 0.0
    )
    study.recover()
    with closing(sqlite3.connect(study.place)) as database, database:
        database.execute("UPDATE trial_heartbeats SET heartbeat = datetime('now', '-121 seconds')")
    study.recover()
    assert study.trials()[number].state == TrialState.FAIL
    assert [trial.system_attrs["fixed_params"] for trial in study.trials(TrialState.WAITING)] == [picks]


@pytest.mark.usefixtures("shared")
def test_weights_of_what_another_driver_is_about_to_tell_are_kept(
    problem: Problem, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    study = Study.begin(str(tmp_path / "s.db"), problem.setup)
    number = asked(study, problem, drawn(study, problem))
    study.files.save_weights(number, {"w": torch.zeros(1)})
    Study.load(study.place).keep_weights()
    assert study.files.weights(number).exists()
    study.tell(number, reason="it failed")
    Study.load(study.place).keep_weights()
    assert not study.files.weights(number).exists()


def test_first_to_begin_a_study_says_what_it_is(space: Path, table: Path, problem: Problem, tmp_path: Path) -> None:
    place = str(tmp_path / "s.db")
    Study.begin(place, problem.setup)
    with pytest.raises(StudyError, match="seed was 0 and is 1"):
        Study.begin(place, make_problem(space, table, seed=1).setup)


@pytest.mark.parametrize("rungs", ["1", "1/2,1"])
def test_three_drivers_of_which_one_is_killed_finish_what_was_asked(
    server: str, space: Path, table: Path, tmp_path: Path, rungs: str
) -> None:
    command = [sys.executable, "-m", "mvnas.cli", "search", "--budget", "20K-params", "--space", str(space)]
    command += ["--device", str(table), "--epochs", "0.2", "--study", server, "--trials", "12", "--rungs", rungs]
    settings = {"cwd": tmp_path, "env": {**os.environ, "PYTHONPATH": str(Path(mvnas.__file__).parents[1])}}
    drivers = [
        subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True, **settings)
        for _ in range(3)
    ]
    victim, *others = drivers

    def mine() -> list[Any]:
        try:
            return [t for t in Study.load(server).trials(TrialState.RUNNING) if t.user_attrs["pid"] == victim.pid]
        except StudyError:  # nobody has begun it yet
            return []

    wait_until("all train", mine)
    victim.kill()
    victim.communicate()
    study = Study.load(server)
    lost = [t.params for t in study.trials(TrialState.RUNNING) if t.user_attrs["pid"] == victim.pid]
    known = study.scores()
    for driver in others:
        told = driver.communicate(timeout=PATIENCE)[1]
        assert driver.returncode == 0, told
    study = Study.load(server)
    scores = study.scores()
    first = {score.number: (score.arch, score.quality.observed[0]) for score in scores}
    assert all(first[score.number] == (score.arch, score.quality.observed[0]) for score in known)
    assert len(scores) == len({score.arch for score in scores}) and not study.failures()
    trainings = sum(len(score.quality.observed) for score in scores)
    assert study.finished == 12 == trainings if rungs == "1" else 12 <= study.finished < 13
    assert not study.trials(TrialState.RUNNING, TrialState.WAITING)
    trained = [t.params for t in study.trials(TrialState.COMPLETE, TrialState.PRUNED)]
    assert all(picks in trained for picks in lost)
    kept = {int(path.stem) for path in (tmp_path / study.files.subfolder("weights")).iterdir()}
    front = study.frontier()
    rivals = {score.number for score in front.rivals(scores, RIVALS)}
    assert kept - rivals <= {score.number for score in front.scores} <= kept | rivals


@pytest.fixture
def cluster(monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """A Ray cluster of two nodes of one core each, on loopback."""
    pytest.importorskip("ray", reason="Ray is not installed: pip install 'mvnas[ray]'")
    from ray.cluster_utils import Cluster

    monkeypatch.setenv("RAY_USAGE_STATS_ENABLED", "0")
    monkeypatch.setenv("PYTHONPATH", str(Path(mvnas.__file__).parents[1]))
    small = {"num_cpus": 1, "object_store_memory": 100 * 2**20, "include_dashboard": False}
    made = Cluster(initialize_head=True, head_node_args=small)
    made.add_node(num_cpus=1, object_store_memory=100 * 2**20)
    yield made
    made.shutdown()


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("rungs", ["1", "1/2,1"])
def test_a_cluster_that_loses_a_node_trains_what_was_asked(
    cluster: Any, space: Path, table: Path, tmp_path: Path, rungs: str
) -> None:
    problem = make_problem(space, table, rungs=rungs)
    trainer = engine("ray", problem.images, address=cluster.address)
    assert trainer.slots == 2
    begun: list[int] = []
    went_on: list[int] = []

    class Losing:
        """The engine, in a cluster that loses its second node while both are training."""

        slots = property(lambda self: trainer.slots)
        wait, close = trainer.wait, trainer.close

        def start(self, key: int, job: Job) -> None:
            trainer.start(key, job)
            begun.append(key)
            went_on.extend([key] if job.begin else [])
            if len(begun) == 4:
                time.sleep(1)
                cluster.remove_node(next(iter(cluster.worker_nodes)), allow_graceful=False)

    try:
        study = search(problem, study=str(tmp_path / "s.db"), trials=8, trainer=Losing())
        wait_until("the cluster tells that a node is gone", lambda: trainer.wait(0) == [] and trainer.slots == 1)
    finally:
        trainer.close()
    scores = study.scores()
    assert len(scores) == len({score.arch for score in scores}) and not study.failures()
    if rungs == "1":
        assert begun == [score.number for score in scores] and len(begun) == 8
    else:
        assert set(went_on) == {score.number for score in scores} and 8 <= study.finished < 9


class Unreadable:
    """Stands for a schedule in a job that raises what is not ours wherever it is read."""

    def __reduce__(self) -> Any:
        return int, ("no number",)


@pytest.mark.filterwarnings("ignore")
def test_a_training_in_a_cluster_ends_by_its_limit_or_is_tried_again(
    cluster: Any, problem: Problem, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    for name in ("random", "types", "statistics", "fractions"):  # which workers must not take for Python's
        (tmp_path / f"{name}.py").write_text("raise RuntimeError('of the user')\n")
    trainer = engine("ray", problem.images, address=cluster.address, limit=0.01)
    job = Job(problem.space.sample(lambda name, options: options[0]), SHORT, problem.setup.factor, 0)
    try:
        trainer.start(7, job)
        events = [event for _ in range(100) for event in trainer.wait(0.1)][:1]
        assert isinstance(events[0], Failed) and events[0].key == 7 and "within 0.01 s" in events[0].reason
        trainer.limit = None
        trainer.start(8, job)
        end = time.monotonic() + PATIENCE
        while not (events := trainer.wait(1.0)) and time.monotonic() < end:
            pass
        assert isinstance(events[0], Done) and events[0].key == 8
        trainer.start(9, replace(job, schedule=cast(Schedule, Unreadable())))
        while not (events := trainer.wait(1.0)) and time.monotonic() < end:
            pass
        assert events[0] == Failed(9, "ValueError: invalid literal for int() with base 10: 'no number'", doubtful=True)
    finally:
        trainer.close()


def test_an_engine_refuses_what_it_does_not_take(problem: Problem) -> None:
    with pytest.raises(StudyError, match="setting of the engine processes 'adress'"):
        engine("processes", problem.images, adress="here")
