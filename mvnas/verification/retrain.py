"""Candidates of a study trained again, from scratch and longer; the study keeps what came of each, so that none is
trained twice.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import closing, contextmanager
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from mvnas.data import Data, data_marks, load
from mvnas.errors import ExportError, StudyError, TrainingError, plain
from mvnas.studies.checking import fields_of
from mvnas.studies.faults import damaged
from mvnas.studies.files import intact, save_whole
from mvnas.studies.score import Score
from mvnas.studies.setup import BUILT_IN, SHORT
from mvnas.studies.study import Study
from mvnas.system.marks import code_mark
from mvnas.system.progress import Progress, silent

if TYPE_CHECKING:
    from mvnas.engines import Engine, Job
    from mvnas.tasks import Task
    from mvnas.training import Trained

Train = Callable[["Job"], "Trained"]

LOOK = 1.0  # seconds between two looks at an engine
KEY = "retrained"  # an attribute of the study for each training: retrained TRIAL xTIMES


@dataclass(frozen=True)
class Retrained:
    """A training that took `times` the epochs of the study's; `accuracy` is None where it failed, for `reason`."""

    number: int
    times: int
    accuracy: float | None
    seconds: float = 0.0
    reason: str = ""


def retrained(study: Study) -> dict[tuple[int, int], Retrained]:
    """What the study knows of longer trainings, by trial and times.

    Raises:
        StudyError: one of them was not written by this.
    """
    told = {key: row for key, row in study.record.user_attrs.items() if key.startswith(f"{KEY} ")}
    try:
        rows = [Retrained(**fields_of(Retrained, row, plain(key))) for key, row in told.items()]
    except StudyError as error:
        raise damaged(study.place, str(error)) from None
    return {(row.number, row.times): row for row in rows}


def accuracies(study: Study, times: int) -> Mapping[int, float]:
    """Accuracy after `times` the study's epochs, by trial, of the candidates that were trained so."""
    rows = retrained(study).values()
    return {row.number: row.accuracy for row in rows if row.times == times and row.accuracy is not None}


def weights(study: Study, number: int, times: int) -> Path:
    """File of a candidate's weights after `times` the study's epochs."""
    return study.files.subfolder("longer") / f"{number}x{times}.safetensors"


def images(study: Study, place: str | None = None, *, skip_broken: bool = False, tell: Progress | None = None) -> Data:
    """The images of a study, at `place` if they have moved since, without broken ones if it was searched so.

    Raises:
        DataError: there are none.
        StudyError: they are others.
    """
    source = place or study.setup.data
    data = load(source, skip_broken=skip_broken, flip=study.setup.flip, foreign=place is None, tell=tell)
    marks = {name: found for name, found in data_marks(data).items() if name in study.setup.marks}
    if marks != {name: study.setup.marks[name] for name in marks}:
        raise StudyError(
            f"the images must be those that {study.place} was searched with, but {source} holds others; give theirs"
            " with --data"
        )
    return data


@contextmanager
def trainer(study: Study, data: Data, name: str | None = None, *, tell: Progress | None = None) -> Iterator[Train]:
    """What trains as the study's candidates were scored: here, or by the user's engine, whose `name` the user gives.

    A study's record is a file that others may have written, so that what it names is not imported on its word. `tell`
    is called with what a training does, how much of it is done, and of how much.

    Raises:
        StudyError: the study was scored by another engine, or by other code of it.
    """
    from mvnas.engines import Images, engine, is_built_in, train

    scored = study.setup.engine
    name = name or BUILT_IN
    if "." not in name and scored == BUILT_IN:
        here = partial(train, data=data, progress=partial(_tell_steps, tell) if tell else None, tell=tell)
        yield _as_scored(study, data, here, tell)
        return
    with closing(engine(name, Images(data.name, data.skipped > 0, data.flip))) as made:
        name = BUILT_IN if is_built_in(made) else name
        if name != scored:
            raise StudyError(
                f"candidates must be trained as {study.place} scored them, by the engine {scored}, but got {name}; give"
                f" --engine {scored}"
            )
        if name != BUILT_IN and code_mark(name) != study.setup.marks.get("engine"):
            raise StudyError(
                f"candidates must be trained as {study.place} scored them, but the content of engine {name} has changed"
                " since; bring it back"
            )
        yield _as_scored(study, data, partial(_train, made, tell), tell)


def _as_scored(study: Study, data: Data, train: Train, tell: Progress | None) -> Train:
    """What trains for the task and with the techniques of a study, whose code must be as it was.

    Raises:
        StudyError: it has changed.
        TrustError: it is the user's, who has not said that it may run.
    """
    from mvnas import techniques
    from mvnas.studies.prepared import prepared

    setup = study.setup
    task_of(study)
    techniques.techniques(setup.technique, foreign=True)
    _check_code(study, "technique", setup.technique, techniques.marks(setup.technique))
    artifacts = prepared(study, data, foreign=True, tell=tell)
    return lambda job: train(
        replace(job, task=setup.task, metric=setup.quality.name, techniques=setup.technique, artifacts=artifacts)
    )


def task_of(study: Study) -> Task:
    """The task of a study, whose code must be as it was.

    Raises:
        StudyError: it has changed.
        TrustError: it is the user's, who has not said that it may run.
    """
    from mvnas import tasks

    name = study.setup.task
    made = tasks.task(name, foreign=True)
    _check_code(study, "task", name, tasks.marks(name))
    return made


def _check_code(study: Study, kind: str, name: str, marks: Mapping[str, str]) -> None:
    """Return if the code of a task or a technique has the marks that the study noted."""
    if marks != {key: told for key, told in study.setup.marks.items() if key.partition(".")[0] == kind}:
        raise StudyError(
            f"candidates must be trained as {study.place} scored them, but the content of {kind} {name} has changed"
            " since; bring it back"
        )


def _tell_steps(tell: Progress, step: int, steps: int, loss: float) -> None:
    tell("steps", step, steps)


def _train(made: Engine, tell: Progress | None, job: Job) -> Trained:
    """A training elsewhere."""
    from mvnas.engines import Doing, Done, Failed, Step

    made.start(0, job)
    while True:
        for event in made.wait(LOOK):
            if isinstance(event, Failed):
                raise (StudyError if event.broken else TrainingError)(event.reason)
            if isinstance(event, Done):
                return event.trained
            if tell and isinstance(event, Step):
                tell("steps", event.step, event.steps)
            if tell and isinstance(event, Doing):
                tell(event.what, event.done, event.total)


def retrain(study: Study, score: Score, times: int, train: Train, *, keep: bool = False) -> None:
    """Train a candidate with `times` the study's epochs, from a seed of its own, unless the study knows what comes of
    it.

    With `keep` its weights are kept too, beside the study. A training that fails by its own fault is noted as such.
    """
    from mvnas.engines import Job, seed_of
    from mvnas.training import Schedule

    known = retrained(study).get((score.number, times))
    path = weights(study, score.number, times)
    if known and (known.accuracy is None or not keep or intact(path)):
        return
    setup = study.setup
    schedule = Schedule(**setup.schedule)
    schedule = replace(schedule, epochs=times * schedule.epochs)
    job = Job(score.arch, schedule, setup.factor, seed_of(score.arch, setup.seed + times))
    try:
        trained = train(job)
    except (TrainingError, ExportError) as error:
        row = Retrained(score.number, times, None, reason=str(error))
    else:
        row = Retrained(score.number, times, trained.quality, trained.seconds)
        if keep:
            save_whole(trained.state, path)
    study.record.set_user_attr(f"{KEY} {score.number} x{times}", vars(row))


def train_frontier(study: Study, train: Train, progress: Progress = silent) -> None:
    """Train each network of the frontier for the length of the study's schedule, as far as that is not done yet.

    Of a study whose candidates were judged with slices of a supernet: it begins with these.
    """
    scores = study.frontier().scores
    for done, score in enumerate(scores):
        progress("trainings", done, len(scores))
        retrain(study, score, 1, train, keep=True)
    progress("trainings", len(scores), len(scores))


def trained_after(study: Study) -> Mapping[int, float]:
    """Accuracy of networks that were trained after the search, by trial; none of a study of short trainings."""
    return {} if study.setup.scores == SHORT else accuracies(study, 1)


def shipped(study: Study, number: int) -> Path:
    """File of the weights of a candidate that are shipped: of its training after the search, or where it had none those
    that it was scored with.
    """
    trained = weights(study, number, 1)
    return trained if study.setup.scores != SHORT and intact(trained) else study.files.weights(number)
