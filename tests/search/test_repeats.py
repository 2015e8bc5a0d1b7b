"""Laws of candidates that are trained several times, from one seed after the other."""

from __future__ import annotations

import random
import sqlite3
from collections.abc import Sequence
from contextlib import closing
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from small import make_problem, make_space, make_table

from mvnas.engines import Done, Event, Job, seed_of
from mvnas.errors import StudyError
from mvnas.reports.json import summary_json
from mvnas.reports.lines import trained_line
from mvnas.reports.tables import frontier_table
from mvnas.search import Problem, search
from mvnas.strategies import Asked, Context, Proposal, Told, seen
from mvnas.studies.study import Study
from mvnas.studies.trials import candidate_of, repeat_of
from mvnas.training import Trained


class Twice:
    """A strategy that trains each candidate twice, one after the other."""

    def __init__(self, context: Context) -> None:
        self.context = context

    def next(self, history: Sequence[Told], pending: Sequence[Asked], seed: int) -> Proposal | None:
        known = [*history, *pending]
        counts = {one.number: sum(other.number == one.number for other in known) for one in known}
        for one in history:
            if counts[one.number] == 1:
                return Proposal(one.picks, 0, one.number, repeat=1)
        generator = random.Random(f"{seed} {len(known)}")
        picks = {name: generator.choice(options) for name, options in self.context.space.choices.items()}
        led = self.context.lead(picks, seen(history, pending), generator)
        return Proposal(led) if led else None


def luck(job: Job) -> float:
    """An accuracy of the network's size, and of the seed."""
    generator = random.Random(job.seed)
    return job.arch.params / (job.arch.params + 2e4) * (0.9 + 0.2 * generator.random())


class Lucky:
    """An engine that knows what would come of a training, and keeps its seed as weights."""

    slots = 1

    def __init__(self) -> None:
        self.jobs: list[Job] = []
        self.waiting: list[tuple[int, Job]] = []

    def start(self, key: int, job: Job) -> None:
        self.jobs.append(job)
        self.waiting.append((key, job))

    def wait(self, seconds: float) -> Sequence[Event]:
        key, job = self.waiting.pop(0)
        return [Done(key, Trained(luck(job), {"seed": torch.tensor(job.seed)}, 100, 1.0, 100))]

    def close(self) -> None:
        pass


@pytest.fixture(scope="module")
def problem(tmp_path_factory: pytest.TempPathFactory) -> Problem:
    folder = tmp_path_factory.mktemp("repeats")
    space = make_space(folder)
    return make_problem(space, make_table(folder / "roof", space))


@pytest.fixture
def study(problem: Problem, tmp_path: Path) -> Study:
    """Five candidates, of which each but the last was trained twice."""
    return search(problem, study=str(tmp_path / "s.db"), trials=9, strategy=Twice, trainer=Lucky())


def test_a_repeat_is_no_candidate(problem: Problem, study: Study) -> None:
    scores = study.scores()
    assert [len(score.quality.observed) for score in scores] == [2, 2, 2, 2, 1]
    assert len({score.arch for score in scores}) == 5 and study.finished == 9
    assert all(score in scores for score in study.frontier().scores)
    assert summary_json(study)["trained"] == 5 and summary_json(study)["trainings"] == 9
    assert "9 trainings of 5 networks" in trained_line(study) and " of 2 " in frontier_table(study)
    trials = study.trials()
    assert [(candidate_of(trial), repeat_of(trial)) for trial in trials] == [(i - i % 2, i % 2) for i in range(9)]
    for score in scores:
        seeds = [seed_of(score.arch, problem.setup.seed, repeat) for repeat in range(len(score.quality.observed))]
        assert len(set(seeds)) == len(seeds)


def test_the_weights_that_are_kept_are_of_its_best_training(problem: Problem, study: Study) -> None:
    for score in study.frontier().scores:
        seeds = [seed_of(score.arch, problem.setup.seed, repeat) for repeat in range(len(score.quality.observed))]
        best = score.quality.observed.index(score.quality.kept)
        assert load_file(study.files.weights(score.number))["seed"].item() == seeds[best]


def test_a_repeat_is_picked_as_its_candidate(study: Study) -> None:
    assert study.pick("3") == study.pick("2") and study.pick("3").number == 2


def test_interrupted_in_the_midst_of_repeats_a_study_is_the_same(
    problem: Problem, study: Study, tmp_path: Path
) -> None:
    place = str(tmp_path / "parts.db")

    class Failing(Lucky):
        def wait(self, seconds: float) -> Sequence[Event]:
            if len(self.jobs) == 2:
                raise KeyboardInterrupt
            return super().wait(seconds)

    stops = 0
    while stops < 20:
        try:
            search(problem, study=place, trials=9, strategy=Twice, trainer=Failing())
            break
        except KeyboardInterrupt:
            stops += 1
    parts = Study.load(place)
    assert stops > 4
    assert parts.told == [one._replace(number=mine.number) for one, mine in zip(study.told, parts.told, strict=True)]
    assert [score.quality for score in parts.scores()] == [score.quality for score in study.scores()]


def test_what_is_expected_follows_from_the_study_alone(study: Study) -> None:
    assert Study.load(study.place).scores() == study.scores()


def test_a_repeat_of_nothing_is_refused(study: Study) -> None:
    repeat = study.trials()[1]
    with closing(sqlite3.connect(study.place)) as database, database:
        database.execute(
            "UPDATE trial_user_attributes SET value_json = '1' WHERE key = 'candidate' AND trial_id = ?",
            (repeat._trial_id,),
        )
    with pytest.raises(StudyError, match="trial 1 repeats a candidate that has not finished"):
        Study.load(study.place).frontier()
