"""Laws of a search with rungs: who rests goes on where he rested, the budget is one of full trainings, nothing is
lost.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from shutil import rmtree

import pytest
import torch
from optuna.trial import TrialState
from small import SHORT, make_problem, search

from mvnas.data import load
from mvnas.engines import Done, Event, Job, seed_of, train
from mvnas.errors import StudyError
from mvnas.reports.json import summary_json
from mvnas.reports.lines import rest_line
from mvnas.search import Problem
from mvnas.search.problem import from_names
from mvnas.spaces.arch import Arch
from mvnas.strategies import strategy
from mvnas.strategies.rungs import resting
from mvnas.studies.study import RESTS, Study
from mvnas.studies.trials import candidate_of, rung_of
from mvnas.training import Checkpoint, Trained

SHARES = (1 / 4, 1 / 2, 1.0)


@pytest.fixture(scope="module")
def climb(space: Path, table: Path) -> Problem:
    """The small search, by three rungs, of which the short ones may be trusted since accuracies are `truth`."""
    return make_problem(space, table, rungs="1/4,1/2,1")


def truth(arch: Arch, share: float) -> float:
    """A smooth accuracy that grows with size and with the length of the training."""
    return share**0.2 * arch.params / (arch.params + 2e4)


class Told:
    """An engine that knows what would come of a training; it notes each, and takes only checkpoints of the same
    network.
    """

    def __init__(self, slots: int = 1) -> None:
        self.slots, self.jobs, self.waiting = slots, [], []

    def start(self, key: int, job: Job) -> None:
        self.jobs.append(job)
        self.waiting.append((key, job))

    def wait(self, seconds: float) -> Sequence[Event]:
        key, job = self.waiting.pop(0)
        if job.begin:
            assert job.begin.weights["params"].item() == job.arch.params
            assert job.begin.step == round(100 * SHARES[SHARES.index(job.until) - 1])
        known = {"params": torch.tensor(job.arch.params)}
        rest = Checkpoint(round(100 * job.until), known, [], {}, torch.zeros(1), torch.zeros(1))
        rest = rest if job.until < 1 else None
        return [Done(key, Trained(truth(job.arch, job.until), known, 100, 1.0, 100, rest))]

    def close(self) -> None:
        pass


def rows(study: Study) -> list[tuple[object, ...]]:
    """What is known of each training, in the order in which they began."""
    return [(one.picks, one.rung, one.accuracy) for one in study.told]


@pytest.mark.parametrize("workers", [1, 3])
def test_trainings_go_on_where_they_rested_and_come_to_what_was_asked(
    climb: Problem, tmp_path: Path, workers: int
) -> None:
    engine = Told(workers)
    study = search(climb, study=str(tmp_path / "s.db"), trials=30, trainer=engine)
    lengths = {share: share - lower for share, lower in zip(SHARES, (0.0, *SHARES), strict=False)}
    asked = [1.0 if job.until == 1 and not job.begin else lengths[job.until] for job in engine.jobs]  # 1: another seed
    spent = [sum(asked[:count]) for count in range(len(asked) + 1)]
    assert spent[-2] < 30 <= spent[-1] + 1e-9
    assert study.finished == pytest.approx(spent[-1])
    assert all(job.begin for job in engine.jobs if job.until == SHARES[1])

    scores = study.scores()
    assert all(set(score.quality.observed) == {truth(score.arch, 1.0)} for score in scores)
    ends = {}
    for one in study.told:
        assert one.accuracy == truth(climb.space.at(one.picks), SHARES[one.rung])
        if not one.repeat:
            ends.setdefault(one.number, []).append(one.rung)
    assert all(sorted(rungs) == list(range(len(rungs))) for rungs in ends.values())  # each rung once, none left out
    counts = [sum(len(rungs) == height for rungs in ends.values()) for height in (1, 2, 3)]
    assert counts[2] == len(scores) and counts[0] >= RESTS
    assert study.resting == {"1/4": counts[0], "1/2": counts[1]} == summary_json(study)["resting"]
    assert f"{counts[0]} rest after 1/4 of the epochs" in rest_line(study)

    states = {trial.number: trial.state for trial in study.trials()}
    assert {states[score.number] for score in scores} == {TrialState.COMPLETE}
    trainings = sum(len(score.quality.observed) for score in scores)
    assert sum(state == TrialState.PRUNED for state in states.values()) == len(states) - trainings
    kept = [Checkpoint.load(path).step for path in (tmp_path / "s.resting").iterdir()]
    assert len(kept) == kept.count(25) + kept.count(50)
    assert all(0 < kept.count(step) <= min(count, RESTS) for step, count in zip((25, 50), counts, strict=False))


@pytest.mark.parametrize("workers", [1, 3])
def test_a_checkpoint_is_kept_while_its_candidate_is_among_the_next_or_trains(
    climb: Problem, tmp_path: Path, workers: int
) -> None:
    place = str(tmp_path / "s.db")
    seen: set[tuple[int, int]] = set()
    kept: set[tuple[int, int]] = set()  # candidates and rungs

    def look(status: object) -> None:
        nonlocal seen, kept
        study = Study.load(place)
        picks = {(one.number, one.rung): one.picks for one in study.told if one.rung < len(SHARES) - 1}
        following = resting(*study._ladder())
        needed = {(number, rung) for rung, numbers in enumerate(following) for number in numbers[:RESTS]}
        training = study.trials(TrialState.RUNNING)
        needed |= {(candidate_of(trial), rung_of(trial) - below) for trial in training for below in (0, 1)}
        kept = (kept | (picks.keys() - seen)) & needed
        seen |= picks.keys()
        assert {rest for rest in seen if study.files.checkpoint(picks[rest], rest[1])} == kept
        assert len(list((tmp_path / "s.resting").glob("*"))) == len(kept)

    search(climb, study=place, trials=30, trainer=Told(workers), show=look)
    assert len(seen) > len(kept) >= RESTS


def test_interrupted_anywhere_a_search_with_rungs_is_the_same(climb: Problem, tmp_path: Path) -> None:
    whole = search(climb, study=str(tmp_path / "whole.db"), trials=16, trainer=Told())
    place, count = str(tmp_path / "parts.db"), 0

    class Failing(Told):
        def wait(self, seconds: float) -> Sequence[Event]:
            if len(self.jobs) == 5:
                raise KeyboardInterrupt
            return super().wait(seconds)

    while count < 100:
        count += 1
        try:
            search(climb, study=place, trials=16, trainer=Failing())
        except KeyboardInterrupt:
            continue
        break
    parts = Study.load(place)
    assert count > 5
    assert rows(parts) == rows(whole)
    assert parts.finished == pytest.approx(whole.finished)
    assert not parts.trials(TrialState.RUNNING, TrialState.WAITING)


def test_who_has_no_checkpoint_begins_anew(climb: Problem, tmp_path: Path) -> None:
    place = str(tmp_path / "s.db")
    whole = rows(search(climb, study=str(tmp_path / "whole.db"), trials=6, trainer=Told()))
    engine = Told()

    def forget(status: object) -> None:
        rmtree(tmp_path / "s.resting", ignore_errors=True)

    assert rows(search(climb, study=place, trials=6, trainer=engine, show=forget)) == whole
    assert {job.until for job in engine.jobs} == set(SHARES) and not any(job.begin for job in engine.jobs)


def test_a_training_by_rungs_comes_to_the_same_score(space: Path, table: Path, tmp_path: Path) -> None:
    problem = make_problem(space, table, rungs="1/2,1")
    study = search(problem, study=str(tmp_path / "s.db"), trials=2)
    data = load("digits")
    assert len(study.scores()) == 2
    for score in study.scores():
        trial = study.trials()[score.number]
        rested = study.trials()[candidate_of(trial)]
        assert (rung_of(rested), rung_of(trial), rested.params) == (0, 1, trial.params)
        assert rested.state == TrialState.PRUNED and set(rested.intermediate_values) == {0}
        job = Job(score.arch, SHORT, problem.setup.factor, seed_of(score.arch, problem.setup.seed))
        assert score.quality.observed == (train(job, data).quality,)


@pytest.mark.usefixtures("shared")
def test_two_drivers_do_not_both_go_on_with_a_candidate(climb: Problem, tmp_path: Path) -> None:
    one, two = (Study.begin(str(tmp_path / "s.db"), climb.setup) for _ in range(2))
    picks = climb.space.ends[0]
    arch = {"arch": climb.space.at(picks).to_json(), "latency_ms": 1.0}
    first = one.ask(picks, climb.space.choices, {}, {**arch, "rung": 0}, 0.0)
    one.rest(first, 0, 0.5)
    later = [
        study.ask(picks, climb.space.choices, {}, {**arch, "rung": 1, "candidate": first}, 0.0) for study in (one, two)
    ]
    assert [study.surplus(number, None) for study, number in zip((one, two), later, strict=True)] == [False, True]


@pytest.mark.parametrize("rungs", ["", "1/3", "1,1/3", "0,1", "1/3,1/3,1", "-1,1", "a,1", "1/0,1", "2"])
def test_rungs_rise_to_the_full_length(rungs: str) -> None:
    with pytest.raises(StudyError, match="rungs must be shares of the epochs that rise to 1"):
        from_names("6M-params", rungs=rungs)


def test_rungs_are_how_a_study_began_and_for_one_strategy(climb: Problem, tmp_path: Path) -> None:
    place = str(tmp_path / "s.db")
    search(climb, study=place, trials=1, trainer=Told())
    with pytest.raises(StudyError, match="rungs was 1/4,1/2,1 and is 1;"):
        search(replace(climb, setup=replace(climb.setup, rungs="1")), study=place, trials=2)
    with pytest.raises(
        StudyError, match="rungs need the strategy surrogate, or another that promotes, but got TPESampler"
    ):
        search(climb, study=place, trials=2, strategy=strategy("TPESampler"))
